"""What the container's standard streams are, which the monitor inherits: the guest is told by this how to take them."""

from __future__ import annotations

import fcntl
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..oci.spec import Spec

_NULL = os.makedev(1, 3)  # /dev/null


def look(spec: Spec) -> str:
    """Return `Context.stdin` by what our own descriptors 0 and 1 are, which will be the monitor's."""
    if spec.process.terminal:
        return "console"
    status, mode = os.fstat(0), fcntl.fcntl(0, fcntl.F_GETFL) & os.O_ACCMODE
    if mode == os.O_WRONLY or (stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL):
        return "null"
    # a console that only writes takes a descriptor for writing alone, and a socket cannot be opened again as one
    return "console" if stat.S_ISSOCK(os.fstat(1).st_mode) else "port"


def output(number: int) -> int:
    """Return our standard output (1) or error (2), which will be the container's, for writing alone.

    A pipe is opened anew, for the monitor makes its own of it non-blocking, and whoever has the other would be hurt;
    but not where nobody reads it any more. A file is not: who writes to it next goes on where the container ended.
    """
    mode, status = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE, os.fstat(number)
    if mode != os.O_WRONLY or stat.S_ISFIFO(status.st_mode):
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            return os.open(f"/proc/self/fd/{number}", flags)
        except OSError:
            if mode != os.O_WRONLY:
                raise
    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
