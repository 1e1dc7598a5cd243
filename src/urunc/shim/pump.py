"""One direction of a copy, as a state machine of the loop: a terminal's output, or the input of one."""

from __future__ import annotations

import errno
import os

from .loop import IN, OUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop

_CHUNK = 64 * 1024


class Pump:
    """Copies one descriptor to another through a buffer of 64 KiB, and calls `on_end` once all is through.

    Owns both descriptors. Stops reading while the buffer is full, so a reader that is slow makes the writer wait.
    A sink that is gone swallows the rest: the writer must not be stopped by it.
    """

    def __init__(self, loop: Loop, source: int, sink: int, on_end: Callable[[], None] = lambda: None) -> None:
        self._loop, self._source, self._sink, self._on_end = loop, source, sink, on_end
        self._buffer = bytearray()
        self._ended = self._final = False
        os.set_blocking(source, False)
        os.set_blocking(sink, False)
        self._arrange()

    @property
    def closed(self) -> bool:
        """Whether all is through, or the pump was closed."""
        return self._source < 0

    def close(self) -> None:
        """Stop, whatever is in the buffer."""
        if self.closed:
            return
        for fd in (self._source, self._sink):
            self._loop.forget(fd)
            os.close(fd)
        self._source = self._sink = -1
        self._on_end()

    def finish(self) -> None:
        """No more comes from the source than what is there now: read it, then end."""
        self._final = True
        self._arrange()

    def _arrange(self) -> None:
        """Copy what can be copied, and watch for what can be done next.

        A hang-up cannot be masked, so what is not wanted is not watched; and the sink is watched only when it is
        full, as regular files and /dev/null, which never are, cannot be.
        """
        if self.closed:
            return
        self._flush()
        while self._final and not self._ended and len(self._buffer) < _CHUNK:
            self._take()
            self._flush()
        if self._ended and not self._buffer:
            self.close()
            return
        self._want(self._source, IN, not self._ended and len(self._buffer) < _CHUNK, self._readable)
        self._want(self._sink, OUT, bool(self._buffer), lambda _mask: self._arrange())

    def _want(self, fd: int, mask: int, wanted: bool, callback: Callable[[int], None]) -> None:
        if wanted:
            self._loop.watch(fd, mask, callback)
        else:
            self._loop.forget(fd)

    def _readable(self, _mask: int) -> None:
        self._take()
        self._arrange()

    def _take(self) -> None:
        """Read once. Where nothing is there and no more is to come, that is the end."""
        try:
            data = os.read(self._source, _CHUNK - len(self._buffer))
        except (BlockingIOError, InterruptedError):
            self._ended = self._final
            return
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: nobody holds the terminal's other side
                raise
            data = b""
        self._ended = not data
        self._buffer += data

    def _flush(self) -> None:
        try:
            while self._buffer:
                del self._buffer[: os.write(self._sink, self._buffer)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._buffer.clear()
