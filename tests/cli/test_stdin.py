"""Standard input of a Linux guest: every octet comes, at the pace of its reader, and so does its end."""

from __future__ import annotations

import hashlib
import os
import pty
import socket
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from bundles import Bundle
from driver import CONFIG, PATIENCE, Cli, printed, running
from world import wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.mark.parametrize("machine", ["q35", "microvm"])
def test_every_octet_and_the_end(cli: Cli, make_small_linux: Callable[..., Bundle], machine: str) -> None:
    """More than all that lies between takes, and most of it before the guest's kernel has started."""
    cli.config.write_text(CONFIG + f'machine = "{machine}"\n')
    data = bytes(range(256)) * 4 + os.urandom(6 << 20)
    first, rest = hashlib.sha256(data[:100000]).hexdigest(), hashlib.sha256(data[100000:]).hexdigest()
    script = "sleep 0.5; dd bs=1000 count=100 iflag=fullblock | busybox sha256sum; sleep 0.5; busybox sha256sum"
    out = printed(cli, make_small_linux(f"({script}) 2>/dev/null"), subprocess.PIPE, data)
    assert out.decode().replace("  -", "").split()[-2:] == [first, rest]


def test_it_is_a_pipe(cli: Cli, make_small_linux: Callable[..., Bundle]) -> None:
    """What a script does with one: it opens it again, and leaves the rest to the next program."""
    script = "read line; echo $line; cat /dev/stdin; [ -p /dev/stdin ] && echo end"
    bundle = make_small_linux(script)
    bundle.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    assert printed(cli, bundle, subprocess.PIPE, b"one\ntwo\nthree") == b"one\ntwo\nthreeend\n"


def test_no_input_is_the_null_device(cli: Cli, make_small_linux: Callable[..., Bundle]) -> None:
    bundle = make_small_linux("ls -l /proc/self/fd/0; cat; echo end")
    assert printed(cli, bundle, subprocess.DEVNULL).decode().split()[-3:] == ["->", "/dev/null", "end"]


def test_a_closed_input_is_the_null_device(cli: Cli, make_small_linux: Callable[..., Bundle]) -> None:
    argv = cli.argv("run", f"--bundle={make_small_linux('cat; echo end').write()}", "guest")
    done = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", *argv], check=True, stdout=subprocess.PIPE, env=cli.env)
    assert done.stdout == b"end\n"


def test_an_empty_input_ends(cli: Cli, make_small_linux: Callable[..., Bundle]) -> None:
    assert printed(cli, make_small_linux("cat; echo end"), subprocess.PIPE) == b"end\n"


def test_files(cli: Cli, make_small_linux: Callable[..., Bundle], tmp_path: Path) -> None:
    """As in a shell script: input from one, output behind what stands in the other, which may be open for reading."""
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(b"a\0b")
    target.write_bytes(b"before\n")
    with source.open("rb") as stdin, target.open("r+b") as stdout:
        stdout.seek(0, os.SEEK_END)
        with running(cli, make_small_linux("busybox wc -c"), stdin=stdin, stdout=stdout) as runner:
            assert runner.wait(PATIENCE) == 0
    assert target.read_bytes() == b"before\n3\n"


def test_a_writer_that_comes_back(cli: Cli, make_small_linux: Callable[..., Bundle], tmp_path: Path) -> None:
    """A fifo that somebody holds open, as containerd's: it ends when all have let go."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    holder = os.open(path, os.O_RDWR)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    script = "read a; echo $a; read a; echo $a; cat; echo end"
    with running(cli, make_small_linux(script), stdin=reader, stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        os.close(reader)
        for word in (b"one\n", b"two\n"):
            path.write_bytes(word)
            assert runner.stdout.readline() == word
        os.close(holder)
        assert runner.stdout.readline() == b"end\n"
        assert runner.wait(PATIENCE) == 0


def test_who_reads_no_more_hears_no_more(cli: Cli, make_small_linux: Callable[..., Bundle]) -> None:
    """Neither an application that has closed its input nor one that ends waits for what nobody wants."""
    reader, writer = os.pipe()
    os.write(writer, b"x" * 65536)
    try:
        with running(
            cli, make_small_linux("exec <&-; echo closed; exit 3"), stdin=reader, stdout=subprocess.DEVNULL
        ) as runner:
            assert runner.wait(PATIENCE) == 3
    finally:
        os.close(reader)
        os.close(writer)


def test_a_socket_is_the_consoles(cli: Cli, make_small_linux: Callable[..., Bundle]) -> None:
    """Nothing but a console that reads as well can be had of one: so input is a serial line's, and has no end."""
    ours, theirs = socket.socketpair()
    with ours, running(cli, make_small_linux("echo up; read a; echo got $a"), stdin=theirs, stdout=theirs) as runner:
        theirs.close()
        ours.settimeout(PATIENCE)
        lines = ours.makefile("rb")
        assert lines.readline() == b"up\n"
        ours.sendall(b"word\n")
        assert lines.readline() == b"got word\n"
        assert runner.wait(PATIENCE) == 0
        lines.close()


def test_output_to_a_socket(cli: Cli, make_small_linux: Callable[..., Bundle]) -> None:
    """As a service of systemd's, whose output goes to the journal, which sends nothing back."""
    ours, theirs = socket.socketpair()
    ours.shutdown(socket.SHUT_WR)
    script = "echo up; cat; echo error >&2"
    with ours, theirs, running(cli, make_small_linux(script), stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs):
        theirs.close()
        ours.settimeout(PATIENCE)
        assert ours.makefile("rb").read().endswith(b"up\nerror\n")


def test_a_terminal_is_not_the_monitors(cli: Cli, make_small_linux: Callable[..., Bundle]) -> None:
    """Of a container without one, started at a shell: lines as typed, echo, and Ctrl-C is the container's end."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    argv = ["setsid", "--ctty", *cli.argv("run", f"--bundle={make_small_linux('echo up; exec cat').write()}", "guest")]
    runner = subprocess.Popen(argv, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=cli.env)
    try:
        assert runner.stdout is not None
        assert runner.stdout.readline() == b"up\n"
        assert termios.tcgetattr(slave) == before
        os.write(master, b"word\r")
        assert runner.stdout.readline() == b"word\n"
        os.write(master, b"\x03")
        runner.communicate(timeout=PATIENCE)
        wait_for("the container's end", lambda: not cli("list", "--quiet").stdout, PATIENCE)
    finally:
        runner.kill()
        os.close(master)
        os.close(slave)


def test_a_created_container_leaves_the_terminal_to_its_shell(
    cli: Cli, make_small_linux: Callable[..., Bundle], tmp_path: Path
) -> None:
    """Nobody stays to pass on what is typed: it is the shell's, and the input has ended."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    argv = cli.argv("run", "--detach", f"--bundle={make_small_linux('cat; echo end').write()}", "guest")
    with (tmp_path / "out").open("wb") as out:
        subprocess.run(argv, check=True, stdin=slave, stdout=out, stderr=out, env=cli.env)
    os.write(master, b"for the shell\r")
    cli.wait_status("guest", "stopped")
    assert (tmp_path / "out").read_bytes() == b"end\n"
    assert (termios.tcgetattr(slave), os.read(slave, 99)) == (before, b"for the shell\n")
    os.close(master)
    os.close(slave)
