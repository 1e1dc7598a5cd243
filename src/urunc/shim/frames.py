"""ttrpc's frames: cut out of a stream of bytes, and carried by a socket that does not block.

A frame is ten bytes, big endian (length of what follows, stream, type, flags), and its content, of which this knows
nothing. No peer can stall another: what one does not read waits in its own buffer, and one that reads too little loses
its connection.
"""

from __future__ import annotations

import _socket
import _struct

from .loop import ERR, HUP, IN, OUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop

MAX_FRAME = 4 << 20
MAX_UNREAD = 2 * MAX_FRAME
"""A peer that leaves more than so many bytes unread is dropped."""
REQUEST, RESPONSE, DATA = 1, 2, 3
"""The types of frames."""

_READ = 64 * 1024
_HEADER = _struct.Struct(">IIBB")


class Frames:
    """Cuts a stream of bytes into frames. Holds at most one that is not whole; one too long is not kept at all."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0

    def feed(self, data: bytes) -> list[tuple[int, int, bytes | None]]:
        """Return the frames that are whole now: stream, type and content, None where it is longer than MAX_FRAME."""
        buffer = self._buffer
        buffer += data
        frames: list[tuple[int, int, bytes | None]] = []
        at = 0
        while True:
            skipped = min(self._skip, len(buffer) - at)
            self._skip -= skipped
            at += skipped
            if len(buffer) - at < _HEADER.size:
                break
            length, stream, kind, _flags = _HEADER.unpack_from(buffer, at)
            start = at + _HEADER.size
            if length > MAX_FRAME:
                self._skip = length
                frames.append((stream, kind, None))
                at = start
                continue
            if start + length > len(buffer):
                break
            at = start + length
            frames.append((stream, kind, bytes(buffer[start:at])))
        del buffer[:at]
        return frames


class Channel:
    """A connected socket that carries frames. Owns the socket; `on_close` is called once, whoever closes."""

    def __init__(
        self,
        loop: Loop,
        sock: _socket.socket,
        on_frame: Callable[[int, int, bytes | None], None],
        on_close: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._loop, self._sock = loop, sock
        self._on_frame, self._on_close = on_frame, on_close
        self._frames = Frames()
        self._unsent = bytearray()
        self.closed = False
        loop.watch(sock.fileno(), IN, self._ready)

    @property
    def unsent(self) -> int:
        """How many bytes the peer has not taken yet."""
        return len(self._unsent)

    def send(self, stream: int, kind: int, content: bytes) -> None:
        """Send a frame, or keep it until the peer reads. A peer that has too much unread loses the connection."""
        if self.closed:
            return
        waiting = bool(self._unsent)
        self._unsent += _HEADER.pack(len(content), stream, kind, 0)
        self._unsent += content
        if not waiting:
            self._flush()
        if len(self._unsent) > MAX_UNREAD:
            self.close()

    def close(self) -> None:
        """Close the socket, whatever is unsent."""
        if self.closed:
            return
        self.closed = True
        self._loop.forget(self._sock.fileno())
        self._sock.close()
        self._unsent.clear()
        self._on_close()

    def _ready(self, mask: int) -> None:
        if mask & OUT:
            self._flush()
        if mask & (IN | HUP | ERR) and not self.closed:
            self._read()

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        for frame in self._frames.feed(data):
            if self.closed:
                return
            self._on_frame(*frame)

    def _flush(self) -> None:
        try:
            while self._unsent:
                sent = self._sock.send(self._unsent, _socket.MSG_NOSIGNAL)
                del self._unsent[:sent]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.close()
            return
        self._loop.watch(self._sock.fileno(), IN | OUT if self._unsent else IN, self._ready)
