"""Our own terminal as the standard input of a container that has none: `run` passes on what is typed, by a pipe.

A monitor that is given a terminal puts it into raw mode, whatever its guest does with it: no key would end or
interrupt anything any more. Behind the pipe the terminal stays as it is: lines, echo, an end by Ctrl-D,
signals by keys.
"""

from __future__ import annotations

import os
import time

from ..linux import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import NoReturn
else:
    import _signal

_BACKGROUND_SECONDS = 0.2  # between two looks whether we have come to the foreground, where there is something to read


class Keyboard:
    """A context manager: a child copies what is typed to a pipe, which is descriptor 0 as long as the body runs.

    So whoever is forked in the body has it, and the child ends with us.
    """

    def __init__(self) -> None:
        self.child = 0

    def __enter__(self) -> Keyboard:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        self.child = os.fork()
        if self.child == 0:
            _copy(writer, parent)
        os.close(writer)
        os.dup2(reader, 0)
        os.close(reader)
        return self

    def let_go(self) -> None:
        """Hold the pipe no longer, which others have now: its writer is to hear of their end."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.close(null)

    def __exit__(self, *_: object) -> None:
        os.kill(self.child, _signal.SIGKILL)
        os.waitpid(self.child, 0)


def _copy(writer: int, parent: int) -> NoReturn:
    """Copy until either side has ended. The keys' signals are for our parent, and a closed pipe is an error here."""
    try:
        proc.die_with_parent()
        for signum in (_signal.SIGINT, _signal.SIGQUIT, _signal.SIGTTIN, _signal.SIGPIPE):
            _signal.signal(signum, _signal.SIG_IGN)
        proc.close_all_but((0, writer))
        while os.getppid() == parent and (typed := _read()) is not None:
            while typed:
                typed = typed[os.write(writer, typed) :]
    except OSError:
        pass  # nobody reads
    finally:
        os._exit(0)


def _read() -> bytes | None:
    """Return what was typed, None at its end."""
    try:
        return os.read(0, 4096) or None
    except OSError:  # EIO: we are in the background, where SIGTTIN would have stopped us
        time.sleep(_BACKGROUND_SECONDS)
        return b""
