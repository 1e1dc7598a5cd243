"""The task service behind a server, over a runtime made of sleeping processes, and a client of it."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from urunc.linux import proc
from urunc.shim import codes, messages
from urunc.shim.children import Children
from urunc.shim.frames import Frames
from urunc.shim.lives import Lives
from urunc.shim.loop import Loop
from urunc.shim.messages import TASK_METHODS, TASK_SERVICE, TOPICS
from urunc.shim.operation import Operations
from urunc.shim.pod import Pod
from urunc.shim.task import Service
from urunc.shim.ttrpc import Server
from urunc.shim.wire import decode, encode

Serve = Callable[[Callable[[], object]], None]


class Recorder:
    """In the publisher's place: keeps what would be sent."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.idle = True

    def publish(self, topic: str, values: dict[str, Any]) -> None:
        encode(TOPICS[topic], values)
        self.events.append((topic, values))

    @property
    def topics(self) -> list[str]:
        return [topic for topic, _ in self.events]


def spawn(seconds: float = 60, status: int = 0) -> int:
    """Return an orphan that sleeps, then ends with the status; KILL ends it, and TERM with 15."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(15))
        time.sleep(seconds)
        os._exit(status)
    return pid


class FakeWork:
    """In `work`'s place, in the operations' children: containers are sleeping processes."""

    seconds, status, ours = 60.0, 0, True
    fails: dict[str, Exception] = {}

    def _do(self, verb: str) -> None:
        if verb in self.fails:
            raise self.fails[verb]

    def create(self, place: Any, mounts: Any, terminal: bool) -> tuple[dict[str, Any], int]:
        self._do("create")
        pid = spawn(self.seconds, self.status)
        started = proc.start_time(pid) or 0
        return {"pid": pid, "started": started, "ours": self.ours, "cgroup": {}, "stop": "kill"}, -1

    def start(self, place: Any) -> tuple[dict[str, Any], int]:
        self._do("start")
        return {}, -1

    def kill(self, place: Any, signum: int, everything: bool) -> tuple[dict[str, Any], int]:
        self._do("kill")
        return {}, -1

    def pause(self, place: Any) -> tuple[dict[str, Any], int]:
        self._do("pause")
        return {}, -1

    def resume(self, place: Any) -> tuple[dict[str, Any], int]:
        self._do("resume")
        return {}, -1

    def update(self, place: Any, resources: str) -> tuple[dict[str, Any], int]:
        self._do("update")
        return {}, -1

    def delete(self, place: Any, force: bool) -> tuple[dict[str, Any], int]:
        self._do("delete")
        return {}, -1

    def execute(self, place: Any, process: Any, terminal: bool) -> tuple[dict[str, Any], int]:
        self._do("exec")
        return {"pid": spawn(process.get("seconds", 60), process.get("status", 0))}, -1


class World:
    """The service behind a server, and a client that knows the methods' tables."""

    def __init__(self, loop: Loop, children: Children, serve_until: Serve, bundle: Path) -> None:
        self.serve_until, self.bundle = serve_until, str(bundle)
        self.work = FakeWork()
        self.publisher = Recorder()
        self.shut: list[bool] = []
        operations = Operations(loop, children)
        self.prepared: list[str] = []
        # No child is forked ahead, and none stays: a test may change `work` meanwhile.
        operations.prepare = lambda verb, ours: self.prepared.append(verb)  # type: ignore[method-assign]
        operations._keep = lambda spare, verb, owner: spare.close()  # type: ignore[method-assign]
        publisher: Any = self.publisher
        pod = Pod(operations, publisher)
        lives = Lives(loop, children, operations, publisher, pod, "default", f"{bundle}/socket")
        service = Service(pod, lives, publisher, lambda: self.shut.append(True))
        self.service = service
        self.errors: list[Exception] = []
        self.server = Server(loop, {TASK_SERVICE: service.methods()}, self.errors.append)
        ours, self.peer = socket.socketpair()
        self.server.add(ours)
        self.peer.setblocking(False)
        self.frames = Frames()
        self.stream = -1
        self.answers: dict[int, dict[str, Any]] = {}

    def send(self, method: str, **values: Any) -> int:
        """Send a request; return its stream."""
        self.stream += 2
        takes, _ = TASK_METHODS[method]
        request = {"service": TASK_SERVICE, "method": method, "payload": encode(takes, values)}
        data = encode(messages.REQUEST, request)
        self.peer.send(struct.pack(">IIBB", len(data), self.stream, 1, 0) + data)
        return self.stream

    def answered(self, stream: int) -> bool:
        try:
            for number, _kind, content in self.frames.feed(self.peer.recv(1 << 20)):
                self.answers[number] = decode(messages.RESPONSE, content or b"")
        except BlockingIOError:
            pass
        return stream in self.answers

    def result(self, method: str, stream: int) -> dict[str, Any]:
        self.serve_until(lambda: self.answered(stream))
        answer = self.answers[stream]
        if answer["status"]:
            raise codes.StatusError(answer["status"]["code"], answer["status"]["message"])
        return decode(TASK_METHODS[method][1], answer["payload"])

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """Call and wait for the answer. Raises StatusError."""
        return self.result(method, self.send(method, **values))

    def refused(self, method: str, **values: Any) -> tuple[int, str]:
        """Call what must be refused; return code and message."""
        with pytest.raises(codes.StatusError) as caught:
            self.call(method, **values)
        return caught.value.code, caught.value.message

    def create(self, name: str = "web", **values: Any) -> int:
        return int(self.call("Create", id=name, bundle=self.bundle, **values)["pid"])

    def run(self, name: str = "web") -> int:
        pid = self.create(name)
        self.call("Start", id=name)
        return pid

    def end(self, pid: int, signum: int = signal.SIGKILL) -> None:
        os.kill(pid, signum)
        self.serve_until(lambda: not os.path.exists(f"/proc/{pid}"))
