"""Remove a folder of our own, whatever was put into it. Apart from `fsops`, whose libc `delete` need not load."""

from __future__ import annotations

import os
from errno import EXDEV

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(dir_fd: int, name: str, last: str = "") -> None:
    """Remove a file or a whole folder. A link is removed, not followed; a mount in it is EXDEV. Gone already is fine.

    `last` is the folder's file that goes after all others. Raises OSError; what stands before the obstacle is removed
    then.
    """
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        _remove_folder(dir_fd, name, last)


def _remove_folder(dir_fd: int, name: str, last: str) -> None:
    try:
        fd = os.open(name, _FOLDER, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    try:
        if _mount_id(fd) != _mount_id(dir_fd):
            raise OSError(EXDEV, os.strerror(EXDEV), name)
        for child in sorted(os.listdir(fd), key=lambda child: child == last):
            remove_tree(fd, child)
    finally:
        os.close(fd)
    try:
        os.rmdir(name, dir_fd=dir_fd)
    except FileNotFoundError:
        pass


def _mount_id(fd: int) -> bytes:
    """Return which mount an open file is in (proc_pid_fdinfo(5)): a bind of the same device is told apart as well."""
    with open(f"/proc/self/fdinfo/{fd}", "rb", buffering=0) as file:
        return file.read(4096).partition(b"mnt_id:")[2].split(None, 1)[0]
