"""How the process, its I/O and its memory are scheduled: `process.scheduler`, `ioPriority` and `linux.memoryPolicy`.

Read where one of them is given, which is seldom. The names become the kernel's numbers (linux/sched.h, linux/ioprio.h,
linux/mempolicy.h); combinations that no kernel takes are errors with their path.
"""

from __future__ import annotations

from ..errors import SpecError
from .node import UINT64, Node, show
from .resources import parse_list
from .spec import MemoryPolicy, Scheduler

_POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
"""All of the specification's but SCHED_ISO, which Linux has reserved and never had."""

_REAL_TIME = ("SCHED_FIFO", "SCHED_RR")
_LEAST_RUNTIME = 1024  # nanoseconds, of SCHED_DEADLINE

_SCHEDULER_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_CLASS_SHIFT = 13
MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
_BALANCING, _RELATIVE, _STATIC = 1 << 13, 1 << 14, 1 << 15
MODE_FLAGS = {
    "MPOL_F_NUMA_BALANCING": _BALANCING,
    "MPOL_F_RELATIVE_NODES": _RELATIVE,
    "MPOL_F_STATIC_NODES": _STATIC,
}
_BALANCED = ("MPOL_BIND", "MPOL_PREFERRED_MANY")
_WITHOUT_NODES = ("MPOL_DEFAULT", "MPOL_LOCAL")
_MAYBE_NODES = "MPOL_PREFERRED"
_MOST_NODES = 1024  # of any kernel's configuration


def read_scheduler(node: Node) -> Scheduler:
    """Return `process.scheduler` (config.md, "Linux Process"). Raises SpecError."""
    policy = _word(node.need("policy"), _POLICIES)
    found = Scheduler(
        policy=_POLICIES[policy],
        flags=_flags(node, _SCHEDULER_FLAGS),
        nice=node.number("nice", (-20, 19)) or 0,
        priority=node.number("priority", (0, 99)) or 0,
        runtime=node.number("runtime", UINT64) or 0,
        deadline=node.number("deadline", UINT64) or 0,
        period=node.number("period", UINT64) or 0,
    )
    if found.priority and policy not in _REAL_TIME:
        raise node.need("priority").fail(f"{policy} has none")
    for name in ("runtime", "deadline", "period"):
        if getattr(found, name) and policy != "SCHED_DEADLINE":
            raise node.need(name).fail(f"{policy} has none")
    if found.flags & _SCHEDULER_FLAGS["SCHED_FLAG_KEEP_POLICY"]:
        return found  # the policy that is named does not count
    if policy in _REAL_TIME and not found.priority:
        raise node.fail(f"{policy} needs a priority from 1 to 99")
    if policy == "SCHED_DEADLINE":
        _check_deadline(node, found)
    return found


def _check_deadline(node: Node, found: Scheduler) -> None:
    """sched(7), SCHED_DEADLINE: an order that the kernel checks, and no thread of such a process may make another."""
    if not _LEAST_RUNTIME <= found.runtime <= found.deadline <= (found.period or found.deadline):
        raise node.fail(f"SCHED_DEADLINE needs {_LEAST_RUNTIME} <= runtime <= deadline <= period, in nanoseconds")
    if not found.flags & _SCHEDULER_FLAGS["SCHED_FLAG_RESET_ON_FORK"]:
        raise SpecError(
            f"{node.path}: under SCHED_DEADLINE a monitor cannot make its threads",
            hint="with the flag SCHED_FLAG_RESET_ON_FORK it can: its first thread alone has the policy then",
        )


def read_io_priority(node: Node) -> int:
    """Return `process.ioPriority` as ioprio_set(2) takes it. Raises SpecError."""
    return _CLASSES[_word(node.need("class"), _CLASSES)] << _CLASS_SHIFT | node.need("priority").as_number((0, 7))


def read_memory_policy(node: Node) -> MemoryPolicy:
    """Return `linux.memoryPolicy` (config-linux.md, "Memory policy"). Raises SpecError."""
    mode, text = _word(node.need("mode"), MODES), node.text("nodes")
    nodes = tuple(sorted(parse_list(text, f"{node.path}.nodes"))) if text else ()
    if nodes and (mode in _WITHOUT_NODES or nodes[-1] >= _MOST_NODES):
        why = f"{mode} takes none" if mode in _WITHOUT_NODES else f"there is no node {nodes[-1]}"
        raise node.need("nodes").fail(why)
    if not nodes and mode not in (*_WITHOUT_NODES, _MAYBE_NODES):
        raise node.fail(f"{mode} needs nodes")
    flags = _flags(node, MODE_FLAGS)
    why = _why_not(mode, flags, nodes=bool(nodes))
    if why:
        raise node.need("flags").fail(why)
    return MemoryPolicy(mode=MODES[mode] | flags, nodes=nodes)


def _why_not(mode: str, flags: int, *, nodes: bool) -> str:
    """Return why the kernel refuses these flags, empty where it does not. It ignores some of MPOL_DEFAULT's."""
    if flags & _STATIC and flags & _RELATIVE:
        return "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other"
    if flags & _BALANCING and mode not in _BALANCED:
        return f"MPOL_F_NUMA_BALANCING is for {' and '.join(_BALANCED)}"
    if flags and not nodes and mode != "MPOL_DEFAULT":
        return f"{mode} without nodes takes none"
    return ""


def _word(node: Node, known: dict[str, int]) -> str:
    word = node.as_text()
    if word not in known:
        raise node.fail(f"unknown value {show(word)}, want one of {', '.join(known)}")
    return word


def _flags(node: Node, known: dict[str, int]) -> int:
    found = 0
    for item in node.items("flags"):
        found |= known[_word(item, known)]
    return found
