"""Docker 26 with containerd's image store on the blockfile snapshotter: the container's own disk is the guest's root.

dockerd mounts the snapshot itself and gives containerd a folder, whose device urunc takes from beneath it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import test_blockfile as blockfile
from engines import CONTAINERD_CONFIG, Docker
from shims import NAME, write_entry
from tree import Tree, want_tree

import debian
from world import World, wait_for

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

IMAGE = "test/root:1"
RUN = ("--runtime=io.containerd.urunc.v2", f"--memory={debian.MEMORY}", "--network=none")
SOCKET = "/run/containerd-test/containerd.sock"


class BlockfileDocker(Docker):
    """A dockerd on a containerd of ours, which has the snapshotter."""

    def __init__(self, world: World, shims: Path) -> None:
        self.world = world
        self.socket = "unix:///run/docker.sock"
        self.client = "/usr/bin/docker"
        blockfile.make_scratch(world)
        (world.logs / "containerd.toml").write_text(CONTAINERD_CONFIG.format(socket=SOCKET) + blockfile.CONFIG)
        (world.logs / "docker.json").write_text(json.dumps({"features": {"containerd-snapshotter": True}}))
        env = {"PATH": f"{shims}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        world.start("containerd", "/usr/bin/containerd", "--config", world.logs / "containerd.toml", env=env)
        self.daemon = world.start(
            "dockerd",
            "/usr/sbin/dockerd",
            f"--config-file={world.logs}/docker.json",
            f"--host={self.socket}",
            f"--containerd={SOCKET}",
            "--storage-driver=blockfile",
            "--data-root=/run/data/docker",
            "--exec-root=/run/docker",
            "--pidfile=/run/docker.pid",
            f"--cgroup-parent=/{world.cgroup}",
            "--bridge=none",
            env=env,
        )
        wait_for("dockerd answers", self._answers, 60)


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlockfileDocker]:
    """Docker, with the image."""
    tree, folder = want_tree(), tmp_path_factory.mktemp("docker")
    write_entry(folder / "bin")
    world = Tree(folder, tree)
    try:
        engine = BlockfileDocker(world, folder / "bin")
        engine.load(blockfile.root_image(folder), folder)
        yield engine
    finally:
        world.close()


@pytest.fixture(autouse=True)
def nothing_left(docker: BlockfileDocker) -> Iterator[None]:
    """No monitor, shim, mount of a snapshot or loop device stays once the containers are removed."""
    yield
    docker.remove_all()

    def left() -> list[str]:
        running = [command for _, command in docker.world.processes() if NAME in command or "qemu-system" in command]
        mounts = [line for line in docker.world.run("cat", "/proc/mounts").stdout.splitlines() if "/dev/loop" in line]
        return running + mounts + blockfile.loops(docker.world)

    wait_for(f"nothing left: {left()}", lambda: not left(), 10)


def test_two_lives(docker: BlockfileDocker) -> None:
    """What the first wrote the second finds, and `docker cp` in the end."""
    script = "grep ' / ' /proc/mounts; cat /kept; echo life >> /kept; exit 3"
    first = docker("run", "--name=guest", *RUN, IMAGE, "/bin/sh", "-c", script, check=False)
    assert first.returncode == 3, first.stderr
    assert "/dev/vda / ext4 rw" in first.stdout
    second = docker("start", "--attach", "guest", check=False)
    assert second.returncode == 3
    assert "life\n" in second.stdout.replace("\r\n", "\n")
    docker("cp", "guest:/kept", "/run/data/kept")
    assert docker.world.path("/run/data/kept").read_text() == "life\n" * 2


def test_its_disk_is_its_alone_until_it_is_stopped(docker: BlockfileDocker) -> None:
    script = "trap 'echo stopped >> /kept; exit 0' TERM; echo up; while :; do sleep 1; done"
    docker("run", "--detach", "--name=guest", *RUN, IMAGE, "/bin/sh", "-c", script)
    docker.wait_log("guest", "up", 60)
    assert len(blockfile.loops(docker.world)) == 1
    refused = docker("cp", "guest:/etc/passwd", "/run/data/passwd", check=False)
    assert "Could not find the file" in refused.stderr  # dockerd takes it for mounted, and looks into an empty folder
    docker("stop", "--time=30", "guest")
    assert docker.inspect("guest")["State"]["ExitCode"] == 0
    docker("cp", "guest:/kept", "/run/data/kept")
    assert docker.world.path("/run/data/kept").read_text() == "stopped\n"
