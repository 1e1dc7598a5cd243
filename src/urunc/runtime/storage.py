"""Disks and shares on the host: looking at them before the plan, opening them after it. Imported where there are any.

A disk that QEMU gets is opened here, with the host's rights, and goes to it as a descriptor. A monitor that opens its
disks itself gets the image's file, where its user may open that, else a loop device over it. The device of the
container's own rootfs is unmounted first and opened for nobody else (O_EXCL): two kernels destroy a file system.
"""

from __future__ import annotations

import os
import stat

from ..errors import HostError, ImageError, reason
from ..linux import fsops, libc, loop, mountinfo
from ..linux.mount_options import MountOptions
from ..vm import elf, filesystems, modules
from ..vm.machine import GuestFile
from ..vm.storage import BlockImage, Device
from . import image as images
from . import plan_devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..vm.machine import KernelInfo
    from ..vm.storage import DiskSource
    from .inherit import Descriptors
    from .plan import Plan
    from .plan_devices import Node

_MODULES = "/lib/modules"
_MODULES_DEP_LIMIT = 4 << 20
_MODULE_LIMIT = 32 << 20
_BANNER = b"Linux version "  # linux_banner in linux/init/version.c: the release, blank, who built it
_MAX_RELEASE = 64  # __NEW_UTS_LEN
_MOST_BANNERS = 64  # a kernel has two or three


def look_at_block(image: int, path: str, *, readonly: bool, uid: int, gids: Iterable[int]) -> BlockImage:
    """Return what there is to know of a block image, an O_PATH descriptor of a regular file that errors call `path`.

    `uid` and `gids` are the monitor's user and groups, as the host sees them. Raises ImageError.
    """
    status, what = os.fstat(image), f"block image `{path}`"
    with open(images.open_data(image, what), "rb", buffering=0) as file:
        found = filesystems.inspect(images.reader(file.fileno(), what))
    return BlockImage(
        size=status.st_size,
        filesystem=found.name if found else "",
        filesystem_bytes=found.size if found else 0,
        openable=fsops.may_open(status, uid, gids, writable=not readonly),
    )


