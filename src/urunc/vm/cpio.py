"""A writer of newc archives, the format of an initrd. Knows nothing of what is in them.

The kernel unpacks archives that follow each other, each at a multiple of four bytes, and a later file takes the
place of an earlier one: so an archive can be added behind any initrd, compressed or not
(Documentation/driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .machine import GuestFile

_DIRECTORY = 0o040000
_REGULAR = 0o100000


def padding(length: int) -> bytes:
    """Return the zeros that bring `length` bytes to the next multiple of four."""
    return bytes(-length % 4)


def archive(files: tuple[GuestFile, ...]) -> bytes:
    """Return a newc archive of regular files owned by root, with the directories above them (mode 0755).

    Paths are absolute; two files of one path keep their order, so the kernel keeps the last.
    """
    parts: list[bytes] = []
    inode = 0
    made: set[str] = set()
    for file in files:
        path = file.path.lstrip("/")
        for parent in _parents(path):
            if parent not in made:
                made.add(parent)
                inode += 1
                parts.append(_entry(inode, parent, _DIRECTORY | 0o755, b""))
        inode += 1
        parts.append(_entry(inode, path, _REGULAR | file.mode, file.content))
    parts.append(_entry(0, "TRAILER!!!", 0, b""))
    return b"".join(parts)


def _parents(path: str) -> list[str]:
    """Return `a`, `a/b` for `a/b/c`."""
    names = path.split("/")[:-1]
    return ["/".join(names[: count + 1]) for count in range(len(names))]


def _entry(inode: int, path: str, mode: int, content: bytes) -> bytes:
    name = path.encode("utf-8", "surrogateescape") + b"\0"
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers)
    head = header + name
    return head + padding(len(head)) + content + padding(len(content))
