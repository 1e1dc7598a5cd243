"""Kernel headers: what each format is, and that no file whatever does more than raise ImageError."""

from __future__ import annotations

import os
from _struct import pack, pack_into
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elves import abi_note, make_elf, manifest_note, note
from urunc.errors import ImageError
from urunc.vm import elf
from urunc.vm.machine import KernelInfo


def inspect(data: bytes) -> KernelInfo:
    asked = []

    def read_at(offset: int, length: int) -> bytes:
        assert offset >= 0 and length >= 0
        asked.append(length)
        return data[offset : offset + length]

    try:
        return elf.inspect(read_at, "k")
    finally:
        assert max(asked, default=0) <= 2 * 1024 * 1024
        assert len(asked) < 400


def test_solo5() -> None:
    kernel = inspect(make_elf(manifest_note((b"service", 2), (b"storage", 1)), abi_note()))
    assert kernel.solo5_abi == "spt"
    assert kernel.solo5_abi_version == 2
    assert kernel.solo5_devices == (("service", "NET_BASIC"), ("storage", "BLOCK_BASIC"))
    assert not kernel.mirage


def test_mirage_is_told_by_its_option() -> None:
    assert inspect(make_elf(abi_note()) + bytes(3 * 1024 * 1024) + b"--ipv4-gateway").mirage


def test_a_word_across_two_reads_is_found() -> None:
    data = bytes(1024 * 1024 - 3) + b"needle"
    assert elf.contains(lambda offset, length: data[offset : offset + length], b"needle")


def test_what_stands_behind_a_word_is_whole_wherever_it_stands() -> None:
    data = b"a word: 1234 ".rjust(1024 * 1024 + 3) + b"a word: 56 a word: 78 a word: 90"
    found = elf.behind(lambda offset, length: data[offset : offset + length], b"a word: ", 4, 3)
    assert found == [b"1234", b"56 a", b"78 a"]
    assert elf.behind(lambda offset, length: data[offset : offset + length], b"a word: ", 4, 99)[3:] == [b"90"]


