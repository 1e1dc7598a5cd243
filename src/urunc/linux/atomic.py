"""Files that are written whole or not at all: who reads one may come at any moment, and who writes it may be killed."""

from __future__ import annotations

import os
import time


def write(path: str, content: bytes, mode: int = 0o600, like: os.stat_result | None = None) -> None:
    """Write the file anew, beside it first and then in its place, which takes another's place too. Raises OSError.

    `mode` goes through the umask; with `like`, the file has the owner and exactly the mode that this tells of.
    """
    folder, slash, name = path.rpartition("/")
    # Not the pid alone: who was killed may have had it, and who is in another pid namespace has it now.
    temporary = f"{folder}{slash}.{name}.{os.getpid()}-{time.monotonic_ns()}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            if like:
                os.fchown(fd, like.st_uid, like.st_gid)
                os.fchmod(fd, like.st_mode & 0o7777)
            while content:  # a disk that is nearly full takes a part first
                content = content[os.write(fd, content) :]
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        discard(temporary)
        raise


def discard(path: str) -> None:
    """Remove a file where there is one that can be removed."""
    try:
        os.unlink(path)
    except OSError:
        pass
