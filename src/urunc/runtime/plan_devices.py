"""Which device nodes the monitor is given, and the rules by which the cgroup lets it open them. Pure."""

from __future__ import annotations

from ..oci import device_rules
from ..oci.spec import DeviceRule
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..oci.spec import Spec
    from ..vm.machine import Capabilities
    from ..vm.storage import DiskSource

_NUMBERS: dict[str, tuple[int, int]] = {
    "kvm": (10, 232),
    "net/tun": (10, 200),
    "null": (1, 3),
    "zero": (1, 5),
    "urandom": (1, 9),
    "vhost-net": (10, 238),
}
"""The nodes that a monitor may be given: name below /dev -> (major, minor). All are character devices."""

_ALWAYS = ("null", "zero", "urandom")


class Node(Record):
    """A device node in the monitor's /dev. `uid` and `gid` are the host's; `kind` is c or b."""

    path: str
    major: int
    minor: int
    kind: str = "c"
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


def monitor_nodes(can: Capabilities, accel: str, uid: int, gid: int, *, vhost: bool) -> tuple[Node, ...]:
    """Return what the monitor opens itself, its disks aside. `uid` and `gid` are its own, as the host sees them."""
    names = list(_ALWAYS)
    if accel == "kvm":
        names.append("kvm")
    if can.tap_by == "name":
        names.append("net/tun")
    elif vhost:
        names.append("vhost-net")
    return tuple(Node(path=name, major=_NUMBERS[name][0], minor=_NUMBERS[name][1], uid=uid, gid=gid) for name in names)


def disk_nodes(disks: tuple[DiskSource, ...], uid: int, gid: int) -> tuple[Node, ...]:
    """Return the nodes of the block devices that the monitor opens itself: a loop device's is not known yet."""
    return tuple(disk_node(disk, *disk.number, uid, gid) for disk in disks if disk.by == "node")


def disk_node(disk: DiskSource, major: int, minor: int, uid: int, gid: int) -> Node:
    """Return the node at which the monitor opens a disk."""
    return Node(path=disk.path.removeprefix("/dev/"), major=major, minor=minor, kind="b", uid=uid, gid=gid)


def rules(spec: Spec, nodes: Iterable[Node]) -> tuple[DeviceRule, ...]:
    """Return the cgroup's device rules: the container's own, as the monitor needs them, and the nodes'."""
    opened = (DeviceRule(allow=True, kind=node.kind, major=node.major, minor=node.minor, access="rw") for node in nodes)
    return device_rules.settle(spec.resources.devices, tuple(opened))
