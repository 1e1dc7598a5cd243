"""System calls that Python 3.11's `os` does not have, by number, through `_ctypes` alone.

`ctypes` costs 3.5 ms to import, its C half less than one, and a verb that makes none of these calls pays
nothing: `_ctypes` is loaded by the first call, or by `load()`, which whoever is going to pivot calls before.
Every function raises OSError with the errno, the call's name and its object. This module knows nothing of
containers. The mount calls need Linux 5.12 (`mount_setattr`).
"""

from __future__ import annotations

import os
from _struct import pack
from errno import EINVAL
from sys import byteorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_IN_ROOT = 0x10

CLOSE_RANGE_CLOEXEC = 4

PR_SET_PDEATHSIG = 1
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_SECCOMP_SET_MODE_FILTER = 1
_CAPABILITY_VERSION_3 = 0x20080522
_KEYCTL_JOIN_SESSION_KEYRING = 1
_SCHED_ATTR_SIZE = 56  # of struct sched_attr since Linux 5.3
_IOPRIO_WHO_PROCESS = 1
_HIGHEST_CAPABILITY = 63  # what two 32-bit words hold; the kernel answers EINVAL after its own last one

_X86_64 = {
    "mount": 165,
    "umount2": 166,
    "pivot_root": 155,
    "prctl": 157,
    "capset": 126,
    "setdomainname": 171,
    "unshare": 272,
    "prlimit64": 302,
    "setns": 308,
    "seccomp": 317,
    "bpf": 321,
    "keyctl": 250,
    "sched_setattr": 314,
    "ioprio_set": 251,
    "set_mempolicy": 238,
}
_AARCH64 = {
    "mount": 40,
    "umount2": 39,
    "pivot_root": 41,
    "prctl": 167,
    "capset": 91,
    "setdomainname": 162,
    "unshare": 97,
    "prlimit64": 261,
    "setns": 268,
    "seccomp": 277,
    "bpf": 280,
    "keyctl": 219,
    "sched_setattr": 274,
    "ioprio_set": 30,
    "set_mempolicy": 237,
}
_EVERYWHERE = {  # calls younger than 5.1 have one number on every architecture
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}
_ARGUMENTS = 7  # the number and six arguments

_numbers: dict[str, int] = {}
_syscall: Callable[..., int] | None = None
_get_errno: Callable[[], int] = int


def load() -> None:
    """Import `_ctypes` and find `syscall`; do it before the root changes. Cheap when done already."""
    global _syscall, _get_errno
    if _syscall is not None:
        return
    import _ctypes

    class Long(_ctypes._SimpleCData):  # type: ignore[type-arg]  # not subscriptable when run
        _type_ = "l"

    class Word(_ctypes._SimpleCData):  # type: ignore[type-arg]  # not subscriptable when run
        _type_ = "P"  # takes integers of either sign, bytes and None, each as one machine word

    class Call(_ctypes.CFuncPtr):
        _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
        _restype_ = Long
        _argtypes_ = (Word,) * _ARGUMENTS

    _numbers.update(_EVERYWHERE, **(_AARCH64 if os.uname().machine == "aarch64" else _X86_64))
    _get_errno = _ctypes.get_errno
    _syscall = Call(_ctypes.dlsym(_ctypes.dlopen(None, 0), "syscall"))  # type: ignore[arg-type]  # None: this program


def _call(name: str, *arguments: int | bytes | None, about: str | bytes | None = None) -> int:
    """Make one call; `about` is the path or key that the error is to name."""
    if _syscall is None:
        load()
    assert _syscall is not None  # noqa: S101  # for the type checker: load() has set it
    padding = (0,) * (_ARGUMENTS - 1 - len(arguments))
    result = _syscall(_numbers[name], *arguments, *padding)
    if result == -1:
        code = _get_errno()
        message = f"{name}: {os.strerror(code).lower()}"
        raise OSError(code, message) if about is None else OSError(code, message, os.fsdecode(about))
    return result


def _path(path: str | bytes) -> bytes:
    """Return the path for the kernel. A NUL inside would cut it short, and name another file."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise OSError(EINVAL, "path holds a NUL byte", path)
    return encoded


def unshare(flags: int) -> None:
    """unshare(2)."""
    _call("unshare", flags)


def setns(fd: int, flags: int) -> None:
    """setns(2); with a kind's flag, EINVAL where the descriptor is a namespace of another kind."""
    _call("setns", fd, flags)


