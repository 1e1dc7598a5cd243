"""What the standard streams of a test's own child are taken for, and what a monitor is given of them."""

from __future__ import annotations

import fcntl
import os
import pty
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from inchild import run_in
from urunc.oci import spec as specs
from urunc.runtime import streams
from urunc.vm.machine import Streams


def seen(terminal: bool, *files: int) -> Streams:
    """Return what is seen where these are the descriptors 0, 1 and 2."""

    def body() -> Streams:
        for number, file in enumerate(files):
            os.dup2(file, number)
        process = {"args": ["a"], "cwd": "/", "terminal": terminal}
        document = {"ociVersion": "1.0.2", "root": {"path": "r"}, "process": process, "linux": {}}
        return streams.look(specs.parse(document))

    found: Streams = run_in((), body)
    return found


def test_pipes_null_and_terminal() -> None:
    source, sink = os.pipe()
    _, other = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    assert seen(False, source, sink, other) == Streams(stdin="port", stdout="port")
    assert seen(False, source, sink, sink) == Streams(stdin="port", stdout="port", merged=True)
    assert seen(False, null, sink, other) == Streams(stdin="null", stdout="port")
    assert seen(False, sink, sink, other) == Streams(stdin="null", stdout="port")  # nothing can be read of it
    assert seen(True, null, null, null) == Streams()
    for fd in (source, sink, other, _, null):
        os.close(fd)


@pytest.mark.parametrize(("which", "name"), [(1, "standard output"), (2, "standard error")])
def test_an_output_that_is_only_read_is_an_error(which: int, name: str) -> None:
    null, reading = os.open("/dev/null", os.O_RDWR), os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(AssertionError, match=f"{name} is open for reading only"):
        seen(False, *(reading if number == which else null for number in range(3)))
    os.close(null)
    os.close(reading)


@pytest.mark.parametrize("which", [1, 2])
def test_a_socket_has_the_console(which: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        files = [theirs.fileno() if number == which else null for number in range(3)]
        assert seen(False, *files) == Streams(stdin="null")
        assert seen(False, theirs.fileno(), *files[1:]) == Streams(stdin="console")
    os.close(null)


def given(file: int, then: Callable[[int], object]) -> object:
    """Return what `then` says of the descriptor that a monitor is given where this one is standard output."""

    def body() -> object:
        os.dup2(file, 1)
        return then(streams.output(1))

    return run_in((), body)


def test_a_pipe_is_opened_anew() -> None:
    source, sink = os.pipe()
    given(sink, lambda fd: os.set_blocking(fd, False))
    assert os.get_blocking(sink)
    given(sink, lambda fd: os.write(fd, b"x"))
    assert os.read(source, 9) == b"x"
    os.close(source)
    os.close(sink)


def test_a_pipe_that_nobody_reads_is_given_as_it_is() -> None:
    source, sink = os.pipe()
    os.close(source)
    assert given(sink, lambda fd: fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE) == os.O_WRONLY
    os.close(sink)


def test_a_file_goes_on_where_the_container_ended(tmp_path: Path) -> None:
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    os.write(file, b"one ")
    given(file, lambda fd: os.write(fd, b"two "))
    os.write(file, b"three")
    os.close(file)
    assert (tmp_path / "log").read_bytes() == b"one two three"


def test_a_file_open_for_both_is_appended_to(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"before ")
    file = os.open(tmp_path / "log", os.O_RDWR)
    given(file, lambda fd: os.write(fd, b"after"))
    assert given(file, lambda fd: fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE) == os.O_WRONLY
    os.close(file)
    assert (tmp_path / "log").read_bytes() == b"before after"


def parted(*files: int) -> tuple[int, bool]:
    """Return the kind of descriptor 0 afterwards, and whether 1 is non-blocking for others once it is for us."""

    def body() -> tuple[int, bool]:
        for number, file in enumerate(files):
            os.dup2(file, number)
        streams.part()
        os.set_blocking(1, False)
        return os.fstat(0).st_rdev, os.get_blocking(files[1])

    found: tuple[int, bool] = run_in((), body)
    return found


def test_a_terminal_stays_with_those_who_have_it() -> None:
    """Its keys are for the shell that we were started from."""
    master, slave = pty.openpty()
    assert parted(slave, slave) == (os.makedev(1, 3), True)
    os.close(master)
    os.close(slave)


def test_a_pipe_stays_blocking_for_others() -> None:
    source, sink = os.pipe()
    assert parted(source, sink) == (0, True)
    os.close(source)
    os.close(sink)


def test_a_fifo_that_nobody_reads_stays_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    sink = os.open(tmp_path / "fifo", os.O_WRONLY)
    os.close(reader)
    assert parted(sink, sink) == (0, False)
    os.close(sink)


def test_a_pipe_of_ones_own_blocks_as_before() -> None:
    source, sink = os.pipe()

    def body() -> list[bool]:
        os.dup2(source, 0)
        os.dup2(sink, 1)
        streams.part()
        blocking = [os.get_blocking(0), os.get_blocking(1)]
        os.set_blocking(0, False)
        return [*blocking, os.get_blocking(source)]

    assert run_in((), body) == [True] * 3
    os.close(source)
    os.close(sink)
