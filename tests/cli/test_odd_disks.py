"""Block images, initrds and kernels that are no ordinary files, are larger than any, or shrink before the start."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundles import Bundle
from driver import Cli
from refusals import assert_refused, swapping, try_create
from world import World, wait_for

pytestmark = pytest.mark.root

EXBIBYTE = 1 << 60


@pytest.fixture(params=["qemu", "firecracker"])
def bundle(make_unikernel: Callable[..., Bundle], testguest: Path, request: pytest.FixtureRequest) -> Bundle:
    """A bundle of the test guest with a disk, an initrd, and a kernel for the monitor."""
    made = make_unikernel("app")
    if request.param == "firecracker":
        if shutil.which("firecracker") is None or not os.path.exists("/dev/kvm"):
            pytest.skip("firecracker cannot run here")
        shutil.copy(testguest.with_name("testguest64.elf"), made.rootfs / "unikernel/testguest.elf")
    (made.rootfs / "disk.img").write_bytes(b"a disk".ljust(1 << 20, b"\0"))
    (made.rootfs / "initrd").write_bytes(b"x" * 100_000)
    made.annotate(hypervisor=request.param, initrd="/initrd", block="/disk.img", blkMntPoint="/data")
    return made


@pytest.fixture
def in_memory(bundle: Bundle, world: World) -> Iterator[Path]:
    """The rootfs on a file system that has files as large as one can say; return where it is seen from outside."""
    shutil.move(bundle.rootfs, bundle.folder / "moved")
    bundle.rootfs.mkdir()
    world.run("mount", "-t", "tmpfs", "none", str(bundle.rootfs))
    rootfs = world.path(str(bundle.rootfs))
    shutil.copytree(bundle.folder / "moved", rootfs, dirs_exist_ok=True)
    yield rootfs
    world.run("umount", str(bundle.rootfs))


def test_a_disk_of_an_exbibyte(cli: Cli, bundle: Bundle, in_memory: Path) -> None:
    """Nobody reads it through, and it takes no room: it is the guest's to be astonished."""
    os.truncate(in_memory / "disk.img", EXBIBYTE)
    cli.create("guest", bundle)
    cli("start", "guest")
    assert "disk0: 0 sectors, first bytes 61 20" in cli.wait_console("guest", "ready")  # it counts in 32 bits
    cli.end("guest")
    assert (in_memory / "disk.img").stat().st_blocks <= 1 << 11


def test_an_initrd_of_an_exbibyte(cli: Cli, bundle: Bundle, in_memory: Path) -> None:
    os.truncate(in_memory / "initrd", EXBIBYTE)
    try_create(cli, "bad", bundle.write())
    assert_refused(cli, "bad", "initrd", "does not fit into the guest's")


@pytest.mark.parametrize("key", ["block", "initrd", "binary"])
def test_a_socket(cli: Cli, bundle: Bundle, key: str) -> None:
    folder = os.open(bundle.rootfs, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{folder}/socket")
    os.close(folder)
    (bundle.rootfs / "link").symlink_to("socket")
    bundle.annotate(**{key: "/link"})
    try_create(cli, "bad", bundle.write())
    assert_refused(cli, "bad", "`/link` is not a regular file")


def test_a_disk_that_becomes_something_else_while_create_looks_at_it(cli: Cli, bundle: Bundle, tmp_path: Path) -> None:
    """A link out of the rootfs, a fifo, a device: whatever create sees, it opens no more than a file of it."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"the host's secret".ljust(1 << 20, b"\0"))
    (bundle.rootfs / "file").write_bytes(b"harmless".ljust(1 << 20, b"\0"))
    (bundle.rootfs / "link").symlink_to(f"/../../../../../../../../../..{secret}")
    os.mkfifo(bundle.rootfs / "fifo")
    os.mknod(bundle.rootfs / "node", 0o60666, os.makedev(7, 0))
    with swapping(bundle.rootfs / "disk.img", bundle.rootfs, "link", "file", "fifo", "file", "node", "file"):
        for number in range(15):
            cli.log.unlink(missing_ok=True)
            name = f"race{number}"
            if cli.create(name, bundle, check=False):
                assert_refused(cli, name, "disk")
                continue
            cli("start", name)
            wait_for("its end or its disk", lambda name=name: seen(cli, name))
            assert b"the host's".hex(" ") not in cli.console(name)
            cli.end(name)


def seen(cli: Cli, name: str) -> bool:
    return "ready" in cli.console(name) or cli.status(name) == "stopped"


def test_a_disk_that_shrinks_before_the_start(cli: Cli, bundle: Bundle) -> None:
    """The guest's reads fail, and nothing else does."""
    cli.create("guest", bundle)
    os.truncate(bundle.rootfs / "disk.img", 0)
    cli("start", "guest")
    assert "disk0: 0 sectors, unreadable" in cli.wait_console("guest", "ready")
    cli.end("guest")


def test_a_disk_that_shrinks_under_its_guest(cli: Cli, bundle: Bundle) -> None:
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "disk0: 2048 sectors")
    os.truncate(bundle.rootfs / "disk.img", 0)
    cli("kill", "guest", "TERM")
    cli.wait_status("guest", "stopped")
    cli("delete", "guest")


@pytest.mark.parametrize("bytes_left", [0, 5000])
def test_a_kernel_that_shrinks_before_the_start(cli: Cli, bundle: Bundle, bytes_left: int) -> None:
    """The monitor says so, and ends."""
    cli.create("guest", bundle)
    os.truncate(bundle.rootfs / "unikernel/testguest.elf", bytes_left)
    cli("start", "guest")
    cli.wait_status("guest", "stopped")
    assert "rror" in cli.console("guest") or "could not load kernel" in cli.console("guest")


def test_an_initrd_that_shrinks_before_the_start(cli: Cli, bundle: Bundle) -> None:
    cli.create("guest", bundle)
    os.truncate(bundle.rootfs / "initrd", 5000)
    cli("start", "guest")
    assert "initrd: 5000 bytes" in cli.wait_console("guest", "ready")
    cli.end("guest")
