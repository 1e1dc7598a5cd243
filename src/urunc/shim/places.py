"""Where a container is and how it is run: kept in its bundle, for the `delete` that follows a killed shim.

Light: `delete` runs after every container, as a rule with nothing left to do.
"""

from __future__ import annotations

import fcntl
import os
import time
from _signal import SIGKILL  # type: ignore[import-not-found]
from _struct import Struct
from errno import ENOSPC

from .. import jsonio
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_ROOT = "/run/containerd/runc"
"""As containerd's own shim has it; the namespace's name follows. `urunc --root /run/containerd/runc/NAMESPACE list`."""
PLACE_FILE = "shim.json"
DELETED_FILE = "deleted"
AWAIT_SECONDS, KILL_SECONDS = 2.5, 0.4
"""So long `delete` waits for an operation, and then, each time it has killed something, for its end.

containerd gives it five seconds, of which these are 3.7 at most: the rest is to start in, and to clear what is left.
"""
_MOST_HOLDERS = 2
"""An operation on a container holds its bundle, and an exec may be under way beside it."""
_FLOCK = Struct("hhqqi4x")
"""struct flock of fcntl(2), on 64-bit machines: type, whence (0: the beginning), start, length, pid."""


class Place(Record):
    """Where a container is and how it is run: what its operations, and a later `delete`, must know."""

    id: str
    bundle: str
    root: str  # the state root, of ours and of the delegate
    delegate: str = ""  # name or path of the runtime of ordinary containers; "" until one is made
    systemd: bool = False
    no_pivot: bool = False
    no_new_keyring: bool = False
    config: str = ""  # the path of the configuration, where it is not the host's
    io_uid: int = 0  # whose the pipes and fifos of its streams are
    io_gid: int = 0
    ours: bool = True  # a unikernel; known once it is created


def is_ours(place: Place) -> bool:
    """Return whether urunc holds the container, as the command line decides it."""
    return os.path.lexists(f"{place.root}/{place.id}/lock")


def is_left(place: Place) -> bool:
    """Return whether anything of the container is left in the state root: ours, or the delegate's."""
    return any(os.path.lexists(f"{place.root}/{name}") for name in (place.id, f".{place.id}.new"))


def make_folder(path: str, mode: int) -> None:
    """Make a folder and its parents. As a rule it is there, and the half of `os` that has `makedirs` is not loaded."""
    if not os.path.isdir(path):
        os.makedirs(path, mode, exist_ok=True)


def save_place(place: Place) -> None:
    """Write the place into the bundle, in one write over what was there: it is whole whenever the shim is killed.

    The file stays the same, as `hold` locks it; blanks take the place of what a longer one leaves. Raises OSError.
    """
    fd = os.open(f"{place.bundle}/{PLACE_FILE}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        data = jsonio.dumps(place.to_data()).ljust(os.fstat(fd).st_size)
        if os.write(fd, data) < len(data):
            raise OSError(ENOSPC, os.strerror(ENOSPC))
    finally:
        os.close(fd)


def hold(bundle: str) -> int:
    """Return a descriptor that holds the bundle, in which is a place, until its last copy is closed. Raises OSError."""
    fd = os.open(f"{bundle}/{PLACE_FILE}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
    except OSError:
        os.close(fd)
        raise
    return fd


def name_holder(held: int) -> None:
    """Have the kernel know that this process holds the bundle. Raises OSError.

    By a second lock, of the kind that belongs to a process: who has the first cannot be asked for.
    """
    fcntl.fcntl(held, fcntl.F_SETLK, _FLOCK.pack(fcntl.F_RDLCK, 0, 0, 0, 0))


def _find_holder(fd: int) -> int:
    """Return the pid of a process that holds the bundle, 0 where none has said so."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0)
    kind, _whence, _start, _length, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    return int(pid) if kind != fcntl.F_UNLCK else 0


def _kill_holder(fd: int) -> bool:
    """Kill a process that holds the bundle, and return whether there is one: it may end by itself meanwhile."""
    from ..linux import proc

    pid = _find_holder(fd)
    started = proc.start_time(pid) if pid > 0 else None
    if started is None or _find_holder(fd) != pid:
        return False  # it has ended, and its pid may be another's
    _kill(pid, started)
    return True


def _kill_what_it_waits_for(fd: int) -> bool:
    """Kill what the children of a process that holds the bundle have begun, as a hook of runc's; return if it had any.

    Then runc fails, and undoes what it did, which nobody else knows: it keeps a record of what is whole alone.
    """
    from ..linux import proc

    pid = _find_holder(fd)
    found = [below for child in proc.children(pid) for below in _descendants(child)]
    if _find_holder(fd) != pid:
        return False
    for below, started in found:
        _kill(below, started)
    return bool(found)


def _descendants(pid: int) -> list[tuple[int, int]]:
    """Return pids and start times, parents before their children: who is killed first starts no other."""
    from ..linux import proc

    found = [(child, proc.start_time(child)) for child in proc.children(pid)]
    still = proc.children(pid)  # so the start times are those of its children, and not of whoever has such a pid now
    result: list[tuple[int, int]] = []
    for child, started in found:
        if started is not None and child in still:
            result += [(child, started), *_descendants(child)]
    return result


def _kill(pid: int, started: int) -> None:
    from ..linux import proc

    try:
        proc.send_signal(pid, started, SIGKILL)
    except ProcessLookupError:
        pass


def await_operation(bundle: str) -> None:
    """Wait until no operation holds the bundle: it goes on where its shim is killed, and would make what is cleared.

    One that takes too long is killed: first what it waits for, and where that does not end it, itself. What it has made
    by then is cleared as what any killed `create` has left.
    """
    try:
        fd = os.open(f"{bundle}/{PLACE_FILE}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if _await_lock(fd, AWAIT_SECONDS):
            return
        if _kill_what_it_waits_for(fd) and _await_lock(fd, KILL_SECONDS):
            return
        for _ in range(_MOST_HOLDERS):
            if not _kill_holder(fd) or _await_lock(fd, KILL_SECONDS):
                return
    finally:
        os.close(fd)


def _await_lock(fd: int, seconds: float) -> bool:
    """Take the lock; return whether it was to be had within the time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)


def note_deleted(bundle: str, answer: bytes, socket: str) -> None:
    """Note in the bundle that the container is deleted: as a rule there is nothing left to do for `delete` then.

    The entry point, bin/shim.in, reads it before Python is started: what `delete` prints, as printf takes it, and the
    socket that must be gone, where the shim is to end with this container.
    """
    text = "".join(f"\\{byte:03o}" for byte in answer)
    try:
        with open(os.open(f"{bundle}/{DELETED_FILE}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(f"{text}\n{socket}\n")
        os.unlink(f"{bundle}/{PLACE_FILE}")
    except OSError:
        pass  # the bundle is gone, and with it the question; or `delete` will look for itself


def load_place(bundle: str) -> Place | None:
    """Return the place that a shim wrote into the bundle, None where there is none."""
    try:
        with open(f"{bundle}/{PLACE_FILE}", "rb") as file:
            return Place(**jsonio.loads(file.read(jsonio.MAX_BYTES)))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def read_config(bundle: str) -> dict[str, Any]:
    """Return the bundle's config.json as it is, {} where it holds no object. Raises SpecError."""
    from ..runtime import bundle as bundles

    config = bundles.read_config(bundle)
    return config if isinstance(config, dict) else {}


def write_pid_file(place: Place, pid: int) -> None:
    """Write `init.pid` into the bundle: engines' tools look there."""
    path = f"{place.bundle}/init.pid"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644), "w") as file:
        file.write(str(pid))
