"""A whole Debian on ext4 as the container's own loop-mounted rootfs: its bash, dpkg, apt and perl, and its kernel.

What an ordinary user does in such a machine, and what is in the file system afterwards.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import debian
import linuxes
from bundles import Bundle
from driver import ROOT, Cli
from mounted import Mounted
from world import World, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file system, as every test begins with it."""
    return debian.make_disk(tmp_path_factory.mktemp("debian") / "disk.img")


@pytest.fixture
def machine(is_runc: bool, disk: Path, tmp_path: Path, world: World) -> Iterator[Callable[[str], Mounted]]:
    """Make a bundle whose rootfs is Debian's, mounted, and whose program is a script for its bash."""
    if is_runc:
        pytest.skip("runc has no unikernels")
    made: list[Mounted] = []

    def make(script: str) -> Mounted:
        copy = tmp_path / "disk.img"
        subprocess.run(["cp", "--sparse=always", str(disk), str(copy)], check=True)
        mounted = Mounted(world, tmp_path, copy, ("/bin/bash", "-c", script))
        debian.annotate(mounted.bundle)
        made.append(mounted)
        return mounted

    yield make
    for mounted in made:
        mounted.close()


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_bash_dpkg_apt_and_perl(cli: Cli, machine: Callable[[str], Mounted]) -> None:
    """Packages are installed and users made in the guest, and are in the container's file system afterwards."""
    script = f"""
    set -eu
    . /etc/os-release; echo "$ID $VERSION_ID by $BASH"
    dpkg -l base-files perl-base linux-image-cloud-amd64 | grep -c ^ii
    dpkg --verify coreutils; dpkg --audit
    apt-get install -y --no-install-recommends {debian.PACKAGE} > /tmp/log 2>&1 || cat /tmp/log
    greeting > /srv/greeting; greeting
    useradd --create-home joe
    su joe -c 'id -un; echo mine > ~/file'
    install -m 4755 /usr/bin/id /srv/program; mknod /srv/null c 1 3
    ln -s ../etc/os-release /srv/link; ln /srv/greeting /srv/again; mkfifo /srv/fifo
    grep ' / ' /proc/mounts; uname -r
    apt-get remove -y greeting > /dev/null 2>&1; dpkg-query -W greeting || echo removed
    exit 9
    """
    installed = machine(script)
    status, console = cli.run("guest", installed.bundle)
    assert status == 9, console
    assert "debian 12 by /bin/bash\n3\n" in console
    assert "hello from perl v5." in console
    assert "\njoe\n" in console
    assert "/dev/vda / ext4 rw" in console
    assert "-cloud-amd64" in console
    assert "removed" in console
    assert installed.mounts() == []
    wait_for("the loop device is free", lambda: not installed.loops(), 10)
    disk = installed.disk
    assert linuxes.read_disk(disk, "/srv/greeting").startswith("hello from perl")
    assert "\njoe:x:1000:" in linuxes.read_disk(disk, "/etc/passwd")
    assert "greeting" not in linuxes.read_disk(disk, "/var/lib/dpkg/status")
    assert "greeting" in linuxes.read_disk(disk, "/var/log/dpkg.log")
    looks = {"/home/joe/file": "User:  1000", "/srv/program": "Mode:  04755", "/srv/null": "Type: character special"}
    for path, look in looks.items():
        shown = subprocess.run(["debugfs", "-R", f"stat {path}", str(disk)], check=True, capture_output=True, text=True)
        assert look in shown.stdout


def test_a_second_life_finds_what_the_first_wrote(cli: Cli, machine: Callable[[str], Mounted]) -> None:
    """Stopped in between as engines stop it, by TERM: its file system is sound, and the device free to be mounted."""
    script = """
    trap 'echo stopped >> /srv/lives; exit 0' TERM
    cat /srv/lives; echo life >> /srv/lives; echo up
    while :; do sleep 1; done
    """
    installed = machine(script)
    for life in ("first", "second"):
        cli.create(life, installed.bundle)
        assert installed.mounts() == []
        cli("start", life)
        cli.wait_console(life, "up", 120)
        cli("kill", life, "TERM")
        cli.wait_status(life, "stopped", 60)
        cli("delete", life)
        wait_for("the loop device is free", lambda: not installed.loops(), 10)
        assert not cli.world.path(f"{ROOT}/{life}").exists()
        installed.mount()
    assert "life\nstopped\n" in cli.console("second").replace("\r\n", "\n")
    kept = cli.world.path(f"{installed.bundle.rootfs}/srv/lives")
    assert kept.read_text() == "life\nstopped\n" * 2


def test_read_only(cli: Cli, machine: Callable[[str], Mounted]) -> None:
    """Not an octet of the disk is written, whatever the guest's root tries."""
    script = f"""
    touch /srv/new || echo refused
    mount -o remount,rw / || echo refused
    dpkg -i {debian.PACKAGE} > /dev/null 2>&1 || echo refused
    echo evil > /dev/vda || echo refused
    perl -e 'print 6 * 7, "\\n"'; dpkg-query -W base-files; grep ' / ' /proc/mounts; echo x > /tmp/x || echo refused
    exit 0
    """
    installed = machine(script)
    installed.bundle.config["root"]["readonly"] = True
    cli.create("guest", installed.bundle)
    before = digest(installed.disk)  # the host's own mount of it wrote to its superblock
    cli("start", "guest")
    cli.wait_status("guest", "stopped", 120)
    console = cli.console("guest").replace("\r\n", "\n")
    assert console.count("refused") >= 4, console
    assert "\n42\n" in console
    assert "/dev/vda / ext4 ro" in console
    assert digest(installed.disk) == before


