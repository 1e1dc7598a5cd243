"""What a Linux guest is made of: Debian's kernel, a busybox initrd with its drivers, and urunc's tail behind it."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

KERNEL_VARIABLE = "URUNC_TEST_KERNEL"
MODULES = (
    *("virtio", "virtio_ring", "virtio_pci", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_mmio"),
    *("virtio_net", "net_failover", "failover", "virtio_console", "virtio_blk", "erofs", "pvpanic", "pvpanic_mmio"),
    "virtio_balloon",
)
PROGRAMS = {b"\x02\x21\x4c\x18": "lz4", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}
# Without these a microvm under TCG waits for ever for a clock to check against.
QUICK = (
    "quiet loglevel=3 mitigations=off tsc_early_khz=2000000 no_timer_check audit=0 apparmor=0 lpj=1000000 "
    "cryptomgr.notests panic=-1 console=ttyS0 reboot=t rdinit=/.urunc/init"
)


def find_kernel() -> Path:
    """Return the kernel that the environment names, else the newest of Debian's cloud kernels; skip without one."""
    named = os.environ.get(KERNEL_VARIABLE)
    kernels = [Path(named)] if named else sorted(Path("/boot").glob("vmlinuz-*-cloud-amd64"))
    if not kernels or not kernels[-1].exists():
        pytest.skip(f"no Linux kernel: install linux-image-cloud-amd64, or set {KERNEL_VARIABLE}")
    return kernels[-1]


def uncompressed(kernel: Path) -> bytes:
    """Return the ELF inside a bzImage (Documentation/arch/x86/boot.rst, payload_offset): it boots in half the time.

    The kernel as it is, where it is compressed in a way that this machine has no program for.
    """
    image = kernel.read_bytes()
    if image[0x202:0x206] != b"HdrS" and image[:4] == b"\x7fELF":
        return image
    setup = (image[0x1F1] + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[setup + offset : setup + offset + length]
    for magic, program in PROGRAMS.items():
        if payload.startswith(magic) and shutil.which(program):
            # The payload ends with its size, which is garbage to the program: look at what comes out instead.
            run = subprocess.run([program, "-dc"], input=payload, capture_output=True, check=False)
            if run.stdout.startswith(b"\x7fELF"):
                return run.stdout
    return image


def kernel_modules(kernel: Path, root: Path = Path("/")) -> dict[str, bytes]:
    """Return the drivers below `root` and their modules.dep, by path in the initrd; empty for a kernel without any."""
    folder = Path("/lib/modules") / kernel.name.removeprefix("vmlinuz-")
    source = root / str(folder).lstrip("/")
    index = source / "modules.dep"
    if not index.exists():
        return {}
    wanted = {name.replace("_", "-") for name in MODULES}
    lines, files = [], {}
    for line in index.read_text().splitlines():
        path = line.partition(":")[0]
        if Path(path).name.partition(".")[0].replace("_", "-") in wanted:
            lines.append(line)
            files[str(folder / path)] = (source / path).read_bytes()
    return {**files, str(folder / "modules.dep"): "\n".join(lines).encode() + b"\n"}


def cpio(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """Return a newc archive of (path, mode, content), parent folders included, owned by root."""
    records: dict[str, tuple[int, bytes]] = {}
    for path, mode, content in entries:
        for parent in reversed(Path(path).parents):
            if str(parent) != "/":
                records.setdefault(str(parent), (0o40755, b""))
        records[path] = (mode, content)
    archive = bytearray()
    for number, (path, (mode, content)) in enumerate([*records.items(), ("/TRAILER!!!", (0, b""))]):
        name = path[1:].encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
        archive += b"070701" + b"".join(b"%08x" % field for field in fields) + name
        archive += b"\0" * (-len(archive) % 4) + content
        archive += b"\0" * (-len(archive) % 4)
    return bytes(archive)


def base_initrd(kernel: Path, root: Path = Path("/")) -> bytes:
    """Return an initrd of busybox and drivers below `root`, as an image would carry."""
    busybox = root / "bin/busybox"
    if not busybox.exists():
        pytest.skip(f"there is no {busybox}: install busybox-static")
    program = busybox.read_bytes()
    links = ("sh", "cat", "od", "id", "ip", "mount", "sleep", "stty", "kill", "printf", "hostname", "ls", "mv", "ps")
    return cpio(
        [
            ("/bin/busybox", 0o100755, program),
            *((f"/bin/{link}", 0o120777, b"busybox") for link in links),
            (
                "/etc/passwd",
                0o100644,
                b"root:x:0:0::/root:/bin/sh\nodd\napp:x:1000:1001:,:/home/the app:/bin/sh\nbare:x:7:7",
            ),
            ("/etc/hosts", 0o120777, b"../nowhere"),
            ("/bin/not-executable", 0o100644, b"x"),
            ("/tmp/.keep", 0o100644, b""),
            *((path, 0o100644, content) for path, content in kernel_modules(kernel, root).items()),
        ]
    )


def config(*records: tuple[str, str | bytes]) -> bytes:
    """Return /.urunc/config of these records."""
    out = bytearray()
    for key, value in records:
        out += key.encode() + b"\0" + (value if isinstance(value, bytes) else value.encode()) + b"\0"
    return bytes(out)


def tail(init: bytes, configuration: bytes, files: Mapping[str, bytes] | None = None) -> bytes:
    """Return the archive that urunc puts behind the image's initrd."""
    return cpio(
        [
            ("/.urunc/init", 0o100755, init),
            ("/.urunc/config", 0o100600, configuration),
            *((f"/.urunc/files{path}", 0o100600, content) for path, content in (files or {}).items()),
        ]
    )
