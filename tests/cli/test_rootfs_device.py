"""The container's rootfs as the guest's own disk (`mountRootfs`), where a block device backs it: here a loop device.

As devmapper and blockfile snapshotters give it: the engine has mounted it, and bears that it is no longer mounted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import linuxes
from bundles import BUSYBOX, Bundle
from driver import Cli
from guest import linux_guest
from mounted import Mounted
from world import World, wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def make_mounted(is_runc: bool, tmp_path: Path, world: World) -> Iterator[Callable[..., Mounted]]:
    """Make a Mounted from a folder's content; what it holds is freed at the end."""
    if is_runc:
        pytest.skip("runc has no unikernels")
    made: list[Mounted] = []

    def make(tree: Path, size: str = "64M", *, stays: bool = False) -> Mounted:
        disk = linuxes.make_disk(tree, tmp_path / "disk.img", size)
        made.append(Mounted(world, tmp_path, disk, stays=stays))
        return made[-1]

    yield make
    for mounted in made:
        mounted.close()


@pytest.fixture
def linux(make_mounted: Callable[..., Mounted], tmp_path: Path) -> Mounted:
    """A Linux guest's rootfs, kernel and modules in it."""
    tree = linuxes.userland(tmp_path / "tree")
    linuxes.add_kernel(tree, linux_guest.find_kernel())
    mounted = make_mounted(tree)
    linuxes.annotate(mounted.bundle, mountRootfs="true")
    return mounted


@pytest.mark.slow
@pytest.mark.parametrize("key", ["mountRootfs", "useDMBlock"])
def test_linux_boots_from_its_rootfs(cli: Cli, linux: Mounted, key: str) -> None:
    script = 'printf "<%s>" "$@"; cat /proc/mounts; ls /boot; echo kept > /kept; exit 5'
    linux.bundle.config["process"]["args"] = ["/bin/sh", "-c", script, "sh", "a b", "new\nline"]
    linux.bundle.config["process"]["user"] = {"uid": 0, "gid": 0}
    linux.bundle.config["annotations"] = {
        name.replace("mountRootfs", key): value for name, value in linux.bundle.config["annotations"].items()
    }
    status, console = cli.run("guest", linux.bundle)
    assert status == 5, console
    assert "<a b><new\nline>" in console
    assert "/dev/vda / ext4 rw" in console
    assert "vmlinux" in console
    assert linux.mounts() == []
    wait_for("the loop device is free", lambda: not linux.loops(), 10)
    assert linuxes.read_disk(linux.disk, "/kept") == "kept\n"


@pytest.mark.slow
def test_it_is_the_guests_alone_while_it_runs(cli: Cli, linux: Mounted) -> None:
    linux.bundle.config["process"]["args"] = ["/bin/sh", "-c", "echo up; while :; do sleep 1; done"]
    (linux.bundle.folder / "second").mkdir()
    cli.create("guest", linux.bundle)
    loop = linux.loops()[0]
    assert linux.mounts() == []
    refused = cli.world.run("mount", f"/dev/{loop}", str(linux.bundle.folder / "second"), check=False)
    assert refused.returncode != 0
    assert "busy" in refused.stderr
    cli("start", "guest")
    cli.wait_console("guest", "up", 60)
    refused = cli.world.run("mount", f"/dev/{loop}", str(linux.bundle.folder / "second"), check=False)
    assert refused.returncode != 0
    cli.end("guest")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["root.readonly", "mounted so"])
def test_a_read_only_rootfs(cli: Cli, linux: Mounted, how: str) -> None:
    linux.bundle.config["process"]["args"] = ["/bin/sh", "-c", "cat /proc/mounts; touch /new || echo refused; exit 0"]
    linux.bundle.config["process"]["user"] = {"uid": 1234, "gid": 2345}
    if how == "mounted so":
        linux.world.run("mount", "-o", "remount,bind,ro", str(linux.bundle.rootfs))
    else:
        linux.bundle.config["root"]["readonly"] = True
    status, console = cli.run("guest", linux.bundle)
    assert status == 0, console
    assert "/dev/vda / ext4 ro" in console
    assert "refused" in console


def test_a_device_that_is_mounted_twice_is_an_error(cli: Cli, linux: Mounted) -> None:
    """Two kernels on one file system destroy it: the error comes before the guest, and the rootfs is mounted again."""
    second = linux.bundle.folder / "second"
    second.mkdir()
    before = linux.mounts()
    cli.world.run("mount", f"/dev/{linux.loops()[0]}", str(second))
    try:
        assert cli.create("guest", linux.bundle, check=False) != 0
        assert "cannot be given to the guest alone: device or resource busy" in cli.last_error()
        assert linux.mounts() == before
    finally:
        cli.world.run("umount", str(second))


