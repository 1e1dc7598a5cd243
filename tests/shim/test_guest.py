"""The guest's control port, with the monitor's ends of its fifos in the test's hands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from urunc.errors import StateError
from urunc.shim.guest import GuestPort
from urunc.shim.loop import Loop
from urunc.vm import port

Serve = Callable[[Callable[[], object]], None]


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The descriptors that a monitor holds: where it reads, and where it writes."""
    for name in port.FIFOS:
        os.mkfifo(tmp_path / name)
    fds = tuple(os.open(tmp_path / name, os.O_RDWR | os.O_NONBLOCK) for name in port.FIFOS)
    yield (fds[0], fds[1])
    for fd in fds:
        os.close(fd)


@pytest.fixture
def guest(loop: Loop, tmp_path: Path, monitor: tuple[int, int]) -> Iterator[GuestPort]:
    opened = GuestPort(loop, str(tmp_path))
    yield opened
    opened.close()


def test_the_exit_status(guest: GuestPort, monitor: tuple[int, int], serve_until: Serve) -> None:
    os.write(monitor[1], b"started\nex")
    os.write(monitor[1], b"it 42\n")
    serve_until(lambda: guest.exit_status is not None)
    assert guest.status(0) == guest.status(85) == 42


def test_the_end_of_the_monitor_is_no_error(loop: Loop, tmp_path: Path) -> None:
    """Whoever notices it first: the loop, or the container's end."""
    for name in port.FIFOS:
        os.mkfifo(tmp_path / name)
    for by_loop in (True, False):
        monitor = os.open(tmp_path / port.FIFOS[1], os.O_RDWR | os.O_NONBLOCK)
        guest = GuestPort(loop, str(tmp_path))
        os.write(monitor, b"exit 3\n")
        os.close(monitor)
        for _ in range(3):
            loop.once(0) if by_loop else guest.read()
        assert guest.status(0) == 3
        guest.close()


def test_a_guest_that_ends_without_a_word(guest: GuestPort) -> None:
    assert guest.status(0) == 134
    assert guest.status(137) == 137


@pytest.mark.parametrize("line", [b"exit\n", b"exit -1\n", b"exit 1x\n", b"exit 99999999\n", b"\n", b"\xff" * 5000])
def test_what_a_hostile_guest_says(guest: GuestPort, monitor: tuple[int, int], loop: Loop, line: bytes) -> None:
    os.write(monitor[1], line)
    for _ in range(4):
        loop.once(0)
    assert guest.exit_status is None


def test_a_signal_waits_in_the_fifo(guest: GuestPort, monitor: tuple[int, int]) -> None:
    guest.send_signal(15)
    guest.send_signal(10)
    assert os.read(monitor[0], 100) == b"signal 15\nsignal 10\n"


def test_the_terminals_size_waits_in_the_fifo(guest: GuestPort, monitor: tuple[int, int]) -> None:
    guest.resize(50, 132)
    assert os.read(monitor[0], 100) == b"size 50 132\n"


def test_a_guest_that_takes_nothing(guest: GuestPort, monitor: tuple[int, int]) -> None:
    with pytest.raises(StateError, match="takes nothing"):
        for _ in range(100_000):
            guest.send_signal(15)


def test_closing_twice(guest: GuestPort) -> None:
    guest.close()
    guest.close()
    guest.read()


def test_a_port_that_is_not_there(loop: Loop, tmp_path: Path) -> None:
    with pytest.raises(StateError):
        GuestPort(loop, str(tmp_path / "gone"))
