"""What backs the guest's root and its disks: the one place that knows the order, and how a monitor gets at a file.

An initrd comes before a block image at `/`, that before the container's rootfs as a block device, that before the
rootfs as a shared folder. The rootfs is used only where the image asks for it (`mountRootfs`), and then having no way
to give it is an error. Pure: what the image and the host hold is told by the records here.
"""

from __future__ import annotations

from ..errors import ImageError
from ..record import Record
from . import guests
from .machine import Disk, GuestMount, Root, Share, driver, share_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..oci.app import App
    from .machine import Capabilities

SECTOR = 512


class BlockImage(Record):
    """The block image of the rootfs as it was found. `filesystem` is "" where it holds none of a known type."""

    size: int
    filesystem: str = ""
    filesystem_bytes: int = 0
    openable: bool = True  # the monitor's user may open it, as the guest is to use it


class Device(Record):
    """The block device that is mounted as the container's rootfs, and how it is mounted."""

    source: str
    major: int
    minor: int
    filesystem: str  # by its superblock
    mounted_as: str = ""  # the type that it is mounted with
    options: tuple[str, ...] = ()


class DiskSource(Record):
    """Where a disk of the machine comes from: a file of the image, or a block device.

    `by` is how the monitor gets it: "fd" (a descriptor), "bind" (the file, at its path), "loop" (a loop device over a
    file that the monitor's user may not open) or "node" (the device's node); all but "bind" are held open throughout.
    """

    path: str  # in the monitor's root: the Disk's
    source: str
    device: bool = False
    rootfs: bool = False  # it is the device of the container's rootfs
    number: tuple[int, int] = (0, 0)  # (major, minor) of a device
    readonly: bool = False
    by: str = "bind"


class ShareSource(Record):
    """A folder or file of the host at `target` in the monitor's root; `source` is "" for the container's rootfs."""

    target: str
    source: str = ""
    readonly: bool = False
    recursive: bool = False  # with what is mounted below it


def find_root(
    app: App, can: Capabilities, readonly: bool, block: BlockImage | None = None, device: Device | None = None
) -> Root:
    """Return what backs the guest's root. Raises ImageError where what the image asks for cannot be had."""
    takes = guests.load(app.guest).ROOTS
    if app.initrd:
        return _taken(app, takes, Root(kind="initrd", readonly=readonly))
    if app.block and app.block_mount in (None, "", "/"):
        root = Root(kind="block", readonly=readonly, fstype=block.filesystem if block else "")
        return _taken(app, takes, root)
    if not app.mount_rootfs:
        return _taken(app, takes, Root(kind="none", readonly=readonly))
    if device and "block" in takes and can.max_disks and _mounts(app, device.filesystem):
        readonly = readonly or "ro" in device.options  # as the engine has mounted it
        return Root(kind="block", readonly=readonly, fstype=device.filesystem, rootfs=True)
    if "9p" in takes and "9p" in can.shares:
        return Root(kind="9p", readonly=readonly, rootfs=True)
    raise ImageError(
        f"`mountRootfs` cannot be met: guest `{app.guest}` on `{can.name}` takes {_ways(takes, can)}, "
        f"and the container's rootfs is {_what_it_is(device)}"
    )


def _taken(app: App, takes: tuple[str, ...], root: Root) -> Root:
    if root.kind not in takes:
        raise ImageError(f"guest `{app.guest}` cannot take {root.kind} as its root")
    return root


def _ways(takes: tuple[str, ...], can: Capabilities) -> str:
    ways = ["a block device"] if "block" in takes and can.max_disks else []
    ways += ["9p"] if "9p" in takes and "9p" in can.shares else []
    return " or ".join(ways) or "no rootfs at all"


def _what_it_is(device: Device | None) -> str:
    if device is None:
        return "no block device of its own"
    return f"`{device.source}` with {device.filesystem}"