def mount(source: str, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    kind = None if fstype is None else fstype.encode()
    options = None if data is None else data.encode()
    _call("mount", _path(source), _path(target), kind, flags, options, about=target)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _call("umount2", _path(target), flags, about=target)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _call("pivot_root", _path(new), _path(old), about=new)


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """open_tree(2): return a close-on-exec descriptor of a mount, a new detached one with OPEN_TREE_CLONE."""
    return _call("open_tree", dirfd, _path(path), flags | OPEN_TREE_CLOEXEC, about=path)


def move_mount(from_fd: int, from_path: str, to_fd: int, to_path: str, flags: int) -> None:
    """move_mount(2)."""
    _call("move_mount", from_fd, _path(from_path), to_fd, _path(to_path), flags, about=to_path)


def fsopen(fstype: str) -> int:
    """fsopen(2): return a close-on-exec descriptor of a file system that is being configured."""
    return _call("fsopen", fstype.encode(), _FSOPEN_CLOEXEC, about=fstype)


def fsconfig_set(fd: int, key: str, value: str) -> None:
    """fsconfig(2), FSCONFIG_SET_STRING."""
    _call("fsconfig", fd, _FSCONFIG_SET_STRING, key.encode(), value.encode(), 0, about=f"{key}={value}")


def fsconfig_flag(fd: int, key: str) -> None:
    """fsconfig(2), FSCONFIG_SET_FLAG."""
    _call("fsconfig", fd, _FSCONFIG_SET_FLAG, key.encode(), None, 0, about=key)


def fsconfig_create(fd: int) -> None:
    """fsconfig(2), FSCONFIG_CMD_CREATE: make the file system as configured."""
    _call("fsconfig", fd, _FSCONFIG_CMD_CREATE, None, None, 0)


def fsmount(fd: int, flags: int = 0, attrs: int = 0) -> int:
    """fsmount(2): return a close-on-exec descriptor of the new, detached mount; `attrs` are MOUNT_ATTR_*."""
    return _call("fsmount", fd, flags | _FSMOUNT_CLOEXEC, attrs)


def mount_setattr(fd: int, path: str, flags: int, attr_set: int, attr_clear: int = 0, propagation: int = 0) -> None:
    """mount_setattr(2); `attr_set` and `attr_clear` are MOUNT_ATTR_*, `propagation` MS_PRIVATE and the like."""
    attributes = pack("QQQQ", attr_set, attr_clear, propagation, 0)
    _call("mount_setattr", fd, _path(path), flags, attributes, len(attributes), about=path)


def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2): return a close-on-exec descriptor; `resolve` is RESOLVE_*."""
    how = pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _call("openat2", dirfd, _path(path), how, len(how), about=path)


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    """prctl(2), for options whose arguments are numbers."""
    return _call("prctl", option, a, b, c, d)


def set_no_new_privs() -> None:
    """Let no execve gain privileges (PR_SET_NO_NEW_PRIVS), for good."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def drop_bounding_set() -> None:
    """Empty the capability bounding set. Needs CAP_SETPCAP where it is not empty, so do it before the user changes."""
    for capability in range(_HIGHEST_CAPABILITY + 1):
        try:
            held = prctl(PR_CAPBSET_READ, capability)
        except OSError as error:
            if error.errno == EINVAL:
                return
            raise
        if held:
            prctl(PR_CAPBSET_DROP, capability)


def capset_none() -> None:
    """Give up every capability: bounding, ambient, inheritable, permitted and effective.

    After a change to another user, `drop_bounding_set` must have been called before it.
    """
    drop_bounding_set()
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    _call("capset", pack("Ii", _CAPABILITY_VERSION_3, 0), bytes(24))


def new_session_keyring() -> None:
    """keyctl(2), KEYCTL_JOIN_SESSION_KEYRING: leave the session's keys behind for an empty keyring without a name."""
    _call("keyctl", _KEYCTL_JOIN_SESSION_KEYRING, None)


def close_range(first: int, last: int, flags: int = 0) -> None:
    """close_range(2): close, or with CLOSE_RANGE_CLOEXEC mark, every descriptor from `first` to `last` inclusive."""
    _call("close_range", first, last, flags)


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    encoded = name.encode()
    _call("setdomainname", encoded, len(encoded), about=name)


def set_rlimit(resource: int, soft: int, hard: int) -> None:
    """prlimit(2) on this process; the limits are unsigned 64 bit, 2**64-1 for none."""
    _call("prlimit64", 0, resource, pack("QQ", soft, hard), None)


def sched_setattr(policy: int, flags: int, nice: int, priority: int, deadline: tuple[int, int, int]) -> None:
    """sched_setattr(2) on this thread; `deadline` is SCHED_DEADLINE's (runtime, deadline, period) in nanoseconds."""
    attributes = pack("IIQiIQQQII", _SCHED_ATTR_SIZE, policy, flags, nice, priority, *deadline, 0, 0)
    _call("sched_setattr", 0, attributes, 0)


def ioprio_set(value: int) -> None:
    """ioprio_set(2) on this thread: class << 13 | level."""
    _call("ioprio_set", _IOPRIO_WHO_PROCESS, 0, value)


def set_mempolicy(mode: int, nodes: Iterable[int]) -> None:
    """set_mempolicy(2) on this thread; `mode` holds its flags."""
    mask = sum(1 << node for node in nodes)
    words = mask.bit_length() // 64 + 1
    # the kernel looks at one bit less than it is told of
    _call("set_mempolicy", mode, mask.to_bytes(8 * words, byteorder) if mask else None, 64 * words + 1 if mask else 0)


def seccomp_install(program: bytes, flags: int = 0) -> None:
    """seccomp(2), SECCOMP_SET_MODE_FILTER; `program` holds struct sock_filter, `flags` are SECCOMP_FILTER_FLAG_*."""
    header = pack("H6xQ", len(program) // 8, address(program))  # struct sock_fprog
    _call("seccomp", _SECCOMP_SET_MODE_FILTER, flags, header)


def address(data: bytes) -> int:
    """Return where the bytes are in memory, for a structure that points to them. The caller keeps them alive."""
    load()
    import _ctypes  # load() has, so that this finds it even where there is no file to import from

    class Pointer(_ctypes._SimpleCData):  # type: ignore[type-arg]  # not subscriptable when run
        _type_ = "z"

    return int.from_bytes(bytes(memoryview(Pointer(data))), byteorder)


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2); `attributes` is a union bpf_attr, into which some commands write: pass them an object of its own."""
    return _call("bpf", command, attributes, len(attributes))
