"""Streams: fifos, files, loggers and terminals; what is kept, what is let go, and when the end is seen."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc.errors import HostError
from urunc.shim.children import Children
from urunc.shim.io import Owner, Streams, _unquote, logger_argv, open_streams
from urunc.shim.loop import Loop
from urunc.shim.pump import Pump
from urunc.shim.work import await_logger

Serve = Callable[[Callable[[], object]], None]
OWNER = Owner("default", "web")


@pytest.fixture
def fifos(tmp_path: Path) -> dict[str, str]:
    paths = {name: str(tmp_path / name) for name in ("stdin", "stdout", "stderr")}
    for path in paths.values():
        os.mkfifo(path)
    return paths


@pytest.fixture
def opened(loop: Loop, children: Children) -> Iterator[Callable[..., Streams]]:
    """Open streams of a request; whatever is open at the end is closed."""
    found: list[Streams] = []

    def open_(**request: Any) -> Streams:
        whole = {"stdin": "", "stdout": "", "stderr": "", "terminal": False} | request
        found.append(open_streams(loop, children, whole, OWNER))
        return found[-1]

    before = set(os.listdir("/proc/self/fd"))
    yield open_
    for streams in found:
        streams.close()
    assert set(os.listdir("/proc/self/fd")) == before


def reader_of(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def read_all(fd: int) -> bytes:
    """Return what is there; the end of the stream is marked."""
    data = b""
    while True:
        try:
            part = os.read(fd, 1 << 20)
        except BlockingIOError:
            return data
        if not part:
            return data + b"<end>"
        data += part


class TestFifos:
    """A process that writes to containerd's fifos itself."""

    def test_the_process_writes_and_the_end_is_seen(self, opened: Any, fifos: dict[str, str]) -> None:
        streams = opened(**fifos)
        reader = reader_of(fifos["stdout"])
        os.write(streams.child[1], b"hello")
        streams.close_child()
        assert read_all(reader) == b"hello"
        streams.process_ended()
        assert read_all(reader) == b"<end>"
        os.close(reader)

    def test_a_reader_that_goes_away_and_comes_back_loses_nothing(
        self, opened: Any, fifos: dict[str, str], serve_until: Serve
    ) -> None:
        streams = opened(**fifos)
        os.close(reader_of(fifos["stdout"]))
        os.write(streams.child[1], b"x" * 65536)
        streams.close_child()
        streams.process_ended()
        reader = reader_of(fifos["stdout"])
        assert read_all(reader) == b"x" * 65536
        serve_until(lambda: not streams._held)
        assert read_all(reader) == b"<end>"
        os.close(reader)

    def test_the_process_can_open_its_output_without_a_reader(self, opened: Any, fifos: dict[str, str]) -> None:
        streams = opened(stdout=fifos["stdout"])
        assert os.write(streams.child[1], b"x") == 1
        assert streams.child[0] == streams.child[2] == -1
        assert os.get_blocking(streams.child[1])

    def test_input_ends_only_once_it_is_closed(self, opened: Any, fifos: dict[str, str]) -> None:
        streams = opened(**fifos)
        client = os.open(fifos["stdin"], os.O_WRONLY)
        os.write(client, b"typed")
        os.close(client)
        os.set_blocking(streams.child[0], False)
        assert read_all(streams.child[0]) == b"typed"
        streams.close_stdin()
        assert read_all(streams.child[0]) == b"<end>"

    @pytest.mark.root
    def test_they_are_given_to_a_user(self, loop: Loop, children: Children, fifos: dict[str, str]) -> None:
        owner = Owner("default", "web", 1000, 100)
        open_streams(loop, children, {**fifos, "terminal": False}, owner).close()
        assert {(os.stat(path).st_uid, os.stat(path).st_gid) for path in fifos.values()} == {(1000, 100)}

    def test_deleting_gives_up_what_nobody_reads(self, opened: Any, fifos: dict[str, str], loop: Loop) -> None:
        streams = opened(**fifos)
        os.write(streams.child[1], b"unread")
        streams.close_child()
        streams.process_ended()
        assert streams._held
        streams.close()
        loop.once(0.02)
        assert not streams._held


class TestFiles:
    """`file://` URIs."""

    def test_both_streams_append_to_one_file(self, opened: Any, tmp_path: Path) -> None:
        path = tmp_path / "new" / "a log"
        (tmp_path / "new").mkdir()
        path.write_text("before\n")
        uri = f"file://{str(path).replace(' ', '%20')}"
        streams = opened(stdout=uri, stderr=uri)
        os.write(streams.child[1], b"out\n")
        os.write(streams.child[2], b"err\n")
        assert path.read_text() == "before\nout\nerr\n"

    def test_folders_are_made(self, opened: Any, tmp_path: Path) -> None:
        opened(stdout=f"file://{tmp_path}/a/b/log")
        assert (tmp_path / "a/b/log").exists()


