"""Which file system a block image holds, by its superblock: what a guest must be told to mount it.

Reads through `read_at(offset, length)`, which may return fewer bytes at the end; knows nothing of files and guests.
The image is an attacker's, and nothing here is trusted for more than a clear error before the start.
"""

from __future__ import annotations

from _struct import unpack_from

from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .elf import ReadAt

_EXT_SUPERBLOCK = 1024  # fs/ext4/ext4.h: struct ext4_super_block stands there whatever the block size
_EXT_MAGIC = 0xEF53
_EXT_64BIT = 0x80
_EXT_JOURNAL = 0x4
_EXT2_INCOMPATIBLE = 0x2  # filetype
_EXT2_READONLY = 0x1 | 0x2  # sparse_super, large_file
_EXT_LARGEST_LOG = 6  # blocks of 64 KiB
_MAGICS = (
    ("erofs", 1024, b"\xe2\xe1\xf5\xe0"),
    ("squashfs", 0, b"hsqs"),
    ("xfs", 0, b"XFSB"),
    ("btrfs", 0x10040, b"_BHRfS_M"),
)


class FileSystem(Record):
    """A file system: its type, and its size in bytes, 0 where that was not looked for.

    The type is Linux's name; "ext2" is one without anything that ext3 or ext4 added.
    """

    name: str
    size: int = 0


def inspect(read_at: ReadAt) -> FileSystem | None:
    """Return the file system that starts at offset 0, None where there is none of a known type."""
    found = _inspect_ext(read_at(_EXT_SUPERBLOCK, 1024))
    if found:
        return found
    for name, offset, magic in _MAGICS:
        if read_at(offset, len(magic)) == magic:
            return FileSystem(name=name)
    return None


def _inspect_ext(block: bytes) -> FileSystem | None:
    if len(block) < 1024 or unpack_from("<H", block, 56)[0] != _EXT_MAGIC:
        return None
    blocks, log_size = unpack_from("<I", block, 4)[0], unpack_from("<I", block, 24)[0]
    if log_size > _EXT_LARGEST_LOG:
        return None
    compatible, incompatible, readonly = unpack_from("<III", block, 92)
    if incompatible & _EXT_64BIT:
        blocks |= unpack_from("<I", block, 336)[0] << 32
    plain = not (compatible & _EXT_JOURNAL or incompatible & ~_EXT2_INCOMPATIBLE or readonly & ~_EXT2_READONLY)
    return FileSystem(name="ext2" if plain else "ext4", size=blocks << (10 + log_size))
