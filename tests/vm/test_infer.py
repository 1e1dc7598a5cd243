"""What a kernel tells of guest and monitor: made-up files, hostile ones, and the real guests of URUNC_TEST_GUESTS."""

from __future__ import annotations

import os
from _struct import pack, pack_into
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elves import abi_note, make_elf, manifest_note, note
from urunc.errors import ImageError
from urunc.vm import elf, guests
from urunc.vm.infer import Signs, infer

PVH = note(b"Xen", 18, pack("<Q", 0x1000))
LINUX = note(b"Linux", 0x100, bytes(4))
MULTIBOOT = pack("<III", 0x1BADB002, 3, -(0x1BADB002 + 3) & 0xFFFFFFFF)
OCAML = b"Undefined_recursive_module\0"
RUMP = b"rump kernel bare metal bootstrap\n\0"


def told(data: bytes, guest: str | None = None, monitor: str | None = None, arch: str = "x86_64") -> tuple[str, str]:
    """Infer from a file's bytes, whose size bounds what is read."""
    asked: list[int] = []

    def read_at(offset: int, length: int) -> bytes:
        asked.append(length)
        return data[offset : offset + length]

    kernel = elf.inspect(read_at, "/k")
    try:
        return infer(kernel, Signs(read_at, kernel), guest, monitor, arch)
    finally:
        assert max(asked) < 2 << 20
        assert len(asked) < 400


def with_sections(data: bytes, *names: bytes) -> bytes:
    """Return the ELF file with sections of these names, and the one that holds the names."""
    wide = data[4] == 2
    texts, starts = b"\0", []
    for name in (*names, b".shstrtab"):
        starts.append(len(texts))
        texts += name + b"\0"
    entry = 64 if wide else 40
    table = len(data) + len(texts)
    rows = bytearray(entry * (len(starts) + 1))
    for index, start in enumerate(starts, 1):
        pack_into("<I", rows, index * entry, start)
    pack_into("<QQ" if wide else "<II", rows, len(starts) * entry + (24 if wide else 16), len(data), len(texts))
    head = bytearray(data)
    pack_into("<Q" if wide else "<I", head, 40 if wide else 32, table)
    pack_into("<HHH", head, 58 if wide else 46, entry, len(starts) + 1, len(starts))
    return bytes(head) + texts + bytes(rows)


def bzimage() -> bytes:
    image = bytearray(1024)
    image[0x1FE:0x206] = b"\x55\xaa" + bytes(2) + b"HdrS"
    return bytes(image)


def solo5(target: int, more: bytes = b"") -> bytes:
    return make_elf(manifest_note(), abi_note(target)) + more


def arm64(more: bytes) -> bytes:
    return bytes(56) + b"ARM\x64" + bytes(64) + more


UNIKRAFT_QEMU = with_sections(make_elf(wide=False, machine=3) + MULTIBOOT, b".text", b".uk_inittab")
UNIKRAFT_FIRECRACKER = with_sections(make_elf(), b".text", b".uk_libinfo")
MEWZ = make_elf(machine=3) + MULTIBOOT + b"\0wasker_main\0"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (UNIKRAFT_QEMU, ("unikraft", "qemu")),
        (UNIKRAFT_FIRECRACKER, ("unikraft", "firecracker")),
        (solo5(2, OCAML), ("mirage", "spt")),
        (solo5(1, OCAML), ("mirage", "hvt")),
        (solo5(2, b"--ipv4-gateway\0"), ("mirage", "spt")),
        (solo5(2, RUMP), ("rumprun", "spt")),
        (solo5(1, RUMP), ("rumprun", "hvt")),
        (make_elf(PVH, manifest_note(), abi_note(3)), ("mirage", "qemu")),  # rumprun is not made for virtio
        (make_elf(LINUX), ("linux", "firecracker")),  # without a PVH note
        (MEWZ, ("mewz", "qemu")),
    ],
)
def test_told(data: bytes, expected: tuple[str, str]) -> None:
    assert told(data) == expected
    assert told(data, guest=expected[0]) == told(data, monitor=expected[1]) == expected


@pytest.mark.parametrize(
    ("data", "given_words", "expected"),
    [
        (bzimage(), {"monitor": "qemu"}, ("linux", "qemu")),
        (make_elf(PVH + LINUX), {"monitor": "firecracker"}, ("linux", "firecracker")),
        (make_elf(PVH + note(b"Xen", 6, b"linux\0")), {"monitor": "qemu"}, ("linux", "qemu")),
        (arm64(b"Linux version 6.1"), {"monitor": "qemu", "arch": "aarch64"}, ("linux", "qemu")),
        (arm64(b"libukboot"), {"monitor": "firecracker", "arch": "aarch64"}, ("unikraft", "firecracker")),
        (arm64(b"Linux version 6.1"), {"guest": "linux"}, ("linux", "qemu")),  # what is not the host's is emulated
        (MEWZ, {"guest": "mewz", "arch": "aarch64"}, ("mewz", "qemu")),
        (solo5(2), {"guest": "mirage"}, ("mirage", "spt")),
        (solo5(2), {"guest": "rumprun"}, ("rumprun", "spt")),
        (make_elf(), {"guest": "unikraft"}, ("unikraft", "firecracker")),  # stripped of its sections' names
    ],
)
def test_told_with_one_word_given(data: bytes, given_words: dict[str, str], expected: tuple[str, str]) -> None:
    assert told(data, **given_words) == expected


