"""Loop devices that free themselves: a file as a block device for as long as anybody has it open (loop(4))."""

from __future__ import annotations

import fcntl
import os
from _struct import pack
from errno import EBUSY, ENXIO

_CTL_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A
_READ_ONLY, _AUTOCLEAR = 1, 4
_ATTEMPTS = 20


def attach(file: int, name: str, *, readonly: bool) -> int:
    """Return a descriptor of a new loop device over an open file: the device lasts until its last descriptor closes.

    `name` is what losetup(8) shows. Raises OSError: ENXIO where no device is free.
    """
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _attempt in range(_ATTEMPTS):
            device = _configure(f"/dev/loop{fcntl.ioctl(control, _CTL_GET_FREE)}", file, name, readonly)
            if device >= 0:
                return device
    finally:
        os.close(control)
    raise OSError(ENXIO, os.strerror(ENXIO), "/dev/loop-control")


def _configure(device: str, file: int, name: str, readonly: bool) -> int:
    """Return the device's descriptor, -1 where another process took it first."""
    flags = _AUTOCLEAR | (_READ_ONLY if readonly else 0)
    # struct loop_config: fd, block_size, struct loop_info64, reserved[8]
    info = pack("=5Q4I", 0, 0, 0, 0, 0, 0, 0, 0, flags) + os.fsencode(name)[-63:].ljust(64, b"\0") + bytes(64 + 32 + 16)
    try:
        fd = os.open(device, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    try:
        fcntl.ioctl(fd, _CONFIGURE, pack("=II", file, 0) + info + bytes(64))
    except OSError as error:
        os.close(fd)
        if error.errno == EBUSY:
            return -1
        raise
    return fd
