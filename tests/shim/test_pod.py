"""The ends of a pod's processes, at any moment, and the events that tell of them, in order."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from shim.services import World
from urunc.errors import StateError
from urunc.linux import cgroup
from urunc.shim import codes, messages, work
from urunc.shim.wire import decode


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
        monkeypatch.setattr(cgroup, "pids", lambda paths: [pid, other])
        processes = world.call("Pids", id="web")["processes"]
        assert [process["pid"] for process in processes] == [pid, other]
        assert processes[0]["info"] is None
        assert decode(messages.PROCESS_DETAILS, processes[1]["info"]["value"]) == {"exec_id": "one"}