def test_a_rootfs_with_mounts_below_is_an_error(cli: Cli, linux: Mounted) -> None:
    before = linux.mounts()
    cli.world.run("mount", "-t", "tmpfs", "none", str(linux.bundle.rootfs / "tmp"))
    try:
        assert cli.create("guest", linux.bundle, check=False) != 0
        assert "cannot unmount the rootfs" in cli.last_error()
        assert linux.mounts() == before
    finally:
        cli.world.run("umount", str(linux.bundle.rootfs / "tmp"))


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_a_create_that_fails_later_mounts_it_again(cli: Cli, linux: Mounted, kind: str) -> None:
    before = linux.mounts()
    linux.bundle.hook(kind, "/bin/false")
    assert cli.create("guest", linux.bundle, check=False) != 0
    assert linux.mounts() == before
    assert {"nosuid", "noatime"} <= set(before[0].split(","))
    assert (Path(f"/proc/{cli.world.pid}/root{linux.bundle.rootfs}") / "boot/vmlinux").exists()


def test_a_create_that_was_killed_is_cleared_by_force(
    cli: Cli, make_mounted: Callable[..., Mounted], tmp_path: Path
) -> None:
    tree = linuxes.userland(tmp_path / "tree")
    linuxes.add_kernel(tree, linux_guest.find_kernel())
    mounted = make_mounted(tree, stays=True)
    linuxes.annotate(mounted.bundle, mountRootfs="true")
    before = mounted.mounts()
    mounted.bundle.hook("createRuntime", "/bin/sleep", "1000")
    with cli.console_file("guest").open("wb") as console:
        argv = cli.argv("create", f"--bundle={mounted.bundle.write()}", "guest")
        creating = subprocess.Popen(argv, env=cli.env, stdout=console, stderr=console)
    wait_for("the hook runs", lambda: any("sleep 1000" in line for _, line in cli.world.processes()), 20)
    assert mounted.mounts() == []
    cli("delete", "--force", "guest")
    creating.wait(10)
    assert mounted.mounts() == before


def test_start_container_hooks_have_no_rootfs(cli: Cli, linux: Mounted) -> None:
    before = linux.mounts()
    linux.bundle.hook("startContainer", "/bin/true")
    assert cli.create("guest", linux.bundle, check=False) != 0
    assert "hooks.startContainer" in cli.last_error()
    assert linux.mounts() == before


@pytest.mark.parametrize("tender", ["spt", "hvt"])
def test_a_monitor_that_opens_the_node_itself(
    cli: Cli, make_mounted: Callable[..., Mounted], tmp_path: Path, tender: str
) -> None:
    """Solo5's own block test writes to the device all over, as another user; the kernel was in what it overwrites."""
    kernel = Path(os.environ.get("URUNC_TEST_GUESTS") or "/nonexistent", f"solo5/test_blk.{tender}")
    if not kernel.exists() or shutil.which(f"solo5-{tender}") is None:
        pytest.skip(f"URUNC_TEST_GUESTS has no solo5/test_blk.{tender}, or solo5-{tender} is not installed")
    if tender == "hvt" and not os.path.exists("/dev/kvm"):
        pytest.skip("there is no /dev/kvm")
    (tmp_path / "tree").mkdir()
    shutil.copy(kernel, tmp_path / "tree/kernel")
    mounted = make_mounted(tmp_path / "tree", size="4M")
    mounted.bundle.config["process"]["args"] = []
    mounted.bundle.config["process"]["user"] = {"uid": 1234, "gid": 2345}
    mounted.bundle.annotate(unikernelType="mirage", hypervisor=tender, binary="/kernel", mountRootfs="true")
    status, console = cli.run("guest", mounted.bundle)
    assert "SUCCESS" in console, cli.last_error()
    assert status == 0
    assert mounted.mounts() == []


def test_a_rootfs_that_is_no_device(cli: Cli, is_runc: bool, tmp_path: Path, world: World) -> None:
    """A bind of a folder on a disk is not that disk: the guest would get the host's whole file system."""
    if is_runc:
        pytest.skip("runc has no unikernels")
    bundle = Bundle(tmp_path / "bundle", ("/x",), cgroup=f"/{world.cgroup}/plain")
    shutil.copy(BUSYBOX, bundle.rootfs / "kernel")
    bundle.annotate(unikernelType="mirage", hypervisor="qemu", binary="/kernel", mountRootfs="true")
    world.run("mount", "--bind", str(bundle.rootfs), str(bundle.rootfs))
    try:
        assert cli.create("guest", bundle, check=False) != 0
    finally:
        world.run("umount", str(bundle.rootfs))
    assert "`mountRootfs` cannot be met" in cli.last_error()
    assert "no block device of its own" in cli.last_error()
