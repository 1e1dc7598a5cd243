"""How the process, its I/O and its memory are scheduled: `process.scheduler`, `ioPriority` and `linux.memoryPolicy`.

Read where one of them is given, which is seldom. The names become the kernel's numbers (linux/sched.h, linux/ioprio.h,
linux/mempolicy.h); combinations that no kernel takes are errors with their path.
"""

from __future__ import annotations

from .node import UINT64, Node, show
from .resources import parse_list
from .spec import MemoryPolicy, Scheduler

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
"""All of the specification's but SCHED_ISO, which Linux has reserved and never had."""

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
MODE_FLAGS = {"MPOL_F_NUMA_BALANCING": 1 << 13, "MPOL_F_RELATIVE_NODES": 1 << 14, "MPOL_F_STATIC_NODES": 1 << 15}
_WITHOUT_NODES = ("MPOL_DEFAULT", "MPOL_LOCAL")
_MAYBE_NODES = "MPOL_PREFERRED"
_MOST_NODES = 1024  # of any kernel's configuration


def read_scheduler(node: Node) -> Scheduler:
    """Return `process.scheduler` (config.md, "Linux Process"). Raises SpecError."""
    policy = _word(node.need("policy"), POLICIES)
    found = Scheduler(
        policy=POLICIES[policy],
        flags=_flags(node, _SCHEDULER_FLAGS),
        nice=node.number("nice", (-20, 19)) or 0,
        priority=node.number("priority", (0, 99)) or 0,
        runtime=node.number("runtime", UINT64) or 0,
        deadline=node.number("deadline", UINT64) or 0,
        period=node.number("period", UINT64) or 0,
    )
    if found.priority and policy not in ("SCHED_FIFO", "SCHED_RR"):
        raise node.need("priority").fail(f"{policy} has none")
    for name in ("runtime", "deadline", "period"):
        if getattr(found, name) and policy != "SCHED_DEADLINE":
            raise node.need(name).fail(f"{policy} has none")
    return found


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
    return MemoryPolicy(mode=MODES[mode] | _flags(node, MODE_FLAGS), nodes=nodes)


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
