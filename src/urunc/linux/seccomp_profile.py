"""`linux.seccomp` checked, in the kernel's and libseccomp's numbers (config-linux.md, "Seccomp").

The filter is for a monitor: the process is QEMU or a Solo5 tender, so there is no agent to notify, and
`SCMP_ACT_NOTIFY` is refused. Must not know how a filter is made of it.
"""

from __future__ import annotations

import errno

from ..errors import SpecError
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

AT = "linux.seccomp"

PLAIN_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,  # the thread, as libseccomp has it
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_PASSING = (PLAIN_ACTIONS["SCMP_ACT_ALLOW"], PLAIN_ACTIONS["SCMP_ACT_LOG"])
NUMBERED_ACTIONS = {"SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_TRACE": 0x7FF00000}
ACTIONS = (*PLAIN_ACTIONS, *NUMBERED_ACTIONS)
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
ARCHITECTURES = {  # the specification's name: libseccomp's
    "SCMP_ARCH_X86": b"x86",
    "SCMP_ARCH_X86_64": b"x86_64",
    "SCMP_ARCH_X32": b"x32",
    "SCMP_ARCH_ARM": b"arm",
    "SCMP_ARCH_AARCH64": b"aarch64",
    "SCMP_ARCH_MIPS": b"mips",
    "SCMP_ARCH_MIPS64": b"mips64",
    "SCMP_ARCH_MIPS64N32": b"mips64n32",
    "SCMP_ARCH_MIPSEL": b"mipsel",
    "SCMP_ARCH_MIPSEL64": b"mipsel64",
    "SCMP_ARCH_MIPSEL64N32": b"mipsel64n32",
    "SCMP_ARCH_PPC": b"ppc",
    "SCMP_ARCH_PPC64": b"ppc64",
    "SCMP_ARCH_PPC64LE": b"ppc64le",
    "SCMP_ARCH_RISCV64": b"riscv64",
    "SCMP_ARCH_S390": b"s390",
    "SCMP_ARCH_S390X": b"s390x",
    "SCMP_ARCH_PARISC": b"parisc",
    "SCMP_ARCH_PARISC64": b"parisc64",
    "SCMP_ARCH_LOONGARCH64": b"loongarch64",
}


class Condition(Record):
    """A condition on one argument of a system call (`args`): libseccomp's struct scmp_arg_cmp."""

    index: int
    operator: int
    value: int
    value_two: int


class Rule(Record):
    """What to do on one system call, by name."""

    name: str
    action: int
    conditions: tuple[Condition, ...] = ()


class Profile(Record):
    """A checked `linux.seccomp`, in the kernel's and libseccomp's numbers."""

    default_action: int
    architectures: tuple[bytes, ...] = ()
    rules: tuple[Rule, ...] = ()


def parse(profile: dict[str, Any]) -> Profile | None:
    """Return the checked profile, None where it filters nothing. Raises SpecError, which starts with the JSON path."""
    if not profile.get("defaultAction") and not profile.get("syscalls"):
        return None
    for key in ("listenerPath", "listenerMetadata"):
        if profile.get(key):
            raise SpecError(f"{AT}.{key}: a monitor has no agent that answers notifications")
    rules: list[Rule] = []
    for index, entry in enumerate(profile.get("syscalls") or ()):
        rules += _rules(entry, f"{AT}.syscalls[{index}]")
    return Profile(
        default_action=_action(profile.get("defaultAction", ""), profile.get("defaultErrnoRet"), f"{AT}.defaultAction"),
        architectures=tuple(
            _known(ARCHITECTURES, name, f"{AT}.architectures") for name in profile.get("architectures") or ()
        ),
        rules=tuple(rules),
    )


def refused(profile: Profile, names: Iterable[str]) -> list[str]:
    """Return those of the system calls that the profile lets through under no condition."""
    passing = {rule.name for rule in profile.rules if rule.action in _PASSING}
    ruled = {rule.name for rule in profile.rules if not rule.conditions}
    by_default = profile.default_action in _PASSING
    return [name for name in names if name not in passing and (name in ruled or not by_default)]


def _known(table: dict[str, Any], name: str, path: str) -> Any:
    if name not in table:
        raise SpecError(f"{path}: unknown `{name}`")
    return table[name]


def _action(name: str, errno_ret: int | None, path: str) -> int:
    if name == "SCMP_ACT_NOTIFY":
        raise SpecError(f"{path}: SCMP_ACT_NOTIFY: a monitor has no agent that answers notifications")
    if name in NUMBERED_ACTIONS:
        number = errno.EPERM if errno_ret is None else errno_ret
        if not 0 <= number <= 0xFFFF:
            raise SpecError(f"{path}: errno {number} does not fit 16 bits")
        return NUMBERED_ACTIONS[name] | number
    if errno_ret is not None and name in PLAIN_ACTIONS:
        raise SpecError(f"{path}: {name} takes no errno")
    return int(_known(PLAIN_ACTIONS, name, path))


def _rules(entry: dict[str, Any], path: str) -> list[Rule]:
    """Return one rule a name, or one a condition where two conditions are on one argument: then either is enough."""
    action = _action(entry.get("action", ""), entry.get("errnoRet"), f"{path}.action")
    conditions = tuple(_condition(arg, f"{path}.args[{index}]") for index, arg in enumerate(entry.get("args") or ()))
    names = entry.get("names") or ()
    if not names or not all(names):
        raise SpecError(f"{path}.names: no system call is named")
    if len({condition.index for condition in conditions}) < len(conditions):
        return [Rule(name=name, action=action, conditions=(one,)) for name in names for one in conditions]
    return [Rule(name=name, action=action, conditions=conditions) for name in names]


def _condition(arg: dict[str, Any], path: str) -> Condition:
    index, value, value_two = arg.get("index", 0), arg.get("value", 0), arg.get("valueTwo") or 0
    if not 0 <= index <= 5:
        raise SpecError(f"{path}.index: a system call has no argument {index}")
    if not (0 <= value < 2**64 and 0 <= value_two < 2**64):
        raise SpecError(f"{path}.value: does not fit 64 bits")
    operator = _known(OPERATORS, arg.get("op", ""), f"{path}.op")
    return Condition(index=index, operator=operator, value=value, value_two=value_two)
