"""What a kernel file's headers say, read as an attacker's: every count and size in it is bounded before it is used.

Reads through `read_at(offset, length)`, which may return fewer bytes at the end of the file; knows nothing of
files, images or monitors.
"""

from __future__ import annotations

from _struct import calcsize, unpack_from

from ..errors import ImageError
from ..record import Record
from .machine import KernelInfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    ReadAt = Callable[[int, int], bytes]

_MAX_SEGMENTS = 128
_MAX_NOTE_BYTES = 64 * 1024
_MAX_RELEASE = 128
_MAX_SCAN_BYTES = 256 * 1024 * 1024
_SCAN_BYTES = 1024 * 1024
_BOOT_PROTOCOL_2_10 = 0x20A
_SETUP_HEADER_END = 0x264  # of what is read of it; a bzImage is longer by megabytes
_MOST_LEAST_BYTES = 1 << 30  # no kernel needs as much: a header that says so is not to cost the host more
_MULTIBOOT_SEARCH = 8192  # Multiboot 0.6.96, section 3.1: the header lies within the first 8192 bytes
_MULTIBOOT_MAGIC = 0x1BADB002
_MULTIBOOT_ADDRESS = 1 << 16  # section 3.1.3: the address fields are there
_PT_LOAD, _PT_NOTE = 1, 4
_EM_386 = 3
_MACHINES = {_EM_386: "x86_64", 62: "x86_64", 183: "aarch64"}  # EM_X86_64, EM_AARCH64

_XEN_PHYS32_ENTRY = 18  # xen/include/public/elfnote.h: the PVH entry point
_XEN_GUEST_OS = 6  # .. and what the kernel is
_LINUX_BUILD_SALT, _LINUX_LTO_INFO = 0x100, 0x101  # linux/include/linux/build-salt.h, elfnote-lto.h
_SOLO5_ABI = 0x31494241  # solo5/include/elf_abi.h: "ABI1"
_SOLO5_MANIFEST = 0x3154464D  # solo5/include/mft_abi.h: "MFT1"
_SOLO5_TARGETS = {1: "hvt", 2: "spt", 3: "virtio", 4: "muen", 5: "genode", 6: "xen"}
_MIRAGE_NETWORK = b"ipv4-gateway"  # one of the options of Mirage_runtime_network
_OCAML = b"Undefined_recursive_module"  # an exception that ocamlopt puts into every program
_SOLO5_DEVICES = {1: "BLOCK_BASIC", 2: "NET_BASIC"}
_MANIFEST_FIRST = 1 << 30
_MANIFEST_MAX = 64
_MANIFEST_ENTRY = 104  # sizeof(struct mft_entry): name[68], type, two unions, attached
_MANIFEST_NAME = 68


def inspect(read_at: ReadAt, name: str) -> KernelInfo:
    """Return what the kernel file `name` (for messages) is. Raises ImageError where its headers contradict themselves.

    A file of no known format is "raw": whether that boots is the monitor's to say.
    """
    head = read_at(0, _MULTIBOOT_SEARCH)
    if not head:
        raise ImageError(f"kernel `{name}` is empty")
    multiboot = _multiboot_flags(head)
    if head[:4] == b"\x7fELF":
        try:
            return _inspect_elf(read_at, head, multiboot)
        except _BrokenError as reason:
            raise ImageError(f"kernel `{name}` is not a sound ELF file: {reason}") from None
    if head[0x1FE:0x200] == b"\x55\xaa" and head[0x202:0x206] == b"HdrS" and len(head) >= _SETUP_HEADER_END:
        return KernelInfo(
            format="bzimage",
            arch="x86_64",
            linux=True,
            release=_bzimage_release(read_at, head),
            least_bytes=_bzimage_memory(head),
        )
    if head[56:60] == b"ARM\x64":
        return KernelInfo(format="arm64", arch="aarch64", least_bytes=_arm64_memory(head))
    if multiboot is None:
        return KernelInfo(format="raw")
    address = bool(multiboot & _MULTIBOOT_ADDRESS)
    return KernelInfo(format="raw", arch="x86_64", multiboot=True, multiboot_address=address)


def _bzimage_release(read_at: ReadAt, head: bytes) -> str:
    """Return the kernel's release (Documentation/arch/x86/boot.rst, kernel_version), "" where it does not say."""
    offset: int = unpack_from("<H", head, 0x20E)[0]
    text = read_at(offset + 0x200, _MAX_RELEASE).partition(b"\0")[0].partition(b" ")[0]
    return text.decode("ascii", "replace") if offset else ""


