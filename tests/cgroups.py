"""Cgroups and processes for tests: paths that no other test has, children that sleep or eat, a view of v2 alone."""

from __future__ import annotations

import itertools
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from urunc.linux import cgroup, cgroup_files, cgroup_layout, libc
from urunc.oci.cgroup_path import CgroupPath

CGROUPS = "/sys/fs/cgroup"
MIB = 1024 * 1024
Paths = dict[str, str]

_count = itertools.count()


def new_paths(suffix: str = "") -> Paths:
    """Return paths below a parent that no other test has."""
    name = f"/urunc-test-{os.getpid()}-{next(_count)}"
    return cgroup_layout.paths(cgroup_layout.detect(), CgroupPath(driver="cgroupfs", path=name + suffix))


def wipe(paths: Paths) -> None:
    """Kill what is in the cgroup, and remove it."""
    cgroup.kill_all(paths)
    cgroup.remove(paths)


def need(paths: Paths, controller: str) -> str:
    """Return the controller's directory; skip where the host does not have it."""
    if cgroup_files.version_of(paths) == 1:
        if controller not in paths:
            pytest.skip(f"no {controller} controller on this host")
        return paths[controller]
    with open(f"{CGROUPS}/cgroup.controllers", encoding="ascii") as stream:
        if controller not in (*stream.read().split(), "freezer", "devices"):
            pytest.skip(f"no {controller} controller on this host")
    return paths[""]


def text(path: str) -> str:
    """Return a cgroup file's text."""
    with open(path, encoding="ascii") as stream:
        return stream.read().strip()


def run(function: Callable[[], None]) -> None:
    """Run the function in a child of its own; its exception is an AssertionError here."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        failure = b""
        try:
            os.close(ours)
            function()
        except BaseException:
            failure = traceback.format_exc().encode()
        finally:
            os.write(theirs, failure)
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as stream:
        failure = stream.read()
    os.waitpid(pid, 0)
    assert not failure, failure.decode()


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


def on_v2(check: Callable[[Paths], None]) -> None:
    """Run the check with the paths of a cgroup in a view of v2 alone, and see that nothing of it is left."""

    def inside() -> None:
        found = new_paths("/web")
        assert list(found) == [""]
        try:
            check(found)
        finally:
            wipe(found)
        assert not os.path.exists(os.path.dirname(found[""]))

    run_on_v2(inside)


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


@contextmanager
def eater(size: int) -> Iterator[tuple[int, Callable[[], None]]]:
    """Give the pid of a process that takes so many bytes of memory once it is told, and what tells it."""
    reading, writing = os.pipe()

    def eat() -> None:
        os.read(reading, 1)
        _ = bytearray(os.urandom(1) * size)

    def tell() -> None:
        os.write(writing, b"x")

    try:
        with sleeper(eat) as pid:
            yield pid, tell
    finally:
        os.close(reading)
        os.close(writing)


def end_of(pid: int) -> int:
    """Wait for the end of a child and return its exit status, or the negative number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
