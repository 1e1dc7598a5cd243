"""Ask a monitor something by its HTTP API. The monitor is hostile: no name it made is followed, no answer awaited long.

Its socket lies in a folder that only its own mount namespace has, so it is reached through /proc/PID/root. There the
monitor can put what it wants, but nothing that leads out: links are refused, and only a socket is connected to.
"""

from __future__ import annotations

import _socket
import os
import stat
import time

from .. import jsonio
from ..errors import StateError, reason
from ..linux import proc
from ..vm import api

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SECONDS = 1.0
_CHUNK = 4096
_MAX_ANSWER = 64 * 1024
_LONGEST_NUMBER = 20  # digits: int() refuses thousands of them
_END = b"\r\n\r\n"
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def press_ctrl_alt_del(pid: int, started: int) -> None:
    """Press Ctrl-Alt-Del in the machine whose monitor is process `pid` (`started`: its start time).

    Raises StateError where the monitor does not listen, does not answer within a second, or refuses.
    """
    _ask(pid, started, api.CTRL_ALT_DEL)


def set_balloon(pid: int, started: int, mib: int) -> None:
    """Ask for a balloon of that size, which the guest then fills. Raises StateError as above."""
    _ask(pid, started, api.set_balloon(mib))


def instance(pid: int, started: int) -> dict[str, Any]:
    """Return what the monitor says of its machine: as trustworthy as the guest. Raises StateError as above."""
    return _ask_for_object(pid, started, api.GET_INSTANCE)


def balloon_statistics(pid: int, started: int) -> dict[str, Any]:
    """Return what the monitor says of the balloon, and the guest of its memory. Raises StateError as above."""
    return _ask_for_object(pid, started, api.GET_BALLOON)


def _ask_for_object(pid: int, started: int, request: bytes) -> dict[str, Any]:
    try:
        answer = jsonio.loads(_ask(pid, started, request))
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise StateError("the monitor does not answer: what it says is no JSON object")
    return answer


def _ask(pid: int, started: int, request: bytes) -> bytes:
    """Return the body of the answer."""
    try:
        answer = _exchange(pid, started, request)
    except OSError as error:
        raise StateError(f"the monitor does not answer: {reason(error)}") from None
    words = answer.split(b" ", 2)
    if len(words) < 2 or not words[1].startswith(b"2"):
        raise StateError("the monitor refuses")
    return answer.partition(_END)[2]


def _exchange(pid: int, started: int, request: bytes) -> bytes:
    socket = _open_socket(pid, started)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    deadline = time.monotonic() + _SECONDS
    try:
        connection.settimeout(_SECONDS)
        connection.connect(f"/proc/self/fd/{socket}")
        connection.sendall(request)
        # The answer is waited for: a connection that is closed before is dropped with its request unread.
        answer = b""
        while not _is_whole(answer) and len(answer) < _MAX_ANSWER:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            more = connection.recv(_CHUNK)
            if not more:
                break
            answer += more
        return answer
    finally:
        connection.close()
        os.close(socket)


def _is_whole(answer: bytes) -> bool:
    """Return whether the head is there and the body as long as it says."""
    head, end, body = answer.partition(_END)
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length" and value.strip().isdigit() and len(value) < _LONGEST_NUMBER:
            return bool(end) and len(body) >= int(value)
    return bool(end)


def _open_socket(pid: int, started: int) -> int:
    """Return the socket's file, opened without a look at anything outside of the monitor's root."""
    fds = [proc.open_file(pid, started, "root", os.O_PATH | os.O_DIRECTORY)]
    try:
        fds.append(os.open(api.FOLDER.lstrip("/"), _PATH | os.O_DIRECTORY, dir_fd=fds[-1]))
        socket = os.open(api.SOCKET, _PATH, dir_fd=fds[-1])
    finally:
        for fd in fds:
            os.close(fd)
    if not stat.S_ISSOCK(os.fstat(socket).st_mode):
        os.close(socket)
        raise StateError("the monitor's socket is no socket")
    return socket
