"""`linux.resources.devices`: the rules settled, so that cgroup v1, the eBPF filter of v2 and systemd agree.

Must not know how a rule is written: that is `linux.cgroup_files` and `linux.devices_bpf`.
"""

from __future__ import annotations

from ..errors import SpecError
from .spec import DeviceRule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Numbers = tuple[str, int | None, int | None]
    """Which devices: kind, major, minor; None is any."""

_AT = "linux.resources.devices"


def settle(rules: Iterable[DeviceRule], extra: Iterable[DeviceRule] = ()) -> tuple[DeviceRule, ...]:
    """Return the device rules settled: one rule for all devices first, then only exceptions to it.

    The start is deny-all; then come the spec's `rules` in order, then those that the plan adds (`extra`). Raises
    SpecError where a rule would take one device out of a wildcard rule, which v1's kernel ignores silently.
    """
    allow_all = False
    exceptions: dict[Numbers, str] = {}
    for index, rule in enumerate((*rules, *extra)):
        key = (rule.kind, rule.major, rule.minor)
        if rule.kind == "a":  # whatever its numbers say: the kernel's own reading
            allow_all, exceptions = rule.allow, {}
        elif rule.allow != allow_all:
            exceptions[key] = _access(exceptions.get(key, "") + rule.access)
        else:
            _take_back(exceptions, key, rule, index)
    settled = [DeviceRule(allow=allow_all)]
    for (kind, major, minor), access in exceptions.items():
        settled.append(DeviceRule(allow=not allow_all, kind=kind, major=major, minor=minor, access=access))
    return tuple(settled)


def _access(letters: str) -> str:
    return "".join(letter for letter in "rwm" if letter in letters)


def _covers(wide: Numbers, narrow: Numbers) -> bool:
    return wide[0] == narrow[0] and wide[1] in (None, narrow[1]) and wide[2] in (None, narrow[2])


def _overlaps(one: Numbers, other: Numbers) -> bool:
    return one[0] == other[0] and all(a is None or b is None or a == b for a, b in zip(one[1:], other[1:], strict=True))


def _take_back(exceptions: dict[Numbers, str], key: Numbers, rule: DeviceRule, index: int) -> None:
    """Take the rule's accesses back from the exceptions that it covers."""
    for other, access in list(exceptions.items()):
        if _covers(key, other):
            left = _access("".join(set(access) - set(rule.access)))
            if left:
                exceptions[other] = left
            else:
                del exceptions[other]
        elif _overlaps(other, key) and set(access) & set(rule.access):
            raise SpecError(f"{_AT}[{index}]: cannot take a part out of a wildcard rule before it")
