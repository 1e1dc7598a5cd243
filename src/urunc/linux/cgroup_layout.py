"""Which cgroup trees a host has, and where in them a process or a container belongs. v1, v2 and hybrid.

Reads two files of /proc, and knows of no directory whether it is there, nor what is in it.
"""

from __future__ import annotations

from ..errors import HostError
from ..record import Record
from .cgroup_files import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from .cgroup_files import Paths

    class Place(Protocol):
        """What is read of an `oci.cgroup_path.CgroupPath`."""

        @property
        def driver(self) -> str: ...  # noqa: D102
        @property
        def path(self) -> str: ...  # noqa: D102
        @property
        def unit(self) -> str: ...  # noqa: D102


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
    """Return the layout of this process's cgroup mounts. Raises HostError where there are none."""
    return parse_layout(read_file("/proc/self/mountinfo"), read_file("/proc/self/cgroup"))


def of_process(pid: int) -> Paths:
    """Return the cgroup that a process is in, as `paths` names one. Raises KernelError where it is gone, HostError."""
    layout = parse_layout(read_file("/proc/self/mountinfo"), read_file(f"/proc/{pid}/cgroup"))
    return {
        name: (tree.mountpoint + below(tree.own, tree.root)).rstrip("/") for name, tree in layout.hierarchies.items()
    }


def parse_layout(mountinfo: str, own_cgroup: str) -> Layout:
    """Return the layout that two files of /proc/self describe (proc_pid_mountinfo(5), cgroups(7)). Raises HostError."""
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
    own = own_paths(own_cgroup)
    found: dict[str, Hierarchy] = {}
    for point, (kind_name, root, options) in mounts.items():
        for name in _controllers(kind_name, options, own):
            found.setdefault(name, Hierarchy(mountpoint=point, root=root, own=own[name]))
    if any(name in found for name in _LIMITING):
        return Layout(version=1, hierarchies={name or "unified": tree for name, tree in found.items()})
    if "" not in found:
        raise HostError("no cgroup file system is mounted", hint="mount cgroup2 at /sys/fs/cgroup")
    return Layout(version=2, hierarchies={"": found[""]})


def own_paths(text: str) -> dict[str, str]:
    """Return a process's cgroup of each controller, from its /proc/PID/cgroup (cgroups(7))."""
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
    for char in (" ", "\t", "\n", "#", "\\"):  # the backslash last, which the others' codes begin with
        text = text.replace(f"\\{ord(char):03o}", char)
    return text


def paths(layout: Layout, place: Place) -> Paths:
    """Return the container's directory for each controller.

    A path with a leading `/` is below the mount points. Any other is below the runtime's own cgroup; on v2
    beside it, as a v2 cgroup with processes in it cannot give controllers to its children (runc's rule). Raises
    HostError on a v1 host without the devices controller.
    """
    found = {}
    for name, tree in layout.hierarchies.items():
        base = tree.mountpoint
        if not place.path.startswith("/"):
            own = below(tree.own, tree.root)
            base += own if layout.version == 1 else own.rpartition("/")[0]
        found[name] = base.rstrip("/") + "/" + place.path.strip("/")
    if layout.version == 1 and "devices" not in found:
        raise HostError("the devices controller of cgroup v1 is not mounted: devices cannot be denied")
    return found


def below(path: str, root: str) -> str:
    """Return the cgroup `path` seen from `root`, "" for the root itself; paths outside a mount begin with /.. ."""
    path = path if path != "/" else ""
    root = root if root != "/" else ""
    if path == root or "/.." in path:
        return ""
    return path.removeprefix(root) if path.startswith(root + "/") else path
