"""Namespaces by the specification's names: make them, join them, compare them.

Knows nothing of why a container has which; the order of several
(user first, cgroup once the cgroup was joined) is the caller's.
"""

from __future__ import annotations

import os
from errno import EINVAL, ENOENT

from ..errors import KernelError, SpecError, reason
from . import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NS_FLAGS = {
    "user": libc.CLONE_NEWUSER,
    "mount": libc.CLONE_NEWNS,
    "pid": libc.CLONE_NEWPID,
    "network": libc.CLONE_NEWNET,
    "ipc": libc.CLONE_NEWIPC,
    "uts": libc.CLONE_NEWUTS,
    "cgroup": libc.CLONE_NEWCGROUP,
    "time": libc.CLONE_NEWTIME,
}
"""The kinds of config-linux.md, "Namespaces", and the flag of each for unshare(2) and setns(2)."""

_FILES = {
    "user": "user",
    "mount": "mnt",
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "cgroup": "cgroup",
    "time": "time",
}


_LAST = ("mount", "user")


def unshare(kinds: Iterable[str]) -> None:
    """Make new namespaces of these kinds in one call; pid and time wait for the next child. Raises KernelError."""
    wanted = tuple(kinds)
    flags = 0
    for kind in wanted:
        flags |= NS_FLAGS[kind]
    if not flags:
        return
    try:
        libc.unshare(flags)
    except OSError as error:
        names = ", ".join(wanted)
        hint = None
        if error.errno == EINVAL:
            hint = "the kernel lacks one of these kinds"
        raise KernelError(
            f"cannot make new namespaces ({names}): {reason(error)}", errno=error.errno or 0, hint=hint
        ) from None


def join(path: str, kind: str) -> None:
    """Join the namespace at `path`, which must be one of that kind (config-linux.md, "Namespaces": else an error).

    Raises SpecError where there is no namespace of the kind at the path, KernelError where joining is refused.
    """
    join_all(((kind, path),))


def join_all(joins: Iterable[tuple[str, str]]) -> None:
    """Join several namespaces, (kind, path) each. Raises as `join` does.

    All are opened first: a path need not lead anywhere in the mount namespace that is joined. The user namespace
    comes last, since the others belong to the host's as a rule, and the right to join them is lost with it.
    """
    opened: list[tuple[str, str, int]] = []
    try:
        for kind, path in sorted(joins, key=lambda item: _LAST.index(item[0]) if item[0] in _LAST else -1):
            opened.append((kind, path, _open(path, kind)))
        for kind, path, fd in opened:
            _enter(fd, path, kind)
    finally:
        for _, _, fd in opened:
            os.close(fd)


def _open(path: str, kind: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        why = "there is none" if error.errno == ENOENT else reason(error)
        raise SpecError(f"linux.namespaces: cannot join the {kind} namespace `{path}`: {why}") from None


def _enter(fd: int, path: str, kind: str) -> None:
    try:
        libc.setns(fd, NS_FLAGS[kind])
    except OSError as error:
        if error.errno == EINVAL:
            raise SpecError(f"linux.namespaces: `{path}` is not a {kind} namespace that can be joined") from None
        message = f"cannot join the {kind} namespace `{path}`: {reason(error)}"
        raise KernelError(message, errno=error.errno or 0) from None


class inside:  # noqa: N801  # it reads as the statement it is
    """Stand in another namespace while the block lasts: `with ns.inside(path, "network"):`. Raises as `join`.

    One that is open is given by its descriptor; an error calls it as the kernel does: `net:[4026531840]`.
    """

    def __init__(self, place: str | int, kind: str) -> None:
        self._place = place
        self._kind = kind
        self._own = -1

    def __enter__(self) -> None:
        self._own = os.open(own_path(self._kind), os.O_RDONLY | os.O_CLOEXEC)
        try:
            if isinstance(self._place, int):
                _enter(self._place, os.readlink(f"/proc/self/fd/{self._place}"), self._kind)
            else:
                join(self._place, self._kind)
        except BaseException:
            os.close(self._own)
            raise

    def __exit__(self, *_: object) -> None:
        try:
            libc.setns(self._own, NS_FLAGS[self._kind])
        finally:
            os.close(self._own)


class for_next_child:  # noqa: N801  # it reads as the statement it is
    """Have children born into new namespaces of these kinds, pid or time, while the block lasts. Raises as `unshare`.

    Only one child may be born in it: once process 1 of a pid namespace has ended, the kernel refuses another.
    """

    def __init__(self, kinds: Iterable[str]) -> None:
        self._kinds = tuple(kinds)
        self._own: list[int] = []

    def __enter__(self) -> None:
        self._own = [os.open(own_path(kind), os.O_RDONLY | os.O_CLOEXEC) for kind in self._kinds]
        try:
            unshare(self._kinds)
        except BaseException:
            self._close()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            for kind, fd in zip(self._kinds, self._own, strict=True):
                libc.setns(fd, NS_FLAGS[kind])
        finally:
            self._close()

    def _close(self) -> None:
        for fd in self._own:
            os.close(fd)


def set_time_offsets(offsets: Iterable[tuple[str, int, int]]) -> None:
    """Set (clock, seconds, nanoseconds) for the time namespace that the next child will be in.

    config-linux.md, "Offset for Time Namespace"; the clocks are monotonic and boottime. Raises KernelError.
    """
    lines = "".join(f"{clock} {seconds} {nanoseconds}\n" for clock, seconds, nanoseconds in offsets)
    if not lines:
        return
    try:
        with open("/proc/self/timens_offsets", "wb", buffering=0) as file:
            file.write(lines.encode())
    except OSError as error:
        message = f"cannot set the time namespace's offsets: {reason(error)}"
        raise KernelError(message, errno=error.errno or 0) from None


def own_path(kind: str) -> str:
    """Return the path of this process's own namespace of the kind; only where /proc is mounted."""
    return f"/proc/self/ns/{_FILES[kind]}"


def identity(path: str) -> tuple[int, int]:
    """Return (device, inode) of the namespace at `path`: equal for equal namespaces. Raises OSError."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def is_hosts(path: str, kind: str) -> bool:
    """Return whether the namespace at `path` is the runtime's own. Raises OSError where there is none at the path."""
    return identity(path) == identity(own_path(kind))
