"""The container's rootfs is a mounted ext4 on a loop device, through engines: it becomes the guest's own disk.

Mounted by the user, and given to the engine as a folder: `ctr run --rootfs`, by urunc's shim and by runc's, and
`podman run --rootfs`. Of busybox with Debian's kernel, or a whole Debian where there is one (URUNC_TEST_DEBIAN).
`test_blockfile` has the snapshotter that does the mounting itself.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import guestimages
import pytest
from engines import Containerd, Podman
from shims import write_entry

import debian
import linuxes
import mounted
from bundles import PREFIX
from guest import linux_guest
from world import World, wait_for

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

POINT = "/run/data/root"
KEYS = {"unikernelType": "linux", "hypervisor": "qemu", "mountRootfs": "true"}
LIFE = """
trap 'echo stopped >> /srv/lives; exit 7' TERM
cat /srv/lives; echo life >> /srv/lives; grep ' / ' /proc/mounts; echo up
while :; do sleep 1; done
"""


def write_urunc_json(file: Path, **more: str) -> Path:
    """Write what the image says of itself."""
    file.write_text(json.dumps({PREFIX + key: value for key, value in {**KEYS, **more}.items()}))
    return file


def make_busybox(folder: Path) -> Path:
    """Make a disk with busybox, a kernel and its modules."""
    tree = linuxes.userland(folder / "tree")
    (tree / "bin/sleep").symlink_to("busybox")
    (tree / "bin/grep").symlink_to("busybox")
    (tree / "srv").mkdir()
    linuxes.add_kernel(tree, linux_guest.find_kernel())
    write_urunc_json(tree / "urunc.json", binary="/boot/vmlinux")
    return linuxes.make_disk(tree, folder / "disk.img", "64M")


def make_debian(folder: Path) -> Path:
    """Make a disk with a whole Debian and its kernel."""
    disk = debian.make_disk(folder / "disk.img")
    debian.add_file(disk, "/urunc.json", write_urunc_json(folder / "urunc.json", binary=debian.KERNEL))
    return disk


DISKS = {"busybox": make_busybox, "debian": make_debian}


class Engine(Protocol):
    """How an engine is told to run a folder."""

    world: World

    def start(self, script: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the machine in the background."""

    def log(self) -> str:
        """Return what it printed."""

    def stop(self, signal: str = "TERM") -> None:
        """Stop it, and wait for its end."""

    def remove(self) -> None:
        """Remove the container."""


