"""A forked child of the shim: it drops what is not its own, does one job of `work`, and answers with one message.

As a rule the job comes by the fork. What containerd asks next is often known, though: then the child is forked ahead
of the request, loads what it will need, and gets its job as a message, with the descriptors that it may have. So does
the child that has made a container: it stays for the start. It is not the one that lives on: what it makes (a
monitor's process) outlives it and becomes the shim's.

Light: the first child is forked before the shim has loaded itself.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import gc
import os
import select
import sys

from .. import jsonio, log
from ..linux import proc
from ..record import Record
from .places import Place, name_holder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn

    Stdio = tuple[int, int, int]

NO_STDIO = (-1, -1, -1)
STAYS_AFTER, STAYS_FOR = "create", "start"
"""After a successful job of the one verb, its child waits for one of the other."""
MAX_JOB = 64 * 1024
"""A larger job goes by a fork: the kernel limits a message, and to what depends on the host."""
_DESCRIPTORS = 5
_code: frozenset[int] = frozenset()
"""The descriptors by which modules are loaded: see `hold_code`."""


class Job(Record):
    """What an operation does: a function of `work`, and what it is called with."""

    verb: str
    place: Place
    arguments: tuple[Any, ...] = ()  # for JSON
    strict: bool = False  # what the end of `Given.ready` means: see `work.await_logger`


class Given(Record):
    """The descriptors that a job comes with, -1 where there is none."""

    stdio: Stdio = NO_STDIO  # what the child has as 0, 1 and 2
    ready: int = -1  # where a logger says that it reads
    held: int = -1  # holds the bundle: see `places.hold`

    def all(self) -> tuple[int, ...]:
        """Return all five, with the -1."""
        return (*self.stdio, self.ready, self.held)


def hold_code() -> None:
    """Have this process and its children load modules of the version that it is, whichever is installed meanwhile.

    They are in the groups of an installation (bin/loader.py), all that a shim may need.
    """
    global _code
    _code = frozenset(fd for finder in sys.meta_path if hasattr(finder, "hold") for fd in finder.hold())


def be(body: Callable[[], None], stdio: Stdio, keep: Iterable[int]) -> NoReturn:
    """Be a child, just forked: run `body`, and end with 0 when it returns, with 1 when it raises.

    It has `stdio` as its descriptors 0, 1 and 2 (-1 is /dev/null) and those of `keep`, no other: locks and
    sockets are shared over a fork, and would outlive what they stand for.
    """
    code = 1
    try:
        gc.disable()  # it ends before there is anything to collect
        _signal.set_wakeup_fd(-1)
        for number in (_signal.SIGCHLD, _signal.SIGTERM, _signal.SIGINT):
            _signal.signal(number, _signal.SIG_DFL)
        _place_stdio(stdio)
        _close_all_but((0, 1, 2, *keep))
        body()
        code = 0
    finally:
        os._exit(code)


def execute(argv: list[str], env: dict[str, str] | None = None) -> NoReturn:
    """Become another program, in a forked child: `argv[0]` is a path. Python's ignored signals are not passed on."""
    proc.reset_signals()
    os.execve(argv[0], argv, os.environ if env is None else env)  # noqa: S606


def _close_all_but(fds: Iterable[int]) -> None:
    """Close every descriptor but these, by what /proc says: `proc.close_all_but` needs `_ctypes`, most jobs do not."""
    kept = _code.union(fds)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd not in kept:
            try:
                os.close(fd)
            except OSError:
                pass  # by which the folder was read


def _place_stdio(stdio: Stdio) -> None:
    """Make 0, 1 and 2 of the given descriptors. They are above 2 themselves: the shim keeps its own 0, 1 and 2 open."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for target, fd in enumerate(stdio):
        os.dup2(null if fd < 0 else fd, target)
    os.close(null)


def fork(body: Callable[[_socket.socket], None], given: Given) -> _socket.socket:
    """Fork a child for `body`, which gets its end of what they speak over; return the shim's. Raises OSError."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    try:
        if os.fork() == 0:
            be(lambda: body(theirs), given.stdio, (theirs.fileno(), log.descriptor(), given.ready, given.held))
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours


