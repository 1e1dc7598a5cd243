"""The terminal: the pair, its way to an engine's socket, and the copying of `run`."""

from __future__ import annotations

import array
import fcntl
import os
import pty
import select
import signal
import socket
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from urunc.errors import HostError
from urunc.runtime import console


def test_a_pair_speaks_has_its_size_and_does_not_leak() -> None:
    master, slave = console.open_pty((40, 132))
    try:
        assert console.get_size(slave) == (40, 132)
        assert os.ttyname(slave).startswith("/dev/pts/")
        os.write(slave, b"out\n")
        assert os.read(master, 100) == b"out\r\n"
        for fd in (master, slave):
            assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("size", [None, (0, 0), (70000, 80)])
def test_a_size_that_says_nothing_is_left_out(size: tuple[int, int] | None) -> None:
    master, slave = console.open_pty(size)
    try:
        assert console.get_size(slave) == (0, 0)
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.root
def test_the_terminal_belongs_to_the_containers_user() -> None:
    master, slave = console.open_pty(owner=1234)
    try:
        assert os.fstat(slave).st_uid == 1234
    finally:
        os.close(master)
        os.close(slave)


def test_attach_makes_it_the_controlling_terminal() -> None:
    master, slave = console.open_pty()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            console.attach(slave)
            shown = os.ttyname(0) == os.ttyname(2) and os.tcgetpgrp(0) == os.getpid()
            os.write(1, b"yes" if shown else b"no")
            os.close(os.open("/dev/tty", os.O_RDWR))
        finally:
            os._exit(0)
    os.close(slave)
    assert os.read(master, 10) == b"yes"
    os.waitpid(pid, 0)
    os.close(master)


def receive(server: socket.socket) -> tuple[bytes, int]:
    connection, _ = server.accept()
    with connection:
        data, control, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
    assert len(control) == 1
    return data, array.array("i", control[0][2])[0]


@pytest.mark.parametrize("folder", ["short", "f" * 120])
def test_the_master_reaches_the_engine(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(tmp_path / folder, os.O_PATH)
        server.bind(f"/proc/self/fd/{here}/tty.sock")
        os.close(here)
        server.listen()
        master, slave = console.open_pty()
        console.send_master(str(tmp_path / folder / "tty.sock"), master)
        name, received = receive(server)
    os.close(master)
    assert name == b"/dev/ptmx"
    os.write(slave, b"hello")
    assert os.read(received, 10) == b"hello"
    os.close(received)
    os.close(slave)


def test_a_socket_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"cannot use the socket `.*/gone`: no such file or directory"):
        console.send_master(f"{tmp_path}/gone", 0)


def test_a_socket_that_nobody_serves_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_CONNECT_SECONDS", 1)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as filler:
        server.bind(f"{tmp_path}/tty.sock")
        server.listen(0)
        filler.connect(f"{tmp_path}/tty.sock")
        with pytest.raises(HostError, match="nobody answers at the socket"):
            console.send_master(f"{tmp_path}/tty.sock", 0)


class Outer:
    """A process that copies between a terminal of ours, as `run` would have it, and a container's terminal."""

    def __init__(self, act: Callable[[int, int], None], size: tuple[int, int] = (24, 80)) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            status = 1
            try:
                console.set_size(0, size)
                act(*console.open_pty())
                os.write(1, b"<end>")
                status = 0
            finally:
                os._exit(status)

    def read_until(self, text: bytes, seconds: float = 10) -> bytes:
        seen = b""
        deadline = time.monotonic() + seconds
        while text not in seen:
            ready, _, _ = select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} did not come, but {seen!r}"
            seen += os.read(self.terminal, 4096)
        return seen

    def end(self) -> int:
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.terminal)
        return status


def container(slave: int, *argv: str) -> int:
    """Start a program on the inner terminal, as the container's process would be."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            console.attach(slave)
            os.execvp(argv[0], argv)  # noqa: S606
        finally:
            os._exit(1)
    os.close(slave)
    return pid


def test_run_copies_both_ways_and_restores_the_terminal() -> None:
    def act(master: int, slave: int) -> None:
        before = termios.tcgetattr(0)
        container(slave, "sh", "-c", "stty size; read line; echo got $line")
        console.copy_terminal(master)
        os.write(1, b"<restored>" if termios.tcgetattr(0) == before else b"<changed>")

    outer = Outer(act, size=(33, 99))
    outer.read_until(b"33 99")
    os.write(outer.terminal, b"hello\r")
    assert b"got hello" in outer.read_until(b"<restored><end>")
    assert outer.end() == 0


def test_run_passes_keys_raw_and_follows_the_size() -> None:
    def tell(text: bytes) -> None:
        os.write(1, text)

    def act(master: int, slave: int) -> None:
        script = "trap 'stty size' WINCH; trap 'echo int; exit' INT; echo go; while :; do sleep 0.05; done"
        container(slave, "sh", "-c", script)
        console.copy_terminal(master, resized=lambda *size: tell(b"told %d, %d " % size))

    outer = Outer(act, size=(33, 99))
    assert b"told 33, 99" in outer.read_until(b"go")
    console.set_size(outer.terminal, (50, 60))
    assert b"told 50, 60" in outer.read_until(b"50 60")
    os.write(outer.terminal, b"\x03")  # not a signal here, but a key for the container's terminal
    assert b"int" in outer.read_until(b"<end>")
    assert outer.end() == 0


def test_run_ends_when_the_container_has_though_its_terminal_is_held() -> None:
    def act(master: int, slave: int) -> None:
        keep = os.dup(slave)
        container(slave, "true")
        console.copy_terminal(master, is_over=lambda: True)
        os.close(keep)

    outer = Outer(act)
    outer.read_until(b"<end>")
    assert outer.end() == 0


def test_run_goes_on_without_stdin() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
            os.dup2(writer, 1)
            master, slave = console.open_pty()
            container(slave, "sh", "-c", "sleep 0.1; echo still here")
            console.copy_terminal(master)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    assert b"still here" in os.read(reader, 100)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(reader)


def test_the_signal_handlers_are_as_before() -> None:
    before = signal.getsignal(signal.SIGWINCH)
    master, slave = console.open_pty()
    os.close(slave)
    stdin, stdout = os.dup(0), os.dup(1)
    sys.stdout.flush()
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    try:
        console.copy_terminal(master)
    finally:
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        for fd in (stdin, stdout, null, master):
            os.close(fd)
    assert signal.getsignal(signal.SIGWINCH) == before
