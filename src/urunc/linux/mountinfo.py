"""/proc/self/mountinfo: what is mounted where, as this process sees it (proc(5))."""

from __future__ import annotations

import os

from ..record import Record


class MountInfo(Record):
    """One mount. `root` is the folder of the file system that stands there: `/` but for binds."""

    point: str
    root: str
    device: tuple[int, int]  # (major, minor); major 0: no block device is behind it
    fstype: str
    source: str
    options: tuple[str, ...]  # of this mount: ro, nosuid, ..


def find(point: str) -> MountInfo | None:
    """Return the mount that the path, without links, leads to the root of; None where there is none.

    The kernel is asked which mount that is: of several at one place, or of one below a place that was mounted over
    later, the table does not tell which is hidden.
    """
    try:
        place = os.open(point, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        number = _mount_id(place)
        found = [fields for fields in _lines() if fields[0] == number]
    finally:
        os.close(place)
    return _mount(found[0]) if found and _decode(found[0][4]) == point else None


def _mount_id(fd: int) -> bytes:
    """Return the number, in the table, of the mount that the descriptor's file is on (Linux 3.15)."""
    with open(f"/proc/self/fdinfo/{fd}", "rb", buffering=0) as file:
        return dict(line.split(b":\t") for line in file.read(4096).splitlines() if b":\t" in line)[b"mnt_id"]


def points_below(path: str) -> list[str]:
    """Return the mount points at and below a path without links, in the order in which they were mounted."""
    points = [_decode(fields[4]) for fields in _lines()]
    return [point for point in points if point == path or point.startswith(f"{path}/")]


def _lines() -> list[list[bytes]]:
    with open("/proc/self/mountinfo", "rb") as file:
        return [line.split(b" ") for line in file.read().splitlines()]


def _mount(fields: list[bytes]) -> MountInfo:
    dash = fields.index(b"-", 6)
    major, _, minor = fields[2].partition(b":")
    return MountInfo(
        point=_decode(fields[4]),
        root=_decode(fields[3]),
        device=(int(major), int(minor)),
        fstype=fields[dash + 1].decode(),
        source=_decode(fields[dash + 2]),
        options=tuple(fields[5].decode().split(",")),
    )


def _decode(text: bytes) -> str:
    """Decode the octal escapes: blank, tab, newline, number sign and backslash, which comes last."""
    for code in (b" ", b"\t", b"\n", b"#", b"\\"):
        text = text.replace(b"\\%03o" % code[0], code)
    return os.fsdecode(text)
