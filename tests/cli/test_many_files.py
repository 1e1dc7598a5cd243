"""A rootfs of 200,000 files, for each way in which it or what is in it becomes a guest's root, on each monitor.

None of them is looked at: `create` goes through no folder of the image, and takes no more memory than for any image.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import elves
import linuxes
import ninep
from bundles import Bundle
from driver import Cli
from guest import linux_guest
from mounted import Mounted
from world import World, wait_for, which

pytestmark = pytest.mark.root

FILES = 200_000
LAST = f"file{FILES - 1}"
TREE = "/run/many"
MOST_MIB = 64
"""What `create` may take, which is several times what it does."""
PEAK = """
import os, sys
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
open(sys.argv[1], "w").write(str(usage.ru_maxrss))
os._exit(os.waitstatus_to_exitcode(status))
"""
PROGRAMS = {"qemu": "qemu-system-x86_64", "firecracker": "firecracker", "spt": "solo5-spt", "hvt": "solo5-hvt"}
TARGETS = {"hvt": 1, "spt": 2}


def fill(folder: Path) -> None:
    """Make the files, in one folder, the last with something in it."""
    many = folder / "many"
    many.mkdir()
    fd = os.open(many, os.O_PATH)
    for number in range(FILES):
        os.close(os.open(f"file{number}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644, dir_fd=fd))
    os.close(fd)
    (many / LAST).write_text("the last\n")


@pytest.fixture(scope="module")
def tree(world: World, is_runc: bool) -> Iterator[Path]:
    """A rootfs in memory. Where a kernel's modules are looked for, there are all those files too."""
    if is_runc:
        pytest.skip("runc has no unikernels")
    world.run("mkdir", TREE)
    world.run("mount", "-t", "tmpfs", "none", TREE)
    made = world.path(TREE)
    fill(made)
    (made / "lib").mkdir()
    (made / "lib/modules").symlink_to("/many")
    yield made
    world.run("umount", TREE)
    world.run("rmdir", TREE)


@pytest.fixture(params=PROGRAMS)
def monitor(request: pytest.FixtureRequest) -> str:
    """Each monitor, where it runs."""
    name = str(request.param)
    if shutil.which(PROGRAMS[name]) is None:
        pytest.skip(f"{PROGRAMS[name]} is not installed")
    if name in ("firecracker", "hvt") and not os.path.exists("/dev/kvm"):
        pytest.skip("there is no /dev/kvm")
    return name


def write_kernel(rootfs: Path, testguest: Path, monitor: str) -> None:
    """Put a kernel into the rootfs: the test guest, or for a tender one that says what it wants, and can do nothing."""
    kernel = rootfs / f"kernel-{monitor}"
    if monitor in TARGETS:
        manifest = elves.manifest_note((b"disk", 1))
        kernel.write_bytes(elves.make_elf(manifest, elves.abi_note(TARGETS[monitor])))
    else:
        shutil.copy(testguest.with_name("testguest64.elf") if monitor == "firecracker" else testguest, kernel)


def annotate(bundle: Bundle, monitor: str, **more: str) -> None:
    """Make a bundle that kernel's."""
    guest = "mirage" if monitor in TARGETS else "linux"
    bundle.annotate(**{"unikernelType": guest, "hypervisor": monitor, "binary": f"/kernel-{monitor}", **more})


@pytest.fixture
def bundle(tree: Path, tmp_path: Path, world: World) -> Iterator[Bundle]:
    """A bundle with the rootfs in memory, as an engine mounts it."""
    made = Bundle(tmp_path / "bundle", ("app",), cgroup=f"/{world.cgroup}/many")
    world.run("mount", "--bind", TREE, str(made.rootfs))
    yield made
    world.run("umount", str(made.rootfs))


def create(cli: Cli, bundle: Bundle, *places: Path, most: int = 0) -> None:
    """Create, watched: how often a folder of the rootfs, or of `places`, is listed at most, and what it takes."""
    strace = which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    calls, peak = bundle.folder / "calls", bundle.folder / "peak"
    under = ("/usr/bin/python3", "-IS", "-c", PEAK, str(peak), strace, "-o", str(calls), "-y", "-e", "getdents64")
    cli.to_file("guest", "create", f"--bundle={bundle.write()}", "guest", under=under)
    told = [f"<{place}" for place in (bundle.rootfs, *places)]
    listed = [line for line in calls.read_text().splitlines() if any(place in line for place in told)]
    assert "getdents64" in calls.read_text()
    assert len(listed) <= most, listed
    assert int(peak.read_text()) < MOST_MIB << 10


def start_and_end(cli: Cli, monitor: str, says: str) -> None:
    """Start the test guest, which says what it was given; a tender's kernel is none, so that is where it ends."""
    if monitor not in TARGETS:
        cli("start", "guest")
        assert says in cli.wait_console("guest", "ready")
        cli.end("guest")
    else:
        cli("delete", "--force", "guest")


