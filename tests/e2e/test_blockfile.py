"""containerd's blockfile snapshotter: the container's own ext4 file is the guest's root (`mountRootfs`).

It is in containerd 1.7 and later: in the tree of a newer Debian (URUNC_TEST_TREE), or built (URUNC_TEST_CONTAINERD).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import images
import pytest
from engines import Containerd
from shims import NAME, write_entry
from test_built_containerd import VARIABLE, Built
from tree import Tree, want_tree

import linuxes
from guest import linux_guest
from world import World, wait_for

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

SNAPSHOTTER = "--snapshotter=blockfile"
IMAGE = "docker.io/test/root:1"
SCRATCH = "scratch.ext4"
CONFIG = """
[plugins."io.containerd.snapshotter.v1.blockfile"]
root_path = "/run/data/blockfile"
scratch_file = "/run/data/scratch.ext4"
fs_type = "ext4"
"""


class Blockfile(Containerd):
    """A containerd with the snapshotter, which copies an empty file system for every layer and container."""

    def __init__(self, world: World, shim: Path) -> None:
        self.by = f"--runtime={shim}"
        scratch = world.path(f"/run/data/{SCRATCH}")
        subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", str(scratch), "160M"], check=True)
        super().__init__(world, Path("/usr/bin/runc"))

    def _start(self) -> subprocess.Popen[bytes]:
        config = self.world.logs / "containerd.toml"
        config.write_text(self.config() + CONFIG)
        return self.world.start("containerd", self.program("containerd"), "--config", config)

    def load(self, image: images.Image, folder: Path) -> str:
        """Make the image known, unpacked for the snapshotter."""
        self("image", "import", SNAPSHOTTER, "--local", str(image.write(folder / "image.tar")))
        return f"docker.io/{image.name}"

    def run(self, name: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a container of the image to its end; it stays."""
        memory = ("--memory-limit", str(320 << 20))
        return self("run", self.by, SNAPSHOTTER, *memory, IMAGE, name, *command, check=check)

    def mounts(self) -> list[str]:
        """Return where anything of the snapshotter's is mounted."""
        lines = self.world.run("cat", "/proc/mounts").stdout.splitlines()
        return [line.split()[1] for line in lines if line.startswith("/dev/loop") and "/run/" in line]


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
    keys = {"unikernelType": "linux", "hypervisor": "qemu", "binary": "/boot/vmlinux", "mountRootfs": "true"}
    image.file("urunc.json", images._json({f"com.urunc.unikernel.{key}": value for key, value in keys.items()}))
    image.config = {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "WorkingDir": "/"}
    return image


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
    engine("task", "rm", "guest", check=False)
    again = engine("task", "start", "guest", check=False)
    assert "one" in again.stdout, "what it wrote is gone"
    engine("task", "rm", "guest", check=False)
    engine("container", "rm", "guest")
    wait_for("the shim ends", lambda: not [one for _, one in engine.world.processes() if f"{NAME} " in one])


def test_a_second_container_has_another(engine: Blockfile) -> None:
    engine.run("first", "sh", "-c", "echo one > /kept")
    second = engine.run("second", "sh", "-c", "cat /kept || echo none")
    assert "none" in second.stdout
    for name in ("first", "second"):
        engine("task", "rm", name, check=False)
        engine("container", "rm", name)
    assert engine.mounts() == []
