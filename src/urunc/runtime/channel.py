"""How `create` and its init speak: one SOCK_SEQPACKET pair, one JSON object per message.

::

    init                                create
    ---- user  (its user namespace is made) ------>
    <--- maps  (the id maps are written) ----------     only with a new user namespace
    ---- ns    (all namespaces are made) --------->     the kernel adds init's final pid (SO_PASSCRED)
    <--- joined (in the cgroup, recorded) ---------
    <--- go    (hooks have run; the Launch, taps) -
    ---- ready (only `start` is missing) --------->
    ---- error (instead of any of them) ---------->     carries the message, the hint and the error's class

`Sequence` is that drawing as an object, so that it is tested without a fork.
"""

from __future__ import annotations

import _socket

from .. import errors, jsonio
from ..errors import KernelError, UruncError, describe, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_MESSAGE = 160 * 1024
MAX_FDS = 64
_UCRED_BYTES = 12
_ORDER = ("user", "maps", "ns", "joined", "go", "ready")


class Sequence:
    """Which message may come next. `user` and `maps` are left out without a new user namespace."""

    def __init__(self, *, user_namespace: bool) -> None:
        self.left = list(_ORDER if user_namespace else _ORDER[2:])

    def take(self, kind: str) -> None:
        """Note that `kind` was sent or received. Raises KernelError where another was due."""
        if kind == "error":
            self.left.clear()
            return
        due = self.left.pop(0) if self.left else "nothing"
        if kind != due:
            raise KernelError(f"init and create lost step: got `{kind[:40]}`, `{due}` was due")


class Message:
    """One message: its kind, its data, the descriptors that came along, and the sender's pid."""

    def __init__(self, kind: str, data: dict[str, Any], fds: list[int], pid: int) -> None:
        self.kind, self.data, self.fds, self.pid = kind, data, fds, pid


class Channel:
    """One end of the pair."""

    def __init__(self, end: _socket.socket, *, user_namespace: bool) -> None:
        self.socket = end
        self.sequence = Sequence(user_namespace=user_namespace)

    def send(self, kind: str, data: dict[str, Any] | None = None, fds: tuple[int, ...] = ()) -> None:
        """Send one message. Raises KernelError, most often since the other side is gone."""
        self.sequence.take(kind)
        payload = jsonio.dumps([kind, data or {}])
        rights = b"".join(fd.to_bytes(4, "little") for fd in fds)
        control = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if fds else []
        try:
            self.socket.sendmsg([payload], control, _socket.MSG_NOSIGNAL)
        except OSError as error:
            raise KernelError(
                f"cannot send `{kind}` to the other side: {reason(error)}", errno=error.errno or 0
            ) from None

    def receive(self) -> Message | None:
        """Return the next message; None at end-of-file, the other side having died.

        Raises KernelError for one that is not due. An `error` message is raised here as the error it carries.
        """
        room = _socket.CMSG_SPACE(4 * MAX_FDS) + _socket.CMSG_SPACE(_UCRED_BYTES)
        try:
            payload, control, _flags, _address = self.socket.recvmsg(MAX_MESSAGE, room, _socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            return None
        if not payload:
            return None
        message = _decode(payload, control)
        self.sequence.take(message.kind)
        if message.kind == "error":
            raise carried_error(message.data)
        return message

    def close(self) -> None:
        """Close this end."""
        self.socket.close()


def pair(*, user_namespace: bool) -> tuple[Channel, Channel]:
    """Return create's end, which sees init's pid with every message, and init's end."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    ours.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
    for end in (ours, theirs):
        end.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, 2 * MAX_MESSAGE)
    return Channel(ours, user_namespace=user_namespace), Channel(theirs, user_namespace=user_namespace)


def _decode(payload: bytes, control: list[tuple[int, int, bytes]]) -> Message:
    fds: list[int] = []
    pid = 0
    for level, kind, data in control:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds.extend(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))
        elif level == _socket.SOL_SOCKET and kind == _socket.SCM_CREDENTIALS:
            pid = int.from_bytes(data[:4], "little")
    name, values = jsonio.loads(payload)
    return Message(name, values, fds, pid)


def error_data(error: BaseException) -> dict[str, Any]:
    """Return what travels of an error: its class's name, message and hint."""
    if isinstance(error, UruncError):
        return {"class": type(error).__name__, "message": error.message, "hint": error.hint}
    if isinstance(error, OSError):
        return {"class": "KernelError", "message": describe(error), "hint": None}
    return {"class": "KernelError", "message": f"internal error: {type(error).__name__}: {error}", "hint": None}


def carried_error(data: dict[str, Any]) -> UruncError:
    """Return the error that a message carries, of the class it was raised as."""
    kind = getattr(errors, str(data.get("class")), KernelError)
    return kind(str(data.get("message")), hint=data.get("hint"))