def _bzimage_memory(head: bytes) -> int:
    """Return pref_address + init_size (boot.rst, protocol 2.10): where it unpacks itself, and what that takes."""
    version: int = unpack_from("<H", head, 0x206)[0]
    if version < _BOOT_PROTOCOL_2_10:
        return 0
    address, size = unpack_from("<QI", head, 0x258)
    return min(int(address) + int(size), _MOST_LEAST_BYTES)


def _arm64_memory(head: bytes) -> int:
    """Return text_offset + image_size (Documentation/arch/arm64/booting.rst): the file, and the zeros behind it."""
    offset, size = unpack_from("<QQ", head, 8)
    return min(int(offset) + int(size), _MOST_LEAST_BYTES)


class _BrokenError(Exception):
    """A header contradicts itself; the text says how."""


def _multiboot_flags(head: bytes) -> int | None:
    """Return the flags of the Multiboot header, None without one."""
    magic = _MULTIBOOT_MAGIC.to_bytes(4, "little")
    start = head.find(magic)
    while 0 <= start <= len(head) - 12:
        words = unpack_from("<III", head, start)
        if start % 4 == 0 and sum(words) & 0xFFFFFFFF == 0:
            flags: int = words[1]
            return flags
        start = head.find(magic, start + 1)
    return None


def _unpack(form: str, data: bytes, at: int = 0) -> tuple[int, ...]:
    if len(data) < at + calcsize(form):
        raise _BrokenError("its headers are truncated")
    return unpack_from(form, data, at)


def _inspect_elf(read_at: ReadAt, head: bytes, multiboot: int | None) -> KernelInfo:
    bits, order = _unpack("<BB", head, 4)
    if bits not in (1, 2):
        raise _BrokenError(f"unknown class {bits}")
    wide = bits == 2
    if order != 1:
        raise _BrokenError("it is big endian")
    machine = _unpack("<H", head, 18)[0]
    arch = _MACHINES.get(machine)
    if arch is None:
        raise _BrokenError(f"it is for machine {machine}, neither x86 nor aarch64")
    pvh = linux = False
    abi: tuple[str, int] | None = None
    devices: tuple[tuple[str, str], ...] | None = None
    segments = _segments(read_at, head, wide)
    for owner, kind, content, start in _notes(read_at, segments):
        if owner == b"Xen\0" and kind == _XEN_PHYS32_ENTRY:
            pvh = True
        elif (owner == b"Linux\0" and kind in (_LINUX_BUILD_SALT, _LINUX_LTO_INFO)) or (
            owner == b"Xen\0" and kind == _XEN_GUEST_OS and content == b"linux\0"
        ):
            linux = True
        elif owner == b"Solo5\0" and kind == _SOLO5_ABI and abi is None:
            abi = _solo5_abi(content)
        elif owner == b"Solo5\0" and kind == _SOLO5_MANIFEST and devices is None:
            # struct mft is aligned to 8 bytes from the segment's start, the note's content to 4
            devices = _solo5_manifest(content[-start % 8 :])
    mirage_network = abi is None or contains(read_at, _MIRAGE_NETWORK)
    loaded = [segment for segment in segments if segment.kind == _PT_LOAD]
    end = max((segment.physical + segment.memory for segment in loaded), default=0)
    return KernelInfo(
        format="elf64" if wide else "elf32",
        arch=arch,
        load_bytes=sum(segment.memory for segment in loaded),
        least_bytes=min(end, _MOST_LEAST_BYTES) if arch == "x86_64" else 0,  # elsewhere memory does not start at 0
        i386=machine == _EM_386,
        pvh=pvh,
        linux=linux,
        multiboot=multiboot is not None,
        multiboot_address=bool((multiboot or 0) & _MULTIBOOT_ADDRESS),
        solo5_abi=abi[0] if abi else None,
        solo5_abi_version=abi[1] if abi else 0,
        solo5_devices=devices,
        mirage=mirage_network or contains(read_at, _OCAML),
        mirage_network=mirage_network,
    )


class _Segment(Record):
    """A program header, as far as it is looked at. `size` is in the file, `memory` once it is loaded; bytes."""

    kind: int
    offset: int
    size: int
    memory: int
    physical: int


