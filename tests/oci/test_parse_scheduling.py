"""Scheduling, I/O priority and memory policy, as the kernel takes them."""

from __future__ import annotations

from typing import Any

import pytest

from urunc.errors import SpecError
from urunc.oci import parse_scheduling as parsing
from urunc.oci import spec
from urunc.oci.node import Node
from urunc.oci.spec import MemoryPolicy, Scheduler

MINIMAL: dict[str, Any] = {"ociVersion": "1.3.0", "process": {"cwd": "/"}, "root": {"path": "rootfs"}}
DEADLINE = {
    "policy": "SCHED_DEADLINE",
    "flags": ["SCHED_FLAG_RESET_ON_FORK"],
    "runtime": 10**7,
    "deadline": 3 * 10**7,
}
NEEDS = "process.scheduler: SCHED_DEADLINE needs 1024 <= runtime <= deadline <= period, in nanoseconds"
ALONE = "linux.memoryPolicy.flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"policy": "SCHED_OTHER", "nice": -20}, Scheduler(policy=0, nice=-20)),
        ({"policy": "SCHED_BATCH", "nice": 19}, Scheduler(policy=3, nice=19)),
        ({"policy": "SCHED_IDLE"}, Scheduler(policy=5)),
        (
            {"policy": "SCHED_RR", "priority": 99, "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_KEEP_PARAMS"]},
            Scheduler(policy=2, priority=99, flags=0x11),
        ),
        (
            {**DEADLINE, "period": 10**8},
            Scheduler(policy=6, flags=1, runtime=10**7, deadline=3 * 10**7, period=10**8),
        ),
        (DEADLINE, Scheduler(policy=6, flags=1, runtime=10**7, deadline=3 * 10**7)),
        ({"policy": "SCHED_FIFO", "flags": ["SCHED_FLAG_KEEP_POLICY"]}, Scheduler(policy=1, flags=8)),
    ],
)
def test_schedulers(given: dict[str, Any], found: Scheduler) -> None:
    assert parsing.read_scheduler(Node(given, "process.scheduler")) == found


@pytest.mark.parametrize(("name", "value"), [("RT", 1 << 13), ("BE", 2 << 13), ("IDLE", 3 << 13)])
def test_io_priorities(name: str, value: int) -> None:
    for level in (0, 7):
        given = {"class": f"IOPRIO_CLASS_{name}", "priority": level}
        assert parsing.read_io_priority(Node(given, "process.ioPriority")) == value | level


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"mode": "MPOL_DEFAULT"}, MemoryPolicy(mode=0)),
        ({"mode": "MPOL_LOCAL", "nodes": ""}, MemoryPolicy(mode=4)),
        ({"mode": "MPOL_PREFERRED"}, MemoryPolicy(mode=1)),
        ({"mode": "MPOL_BIND", "nodes": "0-1,7"}, MemoryPolicy(mode=2, nodes=(0, 1, 7))),
        (
            {"mode": "MPOL_INTERLEAVE", "nodes": "1", "flags": ["MPOL_F_STATIC_NODES"]},
            MemoryPolicy(mode=3 | 1 << 15, nodes=(1,)),
        ),
        (
            {"mode": "MPOL_PREFERRED_MANY", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]},
            MemoryPolicy(mode=5 | 1 << 13, nodes=(0,)),
        ),
        ({"mode": "MPOL_DEFAULT", "flags": ["MPOL_F_RELATIVE_NODES"]}, MemoryPolicy(mode=1 << 14)),
    ],
)
def test_memory_policies(given: dict[str, Any], found: MemoryPolicy) -> None:
    assert parsing.read_memory_policy(Node(given, "linux.memoryPolicy")) == found


