"""What is typed at a terminal of a test's own comes through the pipe, and the terminal stays as it was."""

from __future__ import annotations

import os
import pty
import termios
from collections.abc import Callable, Iterator

import pytest

from inchild import run_in
from urunc.runtime.keyboard import Keyboard


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The master's and the slave's end."""
    ends = pty.openpty()
    yield ends
    for fd in ends:
        os.close(fd)


def at(slave: int, body: Callable[[Keyboard], object]) -> object:
    """Return what `body` returns where descriptor 0 is that file, and a keyboard's pipe by then."""

    def inside() -> object:
        os.dup2(slave, 0)
        with Keyboard() as keyboard:
            return body(keyboard)

    return run_in((), inside)


def test_lines_and_their_end(terminal: tuple[int, int]) -> None:
    master, slave = terminal
    before = termios.tcgetattr(slave)
    os.write(master, b"one\rtwo\r\x04")
    assert at(slave, lambda _keyboard: open(0, "rb", closefd=False).read()) == b"one\ntwo\n"  # noqa: SIM115
    assert termios.tcgetattr(slave) == before


def test_the_copy_ends_with_its_reader(terminal: tuple[int, int]) -> None:
    master, slave = terminal

    def inside() -> int:
        os.dup2(slave, 0)
        keyboard = Keyboard().__enter__()
        keyboard.let_go()
        os.write(master, b"for nobody\r")
        return os.waitpid(keyboard.child, 0)[1]

    assert run_in((), inside) == 0
