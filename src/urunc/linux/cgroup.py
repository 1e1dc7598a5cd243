"""The container's cgroup: find it, make it, put limits and a process in it, freeze, kill, remove. v1, v2 and hybrid.

`paths` everywhere is a dict from controller to absolute directory, which the container's record keeps. On v2 it
has the one key "". On v1 every mounted controller is in it, and `unified` where a v2 tree is mounted beside.
Must not know what a limit means: `oci.resources` makes the writes, settled device rules and systemd properties.

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
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Protocol

    Paths = dict[str, str]

    class Write(Protocol):
        """What is read of an `oci.resources.CgroupWrite`."""

        @property
        def controller(self) -> str: ...  # noqa: D102
        @property
        def file(self) -> str: ...  # noqa: D102
        @property
        def value(self) -> str: ...  # noqa: D102
        @property
        def optional(self) -> bool: ...  # noqa: D102
        @property
        def fallback(self) -> Write | None: ...  # noqa: D102

    class Rule(Protocol):
        """What is read of an `oci.spec.DeviceRule`."""

        @property
        def allow(self) -> bool: ...  # noqa: D102
        @property
        def kind(self) -> str: ...  # noqa: D102
        @property
        def major(self) -> int | None: ...  # noqa: D102
        @property
        def minor(self) -> int | None: ...  # noqa: D102
        @property
        def access(self) -> str: ...  # noqa: D102

    class Place(Protocol):
        """What is read of an `oci.resources.CgroupPath`."""

        @property
        def driver(self) -> str: ...  # noqa: D102
        @property
        def path(self) -> str: ...  # noqa: D102
        @property
        def unit(self) -> str: ...  # noqa: D102


MARK = "trusted.urunc"
_MADE_HERE = b"1"
FREEZE_SECONDS = 10.0
KILL_FREEZE_SECONDS = 0.5
REMOVE_SECONDS = 5.0

_LIMITING = ("cpu", "memory", "pids", "devices", "freezer")
"""A host with one of these as a v1 hierarchy is a v1 host."""


class Hierarchy(Record):
    """One mounted cgroup tree; `root` is the part of it that is mounted, `own` this process's place in it."""

    mountpoint: str
    root: str = "/"
    own: str = "/"


class Layout(Record):
    """The host's cgroup file systems: on v2 one, named "", on v1 one a controller (`cpu`, `name=systemd`).

    A v2 tree without the main controllers beside v1 (hybrid) makes a v1 host; it is then named `unified`.
    """

    version: int
    hierarchies: dict[str, Hierarchy]

    @property
    def unified(self) -> str | None:
        """Where the v2 tree is mounted, None where it is not."""
        tree = self.hierarchies.get("") or self.hierarchies.get("unified")
        return tree.mountpoint if tree else None


def detect() -> Layout:
    """Return the layout of this process's cgroup mounts. Raise HostError where there are none."""
    return parse_layout(_read("/proc/self/mountinfo"), _read("/proc/self/cgroup"))


def parse_layout(mountinfo: str, own_cgroup: str) -> Layout:
    """Return the layout that the two files of /proc/self describe (proc_pid_mountinfo(5), cgroups(7))."""
    mounts: dict[str, tuple[str, str, str]] = {}
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        fields, kind = head.split(" "), tail.split(" ")
        if len(fields) < 6 or len(kind) < 3:
            continue
        point = _unescape(fields[4])
        # A later mount hides what is mounted at or below its place.
        for hidden in [other for other in mounts if other == point or other.startswith(point.rstrip("/") + "/")]:
            del mounts[hidden]
        if kind[0] in ("cgroup", "cgroup2"):
            mounts[point] = (kind[0], _unescape(fields[3]), kind[2])
    own = _own_paths(own_cgroup)
    found: dict[str, Hierarchy] = {}
    for point, (kind_name, root, options) in mounts.items():
        for name in _controllers(kind_name, options, own):
            found.setdefault(name, Hierarchy(mountpoint=point, root=root, own=own[name]))
    if any(name in found for name in _LIMITING):
        return Layout(version=1, hierarchies={name or "unified": tree for name, tree in found.items()})
    if "" not in found:
        raise HostError("no cgroup file system is mounted", hint="mount cgroup2 at /sys/fs/cgroup")
    return Layout(version=2, hierarchies={"": found[""]})


def _own_paths(text: str) -> dict[str, str]:
    own = {}
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        names, colon, path = rest.partition(":")
        if colon:
            own.update(dict.fromkeys(names.split(","), path))
    return own


