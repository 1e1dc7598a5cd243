"""The container's rootfs shared with a real Linux guest by 9p, and what a hostile guest reaches through it: nothing.

Needs a kernel with 9p, which Debian's cloud kernel is not: see `linuxes.kernel_with_9p`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import linuxes
from bundles import Bundle
from driver import Cli
from world import World

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def make_shared(is_runc: bool, tmp_path: Path, world: World) -> Callable[..., Bundle]:
    """Make a bundle of a Linux guest whose root is the container's rootfs."""
    if is_runc:
        pytest.skip("runc has no unikernels")
    kernel = linuxes.kernel_with_9p()

    def make(script: str, *args: str) -> Bundle:
        bundle = Bundle(tmp_path / "bundle", ("/bin/sh", "-c", script, *args), cgroup=f"/{world.cgroup}/shared")
        linuxes.userland(bundle.rootfs)
        linuxes.add_kernel(bundle.rootfs, kernel)
        return linuxes.annotate(bundle, mountRootfs="true")

    return make


def test_the_rootfs_is_the_guests_root(cli: Cli, make_shared: Callable[..., Bundle]) -> None:
    script = """
    printf '<%s>' "$@"; cat /proc/mounts
    echo written > /written; ln -s written /link; mkdir /folder; chmod 700 /folder; mv /written /folder/w
    cat /link || echo dangling; readlink /link; rm /gone
    """
    bundle = make_shared(script, "sh", "a b", "new\nline", "")
    (bundle.rootfs / "gone").write_text("x")
    status, console = cli.run("guest", bundle)
    assert status == 0, console
    assert "<a b><new\nline><>" in console
    assert "fs0 / 9p rw" in console
    assert "dangling\nwritten" in console
    assert (bundle.rootfs / "folder/w").read_text() == "written\n"
    assert stat.S_IMODE((bundle.rootfs / "folder").stat().st_mode) == 0o700
    assert not (bundle.rootfs / "gone").exists()


def test_a_read_only_rootfs_is_a_read_only_share(cli: Cli, make_shared: Callable[..., Bundle]) -> None:
    """Not by the guest's word alone: it may mount the share writable as often as it likes."""
    script = """
    cat /proc/mounts
    touch /new || echo refused
    mkdir /tmp/again; mount -t tmpfs none /tmp; mkdir /tmp/again
    mount -t 9p -o trans=virtio,version=9p2000.L,rw fs0 /tmp/again || mount -o remount,rw /
    touch /tmp/again/new /new; chmod 777 /etc/passwd; rm /etc/passwd; echo evil > /etc/passwd
    exit 0
    """
    bundle = make_shared(script)
    bundle.config["root"]["readonly"] = True
    before = {path: path.lstat() for path in bundle.rootfs.rglob("*")}
    status, console = cli.run("guest", bundle)
    assert status == 0, console
    assert "fs0 / 9p ro" in console
    assert "refused" in console
    after = {path: path.lstat() for path in bundle.rootfs.rglob("*")}
    assert after.keys() == before.keys()
    assert all((now.st_mtime_ns, now.st_mode) == (before[path].st_mtime_ns, before[path].st_mode)
               for path, now in after.items())  # fmt: skip


def test_nothing_of_the_host_is_reached(cli: Cli, make_shared: Callable[..., Bundle], tmp_path: Path) -> None:
    """Links and `..` stay in the guest, devices and set-user-id programs of the share are no rights on the host."""
    secret = tmp_path / "secret"
    secret.write_text("the host's secret\n")
    script = f"""
    echo made > /made; ln -s {secret} /made-link; cat /made-link
    for path in /link /relative /folder-link/secret /..{secret} /../../../../../..{secret} /mounted/secret; do
        cat $path; echo evil > $path
    done
    ls /mounted; ls /folder-link/
    mknod /node c 1 3 && echo node; mknod /disk b 7 0; mkfifo /fifo && echo fifo
    dd if=/loop of=/stolen bs=512 count=1; cat /host-null; echo x > /host-null
    cp /bin/busybox /setuid; chmod 4755 /setuid; chown 1234:1234 /made
    ls -ln /
    exit 0
    """
    bundle = make_shared(script)
    (bundle.rootfs / "link").symlink_to(secret)
    (bundle.rootfs / "relative").symlink_to(f"../../../../../../../..{secret}")
    (bundle.rootfs / "folder-link").symlink_to(tmp_path)
    (bundle.rootfs / "mounted").mkdir()
    os.mknod(bundle.rootfs / "loop", 0o60666, os.makedev(7, 0))
    os.mknod(bundle.rootfs / "host-null", 0o20666, os.makedev(1, 3))
    cli.world.run("mount", "--bind", str(tmp_path), str(bundle.rootfs / "mounted"))
    try:
        status, console = cli.run("guest", bundle)
    finally:
        cli.world.run("umount", str(bundle.rootfs / "mounted"))
    assert status == 0, console
    assert "made" in console
    assert "the host's secret" not in console
    assert secret.read_text() == "the host's secret\n"
    assert (bundle.rootfs / "mounted/secret").read_text() == "evil\n"  # its own folder, not what is mounted there
    for name in ("node", "disk"):  # without CAP_MKNOD, the monitor makes none
        assert not (bundle.rootfs / name).exists()
    assert not (bundle.rootfs / "stolen").exists()  # the number is the guest's own kernel's to resolve
    assert (bundle.rootfs / "made").stat().st_uid == 0  # without CAP_CHOWN, it gives no file away
    program = (bundle.rootfs / "setuid").stat()
    assert (program.st_uid, program.st_mode & 0o7777) == (0, 0o4755)  # its own, as in any container's rootfs