def _segments(read_at: ReadAt, head: bytes, wide: bool) -> list[_Segment]:
    """Return the program headers."""
    table = _unpack("<Q", head, 32)[0] if wide else _unpack("<I", head, 28)[0]
    entry_size, count = _unpack("<HH", head, 54 if wide else 42)
    if entry_size != (56 if wide else 32):
        raise _BrokenError(f"its program headers are {entry_size} bytes each")
    if count > _MAX_SEGMENTS:
        raise _BrokenError(f"it has {count} segments, more than {_MAX_SEGMENTS}")
    data = read_at(table, entry_size * count)
    if len(data) < entry_size * count:
        raise _BrokenError("its program headers lie outside the file")
    found = []
    for base in range(0, entry_size * count, entry_size):
        if wide:
            kind, _flags, offset, _virtual, physical, size, memory = _unpack("<IIQQQQQ", data, base)
        else:
            kind, offset, _virtual, physical, size, memory = _unpack("<IIIIII", data, base)
        found.append(_Segment(kind=kind, offset=offset, size=size, memory=memory, physical=physical))
    return found


def _notes(read_at: ReadAt, segments: list[_Segment]) -> list[tuple[bytes, int, bytes, int]]:
    """Return (owner with its NUL, type, content, where in its segment the content starts) of every note."""
    found = []
    for offset, size in [(segment.offset, segment.size) for segment in segments if segment.kind == _PT_NOTE]:
        if size > _MAX_NOTE_BYTES:
            raise _BrokenError(f"a note segment is {size} bytes long, more than {_MAX_NOTE_BYTES}")
        data = read_at(offset, size)
        if len(data) < size:
            raise _BrokenError("a note segment lies outside the file")
        at = 0
        while at + 12 <= size:
            name_size, content_size, kind = _unpack("<III", data, at)
            start = at + 12 + (name_size + 3) // 4 * 4
            end = start + content_size
            if end > size:
                raise _BrokenError("a note is larger than its segment")
            found.append((data[at + 12 : at + 12 + name_size], kind, data[start:end], start))
            at = end + (-end % 4)
    return found


def _solo5_abi(content: bytes) -> tuple[str, int]:
    target, version = _unpack("<II", content)
    if target not in _SOLO5_TARGETS:
        raise _BrokenError(f"its Solo5 ABI note names the unknown target {target}")
    return _SOLO5_TARGETS[target], version


def _solo5_manifest(data: bytes) -> tuple[tuple[str, str], ...]:
    """Return the devices that the manifest declares (solo5/tenders/common/mft.c, mft_validate)."""
    version, entries = _unpack("<II", data)
    if version != 1:
        raise _BrokenError(f"its Solo5 manifest has version {version}, not 1")
    if not 1 <= entries <= _MANIFEST_MAX or len(data) != 8 + entries * _MANIFEST_ENTRY:
        raise _BrokenError(f"its Solo5 manifest of {entries} entries has a wrong size")
    devices = []
    for index in range(entries):
        base = 8 + index * _MANIFEST_ENTRY
        name = data[base : base + _MANIFEST_NAME]
        kind = _unpack("<I", data, base + _MANIFEST_NAME)[0]
        if index == 0:
            if kind != _MANIFEST_FIRST or name[0]:
                raise _BrokenError("its Solo5 manifest does not begin with the reserved entry")
        elif kind not in _SOLO5_DEVICES:
            raise _BrokenError(f"its Solo5 manifest declares a device of the unknown type {kind}")
        else:
            devices.append((_device_name(name), _SOLO5_DEVICES[kind]))
    if len({name for name, _ in devices}) != len(devices):
        raise _BrokenError("its Solo5 manifest declares one device name twice")
    return tuple(devices)


def _device_name(raw: bytes) -> str:
    name = raw.split(b"\0", 1)[0]
    # isalnum of bytes is ASCII alone; the tenders' options take nothing else, and the name becomes part of one
    if len(name) == _MANIFEST_NAME or not name.isalnum():
        raise _BrokenError("its Solo5 manifest holds a device name that is not of letters and digits")
    return name.decode("ascii")


def contains(read_at: ReadAt, word: bytes) -> bool:
    """Return whether `word` stands anywhere in the file (its first 256 MiB)."""
    return bool(behind(read_at, word, 0, 1))


def behind(read_at: ReadAt, word: bytes, size: int, most: int) -> list[bytes]:
    """Return the `size` bytes that follow each of the first `most` places where `word` stands in the file.

    Its first 256 MiB are read, a MiB at a time. The word is urunc's own: one that an image chose can be slow to find.
    """
    found: list[bytes] = []
    for offset in range(0, _MAX_SCAN_BYTES, _SCAN_BYTES):
        data = read_at(offset, _SCAN_BYTES + len(word) - 1 + size)
        at = -1
        while (at := data.find(word, at + 1, _SCAN_BYTES + len(word) - 1)) >= 0:
            found.append(data[at + len(word) : at + len(word) + size])
            if len(found) == most:
                return found
        if len(data) < _SCAN_BYTES:
            break
    return found
