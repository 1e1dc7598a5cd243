"""Ask systemd for a scope, change it, have it stopped: a D-Bus client just large enough for that.

Speaks to systemd's own socket where it may (root), which needs no bus daemon, else to the system bus. Implements the
D-Bus Specification 0.42, "Authentication", and systemd's org.freedesktop.systemd1(5). Must not know what a property
means: `oci.scope` makes them.
"""

from __future__ import annotations

import os
import time
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM
from _socket import socket as Socket  # noqa: N812  # it is a class; `socket` costs an import of `selectors`

from ..errors import HostError, reason
from .dbus import ERROR, METHOD_CALL, METHOD_RETURN, SIGNAL, MalformedError, Message, frame_length, from_bytes, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Self

SYSTEMD_SOCKET = "/run/systemd/private"
BUS_SOCKET = "/run/dbus/system_bus_socket"
SECONDS = 30.0
"""How long a request may take: runc's limit for systemd."""

_MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
_DAEMON = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
_MOST_BYTES = 4 * 1024 * 1024  # more than systemd has to say to us; a larger message is refused before it is read


class UnreachableError(HostError):
    """There is no systemd on this host to speak to."""


class RefusedError(HostError):
    """The other side answered with an error; `name` is D-Bus's name for it."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name


class Bus:
    """A connection, closed at the end of a `with`. Every wait ends at `deadline` (time.monotonic, seconds)."""

    def __init__(self, sock: Socket, deadline: float, *, daemon: bool) -> None:
        self._socket = sock
        self._deadline = deadline
        self._buffer = b""
        self._serial = 0
        self._signals: list[Message] = []
        self._daemon = daemon

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def greet(self) -> None:
        """Authenticate as this user; on a bus also say hello and ask for systemd's signals. Raises HostError."""
        user = str(os.geteuid()).encode().hex()
        # BEGIN goes with AUTH, as from sd-bus: systemd forgets a call that comes in one packet with BEGIN until
        # it hears more, and there is none to come.
        self._send(b"\0AUTH EXTERNAL " + user.encode() + b"\r\nBEGIN\r\n")
        answer = self._line()
        if not answer.startswith(b"OK "):
            raise HostError(f"D-Bus refuses user {os.geteuid()}: `{answer.decode('ascii', 'replace')}`")
        if self._daemon:
            self.call(_DAEMON, "Hello")
            rule = "type='signal',sender='org.freedesktop.systemd1',member='JobRemoved'"
            self.call(_DAEMON, "AddMatch", "s", rule)
            self.call(_MANAGER, "Subscribe")

    def call(self, target: tuple[str, str, str], member: str, signature: str = "", *body: Any) -> tuple[Any, ...]:
        """Call a method and return its reply's body. Raises RefusedError for an error, HostError where none comes."""
        self._serial += 1
        destination, path, interface = target
        message = Message(
            kind=METHOD_CALL,
            serial=self._serial,
            path=path,
            interface=interface,
            member=member,
            destination=destination if self._daemon else "",
            signature=signature,
            body=body,
        )
        try:
            self._send(to_bytes(message))
        except MalformedError as error:
            raise HostError(f"systemd cannot be asked to {member}: {error}") from None
        while True:
            answer = self._receive()
            if answer.kind == SIGNAL:
                self._signals.append(answer)
            elif answer.reply_serial == self._serial and answer.kind == ERROR:
                text = answer.body[0] if answer.signature.startswith("s") else answer.error_name
                raise RefusedError(str(text).rstrip("."), answer.error_name)
            elif answer.reply_serial == self._serial and answer.kind == METHOD_RETURN:
                return answer.body

    def job_result(self, job: str) -> str:
        """Wait for systemd's job (an object path) to end, and return how: `done`, `failed`, `timeout`, .."""
        while True:
            signal = self._signals.pop(0) if self._signals else self._receive()
            if signal.kind == SIGNAL and signal.member == "JobRemoved" and signal.signature == "uoss":
                _, path, _, result = signal.body
                if path == job:
                    return str(result)

    def _wait(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise HostError("systemd does not answer")
        self._socket.settimeout(left)

    def _send(self, data: bytes) -> None:
        try:
            self._wait()
            self._socket.sendall(data)
        except OSError as error:
            raise _no_answer(error) from None

    def _fill(self) -> None:
        try:
            self._wait()
            data = self._socket.recv(65536)
        except OSError as error:
            raise _no_answer(error) from None
        if not data:
            raise HostError("systemd closed the connection")
        self._buffer += data

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            if len(self._buffer) > 4096:
                raise HostError("D-Bus does not finish its answer to authentication")
            self._fill()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _receive(self) -> Message:
        try:
            while len(self._buffer) < 16:
                self._fill()
            length = frame_length(self._buffer[:16])
            if length > _MOST_BYTES:
                raise MalformedError(f"a message of {length} bytes")
            while len(self._buffer) < length:
                self._fill()
            data, self._buffer = self._buffer[:length], self._buffer[length:]
            return from_bytes(data)
        except MalformedError as error:
            raise HostError(f"systemd's answer is not D-Bus: {error}") from None


def _no_answer(error: OSError) -> HostError:
    if isinstance(error, TimeoutError):
        return HostError("systemd does not answer")
    return HostError(f"lost the connection to systemd: {reason(error)}")


def connect(seconds: float = SECONDS) -> Bus:
    """Return a greeted connection to systemd. Raises HostError where there is none."""
    sockets = [(BUS_SOCKET, True)]
    if os.geteuid() == 0:
        sockets.insert(0, (SYSTEMD_SOCKET, False))
    why = ""
    for path, daemon in sockets:
        sock = Socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            sock.settimeout(seconds)
            sock.connect(path)
        except OSError as error:
            sock.close()
            why = f"`{path}`: {reason(error)}"
            continue
        bus = Bus(sock, time.monotonic() + seconds, daemon=daemon)
        try:
            bus.greet()
        except BaseException:
            sock.close()
            raise
        return bus
    raise UnreachableError(
        f"cannot reach systemd at {why}",
        hint="a cgroupsPath of the form slice:prefix:name needs systemd as init",
    )


def start_scope(unit: str, properties: Iterable[tuple[str, str, object]], seconds: float = SECONDS) -> None:
    """Have systemd start a transient scope and wait until it stands. Properties are (name, signature, value).

    A failed unit of the same name is reset and the start tried once more. Raises HostError.
    """
    listed = [(name, (signature, value)) for name, signature, value in properties]
    with connect(seconds) as bus:
        try:
            _start(bus, unit, listed)
        except RefusedError as error:
            if not error.name.endswith(".UnitExists"):
                raise HostError(f"systemd does not start `{unit}`: {error.message}") from None
            _reset(bus, unit)
            try:
                _start(bus, unit, listed)
            except RefusedError as again:
                raise HostError(f"systemd does not start `{unit}`: {again.message}") from None


def _start(bus: Bus, unit: str, properties: list[tuple[str, tuple[str, object]]]) -> None:
    (job,) = bus.call(_MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "replace", properties, [])
    result = bus.job_result(job)
    if result != "done":
        _reset(bus, unit)
        raise HostError(f"systemd does not start `{unit}`: the job ended as `{result}`")


def _reset(bus: Bus, unit: str) -> None:
    """Let systemd forget a failed unit."""
    try:
        bus.call(_MANAGER, "ResetFailedUnit", "s", unit)
    except RefusedError:
        pass  # it was not failed, or not there


def stop_unit(unit: str, seconds: float = SECONDS) -> None:
    """Have systemd stop a unit, wait for it, and forget it if it failed. One that is not loaded is no error.

    Neither is a host without systemd: an undo must work there too, after a create that failed for that reason. Raises
    HostError where systemd does not answer, or refuses.
    """
    try:
        bus = connect(seconds)
    except UnreachableError:
        return
    with bus:
        try:
            (job,) = bus.call(_MANAGER, "StopUnit", "ss", unit, "replace")
        except RefusedError as error:
            if not error.name.endswith(".NoSuchUnit"):
                raise HostError(f"systemd does not stop `{unit}`: {error.message}") from None
        else:
            bus.job_result(job)
        _reset(bus, unit)


def set_properties(unit: str, properties: Iterable[tuple[str, str, object]]) -> None:
    """Change a running unit's properties until the next boot (SetUnitProperties). Raises HostError."""
    listed = [(name, (signature, value)) for name, signature, value in properties]
    with connect() as bus:
        try:
            bus.call(_MANAGER, "SetUnitProperties", "sba(sv)", unit, True, listed)
        except RefusedError as error:
            raise HostError(f"systemd does not change `{unit}`: {error.message}") from None
