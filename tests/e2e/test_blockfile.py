"""containerd's blockfile snapshotter: the container's own ext4 file is the guest's root (`mountRootfs`).

It is in containerd 1.7 and later: in the tree of a newer Debian (URUNC_TEST_TREE), or built (URUNC_TEST_CONTAINERD).
The guest is a small Linux, and a whole Debian where there is one (URUNC_TEST_DEBIAN).
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import images
import pytest
from engines import Containerd
from shims import NAME, write_entry
from test_built_containerd import VARIABLE, Built
from tree import Tree, want_tree

import debian
import linuxes
from bundles import PREFIX
from guest import linux_guest
from world import World, wait_for

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

SNAPSHOTTER = "--snapshotter=blockfile"
IMAGE = "docker.io/test/root:1"
DEBIANS = "docker.io/test/debian:1"
LIMIT = str(debian.MEMORY)
SCRATCH = "scratch.ext4"
SCRATCH_BYTES = "640M"
"""A sparse file, as are the copies that are made of it."""
CONFIG = """
[plugins."io.containerd.snapshotter.v1.blockfile"]
root_path = "/run/data/blockfile"
scratch_file = "/run/data/scratch.ext4"
fs_type = "ext4"
"""


def make_scratch(world: World) -> None:
    """Make the empty file system that the snapshotter begins with."""
    scratch = world.path(f"/run/data/{SCRATCH}")
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", str(scratch), SCRATCH_BYTES], check=True)


def loops(world: World) -> list[str]:
    """Return the loop devices over a snapshotter's files."""
    grep = "grep --files-with-matches /blockfile/ /sys/block/loop*/loop/backing_file"
    return world.run("sh", "-c", grep, check=False).stdout.split()


