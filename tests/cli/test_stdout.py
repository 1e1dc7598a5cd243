"""Standard output and error of a Linux guest: octet by octet, each by itself, and all of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bundles import Bundle
from driver import CONFIG, PATIENCE, Cli, printed, running
from world import wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.mark.parametrize("machine", ["q35", "microvm"])
def test_every_octet_comes_back(cli: Cli, make_small_linux: Callable[..., Bundle], machine: str) -> None:
    cli.config.write_text(CONFIG + f'machine = "{machine}"\n')
    data = bytes(range(256)) * 4 + os.urandom(6 << 20)
    assert printed(cli, make_small_linux("cat"), subprocess.PIPE, data) == data


def test_output_and_error_are_apart_and_no_terminals(cli: Cli, make_small_linux: Callable[..., Bundle]) -> None:
    script = "echo out; echo error >&2; for n in 0 1 2; do [ -t $n ] && echo terminal $n; done"
    script += "; echo again >/dev/stdout; echo again too >/dev/stderr; urunc-none"
    bundle = make_small_linux(script)
    bundle.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    with running(cli, bundle, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as runner:
        out, error = runner.communicate(timeout=PATIENCE)
    assert (runner.returncode, out) == (127, b"out\nagain\n")
    assert b"error\nagain too\n/bin/sh: urunc-none: not found\n" in error


def test_what_the_init_says_is_no_output(cli: Cli, make_small_linux: Callable[..., Bundle]) -> None:
    bundle = make_small_linux("")
    bundle.config["process"]["args"] = ["/none"]
    with running(cli, bundle, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as runner:
        out, error = runner.communicate(timeout=PATIENCE)
    assert (runner.returncode, out) == (127, b"")
    assert b"urunc-init: cannot run `/none`: no such file or directory\n" in error


def test_one_file_for_both_keeps_their_order(cli: Cli, make_small_linux: Callable[..., Bundle]) -> None:
    bundle = make_small_linux("i=0; while [ $i -lt 100 ]; do echo $i; echo $((i+1)) >&2; i=$((i+2)); done")
    status, console = cli.run("guest", bundle)
    assert (status, console.split()) == (0, [str(number) for number in range(100)])


def test_a_late_reader_misses_nothing(cli: Cli, make_small_linux: Callable[..., Bundle]) -> None:
    """The application has ended by then: what the pipe does not hold waits in the guest."""
    script = "busybox seq 1 24000; echo done >/dev/console"
    with running(cli, make_small_linux(script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None and runner.stderr is not None
        assert runner.stderr.readline() == b"done\n"
        out = runner.stdout.read()
        assert runner.wait(PATIENCE) == 0
    assert out.split() == [b"%d" % number for number in range(1, 24001)]


@pytest.mark.parametrize("stop", [True, False], ids=["a stop", "the reader gone"])
def test_what_ends_a_machine_that_waits_for_its_reader(
    cli: Cli, make_small_linux: Callable[..., Bundle], stop: bool
) -> None:
    """It has nothing left to do, and would wait for ten minutes."""
    script = "busybox seq 1 24000; echo done >/dev/console"
    with running(cli, make_small_linux(script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None and runner.stderr is not None
        assert runner.stderr.readline() == b"done\n"
        if stop:
            cli("kill", "guest", "TERM")
        else:
            runner.stdout.close()
        assert runner.wait(PATIENCE) == 0


def test_a_reader_that_goes_ends_its_writer(cli: Cli, make_small_linux: Callable[..., Bundle]) -> None:
    """As in `urunc run .. | head -1`, in which the writer ends by SIGPIPE."""
    bundle = make_small_linux("busybox yes; echo $? >&2")
    with running(cli, bundle, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == b"y\n"
        runner.stdout.close()
        assert runner.wait(PATIENCE) == 0
        assert runner.stderr is not None
        assert b"\n141\n" in b"\n" + runner.stderr.read()


def test_who_shares_a_pipe_finds_it_as_it_was(cli: Cli, make_small_linux: Callable[..., Bundle]) -> None:
    """As in `(urunc run ..; cat file) | less`."""
    ends = [os.pipe() for _stream in range(3)]
    (source, feed), (_, out), (_, error) = ends
    with running(cli, make_small_linux("echo; sleep 0.5"), stdin=source, stdout=out, stderr=error) as runner:
        os.close(feed)
        assert os.read(ends[1][0], 1) == b"\n"
        assert os.get_blocking(error)
        assert runner.wait(PATIENCE) == 0
    assert [os.get_blocking(fd) for fd in (source, out, error)] == [True] * 3
    for fd in (source, *ends[1], *ends[2]):
        os.close(fd)


def test_files(cli: Cli, make_small_linux: Callable[..., Bundle], tmp_path: Path) -> None:
    """As in a shell script, whose next program writes behind what the container has written."""
    target = tmp_path / "out"
    target.write_bytes(b"before\n")
    with target.open("wb") as stdout:
        os.write(stdout.fileno(), b"first\n")
        bundle = make_small_linux("echo second")
        with running(cli, bundle, stdin=subprocess.DEVNULL, stdout=stdout) as runner:
            wait_for("the end", lambda: runner.poll() is not None, PATIENCE)
        os.write(stdout.fileno(), b"third\n")
    assert target.read_bytes() == b"first\nsecond\nthird\n"
