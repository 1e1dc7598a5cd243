"""Volumes of Linux guests: shared by 9p, copied, disks, and tmpfs of the guest's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import linuxes
from bundles import Bundle
from driver import Cli
from world import World, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def make_linux(is_runc: bool, tmp_path: Path, world: World) -> Callable[..., Bundle]:
    """Make a bundle of a Linux guest: on a shared rootfs with a kernel that has 9p, else on Debian's and an initrd."""
    if is_runc:
        pytest.skip("runc has no unikernels")

    def make(script: str, *, shares: bool) -> Bundle:
        bundle = Bundle(tmp_path / "bundle", ("/bin/sh", "-c", script), cgroup=f"/{world.cgroup}/volumes")
        if shares:
            kernel = linuxes.kernel_with_9p()
            linuxes.userland(bundle.rootfs)
            linuxes.add_kernel(bundle.rootfs, kernel)
            return linuxes.annotate(bundle, mountRootfs="true")
        return linuxes.add_initrd(bundle)

    return make


def mount(bundle: Bundle, target: str, source: Path | str, *options: str, kind: str = "bind") -> None:
    """Add a mount."""
    entry = {"destination": target, "type": kind, "source": str(source), "options": list(options)}
    bundle.config["mounts"].append(entry)


@pytest.fixture
def config_map(tmp_path: Path) -> Path:
    """What the kubelet makes of a ConfigMap."""
    folder = tmp_path / "config"
    (folder / "..2024_01_01").mkdir(parents=True)
    (folder / "..2024_01_01/key").write_text("configured\n")
    (folder / "..data").symlink_to("..2024_01_01")
    (folder / "key").symlink_to("..data/key")
    return folder


@pytest.mark.parametrize("shares", [True, False], ids=["shared", "copied"])
def test_a_config_map_and_a_token(
    cli: Cli, make_linux: Callable[..., Bundle], config_map: Path, tmp_path: Path, shares: bool
) -> None:
    token = "/var/run/secrets/kubernetes.io/serviceaccount"
    bundle = make_linux(f"cat '/etc/my app/key' {token}/key /etc/one.conf /etc/hosts; exit 0", shares=shares)
    mount(bundle, "/etc/my app", config_map, "rbind", "ro", "rprivate")
    mount(bundle, token, config_map, "rbind", "ro")
    (tmp_path / "one.conf").write_text("one file\n")
    mount(bundle, "/etc/one.conf", tmp_path / "one.conf", "bind", "ro")
    (tmp_path / "hosts").write_text("the engine's hosts\n")
    mount(bundle, "/etc/hosts", tmp_path / "hosts", "rbind", "rprivate")
    status, console = cli.run("guest", bundle)
    assert status == 0, console
    assert "configured\nconfigured\none file\nthe engine's hosts\n" in console


def test_a_volume_is_shared_both_ways(cli: Cli, make_linux: Callable[..., Bundle], tmp_path: Path) -> None:
    script = """
    cat /data/hello /log; echo from the guest > /data/answer; echo logged > /log; cat /data/below/file
    touch /fixed/x || echo refused; grep -c 9p /proc/mounts; exit 0
    """
    bundle = make_linux(script, shares=True)
    data, below = tmp_path / "data", tmp_path / "below"
    (data / "below").mkdir(parents=True)
    below.mkdir()
    (data / "hello").write_text("from the host\n")
    (below / "file").write_text("mounted below\n")
    (tmp_path / "log").write_text("so far\n")
    mount(bundle, "/data", data, "rbind", "rw")
    mount(bundle, "/log", tmp_path / "log", "rbind")
    mount(bundle, "/fixed", data, "rbind", "ro")
    cli.world.run("mount", "--bind", str(below), str(data / "below"))
    try:
        status, console = cli.run("guest", bundle)
    finally:
        cli.world.run("umount", str(data / "below"))
    assert status == 0, console
    assert "from the host\nso far\nmounted below\n" in console
    assert "\nrefused\n4\n" in console
    assert (data / "answer").read_text() == "from the guest\n"
    assert (tmp_path / "log").read_text() == "logged\n"


def test_a_hostile_guest_stays_in_its_volumes(cli: Cli, make_linux: Callable[..., Bundle], tmp_path: Path) -> None:
    """A read-only share is read-only whatever the guest mounts; a share of one file is of that file alone."""
    script = """
    mkdir /tmp/again; mount -t 9p -o trans=virtio,version=9p2000.L,rw fs1 /tmp/again; echo evil > /tmp/again/kept
    mkdir /tmp/one; mount -t 9p -o trans=virtio,version=9p2000.L,rw fs2 /tmp/one; ls -a /tmp/one; cat /tmp/one/../*
    echo new > /tmp/one/new; ln -s / /tmp/one/root; ls /tmp/one/root/proc/self/fd; cat /tmp/again/out
    exit 0
    """
    bundle = make_linux(script, shares=True)
    fixed, secret = tmp_path / "fixed", tmp_path / "secret"
    fixed.mkdir()
    secret.write_text("the host's secret\n")
    (fixed / "kept").write_text("kept\n")
    (fixed / "out").symlink_to(secret)
    (tmp_path / "single").write_text("single\n")
    mount(bundle, "/fixed", fixed, "rbind", "ro")
    mount(bundle, "/single", tmp_path / "single", "rbind")
    status, console = cli.run("guest", bundle)
    assert status == 0, console
    assert (fixed / "kept").read_text() == "kept\n"
    assert "the host's secret" not in console
    assert sorted(path.name for path in fixed.iterdir()) == ["kept", "out"]


