"""Messages of 9P2000.L, made octet by octet: also those that no client would send. The test guest sends them.

As diod's protocol.md and QEMU's hw/9pfs have them. Nothing is checked here, so that nothing is too wrong to be asked.
"""

from __future__ import annotations

import errno
import struct

AGAIN = 0xFFFFFFFF
O_RDONLY, O_WRONLY, O_RDWR, O_CREAT, O_TRUNC = 0, 1, 2, 0o100, 0o1000
ALL_ATTRIBUTES = 0x3FFF
SET_MODE, SET_UID, SET_GID, SET_SIZE = 1, 2, 4, 8
ERROR = 7
WALK = 110


def string(text: str | bytes) -> bytes:
    """Return a 9P string."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<H", len(data)) + data


def numbers(*values: int) -> bytes:
    """Return numbers of four octets each."""
    return struct.pack(f"<{len(values)}I", *values)


def message(kind: int, body: bytes, *, size: int | None = None, tag: int = 1) -> bytes:
    """Return a message; its size may be said wrong."""
    length = 7 + len(body) if size is None else size
    return struct.pack("<IBH", length, kind, tag) + body


def version(msize: int = 16384, name: str = "9P2000.L") -> bytes:
    """Begin anew: Tversion."""
    return message(100, numbers(msize) + string(name), tag=0xFFFF)


def attach(fid: int, name: str = "", uid: int = 0) -> bytes:
    """Make `fid` the share's root, or the folder of that name: Tattach."""
    return message(104, numbers(fid, AGAIN) + string("root") + string(name) + numbers(uid))


def walk(fid: int, new: int, *names: str | bytes) -> bytes:
    """Go from `fid` by names: Twalk."""
    return message(WALK, numbers(fid, new) + struct.pack("<H", len(names)) + b"".join(map(string, names)))


def lopen(fid: int, flags: int = O_RDONLY) -> bytes:
    """Open what `fid` is: Tlopen."""
    return message(12, numbers(fid, flags))


def lcreate(fid: int, name: str | bytes, flags: int = O_RDWR | O_CREAT, mode: int = 0o644, gid: int = 0) -> bytes:
    """Make a file in the folder `fid`, which becomes the file: Tlcreate."""
    return message(14, numbers(fid) + string(name) + numbers(flags, mode, gid))


def symlink(fid: int, name: str | bytes, target: str | bytes) -> bytes:
    """Make a link: Tsymlink."""
    return message(16, numbers(fid) + string(name) + string(target) + numbers(0))


def mknod(fid: int, name: str | bytes, mode: int, major: int = 0, minor: int = 0) -> bytes:
    """Make a node of any kind: Tmknod."""
    return message(18, numbers(fid) + string(name) + numbers(mode, major, minor, 0))


def rename(fid: int, folder: int, name: str | bytes) -> bytes:
    """Move what `fid` is: Trename."""
    return message(20, numbers(fid, folder) + string(name))


def readlink(fid: int) -> bytes:
    """Read a link: Treadlink."""
    return message(22, numbers(fid))


def getattr_(fid: int) -> bytes:
    """Look at mode, owner, size: Tgetattr."""
    return message(24, numbers(fid) + struct.pack("<Q", ALL_ATTRIBUTES))


def setattr_(fid: int, valid: int, mode: int = 0, uid: int = 0, gid: int = 0, size: int = 0) -> bytes:
    """Change them: Tsetattr."""
    return message(26, numbers(fid, valid, mode, uid, gid) + struct.pack("<5Q", size, 0, 0, 0, 0))


def xattrwalk(fid: int, new: int, name: str | bytes) -> bytes:
    """Open an extended attribute, or the list of them: Txattrwalk."""
    return message(30, numbers(fid, new) + string(name))


def xattrcreate(fid: int, name: str | bytes, size: int, flags: int = 0) -> bytes:
    """Make `fid` an extended attribute to write: Txattrcreate."""
    return message(32, numbers(fid) + string(name) + struct.pack("<QI", size, flags))


def readdir(fid: int, offset: int = 0, count: int = 4096) -> bytes:
    """List an open folder: Treaddir."""
    return message(40, numbers(fid) + struct.pack("<QI", offset, count))


def link(folder: int, fid: int, name: str | bytes) -> bytes:
    """Make another name of what `fid` is: Tlink."""
    return message(70, numbers(folder, fid) + string(name))


def mkdir(fid: int, name: str | bytes, mode: int = 0o755) -> bytes:
    """Make a folder: Tmkdir."""
    return message(72, numbers(fid) + string(name) + numbers(mode, 0))


def renameat(old: int, name: str | bytes, new: int, to: str | bytes) -> bytes:
    """Move by folders and names: Trenameat."""
    return message(74, numbers(old) + string(name) + numbers(new) + string(to))


def unlinkat(fid: int, name: str | bytes, flags: int = 0) -> bytes:
    """Remove a name: Tunlinkat."""
    return message(76, numbers(fid) + string(name) + numbers(flags))


def read(fid: int, offset: int = 0, count: int = 4096) -> bytes:
    """Read an open file: Tread."""
    return message(116, numbers(fid) + struct.pack("<QI", offset, count))


def write(fid: int, data: bytes, offset: int = 0, count: int | None = None) -> bytes:
    """Write to an open file: Twrite; how much it is may be said wrong."""
    return message(118, numbers(fid) + struct.pack("<QI", offset, len(data) if count is None else count) + data)


def clunk(fid: int) -> bytes:
    """Let go of `fid`: Tclunk."""
    return message(120, numbers(fid))


def error(answer: bytes) -> int:
    """Return the errno of an answer; 0 of one that is no error."""
    return int.from_bytes(answer[7:11], "little") if answer[4:5] == bytes((ERROR,)) else 0


def refusal(asked: bytes, answer: bytes) -> int:
    """Return the errno of an answer; ENOENT of a walk that stopped on its way, which is no error to the protocol."""
    is_walk = asked[4:5] == bytes((WALK,)) and answer[4:5] == bytes((WALK + 1,))
    return errno.ENOENT if is_walk and answer[7:9] != asked[15:17] else error(answer)


def data(answer: bytes) -> bytes:
    """Return what a Tread or a Treaddir was given."""
    return answer[11:]
