"""The device filter: what the program answers, by running it in an interpreter of the few instructions it uses."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc.linux import devices_bpf, libc
from urunc.oci import device_rules
from urunc.oci.spec import DeviceRule

TYPES = {"b": 1, "c": 2}
ACCESSES = {"m": 1, "r": 2, "w": 4}
U32 = 2**32


def answer(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """Run the program as the kernel would for this device and these accesses."""
    asked = sum(ACCESSES[letter] for letter in access)
    memory = struct.pack("<III", asked << 16 | TYPES[kind], major, minor)
    code = list(struct.iter_unpack("<BBhI", program))
    registers = [0] * 11
    at = 0
    while True:
        opcode, both, offset, value = code[at]
        target, source = both & 15, both >> 4
        at += 1
        if opcode == 0x61:
            (registers[target],) = struct.unpack_from("<I", memory, registers[source] + offset)
        elif opcode == 0xB4:
            registers[target] = value
        elif opcode == 0xBC:
            registers[target] = registers[source] % U32
        elif opcode == 0x54:
            registers[target] = registers[target] & value
        elif opcode == 0x74:
            registers[target] = registers[target] % U32 >> value
        elif opcode == 0x56:
            at += offset if registers[target] % U32 != value else 0
        elif opcode == 0x16:
            at += offset if registers[target] % U32 == value else 0
        elif opcode == 0x5E:
            at += offset if registers[target] % U32 != registers[source] % U32 else 0
        elif opcode == 0x95:
            return bool(registers[0])
        else:
            raise AssertionError(f"opcode {opcode:#x}")


def says(rules: list[DeviceRule], kind: str, major: int, minor: int, access: str) -> bool:
    """Return the rules' meaning: every access asked for must be allowed, by one rule or the default (as on v1)."""
    first, *exceptions = rules
    hits = [one for one in exceptions if one.kind == kind and one.major in (None, major) and one.minor in (None, minor)]
    if first.allow:
        return not any(set(access) & set(one.access) for one in hits)
    return any(set(access) <= set(one.access) for one in hits)


def test_nothing_is_allowed_by_the_empty_program() -> None:
    program = devices_bpf.assemble(device_rules.settle([]))
    assert not answer(program, "c", 1, 3, "r")
    assert len(program) == 8 * 8


def test_a_number_above_two_to_the_31_matches_only_itself() -> None:
    high = DeviceRule(allow=True, kind="c", major=U32 - 1, minor=2**31)
    program = devices_bpf.assemble(device_rules.settle([high]))
    assert answer(program, "c", U32 - 1, 2**31, "rw")
    assert not answer(program, "c", U32 - 1, 2**31 - 1, "rw")


def test_the_bytes_of_one_rule() -> None:
    """The encoding itself, against bytes worked out by hand from the kernel's instruction set document."""
    rules = device_rules.settle([DeviceRule(allow=True, kind="c", major=10, minor=232, access="rw")])
    assert devices_bpf.assemble(rules).hex(" ", 8).split(" ")[6:] == [
        "5602070002000000",  # if w2 != 2 goto +7
        "bc31000000000000",  # w1 = w3
        "5401000006000000",  # w1 &= 6
        "5e31040000000000",  # if w1 != w3 goto +4
        "560403000a000000",  # if w4 != 10 goto +3
        "56050200e8000000",  # if w5 != 232 goto +2
        "b400000001000000",  # w0 = 1
        "9500000000000000",  # exit
        "b400000000000000",  # w0 = 0
        "9500000000000000",  # exit
    ]


numbers = st.none() | st.integers(0, 2)
accesses = st.sets(st.sampled_from("rwm"), min_size=1).map(lambda letters: "".join(sorted(letters)))
exception = st.builds(
    DeviceRule, allow=st.just(True), kind=st.sampled_from("bc"), major=numbers, minor=numbers, access=accesses
)


@given(st.booleans(), st.lists(exception, max_size=5))
def test_the_program_answers_as_the_rules_do(allow: bool, exceptions: list[DeviceRule]) -> None:
    rules = [DeviceRule(allow=allow), *(one.replace(allow=not allow) for one in exceptions)]
    program = devices_bpf.assemble(rules)
    for kind, major, minor, access in itertools.product("bc", range(3), range(3), ("r", "w", "rw", "m")):
        place = (kind, major, minor, access)
        assert answer(program, *place) == says(rules, *place), place


def test_a_program_that_cannot_be_opened_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first was opened, the second fails with what is not passed over."""
    opened: list[int] = []

    def bpf(command: int, attributes: bytes) -> int:
        if command == devices_bpf._PROG_QUERY:
            ctypes.memset(libc.address(attributes) + 24, 2, 1)  # as the kernel writes how many there are
            return 0
        if opened:
            raise OSError(errno.EMFILE, "too many open files")
        opened.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        return opened[0]

    monkeypatch.setattr(libc, "bpf", bpf)
    with pytest.raises(OSError, match="too many"):
        devices_bpf._attached(0)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(opened[0])
