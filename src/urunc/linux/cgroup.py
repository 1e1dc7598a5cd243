"""The life of the container's cgroup: made, entered, its processes listed and killed, removed. v1, v2 and hybrid.

`paths` is as in `cgroup_files`. Must not know of limits, which are files (`cgroup_files`), nor where a cgroup
belongs (`cgroup_layout`).

A directory made here is marked by an extended attribute, which cgroup file systems keep in memory: so what is
ours is known even where the runtime was killed before it recorded anything, and a parent shared by several
containers goes with the last of them. The container's own directory has the container's own mark, so that the undo of
one that was refused a cgroup in use never ends what is in there, and `remove` never takes another's.
"""

from __future__ import annotations

import errno
import os
import time
from _signal import SIGKILL  # type: ignore[import-not-found]  # `signal` costs an import of `enum`

from ..errors import HostError, KernelError, StateError
from . import freezer
from .cgroup_files import kernel_error, read_file, read_raw, version_of, write_file, write_raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .cgroup_files import Paths
    from .cgroup_layout import Place

MARK = "trusted.urunc"
_MADE_HERE = b"1"
KILL_FREEZE_SECONDS = 0.5
REMOVE_SECONDS = 5.0
_TRIES = 10


def make(paths: Paths, mark: str = "") -> list[str]:
    """Make the directories, parents too, and return those that were not there, parents first.

    `mark` is one that no other container has: `kill_all` and `remove` must be given the same.

    On v1 a new cpuset takes its parent's cpus and nodes, without which no process may join. On v2 every
    controller is enabled from the mount point down to the container's parent. A directory that is there already
    is taken if it is empty. Raises StateError where a process is in it or it is frozen, KernelError.
    """
    for directory in _unique(paths):
        if os.path.isdir(directory) and _pids_below(directory):
            raise StateError(f"cgroup `{directory}` is not empty", hint="give the container a cgroup of its own")
    if freezer.is_frozen(paths):
        raise StateError(f"cgroup `{freezer.directory(paths)}` is frozen")
    return _make(paths, mark)


def _make(paths: Paths, mark: str) -> list[str]:
    made: list[str] = []
    for directory in _unique(paths):
        new = _make_directory(directory, mark)
        if directory not in new:
            _mark(directory, mark)
        made += new
    if "cpuset" in paths and version_of(paths) == 1:
        _inherit_cpuset(paths["cpuset"])
    if version_of(paths) == 2:
        for directory in list(_ancestry(paths[""]))[:0:-1]:
            _enable_controllers(directory)
    return made


def _unique(paths: Paths) -> list[str]:
    """Return each directory once: co-mounted controllers share theirs."""
    return list(dict.fromkeys(paths.values()))


def _make_directory(directory: str, mark: str = "") -> list[str]:
    """Make a directory, which gets the mark, and the parents it wants. Return what was made, parents first."""
    made: list[str] = []
    for _ in range(_TRIES):
        try:
            os.mkdir(directory, 0o755)
        except FileExistsError:
            return made
        except FileNotFoundError as error:
            # or the parent went meanwhile, with the last container in it
            failure: OSError = error
            made += _make_directory(os.path.dirname(directory))
        except OSError as error:
            failure = error
            break
        else:
            _mark(directory, mark)
            return [*made, directory]
    raise kernel_error(f"cannot make cgroup `{directory}`", failure)


def _mark(directory: str, mark: str = "") -> None:
    try:
        os.setxattr(directory, MARK, _MADE_HERE + mark.encode())
    except OSError:
        pass  # an old kernel, or not root: parents then stay, the container's own directory goes all the same


def _is_marked(directory: str, mark: str = "") -> bool:
    try:
        return os.getxattr(directory, MARK) == _MADE_HERE + mark.encode()
    except OSError:
        return False


def _ancestry(directory: str) -> Iterator[str]:
    """Yield the directory and its parents up to the mount point."""
    device = os.stat(directory).st_dev
    while True:
        yield directory
        parent = os.path.dirname(directory)
        if parent == directory or os.stat(parent).st_dev != device:
            return
        directory = parent


def _inherit_cpuset(directory: str) -> None:
    for file in ("cpuset.cpus", "cpuset.mems"):
        _inherit(directory, file)


def _inherit(directory: str, file: str) -> str:
    """Return what a cpuset file says, once it has its parent's words where it had none."""
    words = read_file(f"{directory}/{file}").strip()
    if not words:
        words = _inherit(os.path.dirname(directory), file)
        write_file(f"{directory}/{file}", words)
    return words


def _enable_controllers(directory: str) -> None:
    """Enable every controller for the children. What cannot be is found when a limit needs it."""
    have = read_file(f"{directory}/cgroup.controllers").split()
    enabled = read_file(f"{directory}/cgroup.subtree_control").split()
    wanted = [f"+{name}" for name in have if name not in enabled]
    if not wanted:
        return
    for words in ([" ".join(wanted)], wanted):
        try:
            for word in words:
                write_raw(f"{directory}/cgroup.subtree_control", word)
        except OSError:
            continue  # one refused controller refuses the whole line: once more, one by one
        return


def join(paths: Paths, pid: int) -> None:
    """Put a process into the cgroup; the memory controller last, so that nothing before is charged to it.

    Raises KernelError, with errno ESRCH where the process is gone.
    """
    last = paths.get("memory")
    for directory in sorted(_unique(paths), key=lambda name: name == last):
        _join_one(directory, pid)


