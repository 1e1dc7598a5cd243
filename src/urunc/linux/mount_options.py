"""The options of a mount as fstab and mount(8) have them, taken apart into what mount(2) wants."""

from __future__ import annotations

from . import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

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
"""Options that are flags of mount(2), by the numbers of linux/mount.h: whether each sets or clears, and the flag."""

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


class MountOptions:
    """A mount's options: `flags` and `propagation` for mount(2), whether a `loop` device is wanted, and the rest.

    `data` are the file system's own, in their order. Of options that say the contrary the last one holds.
    """

    def __init__(self, options: Iterable[str]) -> None:
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
            self.propagation = _PROPAGATION[option]
        elif option == "loop":
            self.loop = True
        else:
            self.data.append(option)
