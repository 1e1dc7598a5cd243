"""The containers' records on disk: one folder per id below the state root.

::

    <root>/.cache/            what was slow to find out of the host and of profiles (linux.kept)
    <root>/<id>/lock          held (flock) by the one verb that changes the container
    <root>/<id>/record.json   facts, written whole and atomically; statuses are derived from them, never stored
    <root>/<id>/waiting       held (flock) by init from its start until it executes the monitor
    <root>/<id>/start.sock    where `start` meets init
    <root>/<id>/*.sock        the monitor's sockets
    <root>/<id>/control.*     the guest's control port: fifos
    <root>/<id>/initrd        the initrd that urunc made for the guest, where it made one

A folder appears whole, by a rename, with its first record in it and its lock held; that claims the id. What a
`create` killed before the rename leaves is `<root>/.<id>.new`, which the next one takes over and `delete
--force` removes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from .. import jsonio
from ..errors import HostError, StateError, reason
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_ROOT = "/run/urunc"
RECORD_VERSION = 1
LOCK_SECONDS = 10.0
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.ENOENT)
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


class NetDevice(Record):
    """A network device of the host that `create` moves into the container's namespace, and back where it fails."""

    name: str  # on the host
    inside: str  # in the namespace; until it was moved it may hold `%d`
    index: int  # in the namespace; until it was moved, on the host
    moved: bool = False
    up: bool  # on the host
    addresses: tuple[str, ...] = ()  # with their prefixes; the lasting, global ones


class Container(Record):
    """The facts of one container. Times are seconds or the kernel's clock ticks since boot, as said."""

    version: int = RECORD_VERSION
    id: str
    oci_version: str
    bundle: str
    rootfs: str
    created: str  # RFC 3339, UTC
    owner: int = 0  # uid of who called create
    annotations: dict[str, str] = {}
    guest: str
    monitor: str
    accel: str = ""
    memory_mib: int = 0  # the guest's, for its whole life
    overhead_mib: int = 0  # what its monitor needs beside that
    balloon: bool = False  # the guest can be asked to give memory back
    boot_id: str = ""
    creator: tuple[int, int] = (0, 0)  # pid and start time (ticks) of the `create` at work
    pid: int = 0  # init's, then the monitor's: it is one process
    start_time: int = 0  # ticks
    cgroup: dict[str, str] = {}  # controller -> absolute folder; "" on cgroup v2
    scope: str = ""  # the systemd unit, where systemd holds the cgroup
    rootfs_mount: tuple[str, ...] = ()  # (device, type, option, ..) of a rootfs that is unmounted for the guest
    network_path: str = ""  # the network namespace, where it was given by path
    network_id: tuple[int, int] = (0, 0)  # that of the namespace which the devices below went to: ns.identity
    net_devices: tuple[NetDevice, ...] = ()  # of the host, that a `create` which fails gives back
    taps: tuple[str, ...] = ()
    behind_nat: bool = False  # the taps are of network mode `nat`
    stop: str = "kill"  # how a stop signal ends the guest: control, ctrl-alt-del, acpi, term or kill
    hooks: dict[str, list[dict[str, Any]]] = {}  # poststart and poststop, still to be run
    timeline: tuple[tuple[str, int], ...] = ()  # (step, monotonic nanoseconds when it was done)

    @property
    def mark(self) -> str:
        """What marks the cgroup as this container's and no other's, in this state root or in another."""
        return f"{self.id} {self.created}"


def check_id(name: str) -> None:
    """Raise StateError where `name` is not an id that runc would take: it becomes a folder's name."""
    if not name or len(name) > 1024 or name in (".", "..") or not _ID_CHARACTERS.issuperset(name):
        shown = name if len(name) < 80 else name[:77] + "..."
        raise StateError(f"invalid container id `{shown!a}`", hint="use letters, digits and _ + - .")


def cache(root: str) -> str:
    """Return the folder for what was slow to find out, whether it exists or not."""
    return f"{root}/.cache"


def folder(root: str, name: str) -> str:
    """Return the container's folder, whether it exists or not. Raises StateError for an impossible id."""
    check_id(name)
    return f"{root}/{name}"


def claim(root: str, container: Container) -> Lock:
    """Make the container's folder with its first record, and return its lock, held.

    Raises StateError where the id is in use, or where another `create` of that id is at work; HostError where
    nothing can be written.
    """
    try:
        return _claim(root, container)
    except OSError as error:
        raise HostError(f"cannot write below the state directory `{root}`: {reason(error)}") from None


def _claim(root: str, container: Container) -> Lock:
    place, passing = folder(root, container.id), f"{root}/{unclaimed(container.id)}"
    taken = StateError(f"container with id `{container.id}` exists", hint="delete it, or choose another id")
    try:
        _make_folder(passing)
    except FileExistsError:
        pass  # a killed create left it, or another is at work in it: its lock tells
    try:
        lock = Lock(root, container.id, f"{passing}/lock", 0.0).take()
    except StateError:
        raise taken from None  # another create of this id is at work in there
    try:
        save(root, container, passing)
        os.rename(passing, place)
    except BaseException as error:
        _discard(passing)
        lock.release()
        if isinstance(error, OSError) and error.errno in _TAKEN:
            raise taken from None
        raise
    return lock