@pytest.mark.parametrize(
    ("data", "given_words", "message"),
    [
        (bzimage(), {}, "the kernel does not tell the monitor, which may be any of `qemu`, `firecracker`"),
        (make_elf(PVH + LINUX), {}, "the kernel does not tell the monitor, which may be any of `qemu`, `firecracker`"),
        (solo5(2), {}, "the kernel does not tell the guest, which may be any of `mirage`, `rumprun`"),
        (solo5(2, OCAML + RUMP), {}, "the kernel does not tell the guest, which may be any of `mirage`, `rumprun`"),
        (make_elf(), {}, "the kernel does not tell which guest it is"),
        (b"#!/bin/sh\n", {}, "the kernel does not tell which guest it is"),
        (make_elf(PVH), {"monitor": "qemu"}, "the kernel does not tell which guest it is"),
        (UNIKRAFT_QEMU, {"monitor": "spt"}, "no monitor can run the kernel: `spt`: guest `unikraft` does not run on"),
        (solo5(1, OCAML), {"monitor": "spt"}, "no monitor can run the kernel: `spt`: the kernel is built for Solo5's"),
        (solo5(4, OCAML), {}, "no monitor can run the kernel: `hvt`: the kernel is built for Solo5's `muen`"),
        (
            arm64(b"libukboot"),
            {"monitor": "firecracker"},
            "no monitor can run the kernel: `firecracker`: the kernel is for aarch64",
        ),
        (make_elf(LINUX), {"monitor": "qemu"}, "no monitor can run the kernel: `qemu`: QEMU cannot boot the kernel"),
        (MEWZ, {"arch": "riscv64"}, "no monitor can run the kernel: `qemu`: there is none for riscv64"),
    ],
)
def test_nobody_guesses(data: bytes, given_words: dict[str, str], message: str) -> None:
    with pytest.raises(ImageError) as caught:
        told(data, **given_words)
    assert caught.value.message.startswith(message)


def test_the_hint_names_the_annotation() -> None:
    with pytest.raises(ImageError) as caught:
        told(make_elf())
    assert caught.value.hint == f"set the annotation unikernelType to one of {', '.join(guests.GUESTS)}"
    with pytest.raises(ImageError) as caught:
        told(bzimage())
    assert caught.value.hint == "set the annotation hypervisor"


def sections(data: bytes) -> tuple[str, ...]:
    def read_at(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    return Signs(read_at, elf.inspect(read_at, "/k")).sections


def test_sections() -> None:
    assert sections(with_sections(make_elf(), b".text", b".uk_x")) == ("", ".text", ".uk_x", ".shstrtab")
    assert sections(make_elf()) == sections(b"x" * 100) == ()


@pytest.mark.parametrize(
    ("form", "at", "value"),
    [
        ("<Q", 40, 1 << 62),  # the table lies outside
        ("<H", 58, 63),  # of another size
        ("<H", 60, 0xFFFF),  # too many
        ("<H", 60, 0),
        ("<H", 62, 0xFFFF),  # no such section holds the names
    ],
)
def test_unsound_section_headers_are_none(form: str, at: int, value: int) -> None:
    data = bytearray(with_sections(make_elf(), b".uk_x"))
    pack_into(form, data, at, value)
    assert sections(bytes(data)) == ()


def test_names_are_bounded() -> None:
    """A thousand sections that share one name of a megabyte."""
    data = with_sections(make_elf(), *([b".uk_x"] * 900), b"n" * (1 << 20))
    found = sections(data)
    assert len(found) == 903
    assert max(map(len, found)) <= 64


@given(st.binary(max_size=300), st.integers(0, 63), st.binary(max_size=8))
def test_any_file_is_told_or_refused(tail: bytes, at: int, patch: bytes) -> None:
    data = bytearray(with_sections(make_elf(abi_note()), b".uk_x") + tail)
    data[at : at + len(patch)] = patch
    try:
        told(bytes(data))
    except ImageError as error:
        assert error.message.isprintable()


GUESTS = {
    "unikraft/hello-qemu-x86_64": ("unikraft", "qemu"),
    "unikraft/nginx-qemu-x86_64": ("unikraft", "qemu"),
    "unikraft/hello-fc-x86_64": ("unikraft", "firecracker"),
    "elfloader/elfloader_qemu-x86_64": ("unikraft", "qemu"),
    "mewz/hello-server-qemu-x86_64": ("mewz", "qemu"),
    "rumprun/app.spt": ("rumprun", "spt"),
    "rumprun/app.hvt": ("rumprun", "hvt"),
    "solo5/test_net.virtio": ("mirage", "qemu"),
}


@pytest.mark.parametrize("name", GUESTS)
def test_real_guests(name: str) -> None:
    path = Path(os.environ.get("URUNC_TEST_GUESTS") or "/nonexistent", name)
    if not path.exists():
        pytest.skip(f"URUNC_TEST_GUESTS has no {name}")
    assert told(path.read_bytes()) == GUESTS[name]
