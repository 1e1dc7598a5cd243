"""Kernel files for the tests: ELF headers and notes, as sound or as hostile as a test wants them."""

from __future__ import annotations

from _struct import pack, pack_into


def note(owner: bytes, kind: int, content: bytes) -> bytes:
    """Return an ELF note (elf(5)), padded to four bytes."""
    owner += b"\0"
    head = pack("<III", len(owner), len(content), kind) + owner
    head += bytes(-len(head) % 4)
    return head + content + bytes(-len(content) % 4)


def make_elf(*segments: bytes, wide: bool = True, machine: int = 62) -> bytes:
    """Return an ELF file whose note segments hold `segments`."""
    header, entry = (64, 56) if wide else (52, 32)
    data = bytearray(header + entry * len(segments))
    data[:7] = b"\x7fELF" + bytes((2 if wide else 1, 1, 1))
    pack_into("<HH", data, 16, 2, machine)
    if wide:
        pack_into("<Q", data, 32, header)
        pack_into("<HHH", data, 52, header, entry, len(segments))
    else:
        pack_into("<I", data, 28, header)
        pack_into("<HHH", data, 40, header, entry, len(segments))
    for index, segment in enumerate(segments):
        base = header + entry * index
        if wide:
            pack_into("<IIQQQQ", data, base, 4, 4, len(data), 0, 0, len(segment))
        else:
            pack_into("<IIIII", data, base, 4, len(data), 0, 0, len(segment))
        data += segment
    return bytes(data)


def abi_note(target: int = 2, version: int = 2) -> bytes:
    """Return Solo5's ABI note, spt's by default."""
    return note(b"Solo5", 0x31494241, pack("<IIII", target, version, 0, 0))


def manifest_note(*devices: tuple[bytes, int], entries: int | None = None, version: int = 1) -> bytes:
    """Return Solo5's manifest of these (name, type); `entries` is the count that it claims."""
    data = pack("<II", version, len(devices) + 1 if entries is None else entries)
    for name, kind in ((b"", 1 << 30), *devices):
        data += name.ljust(68, b"\0") + pack("<I", kind) + bytes(32)
    return note(b"Solo5", 0x3154464D, bytes(4) + data)  # four bytes align the struct to eight
