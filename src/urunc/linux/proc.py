"""Processes: who is who, signals that cannot reach a stranger, and what a process sets on itself before execve.

A pid alone names nobody: the kernel gives it to the next process once its owner is reaped. So a process here is
a pid and its start time, and signals go through a pidfd that was checked against both. Knows nothing of containers.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import select
import time
from errno import EPERM, ESRCH

from ..errors import reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_STATE = 0  # fields of /proc/PID/stat counted from the one after the command's name (field 3 in proc(5))
_FLAGS = 6
_PF_EXITING = 0x4
_START_TIME = 19
_LAST_FD = 2**31 - 1

RLIMITS = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}
"""The names that `process.rlimits` may use, and the kernel's numbers (the same on x86_64 and aarch64)."""


_NO_LIMIT = 2**64 - 1


def start_time(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot; None where it is gone, a zombie included.

    So is one on its way out: its descriptors, and the locks with them, go a moment before it becomes a zombie.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(4096)
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(b")") + 2 :].split()  # the name before may hold blanks and parentheses
    if fields[_STATE] in (b"Z", b"X", b"x") or int(fields[_FLAGS]) & _PF_EXITING:
        return None
    return int(fields[_START_TIME])


def boot_id() -> str:
    """Return the kernel's id of this boot: start times of another boot mean nothing."""
    with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
        return file.read(64).decode().strip()


def open_process(pid: int, started: int) -> int:
    """Return a pidfd of the process that has this pid and start time. Raises ProcessLookupError where it is gone."""
    pidfd = os.pidfd_open(pid)
    if start_time(pid) == started:
        return pidfd  # read after the pidfd was opened, so that the pid cannot have changed hands in between
    os.close(pidfd)
    raise ProcessLookupError(ESRCH, os.strerror(ESRCH))


