"""The container's systemd scope: its own properties, and `linux.resources` as properties (systemd 244 and later).

Must not know how systemd is asked: that is `linux.systemd`. Properties that annotations ask for are `unit_properties`.
"""

from __future__ import annotations

from ..errors import SpecError
from .resources import DEFAULT_PERIOD, check, cpu_weight, parse_list, swap_alone
from .spec import Resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .cgroup_path import CgroupPath
    from .spec import DeviceRule

    Property = tuple[str, str, object]
    """A property of a systemd unit: name, D-Bus signature, value."""

UNLIMITED = 2**64 - 1
"""systemd's "infinity"."""

_AT = "linux.resources."


def own_properties(path: CgroupPath, pids: Iterable[int], version: int) -> tuple[Property, ...]:
    """Return the properties of the container's scope itself, as runc sets them."""
    return (
        ("Description", "s", f"urunc container {path.name}"),
        ("Slice", "s", path.slice),
        ("Delegate", "b", True),
        ("PIDs", "au", list(pids)),
        ("MemoryAccounting", "b", True),
        ("CPUAccounting", "b", True),
        ("IOAccounting" if version == 2 else "BlockIOAccounting", "b", True),
        ("TasksAccounting", "b", True),
        ("DefaultDependencies", "b", False),
    )


def limit_properties(
    resources: Resources, version: int, rules: Iterable[DeviceRule] | None = None
) -> tuple[Property, ...]:
    """Return the limits as properties for StartTransientUnit or SetUnitProperties.

    `rules` are settled ones (`device_rules.settle`), None to leave devices alone. systemd must know the limits though
    `writes` sets them too, else it writes its own at the next reload. Raises SpecError.
    """
    check(resources)
    memory = _memory1(resources) if version == 1 else _memory2(resources)
    return (
        *(() if rules is None else _devices(rules)),
        *memory,
        *_cpu(resources, version),
        *_rest(resources, version),
    )


def _bytes(value: int) -> int:
    return UNLIMITED if value == -1 else value


def _memory1(resources: Resources) -> tuple[Property, ...]:
    return (("MemoryLimit", "t", _bytes(resources.memory_limit)),) if resources.memory_limit else ()


def _memory2(resources: Resources) -> tuple[Property, ...]:
    found: list[Property] = []
    if resources.memory_limit:
        found.append(("MemoryMax", "t", _bytes(resources.memory_limit)))
    if resources.memory_reservation:
        found.append(("MemoryLow", "t", _bytes(resources.memory_reservation)))
    swap = swap_alone(resources)
    if swap is not None:
        found.append(("MemorySwapMax", "t", _bytes(swap)))
    return tuple(found)


def _cpu(resources: Resources, version: int) -> tuple[Property, ...]:
    found: list[Property] = []
    if version == 1 and resources.cpu_shares:
        found.append(("CPUShares", "t", resources.cpu_shares))
    elif version == 2 and resources.cpu_idle == 1:
        found.append(("CPUWeight", "t", 0))  # systemd's way to say idle, since 252
    elif version == 2 and resources.cpu_shares:
        found.append(("CPUWeight", "t", cpu_weight(resources.cpu_shares)))
    if resources.cpu_period:
        found.append(("CPUQuotaPeriodUSec", "t", resources.cpu_period))
    if resources.cpu_quota or resources.cpu_period:
        found.append(("CPUQuotaPerSecUSec", "t", _quota_per_second(resources) or UNLIMITED))
    for name, text in (("AllowedCPUs", resources.cpus), ("AllowedMemoryNodes", resources.mems)):
        if text:
            found.append((name, "ay", _bitmap(parse_list(text, f"{_AT}cpu"))))
    return tuple(found)


def _quota_per_second(resources: Resources) -> int:
    """Return microseconds of cpu per second in systemd's steps of one per cent, rounded up; 0 for no limit."""
    quota = resources.cpu_quota or 0
    if quota <= 0:
        return 0
    return -(-(quota * 1_000_000 // (resources.cpu_period or DEFAULT_PERIOD)) // 10_000) * 10_000


def rounded_quota(resources: Resources) -> Resources:
    """Return the resources with the cpu quota that systemd will set, so that files and systemd agree (as runc)."""
    per_second = _quota_per_second(resources)
    if not per_second:
        return resources
    return resources.replace(cpu_quota=per_second * (resources.cpu_period or DEFAULT_PERIOD) // 1_000_000)


def _bitmap(numbers: frozenset[int]) -> bytes:
    """Return a set of numbers as systemd's byte array: number n is bit n % 8 of byte n // 8."""
    return sum(1 << number for number in numbers).to_bytes(max(numbers) // 8 + 1, "little")


def _rest(resources: Resources, version: int) -> tuple[Property, ...]:
    found: list[Property] = []
    if resources.pids_limit is not None:
        found.append(("TasksMax", "t", UNLIMITED if resources.pids_limit <= 0 else resources.pids_limit))
    if version == 1 and resources.block_io_weight:
        found.append(("BlockIOWeight", "t", resources.block_io_weight))
    if version == 2:
        for file, value in resources.unified:
            found += _unified(file, value.strip())
    return tuple(found)


_UNIFIED_NUMBERS = {
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.max": "MemoryMax",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
}
_UNIFIED_LISTS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}


def _unified(file: str, value: str) -> tuple[Property, ...]:
    """Return the properties for one file of `unified`; none where systemd has no word for it: the file is written."""
    at = f"{_AT}unified"
    if file in _UNIFIED_LISTS:
        return ((_UNIFIED_LISTS[file], "ay", _bitmap(parse_list(value, f"{at}.{file}"))),)
    if file == "cpu.max":
        quota, _, period = value.partition(" ")
        numbers = Resources(
            cpu_quota=-1 if quota == "max" else _number(quota, f"{at}.{file}"),
            cpu_period=_number(period.strip() or str(DEFAULT_PERIOD), f"{at}.{file}"),
        )
        return _cpu(numbers, 2)
    if file in _UNIFIED_NUMBERS:
        amount = UNLIMITED if value == "max" else _number(value, f"{at}.{file}")
        return ((_UNIFIED_NUMBERS[file], "t", max(amount, 1) if file == "pids.max" else amount),)
    return ()


def _number(text: str, path: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 21 and int(text) <= UNLIMITED):
        raise SpecError(f"{path}: `{text}` is not a number of 64 bits")
    return int(text)


def _devices(rules: Iterable[DeviceRule]) -> tuple[Property, ...]:
    """Return DevicePolicy and DeviceAllow. What systemd cannot say stays denied until our own filter is there."""
    first, *exceptions = rules
    empty: Property = ("DeviceAllow", "a(ss)", [])  # clears what an existing unit has
    if first.allow:
        return (empty, ("DevicePolicy", "s", "strict" if exceptions else "auto"))
    entries = [(name, rule.access) for rule in exceptions if (name := _device(rule))]
    return (empty, ("DevicePolicy", "s", "strict"), ("DeviceAllow", "a(ss)", entries))


def _device(rule: DeviceRule) -> str | None:
    kind = "block" if rule.kind == "b" else "char"
    if rule.major is None:
        return None if rule.minor is not None else f"{kind}-*"
    return f"{kind}-{rule.major}" if rule.minor is None else f"/dev/{kind}/{rule.major}:{rule.minor}"