def test_tmpfs(cli: Cli, make_linux: Callable[..., Bundle]) -> None:
    bundle = make_linux("echo x > /scratch/dir/file; cat /proc/mounts; exit 0", shares=False)
    mount(bundle, "/scratch/dir", "tmpfs", "noexec", "size=1m", kind="tmpfs")
    status, console = cli.run("guest", bundle)
    assert status == 0, console
    assert "tmpfs /scratch/dir tmpfs rw,nosuid,nodev,noexec" in console
    assert "size=1024k" in console


def test_a_read_only_initrd(cli: Cli, make_linux: Callable[..., Bundle]) -> None:
    bundle = make_linux("echo x > /file || echo refused; echo x > /scratch/file && echo taken; exit 0", shares=False)
    bundle.config["root"]["readonly"] = True
    mount(bundle, "/scratch", "tmpfs", kind="tmpfs")
    status, console = cli.run("guest", bundle)
    assert status == 0, console
    assert console.endswith("refused\ntaken\n")


@pytest.fixture
def loop(tmp_path: Path, world: World) -> Iterator[tuple[str, Path]]:
    """A loop device with a file system, and its file."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/hello").write_text("from a disk\n")
    disk = linuxes.make_disk(tmp_path / "tree", tmp_path / "volume.img")
    device = world.run("losetup", "--find", "--show", str(disk)).stdout.strip()
    yield device, disk
    wait_for("the device is free", lambda: world.run("losetup", "--detach", device, check=False).returncode == 0)


def node(device: str, path: str) -> dict[str, Any]:
    """Return an entry of linux.devices."""
    number = os.stat(device).st_rdev
    return {"path": path, "type": "b", "major": os.major(number), "minor": os.minor(number), "fileMode": 0o660}


def test_a_block_device_is_a_disk(
    cli: Cli, make_linux: Callable[..., Bundle], loop: tuple[str, Path], tmp_path: Path
) -> None:
    """By a mount with its file system's type, and by linux.devices; the host's path of it need not be the guest's."""
    device, disk = loop
    bundle = make_linux("cat /disk/hello; echo kept > /disk/kept; cat /proc/mounts; exit 0", shares=False)
    bundle.config["process"]["user"] = {"uid": 1234, "gid": 2345, "umask": 0}
    mount(bundle, "/disk", device, "ro", kind="ext4")
    status, console = cli.run("guest", bundle)
    assert status == 0, console
    assert "from a disk" in console
    assert "/dev/vda /disk ext4 ro" in console

    bundle.config["mounts"].pop()
    bundle.config["process"]["user"] = {"uid": 0, "gid": 0}
    script = "head -c 1100 /dev/my/disk | od -A d -t x1; mount -t ext4 /dev/my/disk /mnt; echo x > /mnt/x"
    bundle.config["process"]["args"] = ["/bin/sh", "-c", f"mkdir /mnt; {script}; umount /mnt; cat /proc/partitions"]
    bundle.config["linux"]["devices"] = [node(device, "/dev/my/disk")]
    shutil.rmtree(cli.consoles)
    cli.consoles.mkdir()
    status, console = cli.run("guest", bundle)
    assert status == 0, console
    assert "53 ef" in console
    assert linuxes.read_disk(disk, "/x") == "x\n"


def test_a_block_device_that_is_mounted_is_an_error(
    cli: Cli, make_linux: Callable[..., Bundle], loop: tuple[str, Path], tmp_path: Path
) -> None:
    device, _disk = loop
    bundle = make_linux("true", shares=False)
    bundle.config["linux"]["devices"] = [node(device, "/dev/my/disk")]
    (tmp_path / "mnt").mkdir()
    cli.world.run("mount", device, str(tmp_path / "mnt"))
    try:
        assert cli.create("guest", bundle, check=False) != 0
    finally:
        cli.world.run("umount", str(tmp_path / "mnt"))
    assert "`/dev/my/disk` cannot be given to the guest alone: device or resource busy" in cli.last_error()


def test_volumes_that_cannot_be_given_are_errors(
    cli: Cli, make_unikernel: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = make_unikernel()
    (tmp_path / "data").mkdir()
    mount(bundle, "/data", tmp_path / "data", "rbind")
    assert cli.create("guest", bundle, check=False) != 0
    assert "mount `/data` cannot be given to the guest" in cli.last_error()
    cli.config.write_text(cli.config.read_text() + '\n[runtime]\nunsupported_mounts = "warn"\n')
    cli.create("guest", bundle)
    assert any("`/data` cannot be given" in line["msg"] for line in cli.log_lines())


def test_a_source_that_is_not_there(cli: Cli, make_linux: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = make_linux("true", shares=False)
    mount(bundle, "/data", tmp_path / "gone", "rbind", "ro")
    assert cli.create("guest", bundle, check=False) != 0
    assert f"`{tmp_path / 'gone'}`: no such file or directory" in cli.last_error()