@pytest.mark.parametrize(
    ("where", "given", "message"),
    [
        ("scheduler", {}, "process.scheduler.policy: missing"),
        ("scheduler", {"policy": "SCHED_ISO"}, "process.scheduler.policy: unknown value `SCHED_ISO`, want one of"),
        ("scheduler", {"policy": "SCHED_OTHER", "nice": 20}, "process.scheduler.nice: want an integer from -20 to 19"),
        ("scheduler", {"policy": "SCHED_OTHER", "priority": 1}, "process.scheduler.priority: SCHED_OTHER has none"),
        ("scheduler", {"policy": "SCHED_FIFO", "period": 1}, "process.scheduler.period: SCHED_FIFO has none"),
        ("scheduler", {"policy": "SCHED_RR", "flags": ["X"]}, "process.scheduler.flags[0]: unknown value `X`"),
        ("scheduler", {"policy": "SCHED_FIFO"}, "process.scheduler: SCHED_FIFO needs a priority from 1 to 99"),
        ("scheduler", {**DEADLINE, "runtime": 0}, NEEDS),
        ("scheduler", {**DEADLINE, "runtime": 1023}, NEEDS),
        ("scheduler", {**DEADLINE, "deadline": 10**7 - 1}, NEEDS),
        ("scheduler", {**DEADLINE, "period": 10**7}, NEEDS),
        ("scheduler", {**DEADLINE, "flags": []}, "process.scheduler: under SCHED_DEADLINE a monitor cannot make its"),
        ("ioPriority", {"class": "IOPRIO_CLASS_BE"}, "process.ioPriority.priority: missing"),
        (
            "ioPriority",
            {"class": "IOPRIO_CLASS_BE", "priority": 8},
            "process.ioPriority.priority: want an integer from",
        ),
        ("ioPriority", {"class": "BE", "priority": 1}, "process.ioPriority.class: unknown value `BE`"),
        ("memoryPolicy", {"nodes": "0"}, "linux.memoryPolicy.mode: missing"),
        ("memoryPolicy", {"mode": "MPOL_BIND"}, "linux.memoryPolicy: MPOL_BIND needs nodes"),
        ("memoryPolicy", {"mode": "MPOL_LOCAL", "nodes": "0"}, "linux.memoryPolicy.nodes: MPOL_LOCAL takes none"),
        ("memoryPolicy", {"mode": "MPOL_BIND", "nodes": "0-"}, "linux.memoryPolicy.nodes: `0-` is not a list"),
        ("memoryPolicy", {"mode": "MPOL_BIND", "nodes": "1024"}, "linux.memoryPolicy.nodes: there is no node 1024"),
        ("memoryPolicy", {"mode": "MPOL_BIND", "nodes": "0", "flags": "X"}, "linux.memoryPolicy.flags: want a list"),
        (
            "memoryPolicy",
            {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]},
            ALONE,
        ),
        (
            "memoryPolicy",
            {"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]},
            "linux.memoryPolicy.flags: MPOL_F_NUMA_BALANCING is for MPOL_BIND and MPOL_PREFERRED_MANY",
        ),
        (
            "memoryPolicy",
            {"mode": "MPOL_LOCAL", "flags": ["MPOL_F_STATIC_NODES"]},
            "linux.memoryPolicy.flags: MPOL_LOCAL without nodes takes none",
        ),
        (
            "memoryPolicy",
            {"mode": "MPOL_PREFERRED", "flags": ["MPOL_F_RELATIVE_NODES"]},
            "linux.memoryPolicy.flags: MPOL_PREFERRED without nodes takes none",
        ),
    ],
)
def test_what_no_kernel_takes(where: str, given: dict[str, Any], message: str) -> None:
    section = {"linux": {where: given}} if where == "memoryPolicy" else {"process": {"cwd": "/", where: given}}
    with pytest.raises(SpecError) as caught:
        spec.parse({**MINIMAL, **section})
    assert caught.value.message.startswith(message)


def test_they_are_the_specs() -> None:
    scheduling = {"scheduler": {"policy": "SCHED_BATCH"}, "ioPriority": {"class": "IOPRIO_CLASS_IDLE", "priority": 0}}
    found = spec.parse(
        {**MINIMAL, "process": {"cwd": "/", **scheduling}, "linux": {"memoryPolicy": {"mode": "MPOL_LOCAL"}}}
    )
    assert found.process.scheduler == Scheduler(policy=3)
    assert found.process.io_priority == 3 << 13
    assert found.memory_policy == MemoryPolicy(mode=4)
    assert found.unsupported == ()
