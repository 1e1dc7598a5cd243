"""`events`: the shape, the interfaces' counters, durations, and that it ends with its container."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import containers
from cgroups import sleeper
from urunc.errors import StateError, UsageError
from urunc.runtime import control, events, monitor_api, store

NAME = "web"
RUNC = {"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"}


def claim(folder: Path, pid: int, **fields: Any) -> str:
    """Make the record of a container whose process is `pid`; return the state root."""
    root = str(folder / "state")
    record = containers.container(accel="tcg", memory_mib=32, **containers.process(pid)).replace(**fields)
    store.claim(root, record).release()
    return root


def test_the_shape_is_runcs(tmp_path: Path) -> None:
    root = claim(tmp_path, os.getpid())
    event = events.stats(root, NAME)
    assert (event["type"], event["id"]) == ("stats", NAME)
    assert event["data"].keys() == {*RUNC, "process", "monitor"}
    assert event["data"]["monitor"] == {"name": "qemu", "accel": "tcg", "guestMemory": 32 << 20}


def test_a_container_that_is_stopped(tmp_path: Path) -> None:
    root = claim(tmp_path, os.getpid(), start_time=1)
    for call in (lambda: events.stats(root, NAME), lambda: next(events.follow(root, NAME, 1.0))):
        with pytest.raises(StateError, match="cannot follow `web`: container is stopped"):
            call()


def test_it_goes_on_until_the_container_ends(tmp_path: Path) -> None:
    with sleeper() as pid:
        found = events.follow(claim(tmp_path, pid), NAME, 0.01)
        assert [next(found)["type"] for _ in range(3)] == ["stats"] * 3
        os.kill(pid, signal.SIGKILL)
        assert all(event["type"] == "stats" for event in found)


def test_lack_of_memory_is_told_as_it_happens(tmp_path: Path) -> None:
    told = tmp_path / "memory.events"
    told.write_text("oom_kill 0\n")
    with sleeper() as pid:
        found = events.follow(claim(tmp_path, pid, cgroup={"": str(tmp_path)}), NAME, 0.01)
        assert next(found)["type"] == "stats"
        told.write_text("oom_kill 2\n")
        os.kill(pid, signal.SIGKILL)
        assert [event for event in found if event["type"] == "oom"] == [{"type": "oom", "id": NAME}] * 2


def test_the_interfaces_of_the_container(tmp_path: Path) -> None:
    root = claim(tmp_path, os.getpid())
    data = events.stats(root, NAME)["data"]
    assert data["process"]["taps"] == []
    for entry in data["network_interfaces"]:
        assert entry.keys() == {
            "Name",
            *(way + what for way in ("Rx", "Tx") for what in ("Bytes", "Packets", "Errors", "Dropped")),
        }
        assert entry["Name"] != "lo"


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        (" face |bytes    packets errs drop fifo frame compressed multicast|bytes packets errs", None),
        ("Inter-|   Receive                                                |  Transmit", None),
        ("  eth0: 1 2 3", None),
        (
            "  eth0: 100 2 3 4 0 0 0 0 500 6 7 8 0 0 0 0",
            {"Name": "eth0", "RxBytes": 100, "RxPackets": 2, "RxErrors": 3, "RxDropped": 4}
            | {"TxBytes": 500, "TxPackets": 6, "TxErrors": 7, "TxDropped": 8},
        ),
    ],
)
def test_lines_of_proc_net_dev(line: str, entry: dict[str, Any] | None) -> None:
    assert events._interface(line) == entry


@pytest.mark.parametrize(
    ("state", "blocks", "found"),
    [
        (
            {"status": "running"},
            [{"device": "disk0", "stats": {"rd_bytes": 5, "wr_bytes": 0, "rd_operations": 1, "wr_operations": True}}],
            {"status": "running", "disks": [{"device": "disk0", "readBytes": 5, "writeBytes": 0, "reads": 1}]},
        ),
        (None, None, {"status": "unknown", "disks": []}),
        ({"status": "x" * 999}, ["?", {"device": 7, "stats": []}], {"status": "x" * 32, "disks": [{"device": "7"}]}),
    ],
)
def test_what_the_monitor_says_is_cut_to_its_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: Any, blocks: Any, found: dict[str, Any]
) -> None:
    root = claim(tmp_path, os.getpid())
    Path(root, NAME, "qmp.sock").touch()
    monkeypatch.setattr(control, "ask", lambda place, *commands: [state, blocks])
    said = events.stats(root, NAME)["data"]["monitor"]
    assert {key: said[key] for key in ("status", "disks")} == found


def test_taps_are_counted_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = claim(tmp_path, os.getpid(), taps=("urunc0-x",))
    record = store.want(root, NAME)
    table = tmp_path / "dev"
    table.write_text("".join(f"  {name}: {' '.join(['7'] * 16)}\n" for name in ("lo", "eth0", "urunc0-x")))
    with table.open() as file:
        lines = file.read()
    monkeypatch.setattr(events, "_net_dev", lambda pid, started: lines.splitlines())
    found = [[entry["Name"] for entry in entries] for entries in events._interfaces(record)]
    assert found == [["eth0"], ["urunc0-x"]]


def test_the_process_is_counted_for_every_monitor(tmp_path: Path) -> None:
    root = claim(tmp_path, os.getpid(), monitor="spt")
    found = events.stats(root, NAME)["data"]["process"]
    assert found["residentMemory"] > 1 << 20
    assert sum(thread["count"] for thread in found["threads"]) >= 1


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"state": "Running", "vmm_version": "1"}, "running"),
        ({"state": "x" * 999}, "x" * 32),
        ({"state": 5}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_a_monitor_with_an_api_says_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], said: str
) -> None:
    root = claim(tmp_path, os.getpid(), monitor="firecracker", stop="ctrl-alt-del")
    monkeypatch.setattr(monitor_api, "instance", lambda pid, started: answer)
    assert events.stats(root, NAME)["data"]["monitor"]["status"] == said
    root = claim(tmp_path / "without", os.getpid(), monitor="firecracker", stop="kill")
    assert "status" not in events.stats(root, NAME)["data"]["monitor"]


def test_a_balloon_that_nobody_drives_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = claim(tmp_path, os.getpid(), monitor="firecracker", balloon=True)

    def refuse(pid: int, started: int) -> None:
        raise StateError("the monitor refuses")

    monkeypatch.setattr(monitor_api, "balloon_statistics", refuse)
    monkeypatch.setattr(monitor_api, "instance", lambda pid, started: {"state": "Running"})
    said = events.stats(root, NAME)["data"]["monitor"]
    assert (said["status"], "guestMemoryActual" in said) == ("running", False)


def test_a_monitor_that_does_not_answer_costs_no_figures(tmp_path: Path) -> None:
    root = claim(tmp_path, os.getpid())
    Path(root, NAME, "qmp.sock").touch()  # nobody listens
    assert "status" not in events.stats(root, NAME)["data"]["monitor"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("5s", 5), ("500ms", 0.5), ("1m30s", 90), ("1.5h", 5400), ("100us", 1e-4)]
)
def test_durations(text: str, seconds: float) -> None:
    assert events.parse_interval(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "-5s", "0s", "5x", "1..5s", "600h", "9" * 400 + "s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="flag `--interval` needs a duration"):
        events.parse_interval(text)