def test_sixty_three_devices_are_the_most() -> None:
    devices = [(b"d%d" % index, 2) for index in range(64)]
    kernel = inspect(make_elf(manifest_note(*devices[:63]), abi_note()))
    assert kernel.solo5_devices is not None and len(kernel.solo5_devices) == 63
    with pytest.raises(ImageError, match="65 entries"):
        inspect(make_elf(manifest_note(*devices), abi_note()))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (manifest_note((b"a", 2), entries=0xFFFFFFFF), "4294967295 entries"),
        (manifest_note((b"a", 2), version=9), "version 9"),
        (manifest_note((b"a", 7)), "unknown type 7"),
        (manifest_note((b"a,script=x", 2)), "not of letters and digits"),
        (manifest_note((b"a\xe9", 2)), "not of letters and digits"),
        (manifest_note((b"", 2)), "not of letters and digits"),
        (manifest_note((b"x" * 68, 2)), "not of letters and digits"),
        (manifest_note((b"a", 2), (b"a", 1)), "one device name twice"),
        (abi_note(target=99), "unknown target 99"),
        (note(b"Solo5", 0x31494241, b"xx"), "truncated"),
        (pack("<III", 6, 0xFFFFFFF0, 1) + b"Solo5\0\0\0", "larger than its segment"),
        (bytes(70_000), "more than 65536"),
    ],
)
def test_broken_notes(broken: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        inspect(make_elf(broken))


def test_pvh_and_linux() -> None:
    assert inspect(make_elf(note(b"Xen", 6, b"linux\0") + note(b"Xen", 18, pack("<Q", 0x1000)))).pvh
    assert not inspect(make_elf(note(b"Xen", 6, b"linux\0"))).pvh


def test_classes_and_machines() -> None:
    assert inspect(make_elf(wide=False, machine=3)) == KernelInfo(format="elf32", arch="x86_64", i386=True)
    assert inspect(make_elf(machine=3)) == KernelInfo(format="elf64", arch="x86_64", i386=True)
    assert not inspect(make_elf()).i386
    assert inspect(make_elf(machine=183)).arch == "aarch64"
    with pytest.raises(ImageError, match="machine 243"):
        inspect(make_elf(machine=243))


def multiboot(flags: int = 3) -> bytes:
    return pack("<III", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF)


def test_multiboot() -> None:
    assert inspect(make_elf(wide=False, machine=3) + multiboot()).multiboot
    assert inspect(multiboot()) == KernelInfo(format="raw", arch="x86_64", multiboot=True)
    assert inspect(multiboot(1 << 16)).multiboot_address
    assert not inspect(b"x" + multiboot()).multiboot  # not at a multiple of four
    assert not inspect(bytes(8192) + multiboot()).multiboot
    assert not inspect(multiboot()[:-1] + b"\0").multiboot


def test_other_formats() -> None:
    image = bytearray(1024)
    image[0x1FE:0x206] = b"\x55\xaa" + bytes(2) + b"HdrS"
    assert (inspect(bytes(image)).format, inspect(bytes(image)).least_bytes) == ("bzimage", 0)
    image[0x206:0x208] = pack("<H", 0x20F)
    image[0x258:0x264] = pack("<QI", 16 << 20, 52 << 20)
    assert inspect(bytes(image)).least_bytes == 68 << 20
    image[0x258:0x264] = b"\xff" * 12
    assert inspect(bytes(image)).least_bytes == 1 << 30
    arm64 = pack("<8xQQ32x4s", 0x80000, 3 << 20, b"ARM\x64")
    assert (inspect(arm64).format, inspect(arm64).least_bytes) == ("arm64", (3 << 20) + 0x80000)
    assert inspect(bytes(8) + b"\xff" * 48 + b"ARM\x64").least_bytes == 1 << 30
    assert inspect(b"#!/bin/sh\n").format == "raw"


@pytest.mark.parametrize("length", [0x206, 0x20F, 0x210, 0x263])
def test_a_bzimage_that_ends_in_its_header_is_none(length: int) -> None:
    image = bytearray(length)
    image[0x1FE:0x206] = b"\x55\xaa" + bytes(2) + b"HdrS"
    assert inspect(bytes(image)).format == "raw"


def test_empty() -> None:
    with pytest.raises(ImageError, match="is empty"):
        inspect(b"")


@pytest.mark.parametrize("length", [4, 5, 19, 63, 64, 119])
def test_truncated(length: int) -> None:
    with pytest.raises(ImageError, match="not a sound ELF file"):
        inspect(make_elf(abi_note())[:length])


def test_huge_tables() -> None:
    data = bytearray(make_elf())
    pack_into("<H", data, 56, 0xFFFF)
    with pytest.raises(ImageError, match="65535 segments"):
        inspect(bytes(data))
    pack_into("<H", data, 56, 4)
    pack_into("<Q", data, 32, 0xFFFFFFFFFFFFFFF0)
    with pytest.raises(ImageError, match="outside the file"):
        inspect(bytes(data))


SOUND = make_elf(manifest_note((b"service", 2), (b"storage", 1)), abi_note(), note(b"Xen", 18, bytes(8)))


@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    quiet(data)


@given(st.binary(max_size=600))
def test_any_elf(data: bytes) -> None:
    quiet(b"\x7fELF\x02\x01\x01" + data)


@given(
    st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), max_size=12), st.integers(0, len(SOUND))
)
def test_any_change_to_a_sound_file(changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(SOUND)
    for at, value in changes:
        data[at] = value
    quiet(bytes(data))
    quiet(bytes(data[:end]))


def quiet(data: bytes) -> None:
    try:
        kernel = inspect(data)
    except ImageError:
        return
    for name, _ in kernel.solo5_devices or ():
        assert name.isascii() and name.isalnum() and len(name) <= 67


def test_solo5s_own_guests() -> None:
    folder = Path(os.environ.get("URUNC_TEST_GUESTS", "/nonexistent")) / "solo5"
    if not folder.is_dir():
        pytest.skip("URUNC_TEST_GUESTS does not name a folder with Solo5's test guests")
    expected = {
        "test_hello.spt": ("spt", ()),
        "test_net_2if.hvt": ("hvt", (("service0", "NET_BASIC"), ("service1", "NET_BASIC"))),
        "test_blk.virtio": ("virtio", (("storage", "BLOCK_BASIC"),)),
    }
    for name, (abi, devices) in expected.items():
        kernel = inspect((folder / name).read_bytes())
        assert (kernel.solo5_abi, kernel.solo5_devices) == (abi, devices)
        assert not kernel.mirage
