"""Volumes on the host: what a mount's source is, and reading those that are copied for the guest.

What is small enough to be copied is what ConfigMaps, Secrets and tokens are: a few regular files, or links to such,
within the source. The kubelet's own `..data` and `..2024_..` folders are what its links lead to, and are left out.
"""

from __future__ import annotations

import os
import stat

from ..errors import SpecError, reason
from ..linux import fsops
from ..oci.checks import Source
from ..vm.machine import GuestFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..oci.spec import Mount

MAX_BYTES = 1 << 20  # of a volume: as much as a ConfigMap or a Secret can hold
MAX_FILES = 512
_MAX_DEPTH = 16


class _TooMuchError(Exception):
    """The volume is not one to copy."""


def look(bundle: str, mount: Mount, index: int) -> Source:
    """Return what a mount's source is. Raises SpecError where it is not there."""
    path = os.path.join(bundle, mount.source)
    try:
        status = os.stat(path)
    except OSError as error:
        raise SpecError(f"mounts[{index}].source: `{path}`: {reason(error)}") from None
    if stat.S_ISBLK(status.st_mode):
        return Source(kind="block", device=(os.major(status.st_rdev), os.minor(status.st_rdev)))
    if stat.S_ISREG(status.st_mode):
        return Source(kind="file", small=status.st_size <= MAX_BYTES)
    if stat.S_ISDIR(status.st_mode):
        return Source(kind="folder", small=mount.has("ro") and _is_small(path))
    return Source()


def _is_small(path: str) -> bool:
    try:
        for _file in _files(path, "/"):
            pass
    except (_TooMuchError, OSError):
        return False
    return True


def read(bundle: str, mount: Mount) -> tuple[GuestFile, ...]:
    """Return the files of a volume that is copied, at their paths in the guest. Raises SpecError."""
    path = os.path.join(bundle, mount.source)
    try:
        if os.path.isdir(path):
            return tuple(_files(path, mount.destination.rstrip("/") + "/"))
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            content = file.read(MAX_BYTES + 1)
            mode = os.fstat(file.fileno()).st_mode & 0o777
        if len(content) > MAX_BYTES:
            raise _TooMuchError
    except OSError as error:
        raise SpecError(f"mounts: cannot read `{path}`: {reason(error)}") from None
    except _TooMuchError:
        raise SpecError(f"mounts: `{path}` has grown too large to be copied for the guest") from None
    return (GuestFile(path=mount.destination, content=content, mode=mode, needed=True),)


def _files(path: str, target: str) -> Iterator[GuestFile]:
    """Yield the files of a folder; a link leads no further than the folder itself. Raises _TooMuchError, OSError."""
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    budget = [MAX_FILES, MAX_BYTES]
    try:
        yield from _walk(root, "", target, budget, _MAX_DEPTH)
    finally:
        os.close(root)


def _walk(root: int, folder: str, target: str, budget: list[int], depth: int) -> Iterator[GuestFile]:
    fd = fsops.open_in_root(root, folder or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        names = _names(fd, budget[0], kubelets=not folder)
    finally:
        os.close(fd)
    for name in names:
        budget[0] -= 1
        if budget[0] < 0 or depth == 0:
            raise _TooMuchError
        inside = f"{folder}/{name}" if folder else name
        place = fsops.open_in_root(root, inside)
        try:
            status = os.fstat(place)
        finally:
            os.close(place)
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(root, inside, target, budget, depth - 1)
        elif stat.S_ISREG(status.st_mode):
            content, mode = _content(root, inside, budget), status.st_mode & 0o777
            yield GuestFile(path=target + inside, content=content, mode=mode, needed=True)
        else:
            raise _TooMuchError


def _names(folder: int, most: int, *, kubelets: bool) -> list[str]:
    """Return what is in a folder, in order. Raises _TooMuchError at once where that is more than may be copied."""
    names: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if kubelets and entry.name.startswith(".."):
                continue
            names.append(entry.name)
            if len(names) > most:
                raise _TooMuchError
    return sorted(names)


def _content(root: int, path: str, budget: list[int]) -> bytes:
    content = fsops.read_in_root(root, path, budget[1])
    if content is None:
        raise _TooMuchError
    budget[1] -= len(content)
    return content
