"""Terminals: the master's end goes to `--console-socket` (runc's terminals.md). Proved on runc."""

from __future__ import annotations

import array
import os
import select
import socket
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundles import Bundle
from driver import Cli

pytestmark = pytest.mark.root


class ConsoleSocket:
    """What an engine listens on: one connection, one message with the terminal's name and its master end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(1)
        self._socket.settimeout(20)

    def receive(self) -> int:
        """Return the master's descriptor."""
        connection, _ = self._socket.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
        fds = array.array("i")
        fds.frombytes(ancillary[0][2])
        return fds[0]

    def close(self) -> None:
        """Close it."""
        self._socket.close()


@pytest.fixture
def console(tmp_path: Path) -> Iterator[ConsoleSocket]:
    """A console socket."""
    made = ConsoleSocket(tmp_path / "console.sock")
    yield made
    made.close()


def read_until(fd: int, text: bytes, seconds: float = 20) -> bytes:
    """Return what the terminal shows, once `text` is in it."""
    seen = b""
    deadline = time.monotonic() + seconds
    while text not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([fd], [], [], 0.2)[0]:
            seen += os.read(fd, 4096)
    return seen


@pytest.fixture
def talker(is_runc: bool, request: pytest.FixtureRequest) -> Bundle:
    """A container with a terminal that says `ready` and then answers each line."""
    if is_runc:
        script = "echo ready; while read line; do echo console: $line; done"
        bundle: Bundle = request.getfixturevalue("make_ordinary")("sh", "-c", script)
    else:
        bundle = request.getfixturevalue("make_unikernel")()
    bundle.config["process"]["terminal"] = True
    bundle.config["process"]["consoleSize"] = {"height": 33, "width": 99}
    return bundle


def test_a_terminal_by_socket(cli: Cli, talker: Bundle, console: ConsoleSocket) -> None:
    cli.create("talker", talker, f"--console-socket={console.path}")
    master = console.receive()
    try:
        cli("start", "talker")
        read_until(master, b"ready")
        os.write(master, b"hello\n")
        read_until(master, b"console: hello")
    finally:
        os.close(master)


def test_the_terminals_size(cli: Cli, talker: Bundle, console: ConsoleSocket) -> None:
    cli.create("talker", talker, f"--console-socket={console.path}")
    master = console.receive()
    try:
        assert termios.tcgetwinsize(master) == (33, 99)
    finally:
        os.close(master)


@pytest.mark.parametrize("options", [(), ("--console-socket=/no/such/socket",)], ids=["none", "missing"])
def test_a_terminal_with_nobody_to_take_it(cli: Cli, talker: Bundle, options: tuple[str, ...]) -> None:
    assert cli.create("talker", talker, *options, check=False) != 0
    assert cli("list", "--quiet").stdout == ""


def test_a_console_socket_without_a_terminal(
    cli: Cli, make_bundle: Callable[[], Bundle], console: ConsoleSocket
) -> None:
    assert cli.create("talker", make_bundle(), f"--console-socket={console.path}", check=False) != 0


def test_the_engine_closes_its_end(cli: Cli, talker: Bundle, console: ConsoleSocket) -> None:
    """The container goes on, or ends: but it can be deleted, and nothing is left."""
    cli.create("talker", talker, f"--console-socket={console.path}")
    os.close(console.receive())
    cli("start", "talker", check=False)
    cli("kill", "talker", "KILL", check=False)
    cli.wait_status("talker", "stopped")


def test_a_pidfd_of_the_process_is_sent(
    cli: Cli, make_unikernel: Callable[..., Bundle], console: ConsoleSocket, is_runc: bool
) -> None:
    if is_runc:
        pytest.skip("runc has --pidfd-socket from 1.2 on, Debian 12's has not")
    cli.create("box", make_unikernel(), "--pidfd-socket", console.path)
    pidfd = console.receive()
    try:
        cli("kill", "box", "KILL")
        assert select.select([pidfd], [], [], 10)[0], "the descriptor does not tell the process's end"
    finally:
        os.close(pidfd)
    cli.wait_status("box", "stopped")
    cli("delete", "box")
