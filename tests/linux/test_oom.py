"""The kernel's word that a cgroup ran out of memory: real ones on this host's version, plain files for the other."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cgroup_child import sleeper
from urunc.linux import cgroup
from urunc.linux.oom import Oom
from urunc.oci import resources
from urunc.oci.resources import CgroupPath
from urunc.oci.spec import Resources

MIB = 1024 * 1024
Paths = dict[str, str]


@pytest.fixture
def paths() -> Iterator[Paths]:
    place = CgroupPath(driver="cgroupfs", path=f"/urunc-test-oom-{os.getpid()}")
    found = cgroup.paths(cgroup.detect(), place)
    if cgroup.version_of(found) == 1 and "memory" not in found:
        pytest.skip("no memory controller on this host")
    cgroup.make(found)
    yield found
    cgroup.kill_all(found)
    cgroup.remove(found)


def is_told(oom: Oom, milliseconds: int = 10_000) -> bool:
    poll = select.poll()
    poll.register(oom.fd, oom.mask)
    return bool(poll.poll(milliseconds))


@pytest.mark.root
def test_a_process_that_takes_too_much(paths: Paths) -> None:
    limits = Resources(memory_limit=16 * MIB, memory_swap=16 * MIB)
    cgroup.apply(paths, resources.writes(limits, cgroup.version_of(paths)))
    go = os.pipe()

    def eat() -> None:
        os.read(go[0], 1)
        _ = bytearray(os.urandom(1) * (64 * MIB))

    with Oom(paths) as oom, sleeper(eat) as pid:
        assert oom.take() == 0
        assert not is_told(oom, 0)
        cgroup.join(paths, pid)
        os.write(go[1], b"x")
        assert is_told(oom)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        assert oom.take() >= 1
        assert oom.take() == 0
        assert not oom.is_over()
    for fd in go:
        os.close(fd)


@pytest.mark.root
def test_the_cgroups_end_is_no_lack_of_memory(paths: Paths) -> None:
    with Oom(paths) as oom:
        cgroup.remove(paths)
        assert is_told(oom) or cgroup.version_of(paths) == 2
        assert oom.take() == 0
        assert oom.is_over()


def test_v2_counts_what_is_new(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 1\noom_kill 1\n")
    with Oom({"": str(tmp_path)}) as oom:
        assert (oom.mask, oom.take()) == (select.POLLPRI, 0)
        events.write_text("low 0\noom 4\noom_kill 3\n")
        assert (oom.take(), oom.take()) == (2, 0)
        assert not oom.is_over()


def test_without_the_controller_there_is_nothing_to_tell(tmp_path: Path) -> None:
    for paths in ({}, {"cpu": str(tmp_path)}, {"memory": f"{tmp_path}/gone"}, {"": f"{tmp_path}/gone"}):
        with Oom(paths) as oom:
            assert (oom.fd, oom.take(), oom.is_over()) == (-1, 0, True)
        oom.close()