def test_a_block_image_in_it(
    cli: Cli, bundle: Bundle, tree: Path, tmp_path: Path, testguest: Path, monitor: str
) -> None:
    write_kernel(tree, testguest, monitor)
    (tmp_path / "empty").mkdir()
    linuxes.make_disk(tmp_path / "empty", tree / "disk.img", "1M")
    annotate(bundle, monitor, block="/disk.img", blkMntPoint="/")
    create(cli, bundle, most=1 if monitor not in TARGETS else 0)  # a page of what is where modules would be
    start_and_end(cli, monitor, "disk0: 2048 sectors")


@pytest.mark.parametrize("monitor", ["qemu", "firecracker"], indirect=True)
def test_an_initrd_in_it(cli: Cli, bundle: Bundle, tree: Path, testguest: Path, monitor: str) -> None:
    write_kernel(tree, testguest, monitor)
    (tree / "initrd").write_bytes(b"x" * 1000)
    annotate(bundle, monitor, initrd="/initrd", unikernelType="unikraft")
    create(cli, bundle)
    start_and_end(cli, monitor, "initrd: 1000 bytes")


@pytest.mark.parametrize("monitor", ["qemu"], indirect=True)
def test_shared(cli: Cli, bundle: Bundle, tree: Path, testguest: Path, monitor: str) -> None:
    """The guest finds the last of them."""
    write_kernel(tree, testguest, monitor)
    messages = (ninep.version(), ninep.attach(1), ninep.walk(1, 2, "many", LAST), ninep.lopen(2), ninep.read(2))
    bundle.config["process"]["args"] = ["app", *(word for one in messages for word in ("9p", one.hex())), "poweroff"]
    annotate(bundle, monitor, mountRootfs="true", unikernelType="unikraft")
    create(cli, bundle)
    cli("start", "guest")
    assert b"the last\n".hex(" ") in cli.wait_console("guest", b"the last\n".hex(" "))
    cli.wait_status("guest", "stopped")


@pytest.mark.parametrize("monitor", ["qemu"], indirect=True)
def test_a_volume_of_them(cli: Cli, bundle: Bundle, tree: Path, testguest: Path, monitor: str) -> None:
    """Read-only, so that it is looked at whether it is small enough to be copied: no further than to know."""
    write_kernel(tree, testguest, monitor)
    annotate(bundle, monitor)
    mount = {"destination": "/data", "type": "bind", "source": f"{TREE}/many", "options": ["rbind", "ro"]}
    bundle.config["mounts"].append(mount)
    create(cli, bundle, Path(TREE), most=2)  # a page of that, and of what is where modules would be
    start_and_end(cli, monitor, "share: fs0")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory, world: World, is_runc: bool, testguest: Path) -> Path:
    """A disk with a small Linux and the other kernels among as many files."""
    if is_runc:
        pytest.skip("runc has no unikernels")
    folder = tmp_path_factory.mktemp("many")
    small = linuxes.userland(folder / "small")
    linuxes.add_kernel(small, linux_guest.find_kernel())
    for monitor in PROGRAMS:
        write_kernel(small, testguest, monitor)
    disk, point = folder / "disk.img", folder / "point"
    subprocess.run(["mkfs.ext4", "-q", "-N", str(FILES + 10_000), "-d", str(small), str(disk), "256M"], check=True)
    point.mkdir()
    world.run("mount", "-o", "loop", str(disk), str(point))  # mkfs would take half an hour for so many
    fill(world.path(str(point)))
    world.run("umount", str(point))
    return disk


@pytest.fixture
def mounted_disk(disk: Path, tmp_path: Path, world: World) -> Iterator[Mounted]:
    """A bundle whose rootfs is a copy of the disk."""
    copy = tmp_path / "disk.img"
    subprocess.run(["cp", "--sparse=always", str(disk), str(copy)], check=True)
    made = Mounted(world, tmp_path, copy, ("app",))
    yield made
    made.close()


def test_its_own_disk(cli: Cli, mounted_disk: Mounted, monitor: str) -> None:
    annotate(mounted_disk.bundle, monitor, mountRootfs="true")
    create(cli, mounted_disk.bundle, most=0 if monitor in TARGETS else 2)
    assert mounted_disk.mounts() == []
    start_and_end(cli, monitor, f"disk0: {256 * 2048} sectors")
    wait_for("the loop device is free", lambda: not mounted_disk.loops(), 10)


@pytest.mark.slow
def test_linux_on_its_own_disk(cli: Cli, mounted_disk: Mounted) -> None:
    bundle = linuxes.annotate(mounted_disk.bundle, mountRootfs="true")
    bundle.config["process"]["args"] = ["/bin/sh", "-c", f"cat /many/{LAST}; ls /many | wc -l; exit 3"]
    status, console = cli.run("guest", bundle)
    assert status == 3, console
    assert f"the last\n{FILES}\n" in console
    wait_for("the loop device is free", lambda: not mounted_disk.loops(), 10)
