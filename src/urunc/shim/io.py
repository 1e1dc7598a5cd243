"""The streams of a container's process, as containerd names them: fifos, `file://` and `binary://` URIs, a terminal.

Where no terminal is asked for, the process gets the fifo, the file or the logger's pipe itself, and nothing is
copied. The shim holds a fifo open beside it, so that neither a restart of containerd nor a reader that goes
away for a while ends it: what the fifo holds (64 KiB) is kept until it is read, and then the writer waits.
A terminal's master is copied by two pumps in the shim's loop.
"""

from __future__ import annotations

import fcntl
import os
import stat
from _struct import pack, unpack

from .. import log
from ..errors import HostError, reason
from .child import execute
from .pump import Pump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .children import Children
    from .loop import Loop
    from .wire import Values

_TIOCSWINSZ, _FIONREAD = 0x5414, 0x541B
_FIRST_LOOK, _LAST_LOOK = 0.01, 1.0  # seconds between two looks whether a fifo has been read empty
_LOGGER_GRACE = 1.0
"""So long a logger, which has seen the end of its streams, may go on before it gets SIGTERM."""
TERM_SECONDS = 12.0
"""So long it may go on before it is killed, as in containerd's own shim."""


class Owner:
    """Whose streams they are: what a logger is told, and user and group of the pipes and fifos (IoUid, IoGid)."""

    def __init__(self, namespace: str, container: str, uid: int = 0, gid: int = 0) -> None:
        self.namespace, self.container = namespace, container
        self.uid, self.gid = uid, gid


