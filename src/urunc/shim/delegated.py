"""The pod's ordinary containers: each operation is one call of the delegate, runc as a rule.

Runs in an operation's child, whose descriptors 0, 1 and 2 are the container's streams where it makes a process.
"""

from __future__ import annotations

import _socket
import os

from .. import jsonio
from ..errors import HostError, StateError, reason
from ..linux import proc
from ..runtime import delegate
from .child import execute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .places import Place

_CONSOLE_SECONDS = 10.0


def call(place: Place, *arguments: str, stdin: bytes | None = None) -> None:
    """Run the delegate with these arguments. Raises StateError with its own last error."""
    path = delegate.find(place.delegate)
    if path is None:
        raise HostError(f"cannot find `{place.delegate}`, which runs the containers that are not unikernels")
    log = f"{place.bundle}/.log-{os.getpid()}.json"
    argv = [path, "--root", place.root, "--log", log, "--log-format", "json"]
    argv += ["--systemd-cgroup", *arguments] if place.systemd else arguments
    try:
        status = _run(argv, stdin)
        if status:
            raise StateError(_last_error(log) or f"{os.path.basename(path)} {arguments[0]} ended with status {status}")
    finally:
        _remove(log)


def _run(argv: list[str], stdin: bytes | None) -> int:
    content = -1
    if stdin is not None:
        content = os.memfd_create("stdin", os.MFD_CLOEXEC)
        os.write(content, stdin)
        os.lseek(content, 0, os.SEEK_SET)
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        try:
            proc.die_with_parent()  # which `delete` kills where it goes on for too long without its shim
            if os.getppid() != parent:
                os._exit(127)
            if content >= 0:
                os.dup2(content, 0)
            execute(argv)
        finally:
            os._exit(127)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _last_error(log: str) -> str:
    """Return the last error in the delegate's log."""
    try:
        with open(log, "rb") as file:
            lines = file.read(1 << 20).splitlines()
    except FileNotFoundError:
        return ""
    for line in reversed(lines):
        try:
            entry = jsonio.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") == "error":
            return str(entry.get("msg", "")).strip()
    return ""


def make(place: Place, verb: tuple[str, ...], name: str, terminal: bool) -> tuple[int, int]:
    """Run a verb that makes a process (create, exec); return its pid, and its terminal's master or -1."""
    pid_file = f"{place.bundle}/.pid-{os.getpid()}"
    options = [*verb, "--pid-file", pid_file]
    console = _ConsoleSocket(f"{place.root}/.console-{os.getpid()}") if terminal else None
    try:
        if console:
            options += ["--console-socket", console.path]
        call(place, *options, name)
        with open(pid_file, encoding="ascii") as file:
            pid = int(file.read())
        return pid, console.receive() if console else -1
    finally:
        _remove(pid_file)
        if console:
            console.close()


class _ConsoleSocket:
    """Where the delegate sends a terminal's master. Its path is short: a socket's address holds 107 bytes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            self._listener.bind(path)
        except OSError as error:
            raise HostError(f"cannot make the console's socket `{path}`: {reason(error)}") from None
        self._listener.listen(1)
        self._listener.settimeout(_CONSOLE_SECONDS)

    def receive(self) -> int:
        """Return the master that was sent."""
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]  # socket.socket wraps it, for 9 ms
            connection = _socket.socket(fileno=fd)
            try:
                connection.settimeout(_CONSOLE_SECONDS)
                room = _socket.CMSG_SPACE(4)
                _name, control, _flags, _address = connection.recvmsg(4096, room, _socket.MSG_CMSG_CLOEXEC)
            finally:
                connection.close()
        except OSError as error:
            raise HostError(f"the runtime sent no terminal: {reason(error)}") from None
        if not control:
            raise HostError("the runtime sent no terminal")
        return int.from_bytes(control[0][2][:4], "little")

    def close(self) -> None:
        """Close the socket and remove its file."""
        self._listener.close()
        _remove(self.path)


def process_file(place: Place, process: Any) -> str:
    """Write a process (config.md, "Process") for `exec --process`; return the file's path, which is the caller's."""
    path = f"{place.bundle}/.process-{os.getpid()}.json"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(jsonio.dumps(process))
    return path


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
