"""The guest's control port: what is written waits, what comes is read whole and believed little."""

from __future__ import annotations

import os
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


def test_a_guest_that_ended_without_a_word_has_failed(place: str) -> None:
    listener = control.Listener(place)
    assert listener.status(0) == control.PANICKED
    assert listener.status(3) == 3
    listener.exit_status = 5
    assert listener.status(0) == 5
    listener.close()