def _controllers(kind: str, options: str, own: dict[str, str]) -> list[str]:
    """Return the controllers of a mount: its options that /proc/self/cgroup also knows as controllers."""
    names = [""] if kind == "cgroup2" else options.split(",")
    return [name for name in names if name in own]


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def paths(layout: Layout, place: Place) -> Paths:
    """Return the container's directory for each controller.

    A path with a leading `/` is below the mount points. Any other is below the runtime's own cgroup; on v2
    beside it, as a v2 cgroup with processes in it cannot give controllers to its children (runc's rule).
    """
    found = {}
    for name, tree in layout.hierarchies.items():
        base = tree.mountpoint
        if not place.path.startswith("/"):
            own = _below(tree.own, tree.root)
            base += own if layout.version == 1 else own.rpartition("/")[0]
        found[name] = base.rstrip("/") + "/" + place.path.strip("/")
    if layout.version == 1 and "devices" not in found:
        raise HostError("the devices controller of cgroup v1 is not mounted: devices cannot be denied")
    return found


def _below(path: str, root: str) -> str:
    """Return `path` seen from `root`, "" for the root itself; paths outside a mount begin with /.. ."""
    path = path if path != "/" else ""
    root = root if root != "/" else ""
    if path == root or "/.." in path:
        return ""
    return path.removeprefix(root) if path.startswith(root + "/") else path


def version_of(paths: Paths) -> int:
    """Return 2 where these are the paths of a v2 host, else 1."""
    return 2 if "" in paths else 1


def make(paths: Paths, mark: str = "") -> list[str]:
    """Make the directories, parents too, and return those that were not there, parents first.

    `mark` is one that no other container has: `kill_all` and `remove` must be given the same.

    On v1 a new cpuset takes its parent's cpus and nodes, without which no process may join. On v2 every
    controller is enabled from the mount point down to the container's parent. A directory that is there already
    is taken if it is empty. Raises StateError where a process is in it or it is frozen, KernelError.
    """
    for directory in _unique(paths):
        if _pids_below(directory):
            raise StateError(f"cgroup `{directory}` is not empty", hint="give the container a cgroup of its own")
    if is_frozen(paths):
        raise StateError(f"cgroup `{_freezer(paths)}` is frozen")
    return _make(paths, mark)


def _make(paths: Paths, mark: str) -> list[str]:
    made: list[str] = []
    for directory in _unique(paths):
        made += _make_directories(directory)
        _mark(directory, mark)
    if "cpuset" in paths and version_of(paths) == 1:
        for directory in reversed(list(_ancestry(paths["cpuset"]))):
            _inherit_cpuset(directory)
    if version_of(paths) == 2:
        for directory in list(_ancestry(paths[""]))[:0:-1]:
            _enable_controllers(directory)
    return made


def _unique(paths: Paths) -> list[str]:
    """Return each directory once: co-mounted controllers share theirs."""
    return list(dict.fromkeys(paths.values()))


def _make_directories(directory: str) -> list[str]:
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    made = []
    for name in reversed(missing):
        if _mkdir(name):
            made.append(name)
    return made


def _mkdir(directory: str) -> bool:
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        return False
    except FileNotFoundError:
        # The last container in the parent was removed meanwhile, and the parent with it.
        return bool(_make_directories(directory))
    except OSError as error:
        raise _kernel_error(f"cannot make cgroup `{directory}`", error) from None
    _mark(directory)
    return True


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
        if not _read(f"{directory}/{file}").strip():
            inherited = _read(f"{os.path.dirname(directory)}/{file}").strip()
            _write(f"{directory}/{file}", inherited)


def _enable_controllers(directory: str) -> None:
    """Enable every controller for the children. What cannot be is found when a limit needs it (`apply`)."""
    have = _read(f"{directory}/cgroup.controllers").split()
    enabled = _read(f"{directory}/cgroup.subtree_control").split()
    wanted = [f"+{name}" for name in have if name not in enabled]
    if not wanted:
        return
    for words in ([" ".join(wanted)], wanted):
        try:
            for word in words:
                _write_raw(f"{directory}/cgroup.subtree_control", word)
        except OSError:
            continue  # one refused controller refuses the whole line: once more, one by one
        return


def apply(paths: Paths, writes: Iterable[Write]) -> None:
    """Write the limits, in order. Raise KernelError naming file and value, HostError for a missing controller.

    Some limits bound each other (memory and swap, quota and period): which may be written first depends on
    what they are now. A write refused for that reason is done once more after the rest.
    """
    late = []
    for write in writes:
        try:
            _apply_one(paths, write)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EBUSY):
                raise _refused(paths, write, error) from None
            late.append(write)
    for write in late:
        try:
            _apply_one(paths, write)
        except OSError as error:
            raise _refused(paths, write, error) from None


def _directory(paths: Paths, controller: str) -> str | None:
    return paths.get("" if version_of(paths) == 2 else controller)


