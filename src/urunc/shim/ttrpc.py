"""ttrpc, containerd's small RPC over a stream socket: the server for the task service, the client for events.

A frame holds a protobuf Request or Response. Only unary calls are served. It knows no method: a service is a table of
handlers. Implements ttrpc's PROTOCOL.md; what breaks it is answered with a status, as the Go server does, and the
connection lives on. A client that asks too much is refused at a bound.
"""

from __future__ import annotations

import _socket
import _struct
import errno
import os

from . import messages
from .codes import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    INVALID_ARGUMENT,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    UNKNOWN,
    StatusError,
)
from .frames import DATA, MAX_FRAME, REQUEST, RESPONSE, Channel
from .loop import IN
from .wire import WireError, decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .loop import Loop, Timer
    from .wire import Table, Values

    Handler = Callable[[Values, "Call"], "Values | None"]
    Methods = Mapping[str, tuple[Table, Table, Handler]]

MAX_CALLS = 4096
"""So many calls of one connection may wait for their answer."""
MAX_CONNECTIONS = 256
_ACCEPT_PAUSE = 0.1  # seconds without accepting, when the process has no descriptor left
_CREDENTIALS = _struct.Struct("3i")


class Call:
    """A request that waits for its answer. What is said after the first answer, or the client's end, is dropped."""

    __slots__ = ("_answer", "_connection", "_stream", "_timer", "method", "on_cancel", "open")

    def __init__(self, connection: _Connection, stream: int, method: str, answer: Table) -> None:
        self._connection, self._stream, self._answer = connection, stream, answer
        self._timer: Timer | None = None
        self.method = method
        self.open = True
        self.on_cancel: Callable[[], None] | None = None
        """Called where the client goes away or its time is over before the answer."""

    def serve(self, handler: Handler, values: Values) -> None:
        """Have the handler answer, now or later. Nothing happens where nobody waits any more."""
        if not self.open:
            return
        try:
            answer = handler(values, self)
        except StatusError as error:
            self.fail(error.code, error.message)
        except Exception as error:
            self._connection.server.report(error)
            self.fail(UNKNOWN, f"{self.method}: {type(error).__name__}: {error}")
        else:
            if answer is not None:
                self.answer(answer)

    def answer(self, values: Values) -> None:
        """Answer with the method's response."""
        if not self.open:
            return
        try:
            payload = encode(self._answer, values)
        except WireError as error:
            self.fail(INTERNAL, f"cannot encode the answer: {error}")
            return
        self._finish({"payload": payload})

    def fail(self, code: int, message: str) -> None:
        """Answer with a status."""
        if self.open:
            self._finish({"status": {"code": code, "message": _clean(message)}})

    def limit(self, loop: Loop, nanoseconds: int) -> None:
        """Answer that the deadline has passed when it has."""
        self._timer = loop.later(nanoseconds / 1e9, self._too_late)

    def cancel(self) -> None:
        """End without an answer."""
        self._close()
        if self.on_cancel is not None:
            self.on_cancel()

    def _too_late(self) -> None:
        self.fail(DEADLINE_EXCEEDED, "context deadline exceeded")
        if self.on_cancel is not None:
            self.on_cancel()

    def _finish(self, response: Values) -> None:
        self._close()
        self._connection.respond(self._stream, response)

    def _close(self) -> None:
        self.open = False
        self._connection.calls.pop(self._stream, None)
        if self._timer is not None:
            self._timer.cancel()


class Server:
    """Serves the methods of its services on every connection that is accepted or added.

    A handler gets the decoded request and its Call. It returns the response, or None where it answers later
    through the Call, or raises StatusError. Any other exception is a fault of ours: reported, answered UNKNOWN.
    """

    def __init__(self, loop: Loop, services: Mapping[str, Methods], report: Callable[[Exception], None]) -> None:
        self.loop, self.services, self.report = loop, services, report
        self.accepted = 0
        """How many connections there have been."""
        self._connections: set[_Connection] = set()
        self._listener: _socket.socket | None = None

    @property
    def unsent(self) -> int:
        """How many bytes of answers the clients have not taken yet."""
        return sum(connection.channel.unsent for connection in self._connections)

    def listen(self, listener: _socket.socket) -> None:
        """Accept on a listening socket, which the server owns from now on."""
        listener.setblocking(False)
        self._listener = listener
        self._resume()

    def add(self, sock: _socket.socket) -> None:
        """Serve a connected socket, which the server owns from now on."""
        self.accepted += 1
        self._connections.add(_Connection(self, sock))

    def drop(self, connection: _Connection) -> None:
        """Forget a connection that is closed."""
        self._connections.discard(connection)

    def close(self) -> None:
        """Close listener and connections; calls that wait are cancelled."""
        if self._listener is not None:
            self.loop.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None
        for connection in list(self._connections):
            connection.channel.close()

    def _resume(self) -> None:
        if self._listener is not None:
            self.loop.watch(self._listener.fileno(), IN, self._accept)

    def _accept(self, _mask: int) -> None:
        assert self._listener is not None  # noqa: S101
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]  # socket.socket wraps it, for 9 ms
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                self.loop.forget(self._listener.fileno())
                self.loop.later(_ACCEPT_PAUSE, self._resume)
            return
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fileno=fd)
        if len(self._connections) >= MAX_CONNECTIONS or not _same_user(sock):
            sock.close()
            return
        self.add(sock)