class Streams:
    """The three streams of one process. `child` are its descriptors 0, 1 and 2, -1 for /dev/null.

    The order of its life: `open_streams`, fork with `child` and `ready`, `close_child`, with a terminal
    `attach`; then `resize` and `close_stdin`; `process_ended` when it has; `close` when it is deleted.
    """

    def __init__(self, loop: Loop, children: Children, terminal: bool) -> None:
        self._loop, self._children = loop, children
        self.terminal = terminal
        self.child = [-1, -1, -1]
        self.ready = -1
        """The pipe on which a logger says that it reads, -1 without one: see `work.await_logger`."""
        self.strict = False
        self._held: list[int] = []  # fifos that are written to, open for reading and writing
        self._stdin_writer = -1
        self._stdin_path = ""
        self._sink = -1  # where a terminal's output goes
        self._master = -1
        self._pumps: list[Pump] = []
        self._logger = 0

    @property
    def stdio(self) -> tuple[int, int, int]:
        """What a child gets as 0, 1 and 2."""
        return (self.child[0], self.child[1], self.child[2])

    def close_child(self) -> None:
        """Close what only the process needs; to be called once it is forked."""
        for index, fd in enumerate(self.child):
            _close(fd)
            self.child[index] = -1
        _close(self.ready)
        self.ready = -1

    def attach(self, master: int) -> None:
        """Copy between the terminal and its streams from now on. Takes the descriptor over.

        Where that cannot be, the log says so: the process, which is there by now, lives on.
        """
        self._master = master
        try:
            self._attach(master)
        except OSError as error:
            log.warn(f"cannot copy a terminal's streams: {reason(error)}")

    def _attach(self, master: int) -> None:
        sink, self._sink = self._sink, -1
        if sink < 0:
            sink = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        self._pumps.append(Pump(self._loop, os.dup(master), sink, self._output_ended))
        if self._stdin_path:
            reader = os.open(self._stdin_path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._stdin_writer = os.open(self._stdin_path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._pumps.append(Pump(self._loop, reader, os.dup(master)))

    def resize(self, width: int, height: int) -> None:
        """Set the terminal's size in characters. Nothing happens without a terminal."""
        if self._master >= 0:
            fcntl.ioctl(self._master, _TIOCSWINSZ, pack("HHHH", height & 0xFFFF, width & 0xFFFF, 0, 0))

    def close_stdin(self) -> None:
        """Let the process see the end of its input once the other writers have closed it."""
        _close(self._stdin_writer)
        self._stdin_writer = -1

    def process_ended(self) -> None:
        """Let readers see the end, once they have read what is there."""
        self.close_stdin()
        for pump in self._pumps[1:]:
            pump.close()
        if self._pumps and not self._pumps[0].closed:
            self._pumps[0].finish()
        else:
            self._let_go(_FIRST_LOOK)

    def close(self) -> None:
        """Close everything, whether it was read or not; end the logger."""
        self.close_child()
        self.close_stdin()
        for pump in self._pumps:
            pump.close()
        for fd in (*self._held, self._master, self._sink):
            _close(fd)
        self._held.clear()
        self._master = self._sink = -1
        if self._logger:
            self._loop.later(_LOGGER_GRACE, lambda: _kill(self._logger, 15))
            self._loop.later(TERM_SECONDS, lambda: _kill(self._logger, 9))

    def _output_ended(self) -> None:
        self._let_go(_FIRST_LOOK)

    def _let_go(self, seconds: float) -> None:
        """Close the fifos that are read empty, and look again for the others: closing one loses what it holds."""
        for fd in list(self._held):
            if not _unread(fd):
                self._held.remove(fd)
                os.close(fd)
        if self._held:
            self._loop.later(seconds, lambda: self._let_go(min(seconds * 2, _LAST_LOOK)))

    def give_to(self, uid: int, gid: int) -> None:
        """Make the pipes and fifos a user's: so a process of a user namespace can open `/dev/stdout` again."""
        for fd in self.child:
            if fd >= 0 and stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.fchown(fd, uid, gid)

    def open_input(self, path: str) -> None:
        """Open standard input, a fifo."""
        if self.terminal:
            if stat.S_ISFIFO(os.stat(path).st_mode):  # /dev/null and its like have nothing to copy
                self._stdin_path = path
            return
        self.child[0] = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._stdin_writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(self.child[0], True)

    def open_output(self, index: int, path: str) -> None:
        """Open standard output (1) or error (2), a fifo as a rule."""
        if stat.S_ISFIFO(os.stat(path).st_mode):
            self._held.append(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        self._put(index, os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY))

    def open_file(self, index: int, path: str) -> None:
        """Open standard output (1) or error (2) as a file that is appended to, and made where it is not there."""
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        fd = os.open(path, flags, 0o644)
        os.set_blocking(fd, True)
        self._put(index, fd)

    def start_logger(self, uri: str, owner: Owner) -> None:
        """Start a logger, `binary://PATH?ARGS`, with the two streams on its descriptors 3 and 4 and `ready` on 5."""
        self.strict = uri.startswith("binary-v2:")
        argv = logger_argv(uri)
        if not os.access(argv[0], os.X_OK):
            raise HostError(f"cannot run the logger `{argv[0]}`: it is not there, or no program")
        env = {"CONTAINER_ID": owner.container, "CONTAINER_NAMESPACE": owner.namespace}
        pipes: list[int] = []
        try:
            for _ in range(3):
                pipes += os.pipe2(os.O_CLOEXEC)
            theirs = (pipes[0], pipes[2], pipes[5])
            self._logger = self._children.fork(lambda: _become_logger(argv, env, theirs), (-1, -1, -1), theirs)
        except OSError:
            for fd in pipes:
                os.close(fd)
            raise
        self._children.lingering.add(self._logger)
        self._children.watch(self._logger, self._logger_ended)
        for fd in theirs:
            os.close(fd)
        self.ready = pipes[4]
        self._put(1, pipes[1])
        if self.terminal:
            os.close(pipes[3])
        else:
            self.child[2] = pipes[3]

    def _logger_ended(self, _status: int, _when: int) -> None:
        self._children.lingering.discard(self._logger)
        self._logger = 0

    def _put(self, index: int, fd: int) -> None:
        if not self.terminal:
            self.child[index] = fd
        elif index == 1:
            self._sink = fd
        else:
            os.close(fd)


def open_streams(loop: Loop, children: Children, request: Values, owner: Owner) -> Streams:
    """Open the streams of a Create or Exec request (stdin, stdout, stderr, terminal). Raises HostError."""
    streams = Streams(loop, children, request["terminal"])
    path = ""
    try:
        for index, path in enumerate((request["stdin"], request["stdout"], request["stderr"])):
            _open(streams, index, path, owner)
        if owner.uid or owner.gid:
            streams.give_to(owner.uid, owner.gid)
    except OSError as error:
        streams.close()
        raise HostError(f"cannot open the stream `{path}`: {reason(error)}") from None
    except BaseException:
        streams.close()
        raise
    return streams


def _open(streams: Streams, index: int, path: str, owner: Owner) -> None:
    scheme, colon, rest = path.partition("://")
    if not path or (streams.terminal and index == 2):
        return
    if index == 0:
        streams.open_input(path)
    elif not colon or scheme == "fifo":
        streams.open_output(index, rest if colon else path)
    elif scheme == "file":
        streams.open_file(index, _unquote(rest.partition("?")[0]))
    elif scheme in ("binary", "binary-v2"):
        if index == 1:
            streams.start_logger(path, owner)
    else:
        raise HostError(f"cannot open the stream `{path}`: `{scheme}` is no scheme of containerd's")


def logger_argv(uri: str) -> list[str]:
    """Return the command of a `binary://PATH?KEY=VALUE&..` URI: the path, then keys and values as they come."""
    path, _, query = uri.partition("://")[2].partition("?")
    argv = [_unquote(path)]
    seen = set()
    for part in query.split("&"):
        key, _, value = part.partition("=")
        if part and key not in seen:
            seen.add(key)
            argv += [_unquote(key.replace("+", " ")), _unquote(value.replace("+", " "))]
    return argv


def _unquote(text: str) -> str:
    """Decode %XX, as in a URI; what is no such escape stays as it is."""
    first, *parts = text.encode("utf-8", "surrogateescape").split(b"%")
    decoded = bytearray(first)
    for part in parts:
        try:
            decoded += bytes((int(part[:2].decode(), 16),)) + part[2:] if len(part) >= 2 else b"%" + part
        except ValueError:
            decoded += b"%" + part
    return os.fsdecode(bytes(decoded))


def _become_logger(argv: list[str], env: dict[str, str], fds: tuple[int, ...]) -> None:
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in fds]
    for target, fd in enumerate(high, 3):
        os.dup2(fd, target, inheritable=True)
    execute(argv, env)


def _unread(fifo: int) -> int:
    """Return how many bytes wait in a fifo."""
    (count,) = unpack("i", fcntl.ioctl(fifo, _FIONREAD, bytes(4)))
    return int(count)


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _kill(pid: int, signum: int) -> None:
    if pid:
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            pass
