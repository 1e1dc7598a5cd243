"""`containerd-shim-urunc-v2 start`: find the pod's shim or become it, and say where it listens.

The socket listens before its address is printed, and the process that prints is not the one that serves: containerd
reads standard output and error, one pipe, to its end. Must stay light: containerd waits for it.
"""

from __future__ import annotations

import _socket
import _struct
import errno
import fcntl
import os

from ..errors import HostError, UruncError, reason
from ..linux import atomic, proc
from .places import make_folder, read_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from hashlib import blake2b
else:
    from _blake2 import blake2b

SOCKET_FOLDER = "/run/containerd/s"
GROUPS = ("io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id")
"""Annotations whose value names the pod: containers that share it share a shim. The first that is there decides."""
_BACKLOG = 64
_CONNECT_SECONDS = 0.1
_CREDENTIALS = _struct.Struct("3i")


def group_of(bundle: str, name: str) -> str:
    """Return the pod of the container, its own id where it is in none. Raises SpecError."""
    annotations = read_config(bundle).get("annotations")
    for key in GROUPS:
        value = annotations.get(key) if isinstance(annotations, dict) else None
        if isinstance(value, str) and value:
            return value
    return name


def socket_path(folder: str, address: str, namespace: str, group: str) -> str:
    """Return where the pod's shim listens: a hash, as a socket's address holds 107 bytes and an id more."""
    place = os.path.normpath("/".join(part for part in (address, namespace, group) if part))
    return f"{folder}/{blake2b(place.encode(), digest_size=32).hexdigest()}"


def listen(path: str) -> _socket.socket | None:
    """Return a listening socket, None where a shim listens there already. Raises HostError."""
    try:
        make_folder(os.path.dirname(path), 0o711)
        lock = _lock_folder(path)
        try:
            return _listen(path)
        finally:
            os.close(lock)
    except OSError as error:
        raise HostError(f"cannot listen at `{path}`: {reason(error)}") from None


def _lock_folder(path: str) -> int:
    """Return a descriptor that locks the folder: a socket that is bound and does not listen yet is not a dead one."""
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def _listen(path: str) -> _socket.socket | None:
    try:
        return _bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    if _is_served(path):
        return None
    os.unlink(path)  # of a shim that was killed
    return _bind(path)


def _bind(path: str) -> _socket.socket:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)
    try:
        sock.bind(path)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(mask)
    sock.listen(_BACKLOG)
    return sock


def _is_served(path: str) -> bool:
    """Return whether a living shim listens there.

    A killed one's socket may take connections for a moment: while the kernel ends it, or a child has it from the fork.
    """
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(_CONNECT_SECONDS)
        sock.connect(path)
        pid, *_ = _CREDENTIALS.unpack(sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size))
    except OSError as error:
        return error.errno in (errno.EAGAIN, None)  # its backlog is full, or it is slow: it is there
    finally:
        sock.close()
    return not pid or proc.start_time(pid) is not None  # 0: of another process namespace


def write_address(bundle: str, path: str) -> None:
    """Write `address` into the bundle, whole: a restarted containerd finds the shim by it."""
    atomic.write(f"{bundle}/address", f"unix://{path}".encode())


def clear_socket(bundle: str) -> None:
    """Remove the socket that `address` in the bundle names where nobody listens there: its shim was killed."""
    try:
        with open(f"{bundle}/address", encoding="utf-8") as file:
            path = file.read(200).removeprefix("unix://")
        lock = _lock_folder(path)
        try:
            if not _is_served(path):
                os.unlink(path)
        finally:
            os.close(lock)
    except OSError:
        pass


def start(
    bundle: str, path: str, serve: Callable[[_socket.socket], None], before: Callable[[], None] | None = None
) -> str:
    """Return the address of the pod's shim, which is listening. In a process of its own, `serve` is called.

    Where there is no shim yet, `before` is called first, in the process that becomes it by a fork.
    """
    listener = listen(path)
    if listener is None:
        write_address(bundle, path)
        return f"unix://{path}"
    try:
        if before:
            before()
        write_address(bundle, path)
        _fork(listener, serve)
    except OSError as error:
        os.unlink(path)
        raise HostError(f"cannot start a shim in `{bundle}`: {reason(error)}") from None
    except UruncError:
        os.unlink(path)
        listener.close()
        raise
    listener.close()
    return f"unix://{path}"


def _fork(listener: _socket.socket, serve: Callable[[_socket.socket], None]) -> None:
    """Serve in a process of its own, and return once the socket is known as that process's."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    try:
        if os.fork() == 0:
            _serve(listener, tell, serve)
    finally:
        os.close(tell)
        os.read(told, 1)
        os.close(told)


def _serve(listener: _socket.socket, tell: int, serve: Callable[[_socket.socket], None]) -> None:
    code = 1
    try:
        listener.listen(_BACKLOG)  # whoever connects is told the pid of the process that said so last
        os.close(tell)
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        serve(listener)
        code = 0
    finally:
        os._exit(code)