def _join_one(directory: str, pid: int) -> None:
    for _ in range(5):
        try:
            return write_raw(f"{directory}/cgroup.procs", str(pid))
        except OSError as error:
            failure = error
            if error.errno != errno.EINVAL:
                break
            time.sleep(0.01)  # a task in the middle of its birth (TASK_NEW) is refused so
    raise kernel_error(f"cannot put process {pid} into cgroup `{directory}`", failure)


def enter(
    paths: Paths, place: Place, pid: int, properties: Iterable[tuple[str, str, object]] = (), mark: str = ""
) -> list[str]:
    """Make the cgroup by its driver and return the directories made, as `make`; the process is not in all of it yet.

    With the systemd driver the scope is started with `properties` (which hold the pid), and what systemd does
    not manage is made beside. Limits (`cgroup_files`), then `join` are the same for both drivers.
    """
    if place.driver == "systemd":
        from . import systemd

        systemd.start_scope(place.unit, properties)
        _check_scope(paths, place, pid)
        return _make(paths, mark)
    return make(paths, mark)


def _check_scope(paths: Paths, place: Place, pid: int) -> None:
    """Raise HostError where systemd put the scope elsewhere: urunc in a container without its own cgroup view."""
    from . import cgroup_layout

    own = cgroup_layout.own_paths(read_file(f"/proc/{pid}/cgroup"))
    key = "" if version_of(paths) == 2 else "name=systemd"
    if key in own and not own[key].endswith(place.path):
        raise HostError(f"systemd put `{place.unit}` at `{own[key]}`, not at `{place.path}`")


def leave(paths: Paths, unit: str = "", mark: str = "") -> None:
    """Undo `enter`: end what is in the cgroup, stop the systemd scope `unit`, remove the directories. Idempotent."""
    kill_all(paths, mark)  # before the scope is stopped: systemd would ask with SIGTERM, and wait 90 s
    if unit and not _is_anothers(paths, mark):
        from . import systemd

        systemd.stop_unit(unit)
    remove(paths, mark=mark)


def _is_anothers(paths: Paths, mark: str) -> bool:
    """Return whether the cgroup is there and not ours: then so is the scope, which was there before us."""
    main = _main(paths) if paths else ""
    return os.path.isdir(main) and not _is_ours(main, mark)


def pids(paths: Paths) -> list[int]:
    """Return the processes in the cgroup and below it, [] where it is gone."""
    return sorted(_pids_below(_main(paths)))


def _main(paths: Paths) -> str:
    """Return the directory that every process of the container is in."""
    return paths["devices"] if "devices" in paths else next(iter(paths.values()))


def _pids_below(directory: str) -> set[int]:
    found: set[int] = set()
    for name in _tree(directory):
        try:
            text = read_raw(f"{name}/cgroup.procs")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                raise kernel_error(f"cannot read the processes of cgroup `{name}`", error) from None
            continue
        found.update(int(word) for word in text.split())
    found.discard(0)  # a process of another pid namespace
    return found


def _tree(directory: str) -> list[str]:
    """Return the directory and all below it, parents first; [] where it is gone."""
    found = [directory]
    for name in found:
        try:
            with os.scandir(name) as entries:
                found += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            pass
    return found if os.path.isdir(directory) else []


def kill_all(paths: Paths, mark: str = "") -> None:
    """Send SIGKILL to every process in the cgroup and thaw it. Does not wait for their end.

    Only in directories that `make` marked so; one that cannot carry a mark counts as ours.
    """
    main = _main(paths) if paths else ""
    if not os.path.isdir(main) or not _is_ours(main, mark):
        return
    if _kill_tree(paths.get("") or paths.get("unified")):
        freezer.thaw(paths)
        return
    try:
        freezer.freeze(paths, KILL_FREEZE_SECONDS)  # so that none is born, or its number used again, meanwhile
    except (KernelError, HostError):
        pass
    for pid in pids(paths):
        try:
            os.kill(pid, SIGKILL)
        except ProcessLookupError:
            pass
    freezer.thaw(paths)


def _is_ours(directory: str, mark: str) -> bool:
    if _is_marked(directory, mark):
        return True
    try:
        os.getxattr(directory, MARK)
    except OSError as error:
        return error.errno != errno.ENODATA
    return False


def _kill_tree(directory: str | None) -> bool:
    """Kill by cgroup.kill (Linux 5.14), which nothing in the cgroup escapes. False where there is no such file."""
    if directory is None:
        return False
    try:
        write_raw(f"{directory}/cgroup.kill", "1")
    except OSError:
        return False
    return True


def remove(paths: Paths, seconds: float = REMOVE_SECONDS, mark: str = "") -> None:
    """Remove the cgroup, its children, and the parents that were made for it and are empty now. Idempotent.

    A killed process leaves its cgroup a moment after its death, so a busy one is tried again for `seconds`.
    Raises KernelError where a process stays.
    """
    deadline = time.monotonic() + seconds
    for directory in _unique(paths):
        if _is_ours(directory, mark):
            for name in reversed(_tree(directory)):
                _remove_one(name, deadline)
        _remove_made(directory)


def _remove_one(directory: str, deadline: float) -> None:
    pause = 0.001
    while True:
        try:
            return os.rmdir(directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise kernel_error(f"cannot remove cgroup `{directory}`", error) from None
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _remove_made(directory: str) -> None:
    """Remove the parents that were made here, and the directory where a killed `make` had not marked it yet."""
    if not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    while _is_marked(directory):
        try:
            os.rmdir(directory)
        except OSError:
            return  # another container is in it
        directory = os.path.dirname(directory)
