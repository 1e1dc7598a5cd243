"""Tap devices, through /dev/net/tun. A device belongs to the network namespace that the opener was in.

Reference: the kernel's Documentation/networking/tuntap.rst and include/uapi/linux/if_tun.h.
"""

from __future__ import annotations

import fcntl
import os
from _struct import pack
from errno import ENAMETOOLONG

_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_TUNSETGROUP = 0x400454CE
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_TUN_EXCL = 0x8000
_NAME_BYTES = 15

DEVICE = "/dev/net/tun"
MAX_MTU = 65521
"""In bytes: 65535 less an Ethernet header (drivers/net/tun.c)."""


def open_tap(name: str, *, persistent: bool, uid: int, gid: int, vnet_hdr: bool, device: str = DEVICE) -> int:
    """Make a tap and return a close-on-exec descriptor of its queue.

    A persistent one outlives the descriptor, and the user and group may attach to it by name. `vnet_hdr` is for who
    speaks virtio's header on it. Raises OSError: EBUSY where the name is taken.
    """
    encoded = os.fsencode(name)
    if len(encoded) > _NAME_BYTES:
        raise OSError(ENAMETOOLONG, os.strerror(ENAMETOOLONG), name)
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_TUN_EXCL | (_IFF_VNET_HDR if vnet_hdr else 0)
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, pack("16sH22x", encoded, flags))
        if persistent:
            fcntl.ioctl(fd, _TUNSETOWNER, uid)
            fcntl.ioctl(fd, _TUNSETGROUP, gid)
            fcntl.ioctl(fd, _TUNSETPERSIST, 1)
    except OSError:
        os.close(fd)
        raise
    return fd
