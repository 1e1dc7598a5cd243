"""The device filter of cgroup v2: settled device rules as an eBPF program (BPF_PROG_TYPE_CGROUP_DEVICE).

The program is put together here, instruction by instruction, as it is small and no library is on the hot path.
The kernel runs it for every open and mknod of a device node: 1 allows, 0 is EPERM. Must not know which
devices a container gets.
"""

from __future__ import annotations

import errno
import os
from _struct import pack, unpack_from

from . import libc
from .cgroup_files import kernel_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .cgroup_files import Rule

# linux/bpf.h. An instruction: opcode, registers (source << 4 | destination), offset, immediate value.
_LOAD_WORD = 0x61  # destination = *(u32 *)(source + offset)
_MOVE = 0xB4  # 32 bit: destination = immediate
_MOVE_REGISTER = 0xBC
_AND = 0x54
_SHIFT_RIGHT = 0x74
_JUMP_NOT_EQUAL = 0x56  # 32 bit (Linux 5.1): the 64-bit one extends the sign, and misses numbers from 2**31 on
_JUMP_NOT_EQUAL_REGISTER = 0x5E
_JUMP_EQUAL = 0x16
_EXIT = 0x95

_R0, _R1, _TYPE, _ACCESS, _MAJOR, _MINOR = range(6)
_TYPES = {"b": 1, "c": 2}
_ACCESSES = {"m": 1, "r": 2, "w": 4}

_PROG_LOAD = 5
_PROG_ATTACH = 8
_PROG_DETACH = 9
_PROG_GET_FD_BY_ID = 13
_PROG_QUERY = 16
_PROG_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2
_REPLACE = 4
_MOST_PROGRAMS = 64  # the kernel's own limit for one cgroup


def _instruction(opcode: int, destination: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return pack("<BBhI", opcode, source << 4 | destination, offset, value)


def assemble(rules: Iterable[Rule]) -> bytes:
    """Return the program for settled rules: the first is for all devices, the others are exceptions to it."""
    first, *exceptions = rules
    return b"".join(
        (
            # struct bpf_cgroup_dev_ctx: access << 16 | type, major, minor; the kernel passes its address in r1.
            _instruction(_LOAD_WORD, _TYPE, _R1, 0),
            _instruction(_AND, _TYPE, value=0xFFFF),
            _instruction(_LOAD_WORD, _ACCESS, _R1, 0),
            _instruction(_SHIFT_RIGHT, _ACCESS, value=16),
            _instruction(_LOAD_WORD, _MAJOR, _R1, 4),
            _instruction(_LOAD_WORD, _MINOR, _R1, 8),
            *(_exception(rule) for rule in exceptions),
            _answer(first.allow),
        )
    )


def _answer(allow: bool) -> bytes:
    return _instruction(_MOVE, _R0, value=int(allow)) + _instruction(_EXIT)


def _exception(rule: Rule) -> bytes:
    """Return the block that answers where the rule matches, and else goes on with what follows it."""
    checks: list[tuple[int, int, int, int]] = [(_JUMP_NOT_EQUAL, _TYPE, 0, _TYPES[rule.kind])]
    access = sum(_ACCESSES[letter] for letter in rule.access)
    if access != 7 and rule.allow:
        # Allowed only if nothing beyond the rule's accesses is asked for.
        checks += [
            (_MOVE_REGISTER, _R1, _ACCESS, 0),
            (_AND, _R1, 0, access),
            (_JUMP_NOT_EQUAL_REGISTER, _R1, _ACCESS, 0),
        ]
    elif access != 7:
        # Denied if any of them is: asked & rule, less zero, must not be equal to zero.
        checks += [(_MOVE_REGISTER, _R1, _ACCESS, 0), (_AND, _R1, 0, access), (_JUMP_EQUAL, _R1, 0, 0)]
    if rule.major is not None:
        checks.append((_JUMP_NOT_EQUAL, _MAJOR, 0, rule.major))
    if rule.minor is not None:
        checks.append((_JUMP_NOT_EQUAL, _MINOR, 0, rule.minor))
    jumps = (_JUMP_NOT_EQUAL, _JUMP_NOT_EQUAL_REGISTER, _JUMP_EQUAL)
    code = b""
    for index, (opcode, destination, source, value) in enumerate(checks):
        after = len(checks) - index - 1 + 2  # the rest of the block: its checks, and the two of its answer
        code += _instruction(opcode, destination, source, after if opcode in jumps else 0, value)
    return code + _answer(rule.allow)


def attach(directory: str, program: bytes) -> None:
    """Make the program the one device filter that is attached to a cgroup directory of v2. Raises KernelError.

    One that is attached already (systemd's, or ours at an update) is replaced in one step, so that there is no
    moment without a filter; where that cannot be, ours is added before the others are taken away.
    """
    try:
        group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _attach(group, program)
        finally:
            os.close(group)
    except OSError as error:
        raise kernel_error(f"cannot filter the devices of cgroup `{directory}`", error) from None


def _attach(group: int, program: bytes) -> None:
    old = _attached(group)
    try:
        filter_fd = load(program)
        try:
            if len(old) == 1 and _try_replace(group, filter_fd, old[0]):
                return
            libc.bpf(_PROG_ATTACH, pack("IIII", group, filter_fd, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI))
            for other in old:
                libc.bpf(_PROG_DETACH, pack("III", group, other, _ATTACH_CGROUP_DEVICE))
        finally:
            os.close(filter_fd)
    finally:
        for other in old:
            os.close(other)


def load(program: bytes) -> int:
    """Return a descriptor of the loaded program, which it goes with where it is attached to nothing. Raises OSError."""
    license_text = b"Apache-2.0\0"
    attributes = pack(
        "IIQQIIQII",
        _PROG_TYPE_CGROUP_DEVICE,
        len(program) // 8,
        libc.address(program),
        libc.address(license_text),
        *(0, 0, 0, 0, 0),  # no verifier log, no kernel version, no flags
    )
    return libc.bpf(_PROG_LOAD, attributes)


def _try_replace(group: int, filter_fd: int, old: int) -> bool:
    """Replace one program by another (Linux 5.6). False where the kernel, or the old one's flags, do not allow it."""
    attributes = pack("IIIII", group, filter_fd, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI | _REPLACE, old)
    try:
        libc.bpf(_PROG_ATTACH, attributes)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.EPERM):
            return False
        raise
    return True


def _attached(group: int) -> list[int]:
    """Return a descriptor of every device program that is attached to this very cgroup."""
    # The kernel writes into both: each is a new object, which nothing else can hold.
    ids = bytes(4 * _MOST_PROGRAMS)
    attributes = pack("IIIIQII", group, _ATTACH_CGROUP_DEVICE, 0, 0, libc.address(ids), _MOST_PROGRAMS, 0)
    libc.bpf(_PROG_QUERY, attributes)
    (count,) = unpack_from("I", attributes, 24)
    found: list[int] = []
    for number in unpack_from(f"{min(count, _MOST_PROGRAMS)}I", ids):
        try:
            found.append(libc.bpf(_PROG_GET_FD_BY_ID, pack("I", number)))
        except OSError as error:
            # One that a security module hides from us only restricts further: it may stay (runc).
            if error.errno not in (errno.EACCES, errno.EPERM, errno.ENOENT):
                for fd in found:
                    os.close(fd)
                raise
    return found