def open_file(pid: int, started: int, name: str, flags: int = os.O_RDONLY) -> int:
    """Open /proc/PID/`name` of the process that has this pid and start time, and of no other. Return the descriptor.

    Raises ProcessLookupError where the process is gone, OSError for what it does not let be opened.
    """
    try:
        fd = os.open(f"/proc/{pid}/{name}", flags | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ProcessLookupError(ESRCH, os.strerror(ESRCH)) from None
    if start_time(pid) == started:
        return fd  # as with a pidfd: what is open already cannot become another's
    os.close(fd)
    raise ProcessLookupError(ESRCH, os.strerror(ESRCH))


def send_signal(pid: int, started: int, signum: int) -> None:
    """Signal the process of this pid and start time, never another. Raises ProcessLookupError where it is gone."""
    pidfd = open_process(pid, started)
    try:
        _signal.pidfd_send_signal(pidfd, signum)
    finally:
        os.close(pidfd)


def children(pid: int) -> list[int]:
    """Return the pids of the process's children, those of all its threads; none where it is gone."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended: its children are another thread's now
    return found


def catches(pid: int, signum: int) -> bool:
    """Return whether the process has a handler for the signal. Process 1 of a namespace ignores any other."""
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            text = file.read(8192)
    except (FileNotFoundError, ProcessLookupError):
        return False
    mask = text.partition(b"\nSigCgt:")[2].split(None, 1)
    return bool(mask) and bool(int(mask[0], 16) >> (signum - 1) & 1)


def wait_gone(pid: int, started: int, timeout_seconds: float) -> bool:
    """Wait until that process has ended (a zombie has); return whether it did within the time."""
    try:
        pidfd = open_process(pid, started)
    except ProcessLookupError:
        return True
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + timeout_seconds
    try:
        while True:
            left = max(0.0, deadline - time.monotonic())
            if poll.poll(int(left * 1000 + 0.999)):
                return True
            if time.monotonic() >= deadline:
                return False
    finally:
        os.close(pidfd)


def parse_signal(text: str) -> int:
    """Return a signal's number: by name (`TERM`, `sigterm`, `RTMIN+3`) or number. Raises ValueError."""
    if text.isascii() and text.isdigit():
        return _known_signal(int(text), text)
    name = text.upper().removeprefix("SIG")
    base, sign, offset = name.partition("+") if "+" in name else name.partition("-")
    if sign and (base not in ("RTMIN", "RTMAX") or not (offset.isascii() and offset.isdigit())):
        raise ValueError(f"unknown signal `{text}`")
    number = getattr(_signal, f"SIG{base}", None) if base.isalnum() and not base[0].isdigit() else None
    if not isinstance(number, int):
        raise ValueError(f"unknown signal `{text}`")
    if not sign:
        return int(number)
    shifted = number + int(sign + offset)
    if not _signal.SIGRTMIN <= shifted <= _signal.SIGRTMAX:
        raise ValueError(f"unknown signal `{text}`")
    return int(shifted)


def _known_signal(number: int, text: str) -> int:
    if number > _signal.SIGRTMAX:
        raise ValueError(f"unknown signal `{text}`")
    return number  # 0 asks only whether the process is there


def set_rlimits(limits: Iterable[tuple[str, int, int]]) -> None:
    """Set (kind, soft, hard) limits on this process (config.md, "POSIX process"). Raises OSError naming the kind."""
    from . import libc  # here, as in the others: most verbs need none of it, and it is a tenth of their time

    for kind, soft, hard in limits:
        try:
            libc.set_rlimit(RLIMITS[kind], soft, hard)
        except OSError as error:
            raise OSError(error.errno, f"cannot set {kind}: {reason(error)}") from None


def may_set_rlimit(kind: str, hard: int, *, raising: bool = True) -> bool:
    """Return whether this process may have that hard limit: not above its own, or, if `raising`, with CAP_SYS_RESOURCE.

    Found out by trying, and taken back: a limit of the kernel's (fs.nr_open) or a filter may forbid it as well.
    """
    import resource  # a file of its own, and few containers have limits

    from . import libc

    number = RLIMITS[kind]
    soft, own = (limit if limit >= 0 else _NO_LIMIT for limit in resource.getrlimit(number))
    if hard <= own:
        return True
    if not raising:
        return False
    try:
        libc.set_rlimit(number, soft, hard)
    except OSError:
        return False
    libc.set_rlimit(number, soft, own)
    return True


def set_oom_score_adj(value: int) -> None:
    """Write this process's oom_score_adj, -1000 to 1000. Raises OSError; needs /proc, so do it before the pivot."""
    with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
        file.write(str(value).encode())


def reset_signals() -> None:
    """Give every signal its default action and empty the mask.

    Python ignores SIGPIPE and SIGXFSZ, and whoever started urunc may ignore more: execve would keep that.
    """
    for number in _signal.valid_signals() - {_signal.SIGKILL, _signal.SIGSTOP}:
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def close_all_but(fds: Iterable[int]) -> None:
    """Close every descriptor of this process except these."""
    from . import libc

    first = 0
    for fd in sorted(set(fds)):
        if fd > first:
            libc.close_range(first, fd - 1)
        first = fd + 1
    libc.close_range(first, _LAST_FD)


def close_at_exec(first: int) -> None:
    """Have execve close every descriptor from `first` on. Raises OSError."""
    from . import libc

    libc.close_range(first, _LAST_FD, libc.CLOSE_RANGE_CLOEXEC)


def become(uid: int, gid: int, groups: Iterable[int] | None = ()) -> None:
    """Take this user, group and supplementary groups (None: keep them): real, effective and saved. Raises OSError.

    In a user namespace whose owner may not call setgroups(2), "no supplementary groups" is taken as it is: none
    of them is mapped there.
    """
    if groups is not None:
        _set_groups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def _set_groups(groups: list[int]) -> None:
    try:
        os.setgroups(groups)
    except PermissionError as error:
        if groups:
            raise OSError(EPERM, f"cannot set the supplementary groups: {reason(error)}") from None


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends.

    A parent that has ended already does not: the caller looks for it afterwards (end-of-file on its socket).
    A change of user clears it.
    """
    from . import libc

    libc.prctl(libc.PR_SET_PDEATHSIG, _signal.SIGKILL)