def _apply_one(paths: Paths, write: Write) -> None:
    directory = _directory(paths, write.controller)
    if directory is None:
        if write.optional:
            return
        raise HostError(f"cannot set `{write.file}`: the {write.controller} controller is not mounted")
    try:
        _write_raw(f"{directory}/{write.file}", write.value)
    except FileNotFoundError:
        if write.fallback is not None:
            _apply_one(paths, write.fallback)
        elif not write.optional:
            raise


def _refused(paths: Paths, write: Write, error: OSError) -> KernelError | HostError:
    directory = _directory(paths, write.controller) or ""
    if error.errno == errno.ENOENT and version_of(paths) == 2:
        have = _read(f"{directory}/cgroup.controllers").split()
        if write.controller not in (*have, "cgroup"):
            return HostError(f"cannot set `{write.file}`: the {write.controller} controller is not enabled")
    usage = ""
    if error.errno == errno.EBUSY and write.controller == "memory":
        file = "memory.current" if version_of(paths) == 2 else "memory.usage_in_bytes"
        usage = f" with {_read(f'{directory}/{file}').strip()} bytes in use"
    return _kernel_error(f"cannot set `{write.file}` to `{write.value}` in cgroup `{directory}`{usage}", error)


def apply_devices(paths: Paths, rules: Iterable[Rule], version: int) -> None:
    """Deny or allow all devices as the first rule says, then the exceptions: settled rules only.

    v1 writes devices.deny and devices.allow, v2 attaches an eBPF program. Raises KernelError.
    """
    if version == 2:
        from . import devices_bpf

        devices_bpf.attach(paths[""], devices_bpf.assemble(rules))
        return
    for rule in rules:
        numbers = ":".join("*" if number is None else str(number) for number in (rule.major, rule.minor))
        text = "a" if rule.kind == "a" else f"{rule.kind} {numbers} {rule.access}"
        _write(f"{paths['devices']}/devices.{'allow' if rule.allow else 'deny'}", text)


def join(paths: Paths, pid: int) -> None:
    """Put a process into the cgroup; the memory controller last, so that nothing before is charged to it.

    Raises KernelError, with errno ESRCH where the process is gone.
    """
    last = paths.get("memory")
    for directory in sorted(_unique(paths), key=lambda name: name == last):
        _join_one(directory, pid)


def hasten_join() -> None:
    """Wait, in this process, for what the next `join` would wait for: it then takes 0.1 ms instead of 10.

    The first process that is moved into a cgroup after a while waits for an RCU grace period, and those that follow
    soon do not (`cgroup_threadgroup_rwsem`). Here it is this process, moved to where it is: nothing changes by that.
    """
    for tree in list(detect().hierarchies.values())[:1]:
        _write_raw(f"{tree.mountpoint}/{_below(tree.own, tree.root)}/cgroup.procs", "0")


def _join_one(directory: str, pid: int) -> None:
    for _ in range(5):
        try:
            return _write_raw(f"{directory}/cgroup.procs", str(pid))
        except OSError as error:
            failure = error
            if error.errno != errno.EINVAL:
                break
            time.sleep(0.01)  # a task in the middle of its birth (TASK_NEW) is refused so
    raise _kernel_error(f"cannot put process {pid} into cgroup `{directory}`", failure)


def enter(
    paths: Paths, place: Place, pid: int, properties: Iterable[tuple[str, str, object]] = (), mark: str = ""
) -> list[str]:
    """Make the cgroup by its driver and return the directories made, as `make`; the process is not in all of it yet.

    With the systemd driver the scope is started with `properties` (which hold the pid), and what systemd does
    not manage is made beside. Then `apply`, `apply_devices` and `join` do the rest, the same for both drivers.
    """
    if place.driver == "systemd":
        from . import dbus

        dbus.start_scope(place.unit, properties)
        _check_scope(paths, place, pid)
        return _make(paths, mark)
    return make(paths, mark)


def _check_scope(paths: Paths, place: Place, pid: int) -> None:
    """Raise HostError where systemd put the scope elsewhere: urunc in a container without its own cgroup view."""
    own = _own_paths(_read(f"/proc/{pid}/cgroup"))
    key = "" if version_of(paths) == 2 else "name=systemd"
    if key in own and not own[key].endswith(place.path):
        raise HostError(f"systemd put `{place.unit}` at `{own[key]}`, not at `{place.path}`")


def leave(paths: Paths, unit: str = "", mark: str = "") -> None:
    """Undo `enter`: end what is in the cgroup, stop the systemd scope `unit`, remove the directories. Idempotent."""
    kill_all(paths, mark)  # before the scope is stopped: systemd would ask with SIGTERM, and wait 90 s
    if unit and not _is_anothers(paths, mark):
        from . import dbus

        dbus.stop_unit(unit)
    remove(paths, mark=mark)


