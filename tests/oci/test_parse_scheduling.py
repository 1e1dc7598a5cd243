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
            {"policy": "SCHED_DEADLINE", "runtime": 10**7, "deadline": 3 * 10**7, "period": 10**8},
            Scheduler(policy=6, runtime=10**7, deadline=3 * 10**7, period=10**8),
        ),
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