def find_device(rootfs: str) -> Device | None:
    """Return the block device that is mounted, as a whole, at the container's rootfs; None where none is."""
    found = mountinfo.find(rootfs)
    if found is None or found.root != "/" or found.device[0] == 0:
        return None
    try:
        status = os.stat(found.source)
    except OSError:
        return None
    if not stat.S_ISBLK(status.st_mode) or status.st_rdev != os.makedev(*found.device):
        return None
    with open(os.open(found.source, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
        held = filesystems.inspect(images.reader(file.fileno(), f"the rootfs's device `{found.source}`"))
    return Device(
        source=found.source,
        major=found.device[0],
        minor=found.device[1],
        filesystem=held.name if held else found.fstype,
        mounted_as=found.fstype,
        options=found.options,
    )


def read_modules(
    rootfs: int, path: str, kernel: KernelInfo, names: tuple[str, ...]
) -> tuple[tuple[GuestFile, ...], tuple[str, ...], tuple[str, ...]]:
    """Return those of the modules of the kernel at `path`, with their modules.dep, and what it surely has and lacks.

    All are empty where the rootfs has no folder for the kernel. Raises ImageError for one that cannot be read, or
    modules that are larger together than any should be.
    """
    release = _find_release(rootfs, path, kernel)
    folder, size = f"{_MODULES}/{release}", 0
    index = _read_text(rootfs, f"{folder}/modules.dep") if release else None
    if index is None:
        return (), (), ()
    builtin = _read_text(rootfs, f"{folder}/modules.builtin")
    lacks = tuple(name for name in names if modules.lacks(name, index, builtin or ""))
    has = tuple(name for name in names if name not in lacks)
    paths, left = modules.closure(index, names)
    files = []
    for path in paths:
        content = _read(rootfs, f"{folder}/{path}", _MODULE_LIMIT - size)
        if content is None:
            raise ImageError(f"the kernel's module `{folder}/{path}` is not in the image")
        size += len(content)
        files.append(GuestFile(path=f"{folder}/{path}", content=content, mode=0o644))
    listed = GuestFile(path=f"{folder}/modules.dep", content=left.encode("utf-8", "surrogateescape"), mode=0o644)
    return (listed, *files), has, lacks if builtin is not None else ()


def _find_release(rootfs: int, path: str, kernel: KernelInfo) -> str:
    """Return the folder of the kernel's modules: by its release, else the only one that there is; "" without one.

    An ELF file has its release only in what it prints as it boots: it is looked for where there are several folders.
    Those are not listed: an image may have any number of them.
    """
    if kernel.release:
        return kernel.release if _is_folder(rootfs, kernel.release) else ""
    names = _first_two(rootfs)
    if len(names) > 1:
        names = [name for name in map(os.fsdecode, _releases(rootfs, path)) if _is_folder(rootfs, name)]
    return names[0] if len(names) == 1 else ""


def _is_folder(rootfs: int, release: str) -> bool:
    if "/" in release or "\0" in release or release.startswith("."):
        return False
    try:
        os.close(fsops.open_in_root(rootfs, f"{_MODULES}/{release}", os.O_RDONLY | os.O_DIRECTORY))
    except OSError:
        return False
    return True


def _first_two(rootfs: int) -> list[str]:
    """Return two names of what is in the folder of modules, or as many as there are."""
    try:
        folder = fsops.open_in_root(rootfs, _MODULES, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return []
    names: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith("."):
                    names.append(entry.name)
                if len(names) == 2:
                    break
    except OSError:  # of a damaged file system
        return []
    finally:
        os.close(folder)
    return names


def _releases(rootfs: int, path: str) -> set[bytes]:
    """Return what the kernel says that it is: one release, or none, but for kernels that lie."""
    try:
        with images.open_kernel(rootfs, path) as kernel:
            read_at = images.reader(kernel.fileno(), path)
            banners = elf.behind(read_at, _BANNER, _MAX_RELEASE + len(b" ("), _MOST_BANNERS)
    except ImageError:
        return set()
    return {release for release, builder, _ in (banner.partition(b" (") for banner in banners) if builder}


def _read_text(rootfs: int, path: str) -> str | None:
    content = _read(rootfs, path, _MODULES_DEP_LIMIT)
    return None if content is None else content.decode("utf-8", "surrogateescape")


def _read(rootfs: int, path: str, limit: int) -> bytes | None:
    try:
        return fsops.read_in_root(rootfs, path, limit)
    except OSError as error:
        raise ImageError(f"`{path}`: {reason(error)}") from None


def open_images(rootfs: int, plan: Plan, held: Descriptors) -> dict[str, int]:
    """Open the disks that are files of the image and go to the monitor as descriptors or loop devices.

    Returns path in the monitor's root -> descriptor; `held` owns them. Raises ImageError or HostError.
    """
    found: dict[str, int] = {}
    for disk in plan.disks:
        if disk.by != "bind" and not disk.rootfs:
            found[disk.path] = held.add(_open_volume(disk) if disk.device else _open_image(rootfs, disk))
    return found


def _open_volume(disk: DiskSource) -> int:
    """Open a block device for the guest alone, by a node of our own: its path need not be on this host."""
    nodes = fsops.detached_tmpfs("size=64k,mode=700")
    try:
        fsops.make_node(nodes, "disk", "b", *disk.number, 0o600, 0, 0)
        flags = os.O_RDONLY if disk.readonly else os.O_RDWR
        return os.open("disk", flags | os.O_EXCL | os.O_CLOEXEC, dir_fd=nodes)
    except OSError as error:
        raise HostError(
            f"the block device `{disk.source}` cannot be given to the guest alone: {reason(error)}",
            hint="is it mounted, or another guest's?",
        ) from None
    finally:
        os.close(nodes)


def _open_image(rootfs: int, disk: DiskSource) -> int:
    place = images.open_file(rootfs, disk.source, "block image")
    try:
        flags = os.O_RDONLY if disk.readonly else os.O_RDWR
        file = os.open(f"/proc/self/fd/{place}", flags | os.O_CLOEXEC)
    except OSError as error:
        raise ImageError(f"block image `{disk.source}`: {reason(error)}") from None
    finally:
        os.close(place)
    if disk.by == "fd":
        return file
    try:
        return loop.attach(file, disk.source, readonly=disk.readonly)
    except OSError as error:
        raise HostError(
            f"block image `{disk.source}` cannot be opened by the monitor's user, and there is no loop device for it: "
            f"{reason(error)}"
        ) from None
    finally:
        os.close(file)


def loop_nodes(plan: Plan, disks: dict[str, int]) -> tuple[Node, ...]:
    """Return the device nodes of the disks that are loop devices."""
    nodes = []
    for disk in plan.disks:
        if disk.by != "loop":
            continue
        number = os.fstat(disks[disk.path]).st_rdev
        major, minor = os.major(number), os.minor(number)
        nodes.append(plan_devices.disk_node(disk, major, minor, plan.host_uid, plan.host_gid))
    return tuple(nodes)


def take_device(plan: Plan, device: Device, held: Descriptors) -> int:
    """Unmount the container's rootfs and return its device, open for nobody else. Whoever calls has recorded it.

    Raises HostError where the file system stays in use: by whatever is mounted below it, or in another mount namespace.
    """
    flags = os.O_RDONLY if plan.disks[0].readonly else os.O_RDWR
    held.add(os.open(device.source, os.O_RDONLY | os.O_CLOEXEC))  # a loop device would go with its mount
    try:
        libc.umount(plan.rootfs, libc.UMOUNT_NOFOLLOW)
    except OSError as error:
        raise HostError(f"cannot unmount the rootfs `{plan.rootfs}` for the guest: {reason(error)}") from None
    try:
        return os.open(device.source, flags | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(
            f"the rootfs's device `{device.source}` cannot be given to the guest alone: {reason(error)}",
            hint="it is mounted in another place or mount namespace",
        ) from None


def give_back(rootfs: str, source: str, filesystem: str, options: Iterable[str]) -> None:
    """Mount the rootfs again where it is not mounted. Raises OSError."""
    if mountinfo.find(rootfs) is not None:
        return
    libc.mount(source, rootfs, filesystem, MountOptions(options).flags)