def test_another_user(cli: Cli, machine: Callable[[str], Mounted]) -> None:
    """The user of the guest's program is that of `process.user`, with the owners that the file system has."""
    script = """
    id; echo x > /etc/passwd || echo refused; cat /etc/shadow || echo refused
    echo mine > /tmp/file; perl -e 'open F, ">/var/tmp/perl"; print F "$<"'; stat -c %u:%g /var/tmp/perl
    dpkg -l base-files | grep -c ^ii; su -c true root < /dev/null || echo refused
    exit 0
    """
    installed = machine(script)
    installed.bundle.config["process"]["user"] = {"uid": 1234, "gid": 2345, "additionalGids": [50]}
    status, console = cli.run("guest", installed.bundle)
    assert status == 0, console
    assert "uid=1234 gid=2345 groups=2345,50(staff)" in console
    assert console.count("refused") == 3, console
    assert "1234:2345\n1\n" in console
    assert linuxes.read_disk(installed.disk, "/var/tmp/perl") == "1234"
    assert linuxes.read_disk(installed.disk, "/etc/passwd").startswith("root:")


def test_by_9p(cli: Cli, tmp_path: Path, world: World, is_runc: bool) -> None:
    """The same Debian in an overlay, as engines lay it out by default, with a second kernel beside its own."""
    if is_runc:
        pytest.skip("runc has no unikernels")
    tree, kernel = debian.want_tree(), linuxes.kernel_with_9p()
    script = f"""
    . /etc/os-release; echo "$ID $VERSION_ID by $BASH"; grep ' / ' /proc/mounts
    dpkg -l base-files perl-base | grep -c ^ii; dpkg --verify coreutils
    dpkg -i {debian.PACKAGE} > /dev/null && greeting > /srv/greeting; greeting; rm -r /usr/share/doc/apt
    exit 9
    """
    bundle = debian.annotate(Bundle(tmp_path / "bundle", ("/bin/bash", "-c", script), cgroup=f"/{world.cgroup}/shared"))
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tree},upperdir={tmp_path / 'upper'},workdir={tmp_path / 'work'}"
    world.run("mount", "-t", "overlay", "-o", options, "overlay", str(bundle.rootfs))
    try:
        rootfs = world.path(str(bundle.rootfs))
        linuxes.add_kernel(rootfs, kernel)
        shutil.copy(debian.make_package(tmp_path / "greeting"), rootfs / debian.PACKAGE[1:])
        linuxes.annotate(bundle, mountRootfs="true")
        status, console = cli.run("guest", bundle)
    finally:
        world.run("umount", str(bundle.rootfs))
    assert status == 9, console
    assert "debian 12 by /bin/bash\nfs0 / 9p rw" in console
    assert "\n2\n" in console
    assert "hello from perl v5." in console
    assert (tmp_path / "upper/srv/greeting").read_text().startswith("hello from perl")
    assert "Package: greeting\nStatus: install ok installed" in (tmp_path / "upper/var/lib/dpkg/status").read_text()
    assert (tree / "usr/share/doc/apt").exists()


LARGE = ("./boot/initrd*", "./usr/share/doc/*", "./usr/share/locale/*", "./usr/lib/modules/*/kernel/[!dlv]*")


def test_as_an_initrd(cli: Cli, tmp_path: Path, world: World, is_runc: bool) -> None:
    """In the guest's memory: what it writes is gone with it. dpkg, apt and perl are there."""
    if is_runc:
        pytest.skip("runc has no unikernels")
    tree = debian.want_tree()
    script = """
    . /etc/os-release; echo "$ID $VERSION_ID by $BASH"; grep ' / ' /proc/mounts
    dpkg -l base-files perl-base | grep -c ^ii; apt-get --version | head -n 1; perl -e 'print 6 * 7, "\\n"'
    useradd --create-home joe && su joe -c 'id -un'; exit 9
    """
    bundle = Bundle(tmp_path / "bundle", ("/bin/bash", "-c", script), cgroup=f"/{world.cgroup}/initrd")
    shutil.copy(tree / "vmlinuz", bundle.rootfs / "vmlinuz")
    left_out = [word for pattern in LARGE for word in ("-path", pattern, "-prune", "-o")]
    names = subprocess.run(["find", ".", *left_out, "-print0"], cwd=tree, check=True, capture_output=True).stdout
    with (bundle.rootfs / "initrd").open("wb") as initrd:
        argv = ["cpio", "--quiet", "--create", "--null", "--format=newc"]
        subprocess.run(argv, input=names, stdout=initrd, cwd=tree, check=True)
    debian.annotate(bundle)
    bundle.annotate(mountRootfs="false", initrd="/initrd")
    bundle.config["linux"]["resources"]["memory"] = {"limit": 768 << 20}
    status, console = cli.run("guest", bundle)
    assert status == 9, console
    assert "debian 12 by /bin/bash\nrootfs / rootfs rw" in console
    assert "\n2\napt 2." in console
    assert "\n42\njoe\n" in console