class TestLoggers:
    """`binary://` URIs, by containerd's contract: descriptors 3 to 5, two variables, keys and values."""

    @pytest.fixture
    def logger(self, tmp_path: Path) -> Path:
        script = tmp_path / "logger"
        script.write_text(
            "#!/bin/sh\n"
            f'echo "$CONTAINER_NAMESPACE $CONTAINER_ID $*" > {tmp_path}/facts\n'
            "exec 5>&-\n"
            f"cat <&3 > {tmp_path}/out\ncat <&4 > {tmp_path}/err\ntouch {tmp_path}/done\n"
        )
        script.chmod(0o755)
        return script

    def test_what_is_written_reaches_the_logger(
        self, opened: Any, logger: Path, tmp_path: Path, serve_until: Serve
    ) -> None:
        streams = opened(stdout=f"binary://{logger}?key=a%20value&flag")
        await_logger(streams.ready, streams.strict)
        os.write(streams.child[1], b"to out")
        os.write(streams.child[2], b"to err")
        streams.close_child()
        streams.process_ended()
        serve_until((tmp_path / "done").exists)
        assert (tmp_path / "facts").read_text().rstrip() == "default web key a value flag"
        assert (tmp_path / "out").read_text() == "to out"
        assert (tmp_path / "err").read_text() == "to err"

    def test_a_logger_that_dies_first(self, opened: Any, tmp_path: Path) -> None:
        streams = opened(stdout="binary-v2:///bin/false")
        with pytest.raises(HostError, match="before it was ready"):
            await_logger(streams.ready, streams.strict)

    def test_a_logger_that_is_not_there(self, opened: Any, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for name in ("missing", "file"):
            with pytest.raises(HostError, match=f"cannot run the logger `{tmp_path}/{name}`"):
                opened(stdout=f"binary://{tmp_path}/{name}")

    def test_a_logger_that_says_nothing(
        self, opened: Any, tmp_path: Path, monkeypatch: Any, serve_until: Serve
    ) -> None:
        script = tmp_path / "mute"
        script.write_text("#!/bin/sh\nexec sleep 60\n")
        script.chmod(0o755)
        monkeypatch.setattr("urunc.shim.work.READY_SECONDS", 0.01)
        monkeypatch.setattr("urunc.shim.io._LOGGER_GRACE", 0.0)
        streams = opened(stdout=f"binary://{script}")
        with pytest.raises(HostError, match="said nothing"):
            await_logger(streams.ready, streams.strict)
        streams.close()
        serve_until(lambda: not streams._logger)

    def test_arguments(self) -> None:
        assert logger_argv("binary:///bin/x") == ["/bin/x"]
        assert logger_argv("binary:///bin/a%20b?k=v&k=w&l=1+2&m") == ["/bin/a b", "k", "v", "l", "1 2", "m", ""]

    @given(st.text())
    def test_unquoting_takes_anything(self, text: str) -> None:
        assert "%" in text or _unquote(text) == text


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"stdout": "/nowhere/fifo"}, "no such file"),
        ({"stdout": "ftp://x"}, "scheme"),
        ({"stdin": "/nowhere"}, "no such"),
    ],
)
def test_streams_that_cannot_be_opened(opened: Any, request_: dict[str, str], message: str) -> None:
    with pytest.raises(HostError, match=message):
        opened(**request_)


