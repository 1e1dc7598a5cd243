"""The kernel's word that a cgroup ran out of memory: real ones on this host's version, plain files for the other."""

from __future__ import annotations

import select
import signal
from pathlib import Path

import pytest

from cgroups import MIB, Paths, eater, end_of, need
from urunc.linux import cgroup, cgroup_files
from urunc.linux.oom import Oom
from urunc.oci import resources
from urunc.oci.spec import Resources


@pytest.fixture
def made(paths: Paths) -> Paths:
    need(paths, "memory")
    cgroup.make(paths)
    return paths


def is_told(oom: Oom, milliseconds: int = 10_000) -> bool:
    poll = select.poll()
    poll.register(oom.fd, oom.mask)
    return bool(poll.poll(milliseconds))


@pytest.mark.root
def test_a_process_that_takes_too_much(made: Paths) -> None:
    limits = Resources(memory_limit=16 * MIB, memory_swap=16 * MIB)
    cgroup_files.apply(made, resources.writes(limits, cgroup_files.version_of(made)))
    with Oom(made) as oom, eater(64 * MIB) as (pid, tell):
        assert oom.take() == 0
        assert not is_told(oom, 0)
        cgroup.join(made, pid)
        tell()
        assert is_told(oom)
        assert end_of(pid) == -signal.SIGKILL
        assert oom.take() >= 1
        assert oom.take() == 0
        assert not oom.is_over()


@pytest.mark.root
def test_the_cgroups_end_is_no_lack_of_memory(made: Paths) -> None:
    with Oom(made) as oom:
        cgroup.remove(made)
        assert is_told(oom) or cgroup_files.version_of(made) == 2
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
