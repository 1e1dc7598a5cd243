"""Which way a signal goes, by how the container's guest can be stopped and by its status."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from urunc.errors import StateError
from urunc.linux import freezer, proc
from urunc.runtime import control, monitor_api, signals, status
from urunc.runtime.store import Container

Send = Callable[..., list[str]]

TERM, KILL, HUP, USR1 = signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGUSR1


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> Send:
    """Send a signal to a container that is none, and return what was done."""
    done: list[str] = []
    monkeypatch.setattr(proc, "send_signal", lambda pid, started, signum: done.append(f"monitor {int(signum)}"))
    monkeypatch.setattr(control, "write_line", lambda place, line: done.append(line.decode().strip()))
    monkeypatch.setattr(control, "power_down", lambda place: done.append("power button"))
    monkeypatch.setattr(monitor_api, "press_ctrl_alt_del", lambda pid, started: done.append("ctrl-alt-del"))
    monkeypatch.setattr(freezer, "thaw", lambda paths: done.append("thaw"))

    def act(
        stop: str, signum: int, now: str = status.RUNNING, *, waiting: bool = False, hears: bool = True
    ) -> list[str]:
        done.clear()
        monkeypatch.setattr(proc, "catches", lambda pid, number: hears)
        monkeypatch.setattr(status, "is_waiting", lambda place: waiting)
        monkeypatch.setattr(status, "is_frozen", lambda cgroup: now == status.PAUSED)
        container = Container(
            id="web", oci_version="1", bundle="/b", rootfs="/r", created="", guest="g", monitor="m", stop=stop, pid=7
        )
        signals.send("/run/urunc", container, now, signum)
        return done

    return act


@pytest.mark.parametrize(
    ("stop", "done"),
    [
        ("control", ["signal 15"]),
        ("acpi", ["power button"]),
        ("ctrl-alt-del", ["ctrl-alt-del"]),
        ("term", ["monitor 15"]),
        ("kill", ["monitor 9"]),
    ],
)
def test_a_stop_signal_goes_the_way_that_the_plan_has_found(send: Send, stop: str, done: list[str]) -> None:
    assert send(stop, TERM) == done


@pytest.mark.parametrize("signum", signals.STOP_SIGNALS)
def test_every_stop_signal_ends_a_guest_that_hears_none(send: Send, signum: int) -> None:
    assert send("kill", signum) == ["monitor 9"]


def test_a_monitor_without_its_handler_yet_is_killed(send: Send) -> None:
    assert send("term", TERM, hears=False) == ["monitor 9"]


@pytest.mark.parametrize("stop", ["acpi", "ctrl-alt-del", "term", "kill"])
def test_any_other_signal_is_left_out_with_a_warning(send: Send, stop: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert send(stop, USR1) == []
    assert "the guest has no way to receive it" in capfd.readouterr().err


def test_the_guests_init_gets_any_signal(send: Send) -> None:
    assert send("control", USR1) == ["signal 10"]


@pytest.mark.parametrize(("now", "waiting"), [(status.CREATED, True), (status.PAUSED, True)])
def test_an_init_that_waits_for_start_is_killed_by_a_stop_signal_alone(send: Send, now: str, waiting: bool) -> None:
    assert send("control", TERM, now, waiting=waiting)[0] == "monitor 9"
    assert send("control", USR1, now, waiting=waiting) == []


def test_a_frozen_monitor_is_killed_and_thawed(send: Send) -> None:
    assert send("control", KILL, status.PAUSED) == ["monitor 9", "thaw"]
    assert send("control", KILL) == ["monitor 9"]


def test_stop_and_continue_are_the_monitors(send: Send) -> None:
    assert send("control", signal.SIGSTOP) == [f"monitor {int(signal.SIGSTOP)}"]
    assert send("control", signal.SIGCONT) == [f"monitor {int(signal.SIGCONT)}"]


def test_signal_0_does_nothing(send: Send) -> None:
    assert send("kill", 0) == []


def test_a_monitor_that_does_not_answer_is_ended(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, started: int) -> None:
        raise StateError("the monitor does not answer: timed out")

    monkeypatch.setattr(monitor_api, "press_ctrl_alt_del", refuse)
    assert send("ctrl-alt-del", HUP) == ["monitor 9"]


def test_a_paused_monitor_is_not_asked(send: Send) -> None:
    assert send("ctrl-alt-del", TERM, status.PAUSED) == []
