"""Ask a monitor something by its HTTP API. The monitor is hostile: no name it made is followed, no answer awaited long.

Its socket lies in a folder that only its own mount namespace has, so it is reached through /proc/PID/root. There the
monitor can put what it wants, but nothing that leads out: links are refused, and only a socket is connected to.
"""

from __future__ import annotations

import _socket
import os
import stat

from ..errors import StateError, reason
from ..linux import proc
from ..vm import api

_SECONDS = 1.0
_CHUNK = 256
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def press_ctrl_alt_del(pid: int, started: int) -> None:
    """Press Ctrl-Alt-Del in the machine whose monitor is process `pid` (`started`: its start time).

    Raises StateError where the monitor does not listen, does not answer within a second, or refuses.
    """
    try:
        _ask(pid, started, api.CTRL_ALT_DEL)
    except OSError as error:
        raise StateError(f"the monitor does not answer: {reason(error)}") from None


def _ask(pid: int, started: int, request: bytes) -> None:
    socket = _open_socket(pid, started)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(_SECONDS)
        connection.connect(f"/proc/self/fd/{socket}")
        connection.sendall(request)
        # One answer is waited for: a connection that is closed before is dropped with its request unread.
        answer = connection.recv(_CHUNK)
    finally:
        connection.close()
        os.close(socket)
    words = answer.split(b" ", 2)
    if len(words) < 2 or not words[1].startswith(b"2"):
        raise StateError("the monitor refuses")


def _open_socket(pid: int, started: int) -> int:
    """Return the socket's file, opened without a look at anything outside of the monitor's root."""
    fds = [os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        if proc.start_time(pid) != started:
            raise ProcessLookupError(3, "gone")
        fds.append(os.open(api.FOLDER.lstrip("/"), _PATH | os.O_DIRECTORY, dir_fd=fds[-1]))
        socket = os.open(api.SOCKET, _PATH, dir_fd=fds[-1])
    finally:
        for fd in fds:
            os.close(fd)
    if not stat.S_ISSOCK(os.fstat(socket).st_mode):
        os.close(socket)
        raise StateError("the monitor's socket is no socket")
    return socket
