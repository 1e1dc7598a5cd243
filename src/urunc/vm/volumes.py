"""How the volumes of a container become disks, shares and mounts of a guest that can be given them. Pure.

Numbers go on where the root's own disks and shares end. A single file is shared in a folder that holds nothing else.
"""

from __future__ import annotations

from ..errors import SpecError
from ..record import Record
from .machine import Disk, GuestMount, Share, share_tag
from .storage import DiskSource, ShareSource, device_source, disk_name, share_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..oci.checks import Volume
    from ..oci.spec import Device as Node
    from .machine import Capabilities

_TMPFS_OPTIONS = ("size", "nr_blocks", "nr_inodes", "mode", "uid", "gid", "huge", "mpol")
FILE = "file"
"""What the one file in a share is called: no name of the image's or the engine's choice stands in an option."""


class Attached(Record):
    """What a machine gets beside its root, what that comes from, and where the guest mounts it."""

    disks: tuple[DiskSource, ...] = ()
    shares: tuple[Share, ...] = ()
    folders: tuple[ShareSource, ...] = ()
    mounts: tuple[GuestMount, ...] = ()


def attach(
    volumes: tuple[Volume, ...], devices: tuple[Node, ...], can: Capabilities, disks: int, shares: int
) -> Attached:
    """Return what the volumes and the block devices become, where the root has that many `disks` and `shares`.

    Raises SpecError where the monitor cannot attach so many disks.
    """
    found = Attached()
    for volume in volumes:
        if volume.way == "share":
            found = _add_share(found, volume, shares + len(found.shares))
        elif volume.way == "disk":
            found = _add_disk(found, volume, can, disks + len(found.disks))
        elif volume.way == "tmpfs":
            found = found.replace(mounts=(*found.mounts, _tmpfs(volume)))
    for device in devices:
        found = _add_device(found, device, can, disks + len(found.disks))
    count = disks + len(found.disks)
    if count > can.max_disks:
        raise SpecError(f"mounts, linux.devices: {count} disks, the monitor `{can.name}` can attach {can.max_disks}")
    return found


def _tmpfs(volume: Volume) -> GuestMount:
    """Return a tmpfs of the guest's own, with those options of the mount that are the file system's (tmpfs(5))."""
    options = [option for option in volume.mount.options if option.partition("=")[0] in _TMPFS_OPTIONS]
    return GuestMount(
        source=",".join(options) or "tmpfs",
        fstype="tmpfs",
        target=volume.mount.destination,
        readonly=volume.readonly,
        noexec=_is_noexec(volume),
    )


def disks(sources: tuple[DiskSource, ...]) -> tuple[Disk, ...]:
    """Return the machine's disks."""
    return tuple(Disk(path=source.path, readonly=source.readonly, device=True) for source in sources)


def _add_share(found: Attached, volume: Volume, number: int) -> Attached:
    path, tag, single = share_path(number), share_tag(number), volume.source.kind == "file"
    folder = ShareSource(
        target=f"{path}/{FILE}" if single else path,
        source=volume.mount.source,
        readonly=volume.readonly,
        recursive="rbind" in volume.mount.options,
    )
    mount = GuestMount(
        source=tag,
        fstype="9p",
        target=volume.mount.destination,
        readonly=volume.readonly,
        noexec=_is_noexec(volume),
        name=FILE if single else "",
    )
    return found.replace(
        shares=(*found.shares, Share(path=path, tag=tag, readonly=volume.readonly)),
        folders=(*found.folders, folder),
        mounts=(*found.mounts, mount),
    )


def _add_disk(found: Attached, volume: Volume, can: Capabilities, index: int) -> Attached:
    source = device_source(index, volume.mount.source, volume.source.device, can, readonly=volume.readonly)
    mount = GuestMount(
        source=disk_name(index),
        fstype=volume.mount.type,
        target=volume.mount.destination,
        readonly=volume.readonly,
        noexec=_is_noexec(volume),
    )
    return found.replace(disks=(*found.disks, source), mounts=(*found.mounts, mount))


def _is_noexec(volume: Volume) -> bool:
    return volume.mount.has("noexec")


def _add_device(found: Attached, device: Node, can: Capabilities, index: int) -> Attached:
    """A block device is a disk, and stands in the guest at the path that the container was to have it at, too."""
    source = device_source(index, device.path, (device.major, device.minor), can)
    mount = GuestMount(source=disk_name(index), fstype="bind", target=device.path)
    return found.replace(disks=(*found.disks, source), mounts=(*found.mounts, mount))
