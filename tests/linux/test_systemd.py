"""The client of systemd against a scripted one."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from urunc.errors import HostError
from urunc.linux import dbus, systemd
from urunc.linux.dbus import Message


class Systemd:
    """The far end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.calls: list[Message] = []

    def greet(self) -> None:
        user = str(os.geteuid()).encode().hex().encode()
        expected = b"\0AUTH EXTERNAL " + user + b"\r\nBEGIN\r\n"
        assert self.read(len(expected)) == expected
        self.sock.sendall(b"OK 0123456789abcdef\r\n")

    def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def call(self) -> Message:
        head = self.read(16)
        message = dbus.from_bytes(head + self.read(dbus.frame_length(head) - 16))
        self.calls.append(message)
        return message

    def reply(self, to: Message, signature: str = "", *body: object) -> None:
        self.send(Message(kind=2, serial=1, reply_serial=to.serial, signature=signature, body=body))

    def fail(self, to: Message, name: str, text: str = "No.") -> None:
        self.send(Message(kind=3, serial=1, reply_serial=to.serial, error_name=name, signature="s", body=(text,)))

    def job_removed(self, job: str, result: str = "done") -> None:
        self.send(
            Message(
                kind=4,
                serial=1,
                path="/m",
                interface="i",
                member="JobRemoved",
                signature="uoss",
                body=(1, job, "u", result),
            )
        )

    def send(self, message: Message) -> None:
        self.sock.sendall(dbus.to_bytes(message))


