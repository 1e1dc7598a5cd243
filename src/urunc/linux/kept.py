"""Answers that were slow to find out, kept as files of a folder of ours: the one rule for what of it is believed.

An answer is written whole or not at all, and read only where nobody but this user can have written it: it may say what
program to run, or what a monitor is allowed. Knows nothing of what an answer says, and of when it is out of date.
"""

from __future__ import annotations

import os

from . import atomic

_PRIVATE = 0o100600  # a regular file that its owner alone may touch


def read(folder: str, name: str, limit_bytes: int) -> bytes | None:
    """Return what `write` has put there, `limit_bytes` of it at most; None where there is none to be believed."""
    try:
        fd = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        private = status.st_uid == os.geteuid() and status.st_mode & 0o177777 == _PRIVATE
        return os.read(fd, limit_bytes) if private else None
    except OSError:
        return None
    finally:
        os.close(fd)


def write(folder: str, name: str, content: bytes) -> None:
    """Keep an answer, in a folder that is made where there is none. One that cannot be written costs time alone."""
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        atomic.write(f"{folder}/{name}", content)
    except OSError:
        pass
