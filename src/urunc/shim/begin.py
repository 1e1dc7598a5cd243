"""What a new shim does before it loads itself: what its first child must have, and that child.

containerd needs a moment to connect and to ask for the first container. Meanwhile the child that will make it loads
what it needs, beside the shim.
"""

from __future__ import annotations

import os

from .. import log
from ..linux import proc
from . import child

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket


def begin(*, debug: bool) -> _socket.socket | None:
    """Open the log, take the shim's oom score, and fork the child for the first Create; None where that fails."""
    _open_log(debug=debug)
    _raise_oom_score()
    try:
        return child.fork_ahead("create")
    except OSError:
        return None  # Create will fork, and say so where it cannot


def _open_log(*, debug: bool) -> None:
    """Log to the fifo that containerd reads, held open both ways: a restart of containerd does not end it."""
    try:
        fd = os.open("log", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    log.use(fd, debug=debug)


def _raise_oom_score() -> None:
    """Be a little more likely than containerd, whose score this is, to be killed for want of memory, as its shim is."""
    try:
        with open("/proc/self/oom_score_adj", "rb", buffering=0) as file:
            score = min(int(file.read(20)) + 1, 1000)
        proc.set_oom_score_adj(score)
    except (OSError, ValueError):
        pass
