"""Block images: of every kind of guest, writable or not, for every user, sound or broken."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import linuxes
from bundles import Bundle
from driver import Cli
from guest import linux_guest
from world import World, wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def make_disk_guest(make_unikernel: Callable[..., Bundle]) -> Callable[..., Bundle]:
    """Make a bundle of the test guest with a disk."""

    def make(*args: str, content: bytes = b"a disk".ljust(1 << 20, b"\0"), **annotations: str) -> Bundle:
        bundle = make_unikernel("app", *args)
        (bundle.rootfs / "disk.img").write_bytes(content)
        bundle.annotate(**{"block": "/disk.img", "blkMntPoint": "/data", **annotations})
        return bundle

    return make


@pytest.mark.parametrize("readonly", [False, True])
def test_the_guest_sees_the_image(cli: Cli, make_disk_guest: Callable[..., Bundle], readonly: bool) -> None:
    bundle = make_disk_guest()
    bundle.config["root"]["readonly"] = readonly
    cli.create("guest", bundle)
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    assert f"disk0: 2048 sectors{', read-only' if readonly else ''}, first bytes 61 20 64 69 73 6b" in console


@pytest.mark.parametrize("monitor", ["qemu", "firecracker"])
@pytest.mark.parametrize("readonly", [False, True])
def test_an_image_that_the_monitors_user_may_not_open(
    cli: Cli, make_disk_guest: Callable[..., Bundle], monitor: str, readonly: bool, request: pytest.FixtureRequest
) -> None:
    """QEMU gets it open; a monitor that opens it itself gets a loop device, which goes with the monitor."""
    bundle = make_disk_guest()
    if monitor == "firecracker":
        kernel = request.getfixturevalue("testguest").with_name("testguest64.elf")
        if shutil.which("firecracker") is None or not os.path.exists("/dev/kvm") or not kernel.exists():
            pytest.skip("firecracker cannot run here")
        shutil.copy(kernel, bundle.rootfs / "unikernel/kernel64")
        bundle.annotate(hypervisor="firecracker", binary="/unikernel/kernel64")
    (bundle.rootfs / "disk.img").chmod(0o600)
    bundle.config["root"]["readonly"] = readonly
    bundle.config["process"]["user"] = {"uid": 1234, "gid": 2345}
    cli.create("guest", bundle)
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    assert f"disk0: 2048 sectors{', read-only' if readonly else ''}, first bytes 61 20" in console
    rules = cli.world.path(f"/sys/fs/cgroup/devices{bundle.config['linux']['cgroupsPath']}/devices.list")
    if rules.exists():  # cgroup v1: of the block devices that one loop device, and no other
        loops = [Path(file).parts[3].removeprefix("loop") for file in loops_of("/disk.img")]
        allowed = [line for line in rules.read_text().splitlines() if line.startswith("b")]
        assert allowed == [f"b 7:{number} rw" for number in loops]
    cli.end("guest")
    wait_for("no loop device", lambda: not loops_of("/disk.img"))


def loops_of(name: str) -> list[str]:
    """Return the loop devices over a file of that name."""
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    return [str(file) for file in files if read(file).removesuffix(" (deleted)").endswith(name)]


def read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def test_a_user_namespace(cli: Cli, make_disk_guest: Callable[..., Bundle]) -> None:
    bundle = make_disk_guest()
    bundle.config["linux"]["namespaces"].append({"type": "user"})
    maps = [{"containerID": 0, "hostID": 300000, "size": 65536}]
    bundle.config["linux"].update(uidMappings=maps, gidMappings=maps)
    cli.create("guest", bundle)
    cli("start", "guest")
    assert "disk0: 2048 sectors, first bytes 61 20" in cli.wait_console("guest", "ready")


def damaged(path: Path) -> None:
    """Overwrite what the superblock says."""
    with path.open("r+b") as file:
        file.seek(1024)
        file.write(b"\xff" * 1024)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - (4 << 20))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def odd(path: Path) -> None:
    os.truncate(path, (16 << 20) + 5)


def link_out(path: Path) -> None:
    path.rename(path.parent.parent / "outside")
    path.symlink_to(f"../../../../../{path.parent.parent / 'outside'}")


def device(path: Path) -> None:
    path.unlink()
    os.mknod(path, 0o60666, os.makedev(7, 0))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (damaged, "no file system that urunc knows, or a damaged one"),
        (cut, "is cut short"),
        (fifo, "not a regular file"),
        (empty, "is empty"),
        (folder, "not a regular file"),
        (odd, "not a whole number of sectors"),
        (link_out, "no such file"),
        (device, "not a regular file"),
    ],
)
def test_an_image_that_is_none(
    cli: Cli, make_disk_guest: Callable[..., Bundle], tmp_path: Path, spoil: Callable[[Path], None], says: str
) -> None:
    bundle = make_disk_guest(unikernelType="linux", blkMntPoint="/")
    tree = tmp_path / "tree"
    tree.mkdir()
    linuxes.make_disk(tree, bundle.rootfs / "disk.img")
    spoil(bundle.rootfs / "disk.img")
    assert cli.create("guest", bundle, check=False) != 0
    assert "block image `/disk.img`" in cli.last_error()
    assert says in cli.last_error()


@pytest.fixture
def make_linux(is_runc: bool, tmp_path: Path, world: World) -> Callable[..., Bundle]:
    """Make a bundle of a Linux guest whose root is a disk; its console says what the script prints."""
    if is_runc:
        pytest.skip("runc has no unikernels")

    def make(script: str, *args: str) -> Bundle:
        bundle = Bundle(tmp_path / "linux", ("/bin/sh", "-c", script, *args), cgroup=f"/{world.cgroup}/linux")
        linuxes.add_kernel(bundle.rootfs, linux_guest.find_kernel())
        linuxes.make_disk(linuxes.userland(tmp_path / "tree"), bundle.rootfs / "disk.img")
        return linuxes.annotate(bundle, block="/disk.img", blkMntPoint="/")

    return make


@pytest.mark.slow
def test_linux_on_a_disk_as_its_root(cli: Cli, make_linux: Callable[..., Bundle]) -> None:
    """Arguments and environment of any content arrive whole, what it writes is in the image, its status is ours."""
    script = 'printf "<%s>" "$@" "$ODD"; echo kept > /kept; cat /proc/mounts; exit 7'
    bundle = make_linux(script, "sh", "a b", "", "'\"\\", "new\nline", "ü", "--", *["x"] * 40)
    bundle.config["process"]["env"].append("ODD=x  y\nz'\"")
    status, console = cli.run("guest", bundle)
    assert status == 7, console
    assert "<a b><><'\"\\><new\nline><ü><--><x>" in console
    assert "<x  y\nz'\">" in console
    assert "/dev/vda / ext4 rw" in console
    assert linuxes.read_disk(bundle.rootfs / "disk.img", "/kept") == "kept\n"


@pytest.mark.slow
def test_linux_on_a_read_only_disk(cli: Cli, make_linux: Callable[..., Bundle]) -> None:
    bundle = make_linux("cat /proc/mounts; touch /x || echo refused; exit 0")
    bundle.config["root"]["readonly"] = True
    bundle.config["process"]["user"] = {"uid": 1234, "gid": 2345}
    before = (bundle.rootfs / "disk.img").read_bytes()
    status, console = cli.run("guest", bundle)
    assert status == 0, console
    assert "/dev/vda / ext4 ro" in console
    assert "refused" in console
    assert (bundle.rootfs / "disk.img").read_bytes() == before


@pytest.mark.slow
def test_linux_with_a_disk_beside_its_initrd(cli: Cli, make_linux: Callable[..., Bundle], tmp_path: Path) -> None:
    """A block image with another mount point is mounted there by init."""
    bundle = make_linux("cat /proc/mounts; cat '/srv/the data/hello' && echo more > '/srv/the data/more'")
    kernel = linux_guest.find_kernel()
    (bundle.rootfs / "initrd").write_bytes(linux_guest.base_initrd(kernel))
    (tmp_path / "tree/hello").write_text("hello from a disk\n")
    (bundle.rootfs / "disk.img").unlink()
    linuxes.make_disk(tmp_path / "tree", bundle.rootfs / "disk.img", kind="ext2")
    bundle.annotate(initrd="/initrd", blkMntPoint="/srv/the data")
    status, console = cli.run("guest", bundle)
    assert status == 0, console
    assert "hello from a disk" in console
    assert linuxes.read_disk(bundle.rootfs / "disk.img", "/more") == "more\n"


@pytest.mark.slow
def test_linux_on_a_disk_that_is_damaged_within(cli: Cli, make_linux: Callable[..., Bundle]) -> None:
    """Its superblock is sound, which is all that the host reads: mounting it, and its dangers, are the guest's."""
    bundle = make_linux("echo started; exit 0")
    with (bundle.rootfs / "disk.img").open("r+b") as disk:
        disk.seek(2048)
        disk.write(b"\xff" * (4 << 20))
    status, console = cli.run("guest", bundle)
    assert status not in (0, 1), console
    assert "started" not in console
    assert "/dev/vda" in console
