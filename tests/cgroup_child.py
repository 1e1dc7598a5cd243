"""Run a function in a forked child, also with a view of cgroup v2 alone, and pass its failure on."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from urunc.linux import libc

CGROUPS = "/sys/fs/cgroup"


def run(function: Callable[[], None]) -> None:
    """Run the function in a child of its own; its exception is an AssertionError here."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = b""
        try:
            os.close(ours)
            function()
        except BaseException:
            text = traceback.format_exc().encode()
        finally:
            os.write(theirs, text)
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as stream:
        text = stream.read()
    os.waitpid(pid, 0)
    assert not text, text.decode()


def run_on_v2(function: Callable[[], None]) -> None:
    """Run the function in a child that sees a cgroup v2 tree at /sys/fs/cgroup and no v1 tree."""

    def inside() -> None:
        libc.unshare(libc.CLONE_NEWNS)
        libc.mount("", "/", None, libc.MS_REC | libc.MS_PRIVATE)
        with open("/proc/self/mounts", encoding="ascii") as stream:
            points = [line.split()[1] for line in stream]
        for point in reversed(points):
            if point == CGROUPS or point.startswith(CGROUPS + "/"):
                libc.umount(point, libc.MNT_DETACH)
        libc.mount("cgroup2", CGROUPS, "cgroup2", 0)
        function()

    run(inside)


@contextmanager
def sleeper(prepare: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Give the pid of a process that waits; it is dead and reaped at the end."""
    pid = os.fork()
    if pid == 0:
        try:
            prepare()
            while True:
                signal.pause()
        finally:
            os._exit(1)
    try:
        yield pid
    finally:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