class Blockfile(Containerd):
    """A containerd with the snapshotter, which copies an empty file system for every layer and container."""

    def __init__(self, world: World, shim: Path) -> None:
        self.by = f"--runtime={shim}"
        make_scratch(world)
        super().__init__(world, Path("/usr/bin/runc"))

    def _start(self) -> subprocess.Popen[bytes]:
        config = self.world.logs / "containerd.toml"
        config.write_text(self.config() + CONFIG)
        return self.world.start("containerd", self.program("containerd"), "--config", config)

    def load(self, image: images.Image, folder: Path) -> str:
        """Make the image known, unpacked for the snapshotter."""
        self("image", "import", SNAPSHOTTER, "--local", str(image.write(folder / "image.tar")))
        return f"docker.io/{image.name}"

    def run(self, name: str, *command: str, image: str = IMAGE, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a container of the image to its end; it stays."""
        return self(
            "run", self.by, SNAPSHOTTER, "--memory-limit", LIMIT, image, name, *command, check=check, timeout=120
        )

    def remove(self, *names: str) -> None:
        """Remove containers, whose shims end."""
        for name in names:
            self("task", "rm", name, check=False)
            self("container", "rm", name)
        wait_for("the shim ends", lambda: not [one for _, one in self.world.processes() if f"{NAME} " in one])
        wait_for("no loop device is left", lambda: not self.loops(), 10)
        assert self.mounts() == []

    def mounts(self) -> list[str]:
        """Return where anything of the snapshotter's is mounted."""
        lines = self.world.run("cat", "/proc/mounts").stdout.splitlines()
        return [line.split()[1] for line in lines if line.startswith("/dev/loop") and "/run/" in line]

    def loops(self) -> list[str]:
        """Return the loop devices over the snapshotter's files."""
        return loops(self.world)


class BuiltBlockfile(Built, Blockfile):
    """The same of a containerd that was built."""


def root_image(folder: Path) -> images.Image:
    """Return an image of a whole Linux: kernel, drivers, busybox. Its `/urunc.json` asks for its root as a disk."""
    root = linuxes.userland(folder / "root")
    linuxes.add_kernel(root, linux_guest.find_kernel())
    image = images.Image("test/root:1")
    for path in root.rglob("*"):
        inside = str(path.relative_to(root))
        if path.is_symlink():
            image.links[inside] = os.readlink(path)
        elif path.is_file():
            image.file(inside, path, path.stat().st_mode & 0o777)
    image.file("urunc.json", urunc_json("/boot/vmlinux"))
    image.config = {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "WorkingDir": "/"}
    return image


def urunc_json(kernel: str) -> bytes:
    """Return what an image says of itself that asks for its root as a disk."""
    keys = {"unikernelType": "linux", "hypervisor": "qemu", "binary": kernel, "mountRootfs": "true"}
    return json.dumps({PREFIX + key: value for key, value in keys.items()}).encode()


class DebianImage(images.Image):
    """A whole Debian, as its tree lies there."""

    def layer(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "urunc.json").write_bytes(urunc_json(debian.KERNEL))
            argv = ["tar", "--create", f"--directory={debian.want_tree()}", ".", f"--directory={folder}", "urunc.json"]
            return subprocess.run(argv, check=True, capture_output=True).stdout


@pytest.fixture(scope="module", params=["tree", "built"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Blockfile]:
    """A containerd with the snapshotter and the image."""
    folder = tmp_path_factory.mktemp("blockfile")
    kind: type[Blockfile]
    if request.param == "tree":
        tree = want_tree()
        kind, world = Blockfile, Tree(folder, tree)
    elif VARIABLE in os.environ:
        kind, world = BuiltBlockfile, World(folder)
    else:
        pytest.skip(f"{VARIABLE} names no folder with a built containerd and ctr")
    try:
        engine = kind(world, write_entry(folder / "bin"))
        engine.load(root_image(folder), folder)
        yield engine
    finally:
        world.close()


def test_the_guest_has_the_containers_own_file_system(engine: Blockfile) -> None:
    script = "grep ' / ' /proc/mounts; cat /kept; echo one > /kept; exit 3"
    first = engine.run("guest", "sh", "-c", script, check=False)
    assert "/dev/vda / ext4 rw" in first.stdout, first.stdout + first.stderr
    assert first.returncode == 3
    assert engine.mounts() == []
    assert engine.loops() == []
    engine("task", "rm", "guest", check=False)
    again = engine("task", "start", "guest", check=False)
    assert "one" in again.stdout, "what it wrote is gone"
    engine.remove("guest")


def test_a_second_container_has_another(engine: Blockfile) -> None:
    engine.run("first", "sh", "-c", "echo one > /kept")
    second = engine.run("second", "sh", "-c", "cat /kept || echo none")
    assert "none" in second.stdout
    engine.remove("first", "second")


def test_by_runcs_shim(engine: Blockfile, runtime: Path) -> None:
    """containerd's own shim mounts the snapshot then, and unmounts what is unmounted."""
    if isinstance(engine, Built):
        pytest.skip("runc's shim was not built")
    script = "grep ' / ' /proc/mounts; echo one > /kept; exit 3"
    options = (f"--runc-binary={runtime}", SNAPSHOTTER, "--memory-limit", LIMIT)
    done = engine("run", *options, IMAGE, "guest", "sh", "-c", script, check=False)
    assert "/dev/vda / ext4 rw" in done.stdout, done.stderr
    assert done.returncode != 0
    assert engine.mounts() == []
    assert engine.loops() == []
    engine.remove("guest")


def test_a_killed_shim_leaves_no_device(engine: Blockfile) -> None:
    """containerd has the rest of it ended, and the file system is there for another container's life."""
    script = "echo up; while :; do sleep 1; done"
    log = engine.world.path("/run/data/guest.log")
    options = (engine.by, SNAPSHOTTER, "--detach", "--log-uri=file:///run/data/guest.log", "--memory-limit", LIMIT)
    engine("run", *options, IMAGE, "guest", "sh", "-c", script)
    wait_for("the guest is up", lambda: "up" in log.read_text(), 60)
    assert len(engine.loops()) == 1
    for pid, command in engine.world.processes():
        if f"{NAME} " in command:
            engine.world.run("kill", "-KILL", str(pid))
    wait_for("containerd notices", lambda: not engine("task", "ls", "--quiet").stdout.strip())
    engine.remove("guest")
    assert not [line for _, line in engine.world.processes() if "qemu-system" in line]


def test_a_whole_debian(engine: Blockfile, tmp_path: Path) -> None:
    """bash, dpkg, perl and useradd, from and on the snapshot; what they write is there for its next life."""
    image = DebianImage("test/debian:1")
    image.config = {"Cmd": ["/bin/bash"], "Env": ["PATH=/usr/sbin:/usr/bin", "LC_ALL=C"], "WorkingDir": "/"}
    engine.load(image, tmp_path)
    (tmp_path / "image.tar").unlink()
    script = """
    . /etc/os-release; echo "$ID $VERSION_ID by $BASH"; grep ' / ' /proc/mounts; uname -r
    dpkg -l base-files perl-base | grep -c ^ii; dpkg --verify coreutils; perl -e 'print 6 * 7, "\\n"'
    id joe || useradd --create-home joe; su joe -c 'id -un; echo life >> ~/lives; cat ~/lives'
    exit 9
    """
    done = engine.run("debian", "/bin/bash", "-c", script, image=DEBIANS, check=False)
    assert done.returncode == 9, done.stdout + done.stderr
    console = done.stdout.replace("\r\n", "\n")
    assert "debian 12 by /bin/bash\n/dev/vda / ext4 rw" in console
    assert "-cloud-amd64\n2\n42\n" in console
    assert "\njoe\nlife\n" in console
    assert engine.mounts() == []
    engine("task", "rm", "debian", check=False)
    again = engine("task", "start", "debian", check=False, timeout=120)
    assert "life\nlife\n" in again.stdout.replace("\r\n", "\n")
    engine.remove("debian")
    engine("image", "rm", "--sync", DEBIANS)
