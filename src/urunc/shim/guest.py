"""The control port of a Linux guest: signals in, the exit status out. One line each; see guest/init.

The shim is the port's one client from the container's creation on: what the guest says while nobody listens is lost.
The guest is hostile: lines are short, unknown ones are ignored, and nothing is awaited.
"""

from __future__ import annotations

import os

from ..errors import StateError, reason
from ..runtime import control
from ..vm import port
from .loop import IN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .loop import Loop

_MAX_LINE = 256
_READ = 4096


class GuestPort:
    """The shim's ends of the port's fifos in `place`. `exit_status` is what the guest said last, None before."""

    def __init__(self, loop: Loop, place: str) -> None:
        """Open them; the monitor holds the other ends from its start on. Raises StateError."""
        self._loop = loop
        self._place = place
        self._line = bytearray()
        self.exit_status: int | None = None
        try:
            self._fd = os.open(f"{place}/{port.FIFOS[1]}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise StateError(f"cannot open the guest's control port: {reason(error)}") from None
        loop.watch(self._fd, IN, lambda _mask: self.read())

    def send_signal(self, signum: int) -> None:
        """Tell the guest's init to signal the application. It waits in the fifo until the guest listens."""
        control.write_line(self._place, b"signal %d\n" % signum)

    def read(self) -> None:
        """Read what the guest has said."""
        while self._fd >= 0:
            try:
                data = os.read(self._fd, _READ)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close()
                return
            self._take(data)

    def close(self) -> None:
        """Close the reading end. May be called more than once."""
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _take(self, data: bytes) -> None:
        *lines, rest = (bytes(self._line) + data).split(b"\n")
        for line in lines:
            word, _, number = line.partition(b" ")
            if word == b"exit" and number.isdigit() and len(number) <= 3:
                self.exit_status = int(number) & 0xFF
        self._line = bytearray(rest[:_MAX_LINE])