class TestTerminals:
    """A terminal's master, copied to and from fifos."""

    @pytest.fixture
    def terminal(self) -> Iterator[tuple[int, int]]:
        master, slave = pty.openpty()
        tty.setraw(slave)
        yield master, slave
        os.close(slave)

    def test_both_ways(self, opened: Any, fifos: dict[str, str], terminal: tuple[int, int], serve_until: Serve) -> None:
        streams = opened(**fifos, terminal=True)
        assert streams.child == [-1, -1, -1]
        streams.attach(terminal[0])
        reader, writer = reader_of(fifos["stdout"]), os.open(fifos["stdin"], os.O_WRONLY)
        os.write(terminal[1], b"shown")
        os.write(writer, b"typed")
        seen = bytearray()
        serve_until(lambda: seen.extend(read_all(reader)) or seen == b"shown")
        os.set_blocking(terminal[1], False)
        serve_until(lambda: seen.extend(read_all(terminal[1])) or seen == b"showntyped")
        os.close(reader)
        os.close(writer)

    def test_streams_that_are_none(self, opened: Any, fifos: dict[str, str], terminal: tuple[int, int]) -> None:
        """What is not there is an error while nothing is made yet; what cannot be copied does not stop the shim."""
        with pytest.raises(HostError, match="no such file"):
            opened(**{**fifos, "stdin": "/nowhere/fifo"}, terminal=True)
        opened(**{**fifos, "stdin": "/dev/null"}, terminal=True).attach(os.dup(terminal[0]))
        streams = opened(**fifos, terminal=True)
        os.unlink(fifos["stdin"])
        streams.attach(terminal[0])
        streams.resize(80, 24)

    def test_size(self, opened: Any, fifos: dict[str, str], terminal: tuple[int, int]) -> None:
        streams = opened(**fifos, terminal=True)
        streams.resize(10, 10)
        streams.attach(terminal[0])
        streams.resize(132, 50)
        size = fcntl.ioctl(terminal[1], termios.TIOCGWINSZ, bytes(8))
        assert struct.unpack("HHHH", size)[:2] == (50, 132)

    def test_what_was_shown_last_is_drained(
        self, opened: Any, fifos: dict[str, str], terminal: tuple[int, int], serve_until: Serve
    ) -> None:
        streams = opened(**fifos, terminal=True)
        streams.attach(terminal[0])
        os.write(terminal[1], b"last words")
        streams.process_ended()
        reader = reader_of(fifos["stdout"])
        seen = bytearray()
        serve_until(lambda: seen.extend(read_all(reader)) or seen.endswith(b"<end>"))
        assert seen.startswith(b"last words")
        os.close(reader)

    def test_a_slow_reader_stops_the_writer_and_loses_nothing(
        self, opened: Any, fifos: dict[str, str], terminal: tuple[int, int], serve_until: Serve
    ) -> None:
        streams = opened(**fifos, terminal=True)
        streams.attach(terminal[0])
        os.set_blocking(terminal[1], False)
        written = 0

        def is_full() -> bool:
            """Write what the terminal takes; a thread of the kernel's hands it on, and may come late."""
            nonlocal written
            try:
                while True:
                    written += os.write(terminal[1], b"y" * 4096)
            except BlockingIOError:
                return len(streams._pumps[0]._buffer) >= 65536

        serve_until(is_full)
        assert 2 * 65536 <= written < 400_000
        reader = reader_of(fifos["stdout"])
        streams.process_ended()
        seen = bytearray()
        serve_until(lambda: seen.extend(read_all(reader)) or seen.endswith(b"<end>"))
        assert seen.count(b"y") == written
        os.close(reader)

    def test_a_terminal_with_a_logger(
        self, opened: Any, tmp_path: Path, terminal: tuple[int, int], serve_until: Serve
    ) -> None:
        script = tmp_path / "logger"
        script.write_text(f"#!/bin/sh\nexec 5>&-\ncat <&3 > {tmp_path}/out\ntouch {tmp_path}/done\n")
        script.chmod(0o755)
        streams = opened(stdout=f"binary://{script}", terminal=True)
        streams.close_child()
        streams.attach(terminal[0])
        os.write(terminal[1], b"shown")
        streams.process_ended()
        serve_until((tmp_path / "done").exists)
        assert (tmp_path / "out").read_bytes() == b"shown"

    def test_without_output_the_terminal_is_still_emptied(
        self, opened: Any, terminal: tuple[int, int], serve_until: Serve
    ) -> None:
        streams = opened(terminal=True)
        streams.attach(terminal[0])
        os.set_blocking(terminal[1], False)
        sent = 0
        while sent < 100_000:  # a terminal holds 4 kB, and hands them on when the kernel finds the time
            try:
                sent += os.write(terminal[1], b"z" * 1000)
            except BlockingIOError:
                streams._loop.once(0.05)
        streams.process_ended()
        assert streams._pumps[0].closed


def test_a_pump_whose_sink_is_gone_swallows_the_rest(loop: Loop, serve_until: Serve) -> None:
    source, sink = os.pipe(), os.pipe()
    ends: list[bool] = []
    Pump(loop, source[0], sink[1], lambda: ends.append(True))
    os.close(sink[0])
    os.write(source[1], b"x" * 60000)
    loop.once(0.01)
    os.write(source[1], b"x" * 60000)
    os.close(source[1])
    serve_until(lambda: ends)
