"""Which of an image's modules are the kernel's, and what backs a rootfs. The rest is tried by the command line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from inchild import run_in
from urunc.linux import libc, loop
from urunc.runtime import storage
from urunc.vm.machine import KernelInfo
from world import which

OLD, NEW = "6.1.0-1-amd64", "6.1.0-10-amd64"
VMLINUX = KernelInfo(format="elf64", arch="x86_64", linux=True)


@pytest.fixture
def rootfs(tmp_path: Path) -> Iterator[int]:
    """A root with the modules of two kernels, of names that begin alike, and the older of them as `/vmlinux`."""
    for release in (OLD, NEW):
        folder = tmp_path / "lib/modules" / release
        folder.mkdir(parents=True)
        (folder / "virtio.ko").write_text(release)
        (folder / "modules.dep").write_text("virtio.ko:\n")
    banner = f"Linux version {OLD} (builder@example.org)"
    (tmp_path / "vmlinux").write_bytes(b"\x7fELF".ljust(1 << 20, b"\0") + banner.encode())
    fd = os.open(tmp_path, os.O_PATH)
    yield fd
    os.close(fd)


def paths(rootfs: int, kernel: KernelInfo, path: str = "/vmlinux") -> set[str]:
    """Return the folders of what is taken."""
    files, _, _ = storage.read_modules(rootfs, path, kernel, ("virtio",))
    return {os.path.dirname(file.path) for file in files}


def test_a_release_that_the_header_says(rootfs: int) -> None:
    assert paths(rootfs, VMLINUX.replace(format="bzimage", release=NEW)) == {f"/lib/modules/{NEW}"}


def test_a_release_that_stands_in_what_the_kernel_prints(rootfs: int) -> None:
    assert paths(rootfs, VMLINUX) == {f"/lib/modules/{OLD}"}


def test_the_only_ones_are_taken(rootfs: int, tmp_path: Path) -> None:
    (tmp_path / "lib/modules" / OLD).rename(tmp_path / "elsewhere")
    assert paths(rootfs, VMLINUX) == {f"/lib/modules/{NEW}"}


def test_one_of_many(rootfs: int, tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / "lib/modules" / str(number)).mkdir()
    assert paths(rootfs, VMLINUX) == {f"/lib/modules/{OLD}"}


@pytest.mark.parametrize("what", ["another", "fifo", "nothing", "two banners", "too many banners"])
def test_none_where_it_cannot_be_told(rootfs: int, tmp_path: Path, what: str) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.unlink()
    banner = f"Linux version {OLD} (".encode()
    contents = {
        "another": b"Linux version 6.1.0-1 (",
        "two banners": banner + banner.replace(OLD.encode(), NEW.encode()),
        "too many banners": b"Linux version " * 64 + banner,
    }
    if what in contents:
        kernel.write_bytes(contents[what])
    if what == "fifo":
        os.mkfifo(kernel)
    assert paths(rootfs, VMLINUX) == set()


@pytest.mark.root
def test_a_device_holds_what_its_superblock_says(tmp_path: Path) -> None:
    """An ext2 is one to the guest, by whichever driver the engine has mounted it."""
    mkfs = which("mkfs.ext2")
    if mkfs is None:
        pytest.skip("mkfs.ext2 is not installed")
    disk, point = tmp_path / "disk", tmp_path / "point"
    subprocess.run([mkfs, "-q", str(disk), "1M"], check=True)
    point.mkdir()

    def look() -> list[str]:
        libc.mount("none", "/", None, libc.MS_REC | libc.MS_PRIVATE)
        file = os.open(disk, os.O_RDWR)
        device = loop.attach(file, "disk", readonly=False)
        name = f"/dev/loop{os.minor(os.fstat(device).st_rdev)}"
        libc.mount(name, str(point), "ext4", libc.MS_NOSUID)
        found = storage.find_device(str(point))
        assert found is not None
        return [found.filesystem, found.mounted_as, found.source.replace(name, "it"), found.options[1]]

    assert run_in(("mount",), look) == ["ext2", "ext4", "it", "nosuid"]
