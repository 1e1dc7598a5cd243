"""The control port of a Linux guest: signals in, the exit status out. One line each; see guest/init.

The shim is the port's one client from the container's creation on: what the guest says while nobody listens is lost.
The guest is hostile: lines are short, unknown ones are ignored, and nothing is awaited.
"""

from __future__ import annotations

import _socket
import os

from ..errors import StateError, reason
from .loop import IN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .loop import Loop

_MAX_LINE = 256
_READ = 4096


class GuestPort:
    """A connection to `<place>/control.sock`. `exit_status` is what the guest said last, None before."""

    def __init__(self, loop: Loop, place: str) -> None:
        """Connect; the monitor takes the connection once it runs. Raises StateError."""
        self._loop = loop
        self._line = bytearray()
        self.exit_status: int | None = None
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        folder = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._socket.connect(f"/proc/self/fd/{folder}/control.sock")
        except OSError as error:
            self._socket.close()
            raise StateError(f"cannot reach the guest's control port: {reason(error)}") from None
        finally:
            os.close(folder)
        loop.watch(self._socket.fileno(), IN, lambda _mask: self.read())

    def send_signal(self, signum: int) -> None:
        """Tell the guest's init to signal the application. It waits in the socket until the guest listens."""
        try:
            self._socket.send(b"signal %d\n" % signum, _socket.MSG_NOSIGNAL)
        except OSError as error:
            raise StateError(f"the guest takes no signal: {reason(error)}") from None

    def read(self) -> None:
        """Read what the guest has said."""
        while self._socket.fileno() >= 0:
            try:
                data = self._socket.recv(_READ)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close()
                return
            self._take(data)

    def close(self) -> None:
        """Close the connection. May be called more than once."""
        if self._socket.fileno() >= 0:
            self._loop.forget(self._socket.fileno())
            self._socket.close()

    def _take(self, data: bytes) -> None:
        *lines, rest = (bytes(self._line) + data).split(b"\n")
        for line in lines:
            word, _, number = line.partition(b" ")
            if word == b"exit" and number.isdigit() and len(number) <= 3:
                self.exit_status = int(number) & 0xFF
        self._line = bytearray(rest[:_MAX_LINE])
