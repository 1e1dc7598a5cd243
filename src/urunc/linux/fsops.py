"""Files where somebody hostile may have a hand in the path: by descriptor, beneath a root, without following links.

Knows nothing of what the files are for. Paths handed to the functions that make things (`make_dirs`, `make_node`)
are in trees of our own; those handed to `open_in_root` and `read_in_root` are an attacker's.
"""

from __future__ import annotations

import os
import stat
from errno import EAGAIN, EFBIG, ELOOP, ENOENT, ENOSYS, ENOTDIR

from . import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_LINKS = 40  # what the kernel follows before it says ELOOP
_ATTEMPTS = 128
_KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def open_in_root(root_fd: int, path: str, flags: int = os.O_PATH) -> int:
    """Open `path` as if `root_fd` were `/`: neither `..` nor a link leads out. Return a close-on-exec descriptor.

    Raises OSError: ELOOP also for a link of /proc that leads to an open file.
    """
    resolve = libc.RESOLVE_IN_ROOT | libc.RESOLVE_NO_MAGICLINKS
    for _attempt in range(_ATTEMPTS):
        try:
            return libc.openat2(root_fd, path, flags, 0, resolve)
        except OSError as error:
            if error.errno == ENOSYS:
                return walk_in_root(root_fd, path, flags)
            if error.errno != EAGAIN:  # something was renamed while `..` was being resolved
                raise
    raise OSError(EAGAIN, os.strerror(EAGAIN), path)


def walk_in_root(root_fd: int, path: str, flags: int = os.O_PATH) -> int:
    """Do as `open_in_root`, by a walk of single components, for kernels and filters without openat2. Raises OSError."""
    stack = [os.dup(root_fd)]  # the folders from the root down to where we stand: `..` goes back, never up
    names = _components(path)
    links = 0
    try:
        while names:
            name = names.pop()
            if name == ".":
                continue
            if name == "..":
                if len(stack) > 1:
                    os.close(stack.pop())
                continue
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stack[-1])
            kind = os.fstat(fd).st_mode
            if stat.S_ISLNK(kind) and not (flags & os.O_NOFOLLOW and not names):
                links += 1
                target = _read_link(fd, links, path)
                if target.startswith("/"):
                    while len(stack) > 1:
                        os.close(stack.pop())
                names += _components(target)
                continue
            if names and not stat.S_ISDIR(kind):
                os.close(fd)
                raise OSError(ENOTDIR, os.strerror(ENOTDIR), path)
            if not names and not stat.S_ISDIR(kind):
                os.close(fd)
                return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stack[-1])
            stack.append(fd)
        return os.open(".", flags | os.O_CLOEXEC, dir_fd=stack[-1])
    finally:
        for fd in stack:
            os.close(fd)


def _components(path: str) -> list[str]:
    """Return the names in `path`, last first: a stack. One that ends in a slash must be a folder, as `path/.` must."""
    names = [name for name in reversed(path.split("/")) if name]
    return [".", *names] if path.endswith("/") else names


def _read_link(fd: int, links: int, path: str) -> str:
    try:
        if links > _LINKS:
            raise OSError(ELOOP, os.strerror(ELOOP), path)
        return os.readlink("", dir_fd=fd)
    finally:
        os.close(fd)


def read_in_root(root_fd: int, path: str, limit_bytes: int) -> bytes | None:
    """Return the content of a regular file beneath `root_fd`; None where there is none, or something else there.

    Raises OSError EFBIG where it is larger than the limit. Neither a fifo nor a device is ever opened: it is
    looked at through an O_PATH descriptor, and that same file is opened by /proc (so: before the pivot).
    """
    try:
        place = open_in_root(root_fd, path)
    except OSError as error:
        if error.errno in (ENOENT, ENOTDIR):
            return None
        raise
    try:
        if not is_regular(place):
            return None
        fd = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    finally:
        os.close(place)
    with open(fd, "rb", buffering=0) as file:
        return _read_all(file.fileno(), limit_bytes, path)


def _read_all(fd: int, limit_bytes: int, path: str) -> bytes:
    content = b""
    while chunk := os.read(fd, limit_bytes + 1 - len(content)):
        content += chunk
        if len(content) > limit_bytes:
            raise OSError(EFBIG, f"larger than {limit_bytes} bytes", path)
    return content


def is_regular(fd: int) -> bool:
    """Return whether a descriptor is a regular file's."""
    return stat.S_ISREG(os.fstat(fd).st_mode)


def may_open(status: os.stat_result, uid: int, gids: Iterable[int], *, writable: bool = False) -> bool:
    """Return whether a user without capabilities may read, or also write, a file: by its owner, group and mode."""
    wanted = 0o6 if writable else 0o4
    if status.st_uid == uid:
        return status.st_mode >> 6 & wanted == wanted
    if status.st_gid in gids:
        return status.st_mode >> 3 & wanted == wanted
    return status.st_mode & wanted == wanted


def detached_tmpfs(options: str = "") -> int:
    """Return a descriptor of a new tmpfs that is mounted nowhere yet; `options` as in tmpfs(5): `size=16m,mode=755`.

    It belongs to the caller's user namespace: device nodes work only in one made outside of any. Raises OSError.
    """
    context = libc.fsopen("tmpfs")
    try:
        for option in options.split(","):
            key, equals, value = option.partition("=")
            if equals:
                libc.fsconfig_set(context, key, value)
            elif key:
                libc.fsconfig_flag(context, key)
        libc.fsconfig_create(context)
        return libc.fsmount(context, 0, libc.MOUNT_ATTR_NOSUID)
    finally:
        os.close(context)


def make_dirs(dir_fd: int, path: str, mode: int = 0o755) -> None:
    """Make the folder at `path` below `dir_fd` and those above it, each with exactly `mode`. Raises OSError."""
    if not path or path == ".":
        return
    try:
        os.mkdir(path, mode, dir_fd=dir_fd)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_dirs(dir_fd, os.path.dirname(path.rstrip("/")), mode)
        os.mkdir(path, mode, dir_fd=dir_fd)
    os.chmod(path, mode, dir_fd=dir_fd)  # whatever umask the engine gave us


def make_file(dir_fd: int, path: str, mode: int = 0o644) -> None:
    """Make an empty file, and the folders above it, for a bind to stand on. One that is there stays as it is."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, mode, dir_fd=dir_fd)
    except FileNotFoundError:
        make_dirs(dir_fd, os.path.dirname(path))
        fd = os.open(path, flags, mode, dir_fd=dir_fd)
    os.close(fd)


def make_node(dir_fd: int, path: str, kind: str, major: int, minor: int, mode: int, uid: int, gid: int) -> None:
    """Make a device node or fifo, and the folders above it; `kind` as in config-linux.md, "Devices": c, u, b or p.

    Not possible inside a user namespace (EPERM): the parent makes the nodes. Raises OSError.
    """
    make_dirs(dir_fd, os.path.dirname(path))
    os.mknod(path, mode | _KINDS[kind], os.makedev(major, minor), dir_fd=dir_fd)
    os.chown(path, uid, gid, dir_fd=dir_fd, follow_symlinks=False)
    os.chmod(path, mode, dir_fd=dir_fd)  # mknod's mode went through the umask
