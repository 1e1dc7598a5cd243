"""The guest's control port: what is written waits, what comes is read whole and believed little."""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from urunc.errors import StateError
from urunc.runtime import control
from urunc.vm import port


@pytest.fixture
def place(tmp_path: Path) -> str:
    for name in port.FIFOS:
        os.mkfifo(tmp_path / name)
    return str(tmp_path)


def held(place: str, which: int) -> int:
    """Open an end as the monitor holds it."""
    return os.open(f"{place}/{port.FIFOS[which]}", os.O_RDWR | os.O_NONBLOCK)


def test_a_line_waits_for_the_guest(place: str) -> None:
    monitor = held(place, 0)
    control.write_line(place, b"signal 15\n")
    control.write_line(place, b"signal 9\n")
    assert os.read(monitor, 100) == b"signal 15\nsignal 9\n"
    os.close(monitor)


def test_without_a_monitor_it_is_an_error(place: str) -> None:
    with pytest.raises(StateError, match="takes nothing: no such device or address"):
        control.write_line(place, b"signal 15\n")


def test_a_full_port_is_an_error_and_no_wait(place: str) -> None:
    monitor = held(place, 0)
    with pytest.raises(StateError, match="takes nothing"):
        for _ in range(100_000):
            control.write_line(place, b"signal 15\n")
    os.close(monitor)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"started\nexit 7\n", 7),
        (b"exit 7\nexit 0\n", 0),
        (b"exit 7", None),
        (b"exit 9999\nexit -1\nexit x\nexit\n\xff\xfe\n", None),
        (b"x" * 100_000 + b"\nexit 3\n", 3),
    ],
)
def test_the_last_word_of_the_guest_counts(place: str, said: bytes, status: int | None) -> None:
    monitor = held(place, 1)
    listener = control.Listener(place)
    for at in range(0, len(said), 4096):
        os.write(monitor, said[at : at + 4096])
        assert listener.read()
    os.close(monitor)
    assert not listener.read()
    assert listener.exit_status == status
    listener.close()


def test_a_monitor_that_writes_without_end_does_not_hold_the_reader(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = control.Listener(place)
    chunks = itertools.repeat(b"exit 1\n" * 500, 10_000)
    monkeypatch.setattr(control.os, "read", lambda _fd, _size: next(chunks))
    assert listener.read()
    assert listener.exit_status == 1
    listener.close()


def test_a_guest_that_ended_without_a_word_has_failed(place: str) -> None:
    listener = control.Listener(place)
    assert listener.status(0) == control.PANICKED
    assert listener.status(3) == 3
    listener.exit_status = 5
    assert listener.status(0) == 5
    listener.close()


def test_a_guest_whose_panics_are_told_and_that_ended_without_a_word_powered_off(place: str) -> None:
    monitor = held(place, 1)
    listener = control.Listener(place)
    os.write(monitor, b"started\npanics\n")
    assert listener.read()
    assert listener.status(0) == 0
    assert listener.status(1) == 1
    os.write(monitor, b"exit 4\n")
    assert listener.read()
    assert listener.status(0) == 4
    os.close(monitor)
    listener.close()


GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\r\n'


@contextmanager
def monitor_that_says(folder: Path, *answers: bytes) -> Iterator[list[bytes]]:
    """A QMP socket whose monitor sends these, whatever it hears. Gives what it has heard, once it is over."""
    heard: list[bytes] = []
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"{folder}/qmp.sock")
    server.listen()

    def serve() -> None:
        visitor, _ = server.accept()
        with visitor:
            try:
                for answer in answers:
                    visitor.sendall(answer)
                while data := visitor.recv(4096):
                    heard.append(data)
            except OSError:
                pass  # it was cut off

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield heard
    finally:
        thread.join()
        server.close()


def test_asking_a_monitor(tmp_path: Path) -> None:
    answers = (
        GREETING,
        b'{"return": {}}\r\n{"event": "STOP", "data": {}}\r\n{"return": {"status": "run',
        b'ning"}}\r\n\r\n{"error": {"class": "CommandNotFound"}}\r\n',
    )
    with monitor_that_says(tmp_path, *answers) as heard:
        assert control.ask(str(tmp_path), "query-status", "query-nothing") == [{"status": "running"}, None]
    said = b"".join(heard).splitlines()
    assert said == [b'{"execute":"%s"}' % name for name in (b"qmp_capabilities", b"query-status", b"query-nothing")]


def test_a_command_with_arguments(tmp_path: Path) -> None:
    with monitor_that_says(tmp_path, GREETING, b'{"return": {}}\r\n{"return": {}}\r\n') as heard:
        assert control.ask(str(tmp_path), ("balloon", {"value": 5})) == [{}]
    assert b"".join(heard).splitlines()[1] == b'{"execute":"balloon","arguments":{"value":5}}'


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ((GREETING,), "timed out"),
        ((GREETING, b"rubbish\n"), "no JSON"),
        ((b'{"event": "x"}\n' * 50_000,), "says too much"),
        ((b"x" * 1_000_000,), "says too much"),
        ((b"[1, 2]\n", b'"return"\n'), "timed out"),
    ],
)
def test_a_monitor_that_was_taken_over_is_cut_off(tmp_path: Path, answers: tuple[bytes, ...], why: str) -> None:
    with monitor_that_says(tmp_path, *answers), pytest.raises(StateError, match=f"does not answer: .*{why}"):
        control.ask(str(tmp_path), "query-status")


def test_a_monitor_that_hangs_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{tmp_path}/qmp.sock")
        server.listen()

        def hang_up() -> None:
            visitor, _ = server.accept()
            visitor.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(StateError, match="does not answer"):
            control.ask(str(tmp_path), "query-status")
        thread.join()


def test_no_monitor_to_ask(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot reach"):
        control.ask(str(tmp_path), "query-status")
    with pytest.raises(StateError, match="cannot reach the guest's `qmp` socket: no such file or directory"):
        control.ask(f"{tmp_path}/deleted", "query-status")
