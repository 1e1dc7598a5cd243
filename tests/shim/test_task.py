"""The task service: its answers, codes and events."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from shim.services import World
from urunc.errors import SpecError, StateError
from urunc.shim import child, codes, messages, places, work

OCI_ERROR = "OCI runtime create failed: "


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
    assert world.shut
    assert world.prepared == ["delete"], "a child that is forked ahead"


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
    assert (place.root, place.delegate, place.config) == ("/state/default", "", str(config))
    assert (place.io_uid, place.io_gid) == (7, 8)


def test_the_delegate_that_made_a_container_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    create = world.work.create

    def create_by(*arguments: Any) -> tuple[dict[str, Any], int]:
        values, fd = create(*arguments)
        return {**values, "ours": False, "delegate": "crun"}, fd

    monkeypatch.setattr(work, "create", create_by)
    world.create()
    saved = places.load_place(world.bundle)
    assert saved is not None
    assert saved.delegate == world.service._pod.containers["web"].place.delegate == "crun"


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
        world.serve_until(lambda: bool(world.service._lives.changing.get("web")))
        world.peer.close()
        world.serve_until(lambda: not world.service._lives.changing)
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


class TestWhileItIsDeleted:
    """What comes then is answered afterwards, and does nothing to the next container of that id."""

    def test_a_second_delete_and_a_start(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        deletes, note = os.pipe()

        def delete(place: Any, force: bool) -> tuple[dict[str, Any], int]:
            os.write(note, b"x")
            return {}, -1

        monkeypatch.setattr(work, "delete", delete)
        monkeypatch.setattr(child, "_close_all_but", lambda fds: None)
        pid = world.create()
        first, second, start = (world.send(method, id="web") for method in ("Delete", "Delete", "Start"))
        assert world.refused("Create", id="web", bundle=world.bundle)[0] == codes.ALREADY_EXISTS
        assert world.result("Delete", first)["pid"] == pid
        for method, stream in (("Delete", second), ("Start", start)):
            with pytest.raises(codes.StatusError, match="not created"):
                world.result(method, stream)
        assert os.read(deletes, 10) == b"x"
        world.end(pid)
        os.close(deletes)
        os.close(note)

    def test_those_that_waited_for_the_create(self, world: World) -> None:
        """The first of them begins a delete, and the others wait again."""
        sent = [world.send("Create", id="web", bundle=world.bundle)]
        sent += [world.send("Delete", id="web") for _ in range(2)]
        pid = world.result("Create", sent[0])["pid"]
        assert world.result("Delete", sent[1])["pid"] == pid
        with pytest.raises(codes.StatusError, match="not created"):
            world.result("Delete", sent[2])
        world.end(pid)

    def test_it_waits_for_what_is_under_way(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        wait, release = os.pipe()
        done, note = os.pipe()

        def update(place: Any, resources: bytes) -> tuple[dict[str, Any], int]:
            os.read(wait, 1)
            os.write(note, b"update ")
            return {}, -1

        def delete(place: Any, force: bool) -> tuple[dict[str, Any], int]:
            os.write(note, b"delete")
            return {}, -1

        monkeypatch.setattr(child, "_close_all_but", lambda fds: None)
        monkeypatch.setattr(work, "update", update)
        monkeypatch.setattr(work, "delete", delete)
        world.end(world.run())
        sent = [world.send("Update", id="web", resources={"value": b"{}"}), world.send("Delete", id="web")]
        world.serve_until(lambda: world.service._lives.changing)
        os.write(release, b"x")
        world.result("Update", sent[0])
        world.result("Delete", sent[1])
        assert os.read(done, 100) == b"update delete"
        for fd in (wait, release, done, note):
            os.close(fd)


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

    def test_a_pause_before_the_start(self, world: World) -> None:
        world.create()
        for method in ("Pause", "Resume"):
            code, message = world.refused(method, id="web")
            assert (code, "it is not started" in message) == (codes.FAILED_PRECONDITION, True)

    def test_an_exec_that_is_none(self, world: World) -> None:
        world.work.ours = False
        world.run()
        code, message = world.refused("Exec", id="web", exec_id="", spec={"value": b"{}"})
        assert (code, "has no id" in message) == (codes.INVALID_ARGUMENT, True)
        code, message = world.refused("Exec", id="web", exec_id="x", spec={"value": b"[]"})
        assert (code, "not a JSON object" in message) == (codes.INVALID_ARGUMENT, True)

    def test_no_descriptor_is_left(self, world: World) -> None:
        """What a call had begun then is undone: the next may succeed, and the container can be deleted."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        tight = max(map(int, os.listdir("/proc/self/fd"))) + 1
        fill = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (tight, hard))
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    fill.append(os.dup(0))
            os.close(fill.pop())  # of two that a call needs, one is there
            assert "OCI runtime create failed" in world.refused("Create", id="web", bundle=world.bundle)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            pid = world.create()
            resource.setrlimit(resource.RLIMIT_NOFILE, (tight, hard))
            assert "OCI runtime start failed" in world.refused("Start", id="web")[1]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in fill:
                os.close(fd)
        assert world.call("Start", id="web") == {"pid": pid}

    def test_exec_in_a_unikernel(self, world: World) -> None:
        world.run()
        code, message = world.refused("Exec", id="web", exec_id="x", spec={"value": b"{}"})
        assert (code, "a unikernel has one process" in message) == (codes.UNIMPLEMENTED, True)


def test_it_is_deserted(world: World, tmp_path: Path) -> None:
    """Once whatever there was has ended, and containerd has removed its bundle without a word."""
    assert world.service.is_deserted()
    world.bundle = str(tmp_path / "bundle")
    os.mkdir(world.bundle)
    pid = world.run()
    assert not world.service.is_deserted()
    world.end(pid)
    assert not world.service.is_deserted()
    shutil.rmtree(world.bundle)
    assert world.service.is_deserted()


def test_the_bundle_is_held_while_its_container_is_made(world: World, tmp_path: Path) -> None:
    """So the `delete` after a shim that was killed does not look too early."""
    create = world.send("Create", id="web", bundle=world.bundle)
    world.serve_until(lambda: (tmp_path / "shim.json").exists() and world.service._lives.changing)
    with open(tmp_path / "shim.json", "rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    world.result("Create", create)
    places.await_operation(world.bundle)


def test_pause_and_resume(world: World) -> None:
    world.run()
    world.call("Pause", id="web")
    assert world.call("State", id="web")["status"] == messages.PAUSED
    world.call("Resume", id="web")
    assert world.call("State", id="web")["status"] == messages.RUNNING
    assert world.publisher.topics[-2:] == ["/tasks/paused", "/tasks/resumed"]
    world.work.fails = {"pause": StateError("cannot pause `web`: container is stopped")}
    assert world.refused("Pause", id="web")[0] == codes.FAILED_PRECONDITION