def check_block(app: App, block: BlockImage) -> None:
    """Raise ImageError for a block image that no guest could use, with what is wrong with it."""
    what = f"block image `{app.block}`"
    if block.size == 0:
        raise ImageError(f"{what} is empty")
    if block.size % SECTOR:
        raise ImageError(
            f"{what} of {block.size} bytes is not a whole number of sectors of {SECTOR} bytes",
            hint="lengthen it with truncate",
        )
    if block.filesystem_bytes > block.size:
        raise ImageError(
            f"{what} is cut short: its file system has {block.filesystem_bytes} bytes, the file {block.size}"
        )
    if not _mounts(app, block.filesystem):
        known = ", ".join(guests.load(app.guest).FILESYSTEMS)
        held = block.filesystem or "no file system that urunc knows, or a damaged one"
        raise ImageError(f"{what} holds {held}: guest `{app.guest}` mounts {known}")


def check_drivers(root: Root, lacks: tuple[str, ...]) -> None:
    """Raise ImageError where the guest's kernel cannot mount its root; `lacks` are drivers that it surely has not."""
    name = "9p" if root.kind == "9p" else driver(root.fstype)
    if root.kind in ("9p", "block") and name in lacks:
        raise ImageError(
            f"the kernel has no driver `{name}` for its root: it is not in the image's /lib/modules",
            hint="Debian's cloud kernel has no 9p, linux-image-amd64 does" if name == "9p" else None,
        )


def _mounts(app: App, filesystem: str) -> bool:
    """Return whether the guest can mount it; one that names none leaves what is on its disks to the application."""
    known = guests.load(app.guest).FILESYSTEMS
    return not known or filesystem in known


def disk_sources(
    app: App, can: Capabilities, root: Root, block: BlockImage | None, device: Device | None
) -> tuple[DiskSource, ...]:
    """Return the machine's disks in their order. Raises ImageError for a disk that the monitor cannot attach."""
    found = []
    if root.kind == "block" and root.rootfs and device:
        numbers = (device.major, device.minor)
        found.append(device_source(0, device.source, numbers, can, readonly=root.readonly).replace(rootfs=True))
    if app.block:
        path, by = f"/disk{len(found)}", "fd" if can.disk_by == "fd" else "bind"
        if by == "bind" and block and not block.openable:
            path, by = f"/dev{path}", "loop"
        found.append(DiskSource(path=path, source=app.block, readonly=root.readonly, by=by))
    if len(found) > can.max_disks:
        raise ImageError(f"monitor `{can.name}` can attach {can.max_disks} disks, the container has {len(found)}")
    return tuple(found)


def device_source(
    index: int, source: str, number: tuple[int, int], can: Capabilities, *, readonly: bool = False
) -> DiskSource:
    """Return the disk of that index which is a block device: `source` names it, (major, minor) are its `number`."""
    by_fd = can.disk_by == "fd"
    return DiskSource(
        path=f"/disk{index}" if by_fd else f"/dev/disk{index}",
        source=source,
        device=True,
        number=number,
        readonly=readonly,
        by="fd" if by_fd else "node",
    )


def disks(app: App, sources: tuple[DiskSource, ...]) -> tuple[Disk, ...]:
    """Return the machine's disks, one for each source."""
    name = app.block_device or ""
    return tuple(
        Disk(
            path=source.path,
            readonly=source.readonly,
            name=name if index == len(sources) - 1 else "",
            device=source.device,
        )
        for index, source in enumerate(sources)
    )


def block_mounts(
    app: App, root: Root, sources: tuple[DiskSource, ...], block: BlockImage | None
) -> tuple[GuestMount, ...]:
    """Return where a guest that mounts its own disks is to mount the block image: nowhere, where it is the root."""
    if block is None or (root.kind == "block" and not root.rootfs):
        return ()
    target = app.block_mount or ""
    if target in ("", "/"):
        return ()
    return (
        GuestMount(source=disk_name(len(sources) - 1), fstype=block.filesystem, target=target, readonly=root.readonly),
    )


def disk_name(index: int) -> str:
    """Return what Linux calls the disk of that number."""
    return f"/dev/vd{chr(ord('a') + index)}"


def root_shares(root: Root) -> tuple[tuple[Share, ...], tuple[ShareSource, ...]]:
    """Return the machine's shares, and where each comes from: the rootfs, where it is shared."""
    if root.kind != "9p":
        return (), ()
    share = Share(path=share_path(0), tag=share_tag(0), readonly=root.readonly)
    return (share,), (ShareSource(target=share.path, readonly=root.readonly),)


def share_path(number: int) -> str:
    """Return where the share of that number stands in the monitor's root."""
    return f"/share{number}"
