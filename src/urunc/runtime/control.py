"""Talk to a guest or a monitor through the container's folder. The other end is hostile: nothing is awaited."""

from __future__ import annotations

import _socket
import os

from ..errors import StateError, reason
from ..vm import port

_SECONDS = 1.0
_COMMANDS = b'{"execute":"qmp_capabilities"}\n{"execute":"system_powerdown"}\n'


def write_line(place: str, line: bytes) -> None:
    """Write one line to the guest's control port. Raises StateError where no monitor holds it, or it is full."""
    try:
        fd = os.open(f"{place}/{port.FIFOS[0]}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)
    except OSError as error:
        raise StateError(f"the guest's control port takes nothing: {reason(error)}") from None


def send(place: str, name: str, data: bytes) -> None:
    """Write `data` to the socket `<name>.sock`. Raises StateError where nobody takes it."""
    connection = connect(place, name)
    try:
        connection.sendall(data)
    except OSError as error:
        raise StateError(f"the guest's `{name}` socket takes nothing: {reason(error)}") from None
    finally:
        connection.close()


def power_down(place: str) -> None:
    """Press the machine's power button by QMP. Both commands are sent at once: no answer is needed for the second."""
    send(place, "qmp", _COMMANDS)


def connect(place: str, name: str) -> _socket.socket:
    """Return a connection to the socket, with a time limit on every call. Raises StateError."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    connection.settimeout(_SECONDS)
    folder = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{name}.sock")
    except OSError as error:
        connection.close()
        raise StateError(f"cannot reach the guest's `{name}` socket: {reason(error)}") from None
    finally:
        os.close(folder)
    return connection