@pytest.mark.parametrize("why", ["another user", "read-only"])
def test_an_engines_files_and_a_volume_where_nothing_can_be_made(
    cli: Cli, make_shared: Callable[..., Bundle], tmp_path: Path, why: str
) -> None:
    """The monitor's user may not write in the root, as with `docker run --user`, or nobody may."""
    bundle = make_shared("cat /etc/hosts /data/seed; echo written > /data/file; ls /; mkdir /new || ls /bin/sh")
    data, hosts = tmp_path / "data", tmp_path / "hosts"
    data.mkdir(mode=0o777)
    data.chmod(0o777)
    (data / "seed").write_text("seed\n")
    hosts.write_text("the engine's\n")
    (bundle.rootfs / "etc/hosts").touch()
    for target, source in (("/data", data), ("/etc/hosts", hosts), ("/etc/hostname", hosts)):
        bundle.config["mounts"].append({"destination": target, "type": "bind", "source": str(source), "options": []})
    if why == "read-only":
        bundle.config["root"]["readonly"] = True
    else:
        bundle.config["process"]["user"] = {"uid": 1234, "gid": 1234}
    status, console = cli.run("guest", bundle)
    assert status == 0, console
    assert "the engine's\nseed\n" in console
    assert "`/etc/hostname` is left out: the root has no such file, and cannot be written\n" in console
    assert "data\n" in console and console.endswith("/bin/sh\n")
    assert (data / "file").read_text() == "written\n"
    assert not (bundle.rootfs / "data").exists()


@pytest.mark.parametrize("form", ["user", "user namespace"])
def test_another_user(cli: Cli, make_shared: Callable[..., Bundle], form: str) -> None:
    """What the guest may do in the share is what the monitor's user may do there."""
    script = """
    cat /closed || echo refused; echo written > /open/file && echo fine; echo evil > /etc/passwd || echo kept
    cat /etc/passwd
    """
    bundle = make_shared(script)
    (bundle.rootfs / "closed").write_text("closed\n")
    (bundle.rootfs / "closed").chmod(0o600)
    (bundle.rootfs / "open").mkdir()
    (bundle.rootfs / "open").chmod(0o777)
    if form == "user":
        bundle.config["process"]["user"] = {"uid": 1234, "gid": 2345}
        owner = 1234
    else:
        bundle.config["linux"]["namespaces"].append({"type": "user"})
        maps = [{"containerID": 0, "hostID": 300000, "size": 65536}]
        bundle.config["linux"].update(uidMappings=maps, gidMappings=maps)
        owner = 300000
    status, console = cli.run("guest", bundle)
    assert status == 0, console
    assert "refused" in console
    assert "fine" in console
    assert "kept" in console
    assert (bundle.rootfs / "open/file").stat().st_uid == owner
    assert (bundle.rootfs / "etc/passwd").read_text().startswith("root:")


def test_an_overlay(cli: Cli, make_shared: Callable[..., Bundle], tmp_path: Path) -> None:
    """As engines make a rootfs: what the guest writes is in the upper folder, what it removes is hidden there."""
    bundle = make_shared("cat /lower/file; echo more >> /lower/file; rm /gone; mv /old /new; ls /; exit 0")
    lower = bundle.rootfs.rename(tmp_path / "lower")
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    bundle.rootfs.mkdir()
    (lower / "lower").mkdir()
    (lower / "lower/file").write_text("lower\n")
    for name in ("gone", "old"):
        (lower / name).write_text(name)
    options = f"lowerdir={lower},upperdir={tmp_path / 'upper'},workdir={tmp_path / 'work'}"
    cli.world.run("mount", "-t", "overlay", "-o", options, "overlay", str(bundle.rootfs))
    try:
        status, console = cli.run("guest", bundle)
    finally:
        cli.world.run("umount", str(bundle.rootfs))
    assert status == 0, console
    assert (tmp_path / "upper/lower/file").read_text() == "lower\nmore\n"
    assert (lower / "lower/file").read_text() == "lower\n"
    assert (tmp_path / "upper/new").read_text() == "old"
    assert stat.S_ISCHR((tmp_path / "upper/gone").stat().st_mode)


def test_a_folder_of_many_files_and_a_program_that_maps_one(cli: Cli, make_shared: Callable[..., Bundle]) -> None:
    bundle = make_shared("ls /many | wc -l; cat /many/999; exit 3")
    (bundle.rootfs / "many").mkdir()
    for number in range(1000):
        (bundle.rootfs / "many" / str(number)).write_text(f"file {number}\n")
    status, console = cli.run("guest", bundle)
    assert status == 3, console
    assert "1000\nfile 999" in console


def test_a_kernel_without_9p_is_named(cli: Cli, is_runc: bool, tmp_path: Path, world: World) -> None:
    from guest import linux_guest

    if is_runc:
        pytest.skip("runc has no unikernels")
    bundle = Bundle(tmp_path / "bundle", ("/bin/sh",), cgroup=f"/{world.cgroup}/without")
    linuxes.userland(bundle.rootfs)
    linuxes.add_kernel(bundle.rootfs, linux_guest.find_kernel())
    linuxes.annotate(bundle, mountRootfs="true")
    assert cli.create("guest", bundle, check=False) != 0
    assert "`9p`" in cli.last_error()
