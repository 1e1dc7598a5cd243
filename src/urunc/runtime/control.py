"""Talk to a guest or a monitor through the container's folder. The other end is hostile: nothing is awaited long."""

from __future__ import annotations

import _socket
import os
import time

from .. import jsonio
from ..errors import StateError, reason
from ..vm import port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PANICKED = 134
"""The exit status of a guest that ended without a word: as of a process that aborts (128 + SIGABRT)."""

_SECONDS = 1.0
_MAX_LINE = 256
_CHUNK = 4096
_MAX_FIFO = 1024 * 1024
_MAX_ANSWER = 256 * 1024
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


def resize(place: str, height: int, width: int) -> None:
    """Tell the guest's init the size of its terminal, in characters. Raises StateError."""
    write_line(place, b"size %d %d\n" % (height, width))


def hang_up(place: str) -> None:
    """Tell the guest's init that nobody reads standard output any more. Raises StateError."""
    write_line(place, b"closed\n")


class Listener:
    """What the guest says on its control port, read as it comes. `exit_status` is what it said last, None before."""

    def __init__(self, place: str) -> None:
        """Open the reading end; the monitor holds the other from its start on. Raises StateError."""
        self.exit_status: int | None = None
        self._tells_panics = False
        self._line = b""
        try:
            self.fd = os.open(f"{place}/{port.FIFOS[1]}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise StateError(f"cannot open the guest's control port: {reason(error)}") from None

    def read(self) -> bool:
        """Read what there is, without waiting; return False once there will be no more. Closing is the caller's.

        No more than a fifo can hold (fs.pipe-max-size): who writes without end would keep us here else.
        """
        for _chunk in range(_MAX_FIFO // _CHUNK):
            if self.fd < 0:
                return False
            try:
                data = os.read(self.fd, _CHUNK)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._take(data)
        return True

    def status(self, code: int) -> int:
        """Return the guest's exit status, where its monitor ended with `code`.

        The guest's own word, where it gave one. A guest whose monitor ended well without one died of a panic; but
        where its monitor would have been told of that, and ended badly, it has powered the machine off itself.
        """
        if self.exit_status is not None:
            return self.exit_status
        return code if self._tells_panics else code or PANICKED

    def close(self) -> None:
        """Close the reading end. May be called more than once."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _take(self, data: bytes) -> None:
        *lines, rest = (self._line + data).split(b"\n")
        for line in lines:
            word, _, number = line.partition(b" ")
            if word == b"exit" and number.isdigit() and len(number) <= 3:
                self.exit_status = int(number) & 0xFF
            elif line == b"panics":
                self._tells_panics = True
        self._line = rest[:_MAX_LINE]


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


def ask(place: str, *commands: str | tuple[str, dict[str, Any]]) -> list[Any]:
    """Return what the monitor answers to each QMP command, a name or (name, arguments); None where it refuses one.

    All are sent at once. Raises StateError where the answers do not come in time, or are no QMP: a monitor that was
    taken over may say anything, so nothing of it is to be believed, and it is cut off.
    """
    connection = connect(place, "qmp")
    deadline = time.monotonic() + _SECONDS
    data, received = b"", 0
    answers: list[dict[str, Any]] = []
    try:
        connection.sendall(b"".join(map(_command, ("qmp_capabilities", *commands))))
        while len(answers) <= len(commands):
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            more = connection.recv(_CHUNK)
            data += more
            received += len(more)
            if not more or received > _MAX_ANSWER:
                raise StateError("the monitor does not answer: it has ended, or says too much")
            *lines, data = data.split(b"\n")
            answers += [answer for answer in map(_answer, lines) if answer is not None]
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else "what it says is no JSON"
        raise StateError(f"the monitor does not answer: {why}") from None
    finally:
        connection.close()
    return [answer.get("return") for answer in answers[1 : len(commands) + 1]]


def _command(command: str | tuple[str, dict[str, Any]]) -> bytes:
    name, arguments = (command, {}) if isinstance(command, str) else command
    return jsonio.dumps({"execute": name, "arguments": arguments} if arguments else {"execute": name}) + b"\n"


def _answer(line: bytes) -> dict[str, Any] | None:
    """Return a line that answers a command; None for the greeting and events."""
    message = jsonio.loads(line) if line.strip() else None
    return message if isinstance(message, dict) and message.keys() & {"return", "error"} else None


def connect(place: str, name: str) -> _socket.socket:
    """Return a connection to the socket, with a time limit on every call. Raises StateError."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    connection.settimeout(_SECONDS)
    folder = -1
    try:
        folder = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        connection.connect(f"/proc/self/fd/{folder}/{name}.sock")
    except OSError as error:
        connection.close()
        raise StateError(f"cannot reach the guest's `{name}` socket: {reason(error)}") from None
    finally:
        if folder >= 0:
            os.close(folder)
    return connection