def _make_folder(passing: str) -> None:
    try:
        os.mkdir(passing, 0o700)
    except FileNotFoundError:
        os.makedirs(passing, 0o700)  # the first container's, in a state root that is not there yet


def _discard(passing: str) -> None:
    """Remove a folder that was not claimed; where another create is already at work in it, it is that one's."""
    try:
        for name in sorted(os.listdir(passing), key=lambda name: name == "lock"):
            os.unlink(f"{passing}/{name}")  # the lock last: until then nobody else is in here
        os.rmdir(passing)
    except OSError:
        pass


def unclaimed(name: str) -> str:
    """Return the name of the folder in which `create` prepares the container's own."""
    return f".{name}.new"


def find(root: str, name: str, *, any_version: bool = False) -> Container | None:
    """Return the record of that id, None where there is none. Raises StateError where it cannot be read.

    With `any_version`, one of another version is read as far as it can be: what is cleared by it is what it names.
    """
    place = folder(root, name)
    try:
        with open(f"{place}/record.json", "rb") as file:
            data = jsonio.loads(file.read(jsonio.MAX_BYTES + 1))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StateError(f"cannot read the record of `{name}`: {reason(error)}") from None
    except ValueError as error:
        raise StateError(f"cannot read the record of `{name}`: {error}") from None
    return from_data(name, data, any_version=any_version)


def from_data(name: str, data: Any, *, any_version: bool = False) -> Container:
    """Return the Container of a decoded record. Raises StateError where another version wrote it, or it is damaged.

    Fields that are not known are left out: a newer urunc of the same version of records may have added them.
    """
    if not isinstance(data, dict) or (data.get("version") != RECORD_VERSION and not any_version):
        raise StateError(f"the record of `{name}` was written by another version of urunc")
    try:
        known = {key: data[key] for key in Container._fields if key in data}
        lists = {key: tuple(value) for key, value in known.items() if isinstance(value, list)}
        lists["timeline"] = tuple((first, second) for first, second in data.get("timeline", ()))
        lists["net_devices"] = tuple(_net_device(device) for device in data.get("net_devices", ()))
        return Container(**{**known, **lists})
    except (TypeError, ValueError, KeyError) as error:
        raise StateError(f"the record of `{name}` is damaged: {error}") from None


def _net_device(data: Any) -> NetDevice:
    known = {key: data[key] for key in NetDevice._fields}
    return NetDevice(**{**known, "addresses": tuple(known["addresses"])})


def want(root: str, name: str) -> Container:
    """Return the record of that id. Raises StateError where there is none."""
    container = find(root, name)
    if container is None:
        raise StateError(f"container `{name}` does not exist")
    return container


def save(root: str, container: Container, place: str = "") -> None:
    """Write the record, whole or not at all; `place` is the container's folder where it has another name yet."""
    from ..linux import atomic

    atomic.write(f"{place or f'{root}/{container.id}'}/record.json", jsonio.dumps(container.to_data()))


def names(root: str) -> list[str]:
    """Return the ids below the state root, sorted; none where there is no such folder."""
    try:
        return sorted(name for name in os.listdir(root) if _ID_CHARACTERS.issuperset(name) and name[0] != ".")
    except FileNotFoundError:
        return []


class Lock:
    """The one verb that changes the container holds this. A context manager.

    Waits for `LOCK_SECONDS`; raises StateError when another verb still holds it, or when the container
    vanished while waiting. Only a lock that is given by its `path` is made: a file that comes into a folder while that
    is removed would keep it there.
    """

    def __init__(self, root: str, name: str, path: str = "", seconds: float = LOCK_SECONDS) -> None:
        self.name = name
        self.path = path or f"{folder(root, name)}/lock"
        self.flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if path else 0)
        self.seconds = seconds
        self.fd = -1

    def __enter__(self) -> Lock:
        return self if self.fd >= 0 else self.take()

    def take(self) -> Lock:
        """Take the lock and return it, held. Raises StateError."""
        try:
            self.fd = os.open(self.path, self.flags, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            raise StateError(f"container `{self.name}` does not exist") from None
        try:
            self._wait()
        except BaseException:
            self.release()
            raise
        return self

    def _wait(self) -> None:
        deadline = time.monotonic() + self.seconds
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StateError(f"container `{self.name}` is busy: another command works on it") from None
                time.sleep(0.005)
        if os.fstat(self.fd).st_nlink == 0:
            raise StateError(f"container `{self.name}` does not exist")

    def release(self) -> None:
        """Close the lock's descriptor, and with it the lock."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __exit__(self, *_: object) -> None:
        self.release()