def do(job: Job, given: Given, theirs: _socket.socket) -> None:
    """Do a job in this child, and send what came of it: values and a descriptor, or the error. Then stay, or end."""
    fd, values = -1, None
    try:
        if given.held >= 0:
            name_holder(given.held)
        from . import work

        values, fd = work.perform(job, given.ready)
        answer: dict[str, Any] = {"values": values, "fd": fd >= 0}
    except BaseException as error:
        from ..runtime.channel import error_data

        answer = {"error": error_data(error)}
    theirs.sendmsg([jsonio.dumps(answer)], _rights((fd,)))
    if job.verb == STAYS_AFTER and values:
        _stay(values, theirs)


def _stay(made: dict[str, Any], theirs: _socket.socket) -> None:
    """Wait for the job that starts what this child has made, and do it.

    A unikernel's monitor is this one's child, or the shim's where create has forked twice (`runtime.init`). Where it
    ends, this one does too, without a job from then on: a child's end is the shim's to be told only then.
    """
    from . import work

    _close_all_but((0, 1, 2, theirs.fileno(), log.descriptor()))
    _place_stdio(NO_STDIO)
    work.prepare(STAYS_FOR, ours=made["ours"])
    poll = select.poll()
    poll.register(theirs, select.POLLIN)
    try:
        if made["ours"]:
            poll.register(proc.open_process(made["pid"], made["started"]), select.POLLIN)
        poll.poll()
    except ProcessLookupError:
        pass  # it has ended already
    theirs.shutdown(_socket.SHUT_RD)  # a job that comes later is refused, and the shim forks for it
    _receive(theirs)


def fork_ahead(verb: str, *, ours: bool = True) -> _socket.socket:
    """Fork a child for a later job of `verb`, on a unikernel or not; return the end to `send` it by. Raises OSError.

    It ends where that end is closed first.
    """
    return fork(lambda theirs: _wait(verb, ours, theirs), Given())


def _wait(verb: str, ours: bool, theirs: _socket.socket) -> None:
    from . import work

    work.prepare(verb, ours=ours)
    _receive(theirs)


def _receive(theirs: _socket.socket) -> None:
    """Take a job, and do it."""
    data, control, _flags, _address = theirs.recvmsg(
        MAX_JOB, _socket.CMSG_SPACE(4 * _DESCRIPTORS), _socket.MSG_CMSG_CLOEXEC
    )
    if not data:
        return  # nobody wants it any more
    job, given = _unpack(jsonio.loads(data), control)
    _place_stdio(given.stdio)
    for fd in given.stdio:
        if fd >= 0:
            os.close(fd)
    do(job, given, theirs)


def send(ours: _socket.socket, job: Job, given: Given) -> bool:
    """Give a child that was forked ahead its job. Return whether it could be."""
    message = jsonio.dumps({"job": job.to_data(), "given": [fd >= 0 for fd in given.all()]})
    if len(message) > MAX_JOB:
        return False
    try:
        ours.sendmsg([message], _rights(given.all()), _socket.MSG_NOSIGNAL)
    except OSError:
        return False  # it has ended, whyever
    return True


def _unpack(message: Any, control: list[tuple[int, int, bytes]]) -> tuple[Job, Given]:
    data = control[0][2] if control else b""
    fds = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
    each = [fds.pop(0) if given else -1 for given in message["given"]]
    job = message["job"]
    job = Job(**{**job, "place": Place(**job["place"]), "arguments": tuple(job["arguments"])})
    return job, Given(stdio=(each[0], each[1], each[2]), ready=each[3], held=each[4])


def _rights(fds: Iterable[int]) -> list[tuple[int, int, bytes]]:
    data = b"".join(fd.to_bytes(4, "little") for fd in fds if fd >= 0)
    return [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, data)] if data else []
