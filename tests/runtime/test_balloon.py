"""A guest's balloon: what is asked of it, how long it is waited for, and what a hostile one says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import containers
from urunc.errors import KernelError, SpecError, StateError
from urunc.oci.spec import Resources
from urunc.runtime import balloon, control, monitor_api, status, store, update
from urunc.runtime.store import Container

MIB = 1 << 20
NAME = "web"


def container(**fields: Any) -> Container:
    base = {"memory_mib": 240, "overhead_mib": 80, "balloon": True, "monitor": "qemu"}
    return containers.container(**{**containers.process(), **base, **fields})


class Guest:
    """A guest whose balloon changes by `step` MiB each time that it is asked for its size; 0: it never does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step: int = 240) -> None:
        self.now = self.target = 240
        self.step = step
        self.asked: list[int] = []
        monkeypatch.setattr(control, "ask", self.ask)
        monkeypatch.setattr(balloon, "_PAUSE", 0)

    def ask(self, _place: str, command: Any) -> list[Any]:
        if command == "query-balloon":
            change = max(-self.step, min(self.step, self.target - self.now))
            self.now += change
            return [{"actual": self.now * MIB}]
        _name, arguments = command
        self.target = arguments["value"] // MIB
        self.asked.append(self.target)
        return [{}]


@pytest.mark.parametrize(
    "answer",
    [None, {}, {"actual": "5"}, {"actual": -1}, {"actual": True}, {"actual": 1.5}, {"actual": 241 * MIB}, [], "x"],
)
def test_a_size_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    monkeypatch.setattr(control, "ask", lambda *_: [answer])
    with pytest.raises(StateError, match="does not say how large"):
        balloon.size("/", container())


@pytest.mark.parametrize("answer", [{}, {"actual_mib": -1}, {"actual_mib": 241}, {"actual_mib": "5"}])
def test_statistics_that_make_no_sense(monkeypatch: pytest.MonkeyPatch, answer: dict[str, object]) -> None:
    monkeypatch.setattr(monitor_api, "balloon_statistics", lambda *_: answer)
    with pytest.raises(StateError, match="does not say how large"):
        balloon.size("/", container(monitor="firecracker"))


def test_the_other_monitors_balloon_counts_what_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(monitor_api, "balloon_statistics", lambda *_: {"actual_mib": 40})
    monkeypatch.setattr(monitor_api, "set_balloon", lambda *arguments: asked.append(arguments))
    named = container(monitor="firecracker")
    assert balloon.size("/", named) == 200 * MIB
    balloon.resize("/", named, 100)
    assert asked == [(named.pid, named.start_time, 140)]


@pytest.mark.parametrize(
    ("stats", "found"),
    [
        ({"stat-free-memory": 7, "stat-disk-caches": 5}, {"free": 7, "caches": 5}),
        ({"stat-free-memory": 2**64 - 1, "stat-swap-in": -1, "stat-major-faults": "1", "stat-minor-faults": True}, {}),
        ({"free_memory": 7}, {}),
        (None, {}),
        ([], {}),
    ],
)
def test_what_the_guest_says_of_its_memory(
    monkeypatch: pytest.MonkeyPatch, stats: object, found: dict[str, int]
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(control, "ask", lambda place, command: asked.append(command) or [{"stats": stats}])
    assert balloon.usage("/", container()) == found
    assert asked == [("qom-get", {"path": "/machine/peripheral/balloon", "property": "guest-stats"})]


def test_what_it_says_by_the_other_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"actual_mib": 1, "free_memory": 9, "total_memory": 20, "swap_out": None}
    monkeypatch.setattr(monitor_api, "balloon_statistics", lambda *_: answer)
    assert balloon.usage("/", container(monitor="firecracker")) == {"free": 9, "total": 20}


def test_a_monitor_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ask", lambda *_: [None])
    with pytest.raises(StateError, match="refuses"):
        balloon.resize("/", container(), 100)


def test_it_waits_as_long_as_the_guest_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balloon, "_PATIENCE", 60)
    guest = Guest(monkeypatch, step=1)
    balloon.shrink("/", container(), 100)
    assert guest.now <= 101


@pytest.mark.parametrize(("step", "limit"), [(0, "_PATIENCE"), (1, "_SECONDS")], ids=["never", "too slowly"])
def test_a_guest_that_keeps_its_memory_has_it_back(monkeypatch: pytest.MonkeyPatch, step: int, limit: str) -> None:
    monkeypatch.setattr(balloon, limit, 0)
    guest = Guest(monkeypatch, step)
    with pytest.raises(StateError, match=r"does not give its memory back: it has \d+ MiB, not 100"):
        balloon.shrink("/", container(), 100)
    assert guest.asked == [100, 240]


class Cgroup:
    """A v2 cgroup of plain files, and the record of a container that runs in it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = folder / "cgroup/memory.max"
        self.file.parent.mkdir()
        self.file.write_text(f"{320 * MIB}\n")
        (folder / "cgroup/cgroup.controllers").write_text("memory\n")
        self.root = str(folder / "state")
        store.claim(self.root, container(cgroup={"": str(self.file.parent)})).release()
        monkeypatch.setattr(status, "of", lambda *_: status.RUNNING)

    def update(self, mib: int) -> None:
        update.update(self.root, NAME, Resources(memory_limit=mib * MIB))

    @property
    def limit(self) -> int:
        return int(self.file.read_text()) // MIB


def test_the_guest_gives_before_the_limit_sinks_and_has_after_it_rose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cgroup, guest = Cgroup(tmp_path, monkeypatch), Guest(monkeypatch)
    steps: list[str] = []
    resize, apply = balloon.resize, update._apply
    monkeypatch.setattr(balloon, "resize", lambda *given: (steps.append(f"balloon {given[2]}"), resize(*given)))
    monkeypatch.setattr(update, "_apply", lambda *given: (steps.append("limit"), apply(*given)))
    cgroup.update(180)
    assert (guest.now, cgroup.limit) == (100, 180)
    cgroup.update(600)
    assert (guest.target, cgroup.limit) == (240, 600)
    assert steps == ["balloon 100", "limit", "limit", "balloon 240"]


def test_a_limit_that_is_refused_gives_the_memory_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cgroup, guest = Cgroup(tmp_path, monkeypatch), Guest(monkeypatch)

    def refuse(*_: object) -> None:
        raise KernelError("no")

    monkeypatch.setattr(update, "_apply", refuse)
    with pytest.raises(KernelError):
        cgroup.update(180)
    assert guest.asked == [100, 240]


def test_a_guest_needs_some_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cgroup, guest = Cgroup(tmp_path, monkeypatch), Guest(monkeypatch)
    with pytest.raises(SpecError) as caught:
        cgroup.update(127)
    assert caught.value.hint == "give at least 128 MiB"
    assert not guest.asked


def test_the_lock_is_free_while_the_guest_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`kill` and `delete` take it too, and never wait for a guest."""
    cgroup, guest = Cgroup(tmp_path, monkeypatch), Guest(monkeypatch)
    ask: Callable[..., list[Any]] = guest.ask

    def ask_and_look(*given: Any) -> list[Any]:
        with store.Lock(cgroup.root, NAME):
            return ask(*given)

    monkeypatch.setattr(control, "ask", ask_and_look)
    cgroup.update(180)
    assert cgroup.limit == 180