class _Connection:
    """One client: the order of its stream numbers, and its calls that wait."""

    def __init__(self, server: Server, sock: _socket.socket) -> None:
        self.server = server
        self.calls: dict[int, Call] = {}
        self._last_stream = 0
        self.channel = Channel(server.loop, sock, self._frame, self._closed)

    def respond(self, stream: int, response: Values) -> None:
        data = encode(messages.RESPONSE, response)
        if len(data) > MAX_FRAME:
            message = f"an answer of {len(data)} bytes is larger than {MAX_FRAME}"
            data = encode(messages.RESPONSE, {"status": {"code": RESOURCE_EXHAUSTED, "message": message}})
        self.channel.send(stream, RESPONSE, data)

    def _frame(self, stream: int, kind: int, content: bytes | None) -> None:
        try:
            self._serve(stream, kind, content)
        except StatusError as error:
            status = {"code": error.code, "message": _clean(error.message)}
            self.respond(stream, {"status": status})

    def _serve(self, stream: int, kind: int, content: bytes | None) -> None:
        if content is None:
            raise StatusError(RESOURCE_EXHAUSTED, f"message length exceeds maximum message size of {MAX_FRAME}")
        if stream % 2 != 1:
            raise StatusError(INVALID_ARGUMENT, "StreamID must be odd for client initiated streams")
        if kind == DATA:
            raise StatusError(INVALID_ARGUMENT, "StreamID is no longer active")
        if kind != REQUEST:
            return  # PROTOCOL.md: a type that is not known is ignored
        if stream <= self._last_stream:
            raise StatusError(INVALID_ARGUMENT, "StreamID cannot be re-used and must increment")
        self._last_stream = stream
        if len(self.calls) >= MAX_CALLS:
            raise StatusError(RESOURCE_EXHAUSTED, f"{MAX_CALLS} calls wait already")
        try:
            request = decode(messages.REQUEST, content)
        except WireError as error:
            raise StatusError(INVALID_ARGUMENT, f"unmarshal request error: {error}") from None
        self._dispatch(stream, request)

    def _dispatch(self, stream: int, request: Values) -> None:
        takes, gives, handler = _find_method(self.server.services, request)
        try:
            values = decode(takes, request["payload"])
        except WireError as error:
            raise StatusError(INVALID_ARGUMENT, f"unmarshal request error: {error}") from None
        if request["timeout_nano"] < 0:
            raise StatusError(DEADLINE_EXCEEDED, "context deadline exceeded")
        call = self.calls[stream] = Call(self, stream, request["method"], gives)
        call.serve(handler, values)
        if request["timeout_nano"] and call.open:
            call.limit(self.server.loop, request["timeout_nano"])

    def _closed(self) -> None:
        self.server.drop(self)
        for call in list(self.calls.values()):
            call.cancel()


class Client:
    """One connection to a ttrpc server on a unix socket, for calls whose answers are awaited by callback."""

    def __init__(self, loop: Loop, path: str, on_close: Callable[[], None]) -> None:
        """Connect; raises OSError where nobody listens. `on_close` is called once, whoever closes."""
        self._waiting: dict[int, Callable[[int, str], None]] = {}
        self._stream = -1
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC, 0)
        try:
            sock.setblocking(False)
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        self._channel = Channel(loop, sock, self._frame, on_close)

    def call(self, service: str, method: str, payload: bytes, answered: Callable[[int, str], None]) -> None:
        """Send a request; `answered` is called with the status's code (0 is success) and message."""
        self._stream += 2
        self._waiting[self._stream] = answered
        request = {"service": service, "method": method, "payload": payload}
        self._channel.send(self._stream, REQUEST, encode(messages.REQUEST, request))

    def close(self) -> None:
        """Close the connection; calls that wait are not answered."""
        self._channel.close()

    def _frame(self, stream: int, kind: int, content: bytes | None) -> None:
        answered = self._waiting.pop(stream, None)
        if kind != RESPONSE or answered is None:
            return
        try:
            response = decode(messages.RESPONSE, content or b"")
        except WireError as error:
            answered(INTERNAL, str(error))
            return
        status = response["status"] or {"code": 0, "message": ""}
        answered(status["code"], status["message"])


def _find_method(services: Mapping[str, Methods], request: Values) -> tuple[Table, Table, Handler]:
    service, method = request["service"], request["method"]
    if service not in services:
        raise StatusError(UNIMPLEMENTED, f"service {service}")
    if method not in services[service]:
        raise StatusError(UNIMPLEMENTED, f"method {method}")
    return services[service][method]


def _same_user(sock: _socket.socket) -> bool:
    """Tell whether the peer runs as our user: whoever else gets at the socket may not command the runtime."""
    try:
        credentials = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return False
    _pid, uid, _gid = _CREDENTIALS.unpack(credentials)
    return bool(uid == os.geteuid())


def _clean(message: str) -> str:
    """Return the message as protobuf takes it: a name that is not UTF-8 came in by surrogate escapes."""
    return message.encode("utf-8", "replace").decode()
