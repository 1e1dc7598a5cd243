"""What a process uses, of a process that uses something."""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path

import pytest

from cgroups import sleeper
from urunc.linux import proc, process_usage


def test_memory_and_faults_grow_with_what_is_touched() -> None:
    me, started = os.getpid(), proc.start_time(os.getpid()) or 0
    before = process_usage.read(me, started)
    with mmap.mmap(-1, 8 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for page in range(0, len(memory), mmap.PAGESIZE):
            memory[page] = 1
        after = process_usage.read(me, started)
    assert after["anonymousMemory"] >= before["anonymousMemory"] + (7 << 20)
    assert after["minorFaults"] > before["minorFaults"]
    assert after["residentMemory"] >= after["anonymousMemory"]


def test_threads_of_one_name_are_one_entry() -> None:
    me, started = os.getpid(), proc.start_time(os.getpid()) or 0
    own = Path("/proc/self/comm").read_text().rstrip("\n")
    held, before = threading.Event(), process_usage.read(me, started)["threads"]
    more = [threading.Thread(target=held.wait) for _ in range(3)]
    for thread in more:
        thread.start()
    try:
        found = {entry["name"]: entry for entry in process_usage.read(me, started)["threads"]}
    finally:
        held.set()
        for thread in more:
            thread.join()
    was = {entry["name"]: entry for entry in before}
    assert found[own]["count"] == was[own]["count"] + 3
    assert found[own]["cpuTime"] >= was[own]["cpuTime"] > 0
    assert found[own]["waitTime"] >= 0


def test_a_name_that_looks_like_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process chose it: a stat line is read from its last parenthesis on."""
    line = "7 (a) R 1 (b)) S 1 2 3 4 5 6 111 0 222 0 0 0\n"
    monkeypatch.setattr(process_usage, "_read", lambda path: line)
    assert process_usage._faults(7) == {"minorFaults": 111, "majorFaults": 222}


def test_another_process_of_the_pid_is_not_told_of() -> None:
    with sleeper() as pid:
        started = proc.start_time(pid) or 0
        assert process_usage.read(pid, started)["threads"]
        assert process_usage.read(pid, started + 1) == {}
    assert process_usage.read(pid, started) == {}


def test_what_may_not_be_read_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert process_usage._read(str(tmp_path / "missing")) == ""
    monkeypatch.setattr(process_usage, "_read", lambda path: "")
    assert process_usage._transfers(1) == process_usage._sizes(1) == process_usage._faults(1) == {}
