"""Events: in order, kept while containerd is away, dropped where it refuses them for good."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from urunc.shim import events, messages
from urunc.shim.children import Children
from urunc.shim.codes import StatusError
from urunc.shim.events import Publisher
from urunc.shim.loop import Loop
from urunc.shim.messages import ANY, EMPTY, EVENTS_SERVICE, FORWARD_REQUEST, TASK_EXIT, TASK_OOM
from urunc.shim.ttrpc import Call, Server
from urunc.shim.wire import decode

Serve = Callable[[Callable[[], object]], None]


class Containerd:
    """The end that takes events, in the test's own loop. `refuse` is a code to answer with."""

    def __init__(self, loop: Loop, path: Path) -> None:
        self.loop, self.path = loop, path
        self.taken: list[dict[str, Any]] = []
        self.refuse = 0
        self.server: Server | None = None

    def start(self) -> None:
        methods = {"Forward": (FORWARD_REQUEST, EMPTY, self._forward)}
        self.server = Server(self.loop, {EVENTS_SERVICE: methods}, lambda error: None)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen()
        self.server.listen(socket.socket(fileno=listener.detach()))

    def stop(self) -> None:
        if self.server is not None:
            self.server.close()
            self.server = None
            self.path.unlink()

    def _forward(self, values: dict[str, Any], call: Call) -> dict[str, Any]:
        if self.refuse:
            raise StatusError(self.refuse, "no")
        self.taken.append(values["envelope"])
        return {}

    @property
    def ids(self) -> list[str]:
        return [decode(TASK_OOM, taken["event"]["value"])["container_id"] for taken in self.taken]


@pytest.fixture
def containerd(loop: Loop, tmp_path: Path) -> Iterator[Containerd]:
    containerd = Containerd(loop, tmp_path / "c.sock")
    yield containerd
    containerd.stop()


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def publisher(loop: Loop, containerd: Containerd, warnings: list[str]) -> Iterator[Publisher]:
    publisher = Publisher(loop, "k8s.io", warnings.append)
    publisher.over_ttrpc(f"unix://{containerd.path}")
    yield publisher
    publisher.close()


def test_an_event_as_containerd_reads_it(publisher: Publisher, containerd: Containerd, serve_until: Serve) -> None:
    containerd.start()
    publisher.publish("/tasks/exit", {"container_id": "web", "id": "web", "pid": 7, "exit_status": 137})
    serve_until(lambda: publisher.idle)
    [envelope] = containerd.taken
    assert (envelope["namespace"], envelope["topic"]) == ("k8s.io", "/tasks/exit")
    assert envelope["timestamp"]["seconds"] > 1_600_000_000
    assert envelope["event"]["type_url"] == "containerd.events.TaskExit"
    assert decode(TASK_EXIT, envelope["event"]["value"])["exit_status"] == 137


def test_containerd_away_and_back(publisher: Publisher, containerd: Containerd, serve_until: Serve) -> None:
    names = [str(number) for number in range(30)]
    containerd.start()
    for name in names[:10]:
        publisher.publish("/tasks/oom", {"container_id": name})
    serve_until(lambda: publisher.idle)
    containerd.stop()
    for name in names[10:20]:
        publisher.publish("/tasks/oom", {"container_id": name})
    serve_until(lambda: publisher._retry > 0.2)
    assert not publisher.idle
    for name in names[20:]:
        publisher.publish("/tasks/oom", {"container_id": name})
    containerd.start()
    serve_until(lambda: publisher.idle)
    assert containerd.ids == names


def test_a_refused_event_is_dropped_and_the_next_one_sent(
    publisher: Publisher, containerd: Containerd, serve_until: Serve, warnings: list[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(events, "_FIRST_RETRY", 0.0)
    containerd.start()
    containerd.refuse = 3
    publisher.publish("/tasks/oom", {"container_id": "bad"})
    serve_until(lambda: publisher.idle)
    containerd.refuse = 0
    publisher.publish("/tasks/oom", {"container_id": "good"})
    serve_until(lambda: publisher.idle)
    assert containerd.ids == ["good"]
    assert warnings == ["containerd refuses the event /tasks/oom: no"]


def test_a_silent_containerd_is_asked_again(
    publisher: Publisher, containerd: Containerd, serve_until: Serve, monkeypatch: Any
) -> None:
    monkeypatch.setattr(events, "_ANSWER_SECONDS", 0.05)
    mute = socket.socket(socket.AF_UNIX)
    mute.bind(str(containerd.path))
    mute.listen()
    publisher.publish("/tasks/oom", {"container_id": "web"})
    serve_until(lambda: publisher._retry > 0.05)
    mute.close()
    containerd.path.unlink()
    containerd.start()
    serve_until(lambda: publisher.idle)
    assert containerd.ids == ["web"]


def test_a_queue_without_end_loses_its_oldest(publisher: Publisher, warnings: list[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(events, "MAX_QUEUE", 2)
    for name in "abcd":
        publisher.publish("/tasks/oom", {"container_id": name})
    assert len(publisher._queue) == 2
    assert warnings == ["containerd is away: the event /tasks/oom is lost"] * 2
    assert decode(TASK_OOM, publisher._queue[-1]["event"]["value"])["container_id"] == "d"


def test_by_containerds_binary(
    loop: Loop, children: Children, serve_until: Serve, tmp_path: Path, warnings: list[str]
) -> None:
    binary = tmp_path / "containerd"
    binary.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/args\ncat >> {tmp_path}/events\n')
    binary.chmod(0o755)
    publisher = Publisher(loop, "default", warnings.append)
    publisher.by_binary(children, str(binary), "/run/c.sock")
    publisher.publish("/tasks/oom", {"container_id": "web"})
    serve_until(lambda: publisher.idle)
    expected = "--address /run/c.sock publish --topic /tasks/oom --namespace default\n"
    assert (tmp_path / "args").read_text() == expected
    event = decode(ANY, (tmp_path / "events").read_bytes())
    assert event == messages.pack(TASK_OOM, {"container_id": "web"})
    assert warnings == []


def test_without_a_way_nothing_is_kept(loop: Loop) -> None:
    publisher = Publisher(loop, "default", lambda text: None)
    publisher.publish("/tasks/oom", {"container_id": "web"})
    assert publisher.idle


def test_a_connection_leaves_no_descriptor(
    publisher: Publisher, containerd: Containerd, serve_until: Serve, loop: Loop
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        containerd.start()
        publisher.publish("/tasks/oom", {"container_id": "web"})
        serve_until(lambda: publisher.idle)
        containerd.stop()
        serve_until(lambda: len(os.listdir("/proc/self/fd")) == before)
