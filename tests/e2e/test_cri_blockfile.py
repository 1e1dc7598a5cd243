"""A pod on the blockfile snapshotter: pause and sidecar as ever, and a Linux guest whose root is its own snapshot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

pytest.importorskip("grpc", reason="the CRI tests need grpcio")

import cri
import images
import test_blockfile as blockfile
import test_cri as debian
from cri import EXITED, RUNNING
from test_built_containerd import VARIABLE
from test_built_cri import BuiltKubelet
from test_cri import pods

from world import World, wait_for

__all__ = ["pods"]

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

CONFIG = f"""
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "blockfile"
{blockfile.CONFIG}
"""


class Kubelet(BuiltKubelet):
    """A built containerd whose CRI plug-in has its snapshots by blockfile."""

    def __init__(self, world: World, runtime: Path, shim: Path) -> None:
        blockfile.make_scratch(world)
        super().__init__(world, runtime, shim)

    def _start(self) -> Any:
        with mock.patch.object(cri, "CONFIG", cri.CONFIG + CONFIG):
            return super()._start()

    def load(self, image: images.Image, folder: Path) -> str:
        """Make the image known, unpacked for the snapshotter."""
        self("image", "import", blockfile.SNAPSHOTTER, "--local", str(image.write(folder / "image.tar")))
        return f"docker.io/{image.name}"


@pytest.fixture(scope="module")
def kubelet(tmp_path_factory: pytest.TempPathFactory, testguest: Path) -> Iterator[Kubelet]:
    """The containerd."""
    if VARIABLE not in os.environ:
        pytest.skip(f"{VARIABLE} names no folder with a built containerd and ctr")
    for kubelet in debian.serve_kubelet(Kubelet, tmp_path_factory, testguest):
        folder = tmp_path_factory.mktemp("root")
        kubelet.load(blockfile.root_image(folder), folder)
        yield kubelet  # type: ignore[misc]


SCRIPT = """
trap 'echo stopped; exit 4' TERM
grep ' / ' /proc/mounts; cat /etc/hostname; echo up
while :; do sleep 1; done
"""


def test_a_pod(kubelet: Kubelet, pods: Any) -> None:
    """The guest has its disk to itself, the pod's network and the plug-in's files, and nothing stays of it."""
    pod = pods("disk")
    sidecar = pod.start("sidecar", "busybox", "sleep", "1000")
    guest = pod.start("guest", "root", "/bin/sh", "-c", SCRIPT, memory=320 << 20)
    wait_for("the guest is up", lambda: "up" in pod.log("guest"), 60)
    assert "/dev/vda / ext4 rw" in pod.log("guest")
    assert "\ndisk\n" in pod.log("guest")
    assert kubelet.world.run("ping", "-c1", "-W2", pod.address).returncode == 0
    assert len(blockfile.loops(kubelet.world)) == 3
    kubelet.call("StopContainer", container_id=guest, timeout=20)
    assert (pod.status(guest)["state"], pod.status(guest)["exit_code"]) == (EXITED, 4)
    assert pod.status(sidecar)["state"] == RUNNING
    kubelet.call("RemoveContainer", container_id=guest)
    wait_for("the guest's device is free", lambda: len(blockfile.loops(kubelet.world)) == 2, 10)
