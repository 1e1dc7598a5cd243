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
from .places import make_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .wire import Values

_FLAGS = {
    "async": (False, 0x10),
    "atime": (False, 0x400),
    "bind": (True, libc.MS_BIND),
    "rbind": (True, libc.MS_BIND | libc.MS_REC),
    "defaults": (True, 0),
    "dev": (False, libc.MS_NODEV),
    "diratime": (False, 0x800),
    "dirsync": (True, 0x80),
    "exec": (False, libc.MS_NOEXEC),
    "mand": (True, 0x40),
    "noatime": (True, 0x400),
    "nodev": (True, libc.MS_NODEV),
    "nodiratime": (True, 0x800),
    "noexec": (True, libc.MS_NOEXEC),
    "nomand": (False, 0x40),
    "norelatime": (False, 0x200000),
    "nostrictatime": (False, 0x1000000),
    "nosuid": (True, libc.MS_NOSUID),
    "relatime": (True, 0x200000),
    "remount": (True, libc.MS_REMOUNT),
    "ro": (True, libc.MS_RDONLY),
    "rw": (False, libc.MS_RDONLY),
    "strictatime": (True, 0x1000000),
    "suid": (False, libc.MS_NOSUID),
    "sync": (True, 0x10),
}
"""The options of fstab that are flags of mount(2): whether each sets or clears, and the flag."""
_PROPAGATION = {
    "private": libc.MS_PRIVATE,
    "rprivate": libc.MS_PRIVATE | libc.MS_REC,
    "rshared": libc.MS_SHARED | libc.MS_REC,
    "rslave": libc.MS_SLAVE | libc.MS_REC,
    "runbindable": libc.MS_UNBINDABLE | libc.MS_REC,
    "shared": libc.MS_SHARED,
    "slave": libc.MS_SLAVE,
    "unbindable": libc.MS_UNBINDABLE,
}
_PAGE = 4096 - 1
"""mount(2) copies one page of data, its closing NUL included."""
_BUSY_SECONDS = 1.0


class Parsed:
    """A mount's options, taken apart as mount(8) does."""

    def __init__(self, options: list[str]) -> None:
        self.flags = self.propagation = 0
        self.loop = False
        self.data: list[str] = []
        for option in options:
            self._take(option)

    def _take(self, option: str) -> None:
        if option in _FLAGS:
            sets, flag = _FLAGS[option]
            self.flags = self.flags | flag if sets else self.flags & ~flag
        elif option in _PROPAGATION:
            self.propagation |= _PROPAGATION[option]
        elif option == "loop":
            self.loop = True
        elif not option.startswith("X-containerd."):
            self.data.append(option)


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
    parsed = Parsed(mount["options"])
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


def _loop_device(image: str, parsed: Parsed) -> str:
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
