"""The image: what its rootfs says it boots, and its files, which are opened beneath the rootfs as an attacker's."""

from __future__ import annotations

import os

from ..errors import ImageError, SpecError, reason
from ..linux import fsops
from ..oci import app as apps
from ..oci.app import MAX_URUNC_JSON, URUNC_JSON
from ..vm import choose, elf, guests, monitors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from ..oci.app import App
    from ..oci.spec import Spec
    from ..vm.machine import KernelInfo


def open_rootfs(path: str) -> int:
    """Return an O_PATH descriptor of the rootfs. Raises SpecError where it is no folder."""
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SpecError(f"root.path: cannot open `{path}`: {reason(error)}") from None


def find_app(spec: Spec, rootfs: int) -> App | None:
    """Return what the bundle boots, None where it is no unikernel. Raises ImageError for one that is broken."""
    try:
        urunc_json = fsops.read_in_root(rootfs, URUNC_JSON, MAX_URUNC_JSON)
    except OSError as error:  # too large, or a link that leads in a circle
        raise ImageError(f"{URUNC_JSON}: {reason(error)}") from None
    return apps.find_app(
        spec,
        urunc_json,
        guests=guests.GUESTS,
        monitors=monitors.MONITORS,
        supports=choose.supports,
        has_file=lambda path: _is_there(rootfs, path),
        infer=lambda path, guest, monitor: _infer(rootfs, path, guest, monitor),
    )


def _infer(rootfs: int, path: str, guest: str | None, monitor: str | None) -> tuple[str, str]:
    """Return guest and monitor of a kernel, of which the image does not give both. Raises ImageError."""
    from ..vm import infer

    with open_kernel(rootfs, path) as file:
        read_at = reader(file.fileno(), f"kernel `{path}`")
        kernel = elf.inspect(read_at, path)
        return infer.infer(kernel, infer.Signs(read_at, kernel), guest, monitor, os.uname().machine)


def _is_there(rootfs: int, path: str) -> bool:
    """A folder or a link that leads in a circle is a broken kernel, which is an error, and not an absent one."""
    try:
        os.close(fsops.open_in_root(rootfs, path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def open_file(rootfs: int, path: str, what: str) -> int:
    """Return an O_PATH descriptor of a regular file beneath the rootfs. Raises ImageError, naming `what` it is."""
    try:
        fd = fsops.open_in_root(rootfs, path)
    except OSError as error:
        raise ImageError(f"{what} `{path}`: {reason(error)} in the container's rootfs") from None
    if not fsops.is_regular(fd):
        os.close(fd)
        raise ImageError(f"{what} `{path}` is not a regular file")
    return fd


def read_kernel(rootfs: int, path: str) -> KernelInfo:
    """Return what the kernel's headers say. Raises ImageError where there is no such kernel."""
    with open_kernel(rootfs, path) as file:
        kernel = elf.inspect(reader(file.fileno(), f"kernel `{path}`"), path)
        size = os.fstat(file.fileno()).st_size
    return kernel if kernel.format.startswith("elf") else kernel.replace(load_bytes=size)


def open_kernel(rootfs: int, path: str) -> BinaryIO:
    """Return the kernel, open for reading. Raises ImageError."""
    fd = open_file(rootfs, path, "kernel")
    try:
        return open(open_data(fd, f"kernel `{path}`"), "rb", buffering=0)
    finally:
        os.close(fd)


def open_data(file: int, what: str) -> int:
    """Return a descriptor to read a regular file by, of which `file` is an O_PATH one. Raises ImageError."""
    try:
        return os.open(f"/proc/self/fd/{file}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:  # the container's file system may be damaged
        raise ImageError(f"{what}: {reason(error)}") from None


def reader(fd: int, what: str) -> Callable[[int, int], bytes]:
    """Return what reads (offset, length) of an open file, less or nothing at its end. It raises ImageError."""
    size = os.lseek(fd, 0, 2)  # SEEK_END, which is in the half of `os` that is not loaded; of a block device too

    def read_at(offset: int, length: int) -> bytes:
        try:
            return os.pread(fd, length, offset) if offset < size else b""  # pread takes 63 bits
        except OSError as error:  # the container's file system may be damaged
            raise ImageError(f"{what}: {reason(error)}") from None

    return read_at


def file_bytes(rootfs: int, path: str | None, what: str) -> int:
    """Return the size of an image's file in bytes, 0 where `path` is None. Raises ImageError for an empty one."""
    if path is None:
        return 0
    fd = open_file(rootfs, path, what)
    try:
        size = os.fstat(fd).st_size
    finally:
        os.close(fd)
    if size == 0:
        raise ImageError(f"{what} `{path}` is empty")
    return size