def _is_anothers(paths: Paths, mark: str) -> bool:
    """Return whether the cgroup is there and not ours: then so is the scope, which was there before us."""
    main = _main(paths) if paths else ""
    return os.path.isdir(main) and not _is_ours(main, mark)


def freeze(paths: Paths, seconds: float = FREEZE_SECONDS) -> None:
    """Stop every process of the cgroup from running. Raise KernelError where it takes longer than `seconds`."""
    directory = _freezer(paths)
    if version_of(paths) == 2:
        _write(f"{directory}/cgroup.freeze", "1")
        _wait_for(lambda: _keyed(f"{directory}/cgroup.events").get("frozen") == 1, seconds, directory, paths)
        return

    def is_done() -> bool:
        # Old kernels miss a process that is born meanwhile: the write is repeated until all are in (runc).
        _write(f"{directory}/freezer.state", "FROZEN")
        return _read(f"{directory}/freezer.state").strip() == "FROZEN"

    _wait_for(is_done, seconds, directory, paths)


def _wait_for(is_done: Callable[[], bool], seconds: float, directory: str, paths: Paths) -> None:
    deadline = time.monotonic() + seconds
    pause = 0.0005
    while not is_done():
        if time.monotonic() > deadline:
            thaw(paths)  # half frozen is worse than running
            raise KernelError(f"cgroup `{directory}` did not freeze within {seconds:g} s", errno=errno.ETIMEDOUT)
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


def thaw(paths: Paths) -> None:
    """Let the processes of the cgroup run again. A cgroup that is gone or was not frozen is no error."""
    try:
        directory = _freezer(paths)
    except HostError:
        return
    file, value = ("cgroup.freeze", "0") if version_of(paths) == 2 else ("freezer.state", "THAWED")
    try:
        _write_raw(f"{directory}/{file}", value)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise _kernel_error(f"cannot thaw cgroup `{directory}`", error) from None


def is_frozen(paths: Paths) -> bool:
    """Return whether the cgroup itself was told to freeze: not only one of its parents."""
    try:
        directory = _freezer(paths)
        if version_of(paths) == 2:
            return _read(f"{directory}/cgroup.freeze").strip() == "1"
        return _read(f"{directory}/freezer.self_freezing").strip() == "1"
    except (KernelError, HostError):
        return False


def _freezer(paths: Paths) -> str:
    directory = _directory(paths, "freezer")
    if directory is None:
        raise HostError("cannot freeze: the freezer controller is not mounted")
    return directory


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
            text = _read_raw(f"{name}/cgroup.procs")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                raise _kernel_error(f"cannot read the processes of cgroup `{name}`", error) from None
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
        thaw(paths)
        return
    try:
        freeze(paths, KILL_FREEZE_SECONDS)  # so that none is born, or its number used again, meanwhile
    except (KernelError, HostError):
        pass
    for pid in pids(paths):
        try:
            os.kill(pid, SIGKILL)
        except ProcessLookupError:
            pass
    thaw(paths)


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
        _write_raw(f"{directory}/cgroup.kill", "1")
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
                raise _kernel_error(f"cannot remove cgroup `{directory}`", error) from None
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


def oom_count(paths: Paths) -> int:
    """Return how many processes the kernel killed for want of memory; 0 where it cannot be known."""
    directory = _directory(paths, "memory")
    if directory is None:
        return 0
    file = "memory.events" if version_of(paths) == 2 else "memory.oom_control"
    return _keyed(f"{directory}/{file}").get("oom_kill", 0)


def stats(paths: Paths) -> dict[str, Any]:
    """Return the usage in the shape of the data of runc's `events --stats`."""
    from . import cgroup_stats

    return cgroup_stats.read(paths, version_of(paths))


def _keyed(path: str) -> dict[str, int]:
    """Return a file of `name number` lines, {} where it does not exist."""
    try:
        lines = _read_raw(path).splitlines()
    except OSError:
        return {}
    return {name: int(number) for name, _, number in (line.partition(" ") for line in lines) if number.isdigit()}


def _read_raw(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode("utf-8", "surrogateescape")


def _read(path: str) -> str:
    try:
        return _read_raw(path)
    except OSError as error:
        raise _kernel_error(f"cannot read `{path}`", error) from None


def _write_raw(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.write(fd, value.encode("utf-8", "surrogateescape"))  # one write: the kernel parses each by itself
    finally:
        os.close(fd)


def _write(path: str, value: str) -> None:
    try:
        _write_raw(path, value)
    except OSError as error:
        raise _kernel_error(f"cannot write `{value}` to `{path}`", error) from None


def _kernel_error(what: str, error: OSError) -> KernelError:
    return KernelError(f"{what}: {os.strerror(error.errno or 0).lower()}", errno=error.errno or 0)
