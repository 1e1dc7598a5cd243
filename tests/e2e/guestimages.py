"""The images of guests: the test guest and Linux of what Debian has, the others of what URUNC_TEST_GUESTS names.

Each skips the test whose guest is not there. See `realguests`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import images
import pytest
from test_linux import image as linux_image

import linuxes
from realguests import NGINX_CONFIG, find_guest


def want_kvm() -> None:
    """Skip where there is no /dev/kvm."""
    if not os.path.exists("/dev/kvm"):
        pytest.skip("there is no /dev/kvm")


def testguest(kernel: Path, name: str = "test/guest:1") -> images.Image:
    """Return the test guest's image."""
    keys = {"unikernelType": "unikraft", "hypervisor": "qemu", "cmdline": "app"}
    return images.unikernel(name, kernel, keys)


def firecracker(testguest: Path) -> images.Image:
    """Return the image of the test guest on Firecracker."""
    if shutil.which("firecracker") is None:
        pytest.skip("firecracker is not installed")
    want_kvm()
    keys = {"unikernelType": "unikraft", "hypervisor": "firecracker", "cmdline": "app"}
    return images.unikernel("test/firecracker:1", testguest.with_name("testguest64.elf"), keys)


def linux() -> images.Image:
    """Return the image of Debian's kernel with busybox and a page."""
    return linux_image("test/linux:1", {"/www/index.html": (0o100644, b"a page from a microVM\n")})


def linux_9p(folder: Path) -> images.Image:
    """Return the image of a kernel with 9p and busybox, whose root is the container's rootfs, shared."""
    kernel = linuxes.kernel_with_9p()
    tree = linuxes.userland(folder / "tree")
    (tree / "bin/httpd").symlink_to("busybox")
    linuxes.add_kernel(tree, kernel)
    keys = {"unikernelType": "linux", "hypervisor": "qemu", "mountRootfs": "true"}
    made = images.unikernel("test/linux-9p:1", tree / "boot/vmlinux", keys)
    made.add_tree(tree)
    return made


def unikraft() -> images.Image:
    """Return the image of Unikraft's nginx, whose root is an initrd."""
    keys = {"unikernelType": "unikraft", "hypervisor": "qemu", "initrd": "/unikernel/initrd"}
    initrd = {"unikernel/initrd": find_guest("unikraft/nginx-initrd.cpio")}
    return images.unikernel("test/unikraft:1", find_guest("unikraft/nginx-qemu-x86_64"), keys, initrd)


def unikraft_hello() -> images.Image:
    """Return the image of Unikraft's hello for Firecracker; the one that boots it is `unikraft/firecracker`."""
    want_kvm()
    find_guest("unikraft/firecracker")
    keys = {"unikernelType": "unikraft", "hypervisor": "firecracker"}
    return images.unikernel("test/unikraft-firecracker:1", find_guest("unikraft/hello-fc-x86_64"), keys)


def elfloader() -> images.Image:
    """Return the image of Debian's nginx on Unikraft's ELF loader; the snapshot is shared by 9p."""
    program = "/usr/sbin/nginx"
    if not os.path.exists(program):
        pytest.skip(f"this host has no {program}")
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    libraries = re.findall(r"(/\S+) \(0x", listed)
    files = {path.lstrip("/"): Path(path) for path in (program, *libraries)}
    keys = {"unikernelType": "unikraft", "hypervisor": "qemu", "mountRootfs": "true"}
    image = images.unikernel("test/elfloader:1", find_guest("elfloader/elfloader_qemu-x86_64"), keys, files)
    for path in files:
        image.files[path] = (image.files[path][0], 0o755)
    image.file("/etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
    image.file("/etc/group", b"root:x:0:\n")
    image.file("/etc/nginx.conf", NGINX_CONFIG.encode())
    image.file("/var/log/nginx/error.log", b"")
    image.file("/www/index.html", b"a page of the rootfs\n")
    return image


def mewz() -> images.Image:
    """Return the image of Mewz's server. It says where the kernel is, and the kernel the rest."""
    return images.unikernel("test/mewz:1", find_guest("mewz/hello-server-qemu-x86_64"), {})


def want_tender(name: str) -> None:
    """Skip where that tender of Solo5's cannot be had."""
    if shutil.which(f"solo5-{name}") is None:
        pytest.skip(f"solo5-{name} is not installed")
    if name == "hvt":
        want_kvm()


def mirage(target: str) -> images.Image:
    """Return the image of a MirageOS server, which prints what it is told too. Its kernel tells guest and monitor."""
    if target != "virtio":
        want_tender(target)
    return images.unikernel(f"test/mirage-{target}:1", find_guest(f"mirage/hello.{target}"), {})


def rumprun(folder: Path) -> images.Image:
    """Return the image of a rumprun server that has a disk too; its tender is `rumprun/solo5-spt`."""
    find_guest("rumprun/solo5-spt")
    tree = folder / "tree"
    tree.mkdir()
    (tree / "hello").write_text("read from a disk\n")
    disk = linuxes.make_disk(tree, folder / "disk.img", "4M", "ext2")
    keys = {"unikernelType": "rumprun", "hypervisor": "spt", "block": "/disk.img", "blkMntPoint": "/data"}
    return images.unikernel("test/rumprun:1", find_guest("rumprun/app.spt"), keys, {"disk.img": disk})


def solo5(tender: str, test: str, name: str) -> images.Image:
    """Return the image `name` of one of Solo5's own tests."""
    want_tender(tender)
    kernel = find_guest(f"solo5/{test}.{tender}")
    return images.unikernel(name, kernel, {"unikernelType": "mirage", "hypervisor": tender})


def solo5_block(tender: str) -> images.Image:
    """Return the image of Solo5's test of a disk, with a disk."""
    want_tender(tender)
    keys = {"unikernelType": "mirage", "hypervisor": tender, "block": "/disk.img", "blkMntPoint": "/data"}
    disk: dict[str, bytes | Path] = {"disk.img": bytes(1 << 20)}
    return images.unikernel(f"test/{tender}-blk:1", find_guest(f"solo5/test_blk.{tender}"), keys, disk)
