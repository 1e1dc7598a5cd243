"""What the container's standard streams are, which the monitor inherits: the guest is told by this how to take them."""

from __future__ import annotations

import fcntl
import os
import stat

from ..errors import HostError
from ..vm.machine import Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..oci.spec import Spec

_NULL = os.makedev(1, 3)  # /dev/null


def look(spec: Spec) -> Streams:
    """Return what our own descriptors 0, 1 and 2 are, which will be the monitor's. Raises HostError."""
    if spec.process.terminal:
        return Streams()
    for number, name in ((1, "standard output"), (2, "standard error")):
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise HostError(f"{name} is open for reading only")
    null, out, error = _is_null(), os.fstat(1), os.fstat(2)
    # what writes to a port takes a descriptor for writing alone, and a socket cannot be opened again as one
    if stat.S_ISSOCK(out.st_mode) or stat.S_ISSOCK(error.st_mode):
        return Streams(stdin="null" if null else "console")
    merged = (out.st_dev, out.st_ino) == (error.st_dev, error.st_ino)
    return Streams(stdin="null" if null else "port", stdout="port", merged=merged)


def _is_null() -> bool:
    status, mode = os.fstat(0), fcntl.fcntl(0, fcntl.F_GETFL) & os.O_ACCMODE
    return mode == os.O_WRONLY or (stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL)


def part() -> None:
    """Have descriptors 0 and 1 to ourselves, where others have them too, before a monitor inherits them.

    It may leave a pipe non-blocking. Of a terminal it reads every key, in raw mode, and whoever started us, who goes on
    to use it, would neither see nor be able to end anything: where `run` does not pass on what is typed (`keyboard`),
    nothing is.
    """
    if os.isatty(0):
        _replace(0, os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
    _open_anew(0, os.O_RDONLY)
    _open_anew(1, os.O_WRONLY | os.O_APPEND)


def _open_anew(number: int, flags: int) -> None:
    mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
    shared = os.isatty(number) or stat.S_ISFIFO(os.fstat(number).st_mode)
    if not shared or mode not in (flags & os.O_ACCMODE, os.O_RDWR):
        return
    try:
        own = os.open(f"/proc/self/fd/{number}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return  # nobody reads the pipe, or it is not ours to open
    os.set_blocking(own, True)  # to open a pipe waits for its other end else
    _replace(number, own)


def _replace(number: int, file: int) -> None:
    os.dup2(file, number)
    os.close(file)


def output(number: int) -> int:
    """Return our standard output (1) or error (2), which will be the container's, for writing alone.

    The monitor leaves it non-blocking, which whoever shares a pipe or a terminal with us must not suffer: it is opened
    anew, but for a fifo that nobody reads. A file is not: who writes to it next goes on where the container ended.
    """
    mode, kind = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE, os.fstat(number).st_mode
    if mode != os.O_WRONLY or not stat.S_ISREG(kind):
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            return os.open(f"/proc/self/fd/{number}", flags)
        except OSError:
            if mode != os.O_WRONLY:
                raise
    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
