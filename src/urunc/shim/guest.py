"""The control port of a Linux guest: signals in, the exit status out. One line each; see guest/init.

The shim reads it from the container's creation on. The guest is hostile, and `runtime.control`, which knows the words,
takes it so.
"""

from __future__ import annotations

from ..runtime import control
from .loop import IN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .loop import Loop


class GuestPort:
    """The shim's side of the port in `place`, read by the loop."""

    def __init__(self, loop: Loop, place: str) -> None:
        """Open it. Raises StateError."""
        self._loop = loop
        self._place = place
        self._listener = control.Listener(place)
        self._watched = self._listener.fd
        loop.watch(self._watched, IN, lambda _mask: self.read())

    @property
    def exit_status(self) -> int | None:
        """The exit status that the guest said last, None before."""
        return self._listener.exit_status

    def status(self, code: int) -> int:
        """Return the container's exit status, where the monitor ended with `code`: a panic is not success."""
        return self._listener.status(code)

    def send_signal(self, signum: int) -> None:
        """Tell the guest's init to signal the application. It waits in the fifo until the guest listens."""
        control.write_line(self._place, b"signal %d\n" % signum)

    def resize(self, height: int, width: int) -> None:
        """Tell the guest's init the size of its terminal: a serial line has none that follows ours."""
        control.resize(self._place, height, width)

    def read(self) -> None:
        """Read what the guest has said."""
        if self._watched >= 0 and not self._listener.read():
            self.close()

    def close(self) -> None:
        """Stop listening. May be called more than once."""
        if self._watched >= 0:
            self._loop.forget(self._watched)
            self._listener.close()
            self._watched = -1