class ByCtr:
    """containerd, through a shim."""

    LOG = "/run/data/machine.log"

    def __init__(self, engine: Containerd, *by: str) -> None:
        self.engine, self.world, self.by = engine, engine.world, by

    def start(self, script: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        self.world.path(self.LOG).unlink(missing_ok=True)
        options = (*self.by, "--detach", f"--log-uri=file://{self.LOG}", f"--memory-limit={debian.MEMORY}", *options)
        return self.engine("run", *options, "--rootfs", POINT, "machine", "/bin/sh", "-c", script, check=check)

    def log(self) -> str:
        return self.world.path(self.LOG).read_text()

    def stop(self, signal: str = "TERM") -> None:
        self.engine("task", "kill", f"--signal={signal}", "machine")
        wait_for("the task ends", lambda: self.engine.task_status("machine") == "STOPPED", 60)

    def remove(self) -> None:
        self.engine("task", "rm", "machine", check=False)
        self.engine("container", "rm", "machine")


class ByPodman:
    """Podman, through conmon."""

    def __init__(self, engine: Podman) -> None:
        self.engine, self.world = engine, engine.world

    def start(self, script: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        options = ("--detach", "--name=machine", f"--memory={debian.MEMORY}", *options, "--rootfs", POINT)
        return self.engine.create(*options, "/bin/sh", "-c", script, check=check)

    def log(self) -> str:
        return self.engine("logs", "machine").stdout

    def stop(self, signal: str = "TERM") -> None:
        self.engine("kill", f"--signal={signal}", "machine")
        self.engine("wait", "machine")

    def remove(self) -> None:
        self.engine("rm", "machine")


@pytest.fixture(params=["urunc's shim", "runc's shim", "podman"])
def engine(request: pytest.FixtureRequest, runtime: Path, tmp_path: Path) -> Engine:
    """An engine that is told to use urunc."""
    if request.param == "podman":
        return ByPodman(request.getfixturevalue("podman"))
    containerd = request.getfixturevalue("containerd")
    if request.param == "runc's shim":
        return ByCtr(containerd, f"--runc-binary={runtime}")
    return ByCtr(containerd, f"--runtime={write_entry(tmp_path / 'bin')}")


class Root:
    """A disk that is mounted at POINT, in the engine's world."""

    def __init__(self, world: World, disk: Path) -> None:
        self.world, self.disk = world, disk
        world.run("mkdir", "-p", POINT)

    def mount(self) -> None:
        """Mount it, as its user does."""
        self.world.run("mount", "-o", "loop", str(self.disk), POINT)

    def mounts(self) -> list[str]:
        """Return the options of what is mounted there."""
        return mounted.mounts(self.world, Path(POINT))

    def loops(self) -> list[str]:
        """Return the loop devices over the disk."""
        return mounted.loops(self.disk)

    def close(self) -> None:
        """Unmount it, where it still is."""
        self.world.run("umount", POINT, check=False)
        wait_for("no loop device", lambda: not self.loops(), 10)


@pytest.fixture(scope="module")
def make_disk(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Path]:
    """Make a copy of a disk, of which each is made once."""
    made: dict[str, Path] = {}

    def make(kind: str, copy: Path) -> Path:
        if kind not in made:
            made[kind] = DISKS[kind](tmp_path_factory.mktemp(kind))
        subprocess.run(["cp", "--sparse=always", str(made[kind]), str(copy)], check=True)
        return copy

    return make


@pytest.fixture
def kind() -> str:
    """Which disk: parametrized where it is to be another."""
    return "busybox"


@pytest.fixture
def root(engine: Engine, make_disk: Callable[[str, Path], Path], kind: str, tmp_path: Path) -> Iterator[Root]:
    """A disk of that kind, mounted."""
    made = Root(engine.world, make_disk(kind, tmp_path / "disk.img"))
    made.mount()
    yield made
    made.close()


@pytest.mark.parametrize("kind", DISKS)
def test_two_lives(engine: Engine, root: Root) -> None:
    """It is the guest's alone for as long as it runs; what it wrote is there; nothing else is left."""
    for _life in range(2):
        engine.start(LIFE)
        assert root.mounts() == []
        [loop] = root.loops()
        refused = engine.world.run("mount", f"/dev/{loop}", POINT, check=False)
        assert refused.returncode != 0
        wait_for("the guest is up", lambda: "up" in engine.log(), 120)
        assert "/dev/vda / ext4 rw" in engine.log()
        engine.stop()
        engine.remove()
        wait_for("the loop device is free", lambda: not root.loops(), 10)
        assert root.mounts() == []
        lives = linuxes.read_disk(root.disk, "/srv/lives")
        root.mount()
    assert lives == "life\nstopped\n" * 2


def test_killed(engine: Engine, root: Root) -> None:
    """Nothing is left; what the guest had synchronized is in its file system, whose journal is played on mounting."""
    engine.start("echo kept > /srv/kept; sync; echo up; while :; do sleep 1; done")
    wait_for("the guest is up", lambda: "up" in engine.log(), 120)
    engine.stop("KILL")
    engine.remove()
    wait_for("the loop device is free", lambda: not root.loops(), 10)
    root.mount()
    assert engine.world.path(f"{POINT}/srv/kept").read_text() == "kept\n"


def test_read_only(engine: Engine, root: Root) -> None:
    """Not by the guest's word alone."""
    engine.start("touch /new || echo refused; echo x > /dev/vda || echo refused; echo done", "--read-only")
    before = digest(root.disk)  # the host's own mount of it wrote to its superblock
    wait_for("the guest ends", lambda: "done" in engine.log() and not root.loops(), 120)
    assert engine.log().count("refused\n") == 2
    engine.remove()
    assert digest(root.disk) == before


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_mounted_in_another_place_too(engine: Engine, root: Root) -> None:
    """The engine's user sees why it is refused, and it is mounted as before."""
    before, [loop] = root.mounts(), root.loops()
    second = "/run/data/second"
    engine.world.run("mkdir", "-p", second)
    engine.world.run("mount", f"/dev/{loop}", second)
    try:
        done = engine.start("echo up", check=False)
        assert done.returncode != 0
        engine.remove()
        assert f"the rootfs's device `/dev/{loop}` cannot be given to the guest alone" in done.stderr
        assert root.mounts() == before
        assert engine.world.path(f"{POINT}/urunc.json").exists()
    finally:
        engine.world.run("umount", second)


@pytest.mark.parametrize("tender", ["spt", "hvt"])
def test_a_solo5_guest(engine: Engine, tmp_path: Path, tender: str) -> None:
    """Solo5's own test of a disk writes all over the file system, its kernel among what was there."""
    guestimages.want_tender(tender)
    kernel = guestimages.find_guest(f"solo5/test_blk.{tender}")
    (tmp_path / "tree").mkdir()
    shutil.copy(kernel, tmp_path / "tree/kernel")
    write_urunc_json(tmp_path / "tree/urunc.json", binary="/kernel", unikernelType="mirage", hypervisor=tender)
    root = Root(engine.world, linuxes.make_disk(tmp_path / "tree", tmp_path / "disk.img", "4M", "ext2"))
    root.mount()
    try:
        engine.start("")
        wait_for("the guest ends", lambda: "SUCCESS" in engine.log() and not root.loops(), 60)
        assert root.mounts() == []
        engine.remove()
    finally:
        root.close()
