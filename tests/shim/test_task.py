"""The task service over a runtime made of sleeping processes: codes, events and their order, ends at every moment."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from urunc.errors import SpecError, StateError
from urunc.linux import libc
from urunc.shim import codes, messages, places, pod, work
from urunc.shim.children import Children
from urunc.shim.frames import Frames
from urunc.shim.loop import Loop
from urunc.shim.messages import TASK_METHODS, TASK_SERVICE, TOPICS
from urunc.shim.operation import Operations
from urunc.shim.task import Service
from urunc.shim.ttrpc import Server
from urunc.shim.wire import decode, encode

Serve = Callable[[Callable[[], object]], None]
OCI_ERROR = "OCI runtime create failed: "


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
        return {"pid": spawn(self.seconds, self.status), "ours": self.ours, "cgroup": {}, "stop": "kill"}, -1

    def start(self, place: Any) -> tuple[dict[str, Any], int]:
        self._do("start")
        return {}, -1

    def kill(self, place: Any, signum: int, everything: bool) -> tuple[dict[str, Any], int]:
        self._do("kill")
        return {}, -1

    def freeze(self, place: Any, verb: str) -> tuple[dict[str, Any], int]:
        self._do(verb)
        return {}, -1

    def update(self, place: Any, resources: bytes) -> tuple[dict[str, Any], int]:
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
        service = Service(
            loop,
            children,
            Operations(loop, children),
            self.publisher,  # type: ignore[arg-type]
            "default",
            "runc",
            lambda: self.shut.append(True),
        )
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


@pytest.fixture
def world(
    loop: Loop, children: Children, serve_until: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    world = World(loop, children, serve_until, tmp_path)
    for name in ("create", "start", "kill", "freeze", "update", "delete", "execute"):
        monkeypatch.setattr(work, name, getattr(world.work, name))
    monkeypatch.setattr(pod.cgroup, "pids", lambda paths: [])
    yield world
    for container in world.service._pod.containers.values():
        for process in (container.init, *container.execs.values()):
            if process.pid and not process.ended:
                world.end(process.pid)
    serve_until(lambda: not children._expecting)
    world.server.close()
    world.peer.close()
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 0)
    assert world.errors == []


def test_a_life(world: World) -> None:
    pid = world.create()
    assert world.call("State", id="web")["status"] == messages.CREATED
    assert world.call("Start", id="web") == {"pid": pid}
    state = world.call("State", id="web")
    assert (state["id"], state["pid"], state["status"]) == ("web", pid, messages.RUNNING)
    waiting = world.send("Wait", id="web")
    assert world.call("Connect", id="web") == {"shim_pid": os.getpid(), "task_pid": pid, "version": ""}
    world.call("Kill", id="web", signal=15)
    world.end(pid)
    ended = world.result("Wait", waiting)
    assert ended["exit_status"] == 137
    assert ended["exited_at"]["seconds"] > 1_600_000_000
    assert world.call("Wait", id="web") == ended
    state = world.call("State", id="web")
    assert (state["status"], state["exit_status"], state["exited_at"]) == (3, 137, ended["exited_at"])
    assert world.call("Delete", id="web") == {"pid": pid, **ended}
    assert world.publisher.topics == ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]
    world.call("Shutdown", id="web")
    world.serve_until(lambda: world.shut)


def test_shutdown_waits_for_the_last_container(world: World) -> None:
    world.run()
    world.call("Shutdown", id="web")
    world.call("Connect", id="web")
    assert world.shut == []


@pytest.mark.parametrize("method", ["State", "Start", "Delete", "Pids", "Pause", "Kill", "Wait", "Stats", "Update"])
def test_a_container_that_is_not_there(world: World, method: str) -> None:
    assert world.refused(method, id="nobody")[0] == codes.NOT_FOUND


@pytest.mark.parametrize("method", ["State", "Start", "Delete", "Kill", "Wait", "ResizePty", "CloseIO"])
def test_a_process_that_is_not_there(world: World, method: str) -> None:
    world.run()
    assert world.refused(method, id="web", exec_id="nobody")[0] == codes.NOT_FOUND


def test_its_options_are_kept_in_the_bundle(world: World, tmp_path: Path) -> None:
    config = tmp_path / "other.toml"
    config.write_text('[runtime]\ndelegate = "crun"\n')
    body = f'Root = "/state"\nIoUid = 7\nIoGid = 8\nConfigPath = "{config}"'.encode()
    world.create(options=messages.pack(messages.RUNTIME_OPTIONS, {"config_body": body}))
    place = places.load_place(world.bundle)
    assert place is not None
    assert (place.root, place.delegate, place.config) == ("/state/default", "crun", str(config))
    assert (place.io_uid, place.io_gid) == (7, 8)


class TestWhileItIsCreated:
    """Calls that name a container which is being created wait until it is, or is not."""

    def test_they_are_answered_after_it_in_their_order(self, world: World) -> None:
        create = world.send("Create", id="web", bundle=world.bundle)
        state, start, wait = (world.send(name, id="web") for name in ("State", "Start", "Wait"))
        pid = world.result("State", state)["pid"]
        assert pid == world.result("Create", create)["pid"] == world.result("Start", start)["pid"]
        world.end(pid)
        assert world.result("Wait", wait)["exit_status"] == 137

    def test_of_one_that_fails(self, world: World) -> None:
        world.work.fails = {"create": SpecError("process.args: want a list")}
        world.send("Create", id="web", bundle=world.bundle)
        assert world.refused("CloseIO", id="web", stdin=True)[0] == codes.NOT_FOUND

    def test_of_a_client_that_goes_away(self, world: World) -> None:
        world.send("Create", id="web", bundle=world.bundle)
        world.send("Wait", id="web")
        world.serve_until(lambda: bool(world.service._creating.get("web")))
        world.peer.close()
        world.serve_until(lambda: not world.service._creating)
        assert world.service._pod.containers["web"].init.waiting == []

    def test_the_end_of_its_input_is_not_lost(self, world: World, tmp_path: Path) -> None:
        """As of `echo word | nerdctl run -i`, whose input ends before the container is made."""
        fifo = tmp_path / "stdin"
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        with open(fifo, "wb") as writer:
            writer.write(b"word")
        create = world.send("Create", id="web", bundle=world.bundle, stdin=str(fifo))
        world.call("CloseIO", id="web", stdin=True)
        world.result("Create", create)
        assert os.read(reader, 100) == b"word"
        assert os.read(reader, 100) == b""
        os.close(reader)


def test_a_container_deleted_before_its_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = world.create()

    def delete(place: Any, force: bool) -> tuple[dict[str, Any], int]:
        os.kill(pid, signal.SIGKILL)
        return {}, -1

    monkeypatch.setattr(work, "delete", delete)
    assert world.call("Delete", id="web")["pid"] == pid
    world.serve_until(lambda: not os.path.exists(f"/proc/{pid}"))
    topics = world.publisher.topics
    assert topics in (["/tasks/create", "/tasks/delete"], ["/tasks/create", "/tasks/exit", "/tasks/delete"])


class TestRefusals:
    """What the runtime refuses reaches the user word for word, under the code that containerd looks at."""

    def test_a_create_that_fails(self, world: World) -> None:
        world.work.fails = {"create": SpecError("process.args: want a list")}
        assert world.refused("Create", id="web", bundle=world.bundle) == (
            codes.UNKNOWN, OCI_ERROR + "process.args: want a list",
        )  # fmt: skip
        world.work.fails = {}
        world.create()
        assert world.publisher.topics == ["/tasks/create"]

    def test_an_id_in_use(self, world: World) -> None:
        world.create()
        assert world.refused("Create", id="web", bundle=world.bundle)[0] == codes.ALREADY_EXISTS

    def test_two_creates_at_once(self, world: World) -> None:
        first = world.send("Create", id="web", bundle=world.bundle)
        assert world.refused("Create", id="web", bundle=world.bundle)[0] == codes.ALREADY_EXISTS
        world.result("Create", first)

    def test_a_stream_that_is_not_there(self, world: World) -> None:
        code, message = world.refused("Create", id="web", bundle=world.bundle, stdout="/nowhere/fifo")
        assert (code, "no such file" in message) == (codes.UNKNOWN, True)

    def test_options_that_are_none(self, world: World) -> None:
        options = messages.pack(messages.RUNTIME_OPTIONS, {"config_body": b"Roots = 1"})
        code, message = world.refused("Create", id="web", bundle=world.bundle, options=options)
        assert (code, "option `Roots` is unknown" in message) == (codes.UNKNOWN, True)

    def test_a_bundle_that_is_not_there(self, world: World) -> None:
        assert "cannot write into the bundle" in world.refused("Create", id="web", bundle="/nowhere")[1]

    def test_a_start_that_fails(self, world: World) -> None:
        world.create()
        world.work.fails = {"start": StateError("cannot start `web`: hook failed")}
        assert world.refused("Start", id="web") == (
            codes.FAILED_PRECONDITION, "OCI runtime start failed: cannot start `web`: hook failed",
        )  # fmt: skip

    def test_a_second_start(self, world: World) -> None:
        world.run()
        assert world.refused("Start", id="web")[0] == codes.FAILED_PRECONDITION

    def test_a_delete_of_what_runs(self, world: World) -> None:
        world.run()
        assert world.refused("Delete", id="web")[0] == codes.FAILED_PRECONDITION

    def test_a_delete_of_what_the_runtime_has_lost(self, world: World) -> None:
        pid = world.run()
        world.end(pid)
        world.work.fails = {"delete": StateError("container `web` does not exist")}
        assert world.call("Delete", id="web")["exit_status"] == 137

    def test_a_kill_after_the_end(self, world: World) -> None:
        pid = world.run()
        world.end(pid)
        assert world.refused("Kill", id="web", signal=9)[0] == codes.NOT_FOUND

    def test_a_kill_that_meets_the_end(self, world: World) -> None:
        world.run()
        world.work.fails = {"kill": StateError("cannot kill `web`: container not running")}
        assert world.refused("Kill", id="web", signal=9)[0] == codes.NOT_FOUND

    def test_checkpoints(self, world: World) -> None:
        world.run()
        assert world.refused("Checkpoint", id="web")[0] == codes.UNIMPLEMENTED
        assert world.refused("Create", id="x", bundle=world.bundle, checkpoint="/c")[0] == codes.UNIMPLEMENTED

    def test_an_update_of_nothing(self, world: World) -> None:
        world.run()
        assert world.refused("Update", id="web")[0] == codes.INVALID_ARGUMENT
        assert world.call("Update", id="web", resources={"type_url": "x", "value": b"{}"}) == {}

    def test_exec_in_a_unikernel(self, world: World) -> None:
        world.run()
        code, message = world.refused("Exec", id="web", exec_id="x", spec={"value": b"{}"})
        assert (code, "a unikernel has one process" in message) == (codes.UNIMPLEMENTED, True)


def test_pause_and_resume(world: World) -> None:
    world.run()
    world.call("Pause", id="web")
    assert world.call("State", id="web")["status"] == messages.PAUSED
    world.call("Resume", id="web")
    assert world.call("State", id="web")["status"] == messages.RUNNING
    assert world.publisher.topics[-2:] == ["/tasks/paused", "/tasks/resumed"]
    world.work.fails = {"pause": StateError("cannot pause `web`: container is stopped")}
    assert world.refused("Pause", id="web")[0] == codes.FAILED_PRECONDITION


class TestEnds:
    """An end may come at any moment, and is told after what came before it."""

    def test_before_the_create_is_answered(self, world: World) -> None:
        world.work.seconds, world.work.status = 0, 5
        world.create()
        assert world.call("Wait", id="web")["exit_status"] == 5
        assert world.publisher.topics == ["/tasks/create", "/tasks/exit"]

    def test_during_the_start(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        pid = world.create()

        def start(place: Any) -> tuple[dict[str, Any], int]:
            os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
            return {}, -1

        monkeypatch.setattr(work, "start", start)
        world.call("Start", id="web")
        assert world.call("Wait", id="web")["exit_status"] == 137
        assert world.publisher.topics == ["/tasks/create", "/tasks/start", "/tasks/exit"]

    def test_during_a_kill(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """containerd's CRI plug-in hangs up at the end, whether its Kill is answered or not."""
        pid = world.run()

        def kill(place: Any, signum: int, everything: bool) -> tuple[dict[str, Any], int]:
            os.kill(pid, signum)
            time.sleep(0.1)
            return {}, -1

        monkeypatch.setattr(work, "kill", kill)
        killed = world.send("Kill", id="web", signal=9)
        wait = world.send("Wait", id="web")
        world.result("Wait", wait)
        assert killed in world.answers
        assert world.publisher.topics == ["/tasks/create", "/tasks/start", "/tasks/exit"]

    def test_of_a_client_that_waits(self, world: World) -> None:
        pid = world.run()
        world.send("Wait", id="web")
        world.call("Connect", id="web")
        container = world.service._pod.containers["web"]
        assert len(container.init.waiting) == 1
        world.peer.close()
        world.serve_until(lambda: not container.init.waiting)
        world.end(pid)


