"""Linux guests for the tests: a kernel of Debian's, its modules, and a small userland of busybox, in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bundles import BUSYBOX, Bundle
from guest import linux_guest

APPLETS = (
    *("sh", "cat", "cp", "echo", "env", "id", "ln", "ls", "mkdir", "mknod", "mount", "mv", "printf", "readlink", "rm"),
    *("stat", "chmod", "chown", "sync", "test", "touch", "true", "dd", "find", "umount", "od", "head", "wc", "mkfifo"),
)
MODULES = (*linux_guest.MODULES, "9p", "9pnet", "9pnet_virtio", "netfs", "fscache", "snd")
KERNEL_9P = "URUNC_TEST_KERNEL_9P"


def kernel_with_9p() -> Path:
    """Return the kernel that the environment names, which has 9p; its modules stand as in Debian's package.

    Debian's cloud kernel has none: `apt-get download linux-image-ARCH; dpkg -x` gives one that has.
    """
    named = Path(os.environ.get(KERNEL_9P) or "/nonexistent")
    if not named.exists():
        pytest.skip(f"no Linux kernel with 9p: set {KERNEL_9P} to boot/vmlinuz-* of an unpacked linux-image-amd64")
    return named


def userland(folder: Path) -> Path:
    """Make a root with busybox in it; return it."""
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "run"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(BUSYBOX, folder / "bin/busybox")
    for applet in APPLETS:
        (folder / "bin" / applet).symlink_to("busybox")
    (folder / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    return folder


def add_kernel(rootfs: Path, kernel: Path) -> None:
    """Put the kernel, uncompressed, and those of its modules that a guest needs, into a root, as a package does."""
    (rootfs / "boot").mkdir(exist_ok=True)
    (rootfs / "boot/vmlinux").write_bytes(linux_guest.uncompressed(kernel))
    release = kernel.name.removeprefix("vmlinuz-")
    base = kernel.parent.parent if kernel.parent.name == "boot" else Path("/")
    source, target = base / "lib/modules" / release, rootfs / "lib/modules" / release
    for path in source.rglob("*.ko*"):
        if path.name.partition(".")[0].replace("-", "_") in MODULES:
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        if (source / name).exists():
            shutil.copy(source / name, target / name)
    subprocess.run(["depmod", "-b", str(rootfs), release], check=True, capture_output=True)


def add_initrd(bundle: Bundle, initrd: bytes | None = None) -> Bundle:
    """Make a bundle a Linux guest's, of Debian's kernel and an initrd, which by default is busybox and drivers."""
    kernel = linux_guest.find_kernel()
    (bundle.rootfs / "boot").mkdir()
    (bundle.rootfs / "boot/vmlinux").write_bytes(linux_guest.uncompressed(kernel))
    (bundle.rootfs / "boot/initrd").write_bytes(linux_guest.base_initrd(kernel) if initrd is None else initrd)
    return annotate(bundle, initrd="/boot/initrd")


def annotate(bundle: Bundle, **more: str) -> Bundle:
    """Make a bundle a Linux guest's."""
    bundle.annotate(unikernelType="linux", hypervisor="qemu", binary="/boot/vmlinux", **more)
    bundle.config["linux"]["resources"]["memory"] = {"limit": 320 << 20}
    return bundle


def make_disk(tree: Path, disk: Path, size: str = "16M", kind: str = "ext4") -> Path:
    """Make a file system of that kind from a folder's content."""
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    subprocess.run([f"mkfs.{kind}", "-q", "-d", str(tree), str(disk), size], check=True)
    return disk


def read_disk(disk: Path, path: str) -> str:
    """Return a file of an unmounted ext file system, which must be sound."""
    subprocess.run(["fsck.ext4", "-fn", str(disk)], check=True, capture_output=True)
    return subprocess.run(["debugfs", "-R", f"cat {path}", str(disk)], check=True, capture_output=True).stdout.decode()
