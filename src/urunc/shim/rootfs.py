"""The container's rootfs: the mounts of the Create request, made in the bundle, as the snapshotter asks for them.

Runs in an operation's child, which shares containerd's mount namespace and may change its working directory.
Must not know what is in the rootfs.
"""

from __future__ import annotations

import os
import time
from errno import EBUSY, EINVAL, ENOENT, ENXIO

from ..errors import HostError, KernelError, reason
from ..linux import libc, loop, mountinfo
from ..linux.mount_options import MountOptions
from .places import make_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .wire import Values

_PAGE = 4096 - 1
"""mount(2) copies one page of data, its closing NUL included."""
_BUSY_SECONDS = 1.0


def mount_all(mounts: list[Values], target: str) -> None:
    """Mount them in their order on `target`, which is made. Raises, with nothing mounted, where one fails."""
    if not mounts:
        return
    make_folder(target, 0o711)
    try:
        for mount in mounts:
            place = os.path.join(target, mount["target"].lstrip("/")) if mount["target"] else target
            _mount(mount, place)
    except OSError as error:
        unmount_all(target)
        raise KernelError(
            f"cannot mount the rootfs: `{mount['source']}` ({mount['type']}): {reason(error)}", errno=error.errno or 0
        ) from None
    except BaseException:
        unmount_all(target)
        raise


def unmount_all(target: str) -> None:
    """Unmount everything at and below `target`, the last first. Nothing happens where nothing is mounted."""
    for point in reversed(mountinfo.points_below(os.path.realpath(target))):
        _unmount(point)


def _mount(mount: Values, target: str) -> None:
    parsed = MountOptions(option for option in mount["options"] if not option.startswith("X-containerd."))
    source = _loop_device(mount["source"], parsed) if parsed.loop else mount["source"]
    kind = mount["type"]
    back = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        options = parsed.data
        if kind == "overlay" and len(",".join(options)) > _PAGE:
            options = _shorten(options)
        data = ",".join(options)
        if len(data) > _PAGE:
            raise HostError(f"cannot mount the rootfs: its options are {len(data)} bytes long, and a page is the limit")
        libc.mount(source, target, None if kind == "bind" else kind, parsed.flags, data or None)
    finally:
        os.fchdir(back)
        os.close(back)
    if parsed.flags & libc.MS_BIND and parsed.flags & ~(libc.MS_BIND | libc.MS_REC):
        libc.mount(source, target, None, parsed.flags | libc.MS_REMOUNT)  # a bind takes its flags only then
    if parsed.propagation:
        libc.mount("none", target, None, parsed.propagation)


def _shorten(options: list[str]) -> list[str]:
    """Go to the folder that all lower folders share, and name them from there: a page holds only so many layers."""
    found = next((option for option in options if option.startswith("lowerdir=")), "")
    lower = found.removeprefix("lowerdir=").split(":")
    if "\\" in found or not all(path.startswith("/") for path in lower):
        return options
    shared = os.path.commonpath(lower)
    if shared == "/":
        return options
    os.chdir(shared)
    short = ":".join(os.path.relpath(path, shared) for path in lower)
    return [f"lowerdir={short}" if option == found else option for option in options]


def _loop_device(image: str, parsed: MountOptions) -> str:
    """Return a loop device of the file that frees itself once it is unmounted."""
    readonly = bool(parsed.flags & libc.MS_RDONLY)
    file = os.open(image, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
    try:
        device = loop.attach(file, image, readonly=readonly)
    except OSError as error:
        if error.errno == ENXIO:
            raise HostError(f"cannot mount the rootfs: no loop device is free for `{image}`") from None
        raise
    finally:
        os.close(file)
    _held_loops.append(device)
    return f"/dev/loop{os.minor(os.fstat(device).st_rdev)}"


_held_loops: list[int] = []
"""Descriptors of loop devices, open until the mount holds the device (to the end of the operation's process)."""


def _unmount(point: str) -> None:
    """Unmount; a mount that stays busy is detached, so that it goes when its last user does."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            libc.umount(point, libc.UMOUNT_NOFOLLOW)
            return
        except OSError as error:
            if error.errno in (EINVAL, ENOENT):
                return  # it is gone
            if error.errno != EBUSY:
                raise KernelError(f"cannot unmount `{point}`: {reason(error)}", errno=error.errno or 0) from None
        if time.monotonic() > deadline:
            libc.umount(point, libc.UMOUNT_NOFOLLOW | libc.MNT_DETACH)
            return
        time.sleep(0.01)