@contextmanager
def served(
    monkeypatch: pytest.MonkeyPatch, folder: Path, script: Callable[[Systemd], None], *, daemon: bool = False
) -> Iterator[list[Systemd]]:
    """Serve one connection by the script; at the end its failure is the test's."""
    path = str(folder / "s")
    monkeypatch.setattr(systemd, "BUS_SOCKET" if daemon else "SYSTEMD_SOCKET", path)
    monkeypatch.setattr(systemd, "SYSTEMD_SOCKET" if daemon else "BUS_SOCKET", str(folder / "none"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    ends: list[Systemd] = []
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(10)
                ends.append(Systemd(sock))
                ends[0].greet()
                script(ends[0])
        except BaseException as error:
            failures.append(error)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield ends
        finally:
            thread.join()
    if failures:
        raise failures[0]


PROPERTIES = (("Slice", "s", "a.slice"), ("PIDs", "au", [5]), ("DeviceAllow", "a(ss)", [("/dev/null", "rw")]))


def test_a_scope_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(far: Systemd) -> None:
        call = far.call()
        far.job_removed("/job/6")  # of somebody else
        far.job_removed("/job/7")  # ours, even before the reply
        far.reply(call, "o", "/job/7")

    with served(monkeypatch, tmp_path, script) as ends:
        systemd.start_scope("x.scope", PROPERTIES)
    (call,) = ends[0].calls
    assert (call.member, call.signature, call.destination) == ("StartTransientUnit", "ssa(sv)a(sa(sv))", "")
    assert call.body == ("x.scope", "replace", [(name, (kind, value)) for name, kind, value in PROPERTIES], [])


def test_what_dbus_cannot_say_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (
        served(monkeypatch, tmp_path, lambda _far: None),
        pytest.raises(HostError, match="systemd cannot be asked to StartTransientUnit: value does not fit"),
    ):
        systemd.start_scope("x.scope", [("Description", "s", "\ud800")])


def test_a_failed_unit_of_that_name_is_reset_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(far: Systemd) -> None:
        far.fail(far.call(), "org.freedesktop.systemd1.UnitExists")
        far.reply(far.call())
        far.reply(far.call(), "o", "/job/7")
        far.job_removed("/job/7")

    with served(monkeypatch, tmp_path, script) as ends:
        systemd.start_scope("x.scope", PROPERTIES)
    assert [call.member for call in ends[0].calls] == ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]


def test_a_unit_that_is_in_use_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(far: Systemd) -> None:
        for _ in range(3):
            far.fail(far.call(), "org.freedesktop.systemd1.UnitExists", "Unit x.scope already exists.")

    with (
        served(monkeypatch, tmp_path, script),
        pytest.raises(HostError, match=r"^systemd does not start `x\.scope`: Unit x\.scope already exists$"),
    ):
        systemd.start_scope("x.scope", PROPERTIES)


def test_a_job_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(far: Systemd) -> None:
        far.reply(far.call(), "o", "/job/7")
        far.job_removed("/job/7", "failed")
        far.reply(far.call())

    with (
        served(monkeypatch, tmp_path, script) as ends,
        pytest.raises(HostError, match="the job ended as `failed`"),
    ):
        systemd.start_scope("x.scope", PROPERTIES)
    assert ends[0].calls[-1].member == "ResetFailedUnit"


def test_stop_waits_for_the_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(far: Systemd) -> None:
        far.reply(far.call(), "o", "/job/8")
        far.job_removed("/job/8")
        far.reply(far.call())

    with served(monkeypatch, tmp_path, script) as ends:
        systemd.stop_unit("x.scope")
    assert [call.member for call in ends[0].calls] == ["StopUnit", "ResetFailedUnit"]


def test_stopping_what_is_not_there_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(far: Systemd) -> None:
        far.fail(far.call(), "org.freedesktop.systemd1.NoSuchUnit")
        far.fail(far.call(), "org.freedesktop.systemd1.NoSuchUnit")

    with served(monkeypatch, tmp_path, script):
        systemd.stop_unit("x.scope")


def test_over_the_bus_it_says_hello_and_subscribes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(far: Systemd) -> None:
        for _ in range(3):
            far.reply(far.call())
        far.reply(far.call())

    with served(monkeypatch, tmp_path, script, daemon=True) as ends:
        systemd.set_properties("x.scope", ())
    assert [call.member for call in ends[0].calls] == ["Hello", "AddMatch", "Subscribe", "SetUnitProperties"]
    assert ends[0].calls[-1].destination == "org.freedesktop.systemd1"


def test_properties_change_at_run_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with served(monkeypatch, tmp_path, lambda far: far.reply(far.call())) as ends:
        systemd.set_properties("x.scope", (("TasksMax", "t", 9),))
    assert ends[0].calls[0].body == ("x.scope", True, [("TasksMax", ("t", 9))])


def say_nothing(far: Systemd) -> None:
    far.call()
    assert far.sock.recv(1) == b""  # until the client gives up


def hang_up(far: Systemd) -> None:
    far.call()


def say_nonsense(far: Systemd) -> None:
    far.call()
    far.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def announce_gigabytes(far: Systemd) -> None:
    far.call()
    far.sock.sendall(bytes.fromhex("6c020001 00000006 01000000 00000000"))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (say_nothing, "systemd does not answer"),
        (hang_up, "systemd closed the connection"),
        (say_nonsense, "systemd's answer is not D-Bus"),
        (announce_gigabytes, "systemd's answer is not D-Bus"),
    ],
)
def test_a_bad_answer_is_an_error_in_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: Callable[[Systemd], None], message: str
) -> None:
    with served(monkeypatch, tmp_path, script), pytest.raises(HostError, match=message):
        systemd.start_scope("x.scope", PROPERTIES, seconds=0.2)


def test_without_systemd_the_hint_says_what_asked_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(systemd, "SYSTEMD_SOCKET", str(tmp_path / "a"))
    monkeypatch.setattr(systemd, "BUS_SOCKET", str(tmp_path / "b"))
    with pytest.raises(HostError, match="cannot reach systemd") as caught:
        systemd.start_scope("x.scope", PROPERTIES)
    assert "slice:prefix:name" in (caught.value.hint or "")
    systemd.stop_unit("x.scope")