class TestExec:
    """Further processes of an ordinary container."""

    @pytest.fixture(autouse=True)
    def _ordinary(self, world: World) -> None:
        world.work.ours = False

    def exec(self, world: World, name: str, spec: bytes = b"{}") -> int:
        world.call("Exec", id="web", exec_id=name, spec={"value": spec})
        return int(world.call("Start", id="web", exec_id=name)["pid"])

    def test_its_life(self, world: World) -> None:
        world.run()
        pid = self.exec(world, "one", b'{"seconds": 0, "status": 3}')
        assert world.call("Wait", id="web", exec_id="one")["exit_status"] == 3
        assert world.call("State", id="web", exec_id="one")["exec_id"] == "one"
        assert world.call("Delete", id="web", exec_id="one")["pid"] == pid
        assert world.publisher.topics[2:] == ["/tasks/exec-added", "/tasks/exec-started", "/tasks/exit"]
        assert world.publisher.events[-1][1]["id"] == "one"
        assert world.call("State", id="web")["status"] == messages.RUNNING

    def test_its_signals(self, world: World) -> None:
        world.run()
        world.call("Exec", id="web", exec_id="one", spec={"value": b"{}"})
        assert world.refused("Kill", id="web", exec_id="one", signal=15)[0] == codes.FAILED_PRECONDITION
        world.call("Start", id="web", exec_id="one")
        assert world.refused("Kill", id="web", exec_id="one", signal=1000)[0] == codes.INVALID_ARGUMENT
        world.call("Kill", id="web", exec_id="one", signal=9)
        assert world.call("Wait", id="web", exec_id="one")["exit_status"] == 137
        assert world.refused("Kill", id="web", exec_id="one", signal=9)[0] == codes.NOT_FOUND

    def test_what_is_refused(self, world: World) -> None:
        world.run()
        assert world.refused("Exec", id="web", exec_id="x")[0] == codes.INVALID_ARGUMENT
        self.exec(world, "one")
        assert world.refused("Exec", id="web", exec_id="one", spec={"value": b"{}"})[0] == codes.ALREADY_EXISTS
        world.call("Pause", id="web")
        assert world.refused("Exec", id="web", exec_id="y", spec={"value": b"{}"})[0] == codes.FAILED_PRECONDITION

    def test_the_end_of_its_input_before_its_start(self, world: World, tmp_path: Path) -> None:
        """As of `nerdctl exec -i` without any input."""
        world.run()
        fifo = tmp_path / "stdin"
        os.mkfifo(fifo)
        world.call("Exec", id="web", exec_id="one", spec={"value": b"{}"}, stdin=str(fifo))
        world.call("CloseIO", id="web", exec_id="one", stdin=True)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        world.call("Start", id="web", exec_id="one")
        assert os.read(reader, 100) == b""
        os.close(reader)

    def test_one_that_cannot_start(self, world: World) -> None:
        world.run()
        world.call("Exec", id="web", exec_id="one", spec={"value": b"{}"})
        world.work.fails = {"exec": StateError("no such file")}
        assert world.refused("Start", id="web", exec_id="one") == (
            codes.UNKNOWN, "OCI runtime exec failed: no such file",
        )  # fmt: skip
        world.call("Delete", id="web", exec_id="one")

    def test_the_containers_end_is_told_last(self, world: World) -> None:
        pid = world.run()
        other = self.exec(world, "one")
        world.end(pid)
        assert world.call("State", id="web")["status"] == messages.RUNNING
        world.end(other)
        ids = [values["id"] for topic, values in world.publisher.events if topic == "/tasks/exit"]
        assert ids == ["one", "web"]

    def test_pids_name_the_execs(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        pid = world.run()
        other = self.exec(world, "one")
        monkeypatch.setattr(pod.cgroup, "pids", lambda paths: [pid, other])
        processes = world.call("Pids", id="web")["processes"]
        assert [process["pid"] for process in processes] == [pid, other]
        assert processes[0]["info"] is None
        assert decode(messages.PROCESS_DETAILS, processes[1]["info"]["value"]) == {"exec_id": "one"}
