"""CRI-O: by conmon and the command line, where containerd has a shim. The same pods, and its own settings.

URUNC_TEST_CRIO names the binary where `crio` is not on PATH; `pinns`, which is CRI-O's own, is beside it or on PATH.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import guestimages
import guests
import images
import pytest

pytest.importorskip("grpc", reason="the CRI tests need grpcio")

import test_cri
import test_cri_guests
from cri import CNI, Cri, snippet
from engines import configured
from test_cri import pods

from world import World, which

__all__ = ["pods"]

pytestmark = [pytest.mark.root, pytest.mark.engine]

VARIABLE = "URUNC_TEST_CRIO"
SOCKET = "/run/crio/crio.sock"
CAP_SYS_RESOURCE = 24
PAUSE = ("sh", "-c", "trap exit TERM; sleep 100000 & wait")
"""CRI-O gives a pod's own process its time to hear SIGTERM, as the real pause does."""
WRAPPER = """#!/usr/bin/python3 -IS
import json, os, sys
with open({calls!r}, "a") as file:
    print(*sys.argv[1:], file=file)
if "create" in sys.argv and {no_resource}:
    # CRI-O wants its pods' processes to be killed last, which a machine without CAP_SYS_RESOURCE cannot say.
    path = sys.argv[sys.argv.index("--bundle") + 1] + "/config.json"
    with open(path) as file:
        config = json.load(file)
    config["process"].pop("oomScoreAdj", None)
    with open(path, "w") as file:
        json.dump(config, file)
os.execv({runtime!r}, [{runtime!r}, *sys.argv[1:]])
"""
CONFIG = """
[crio]
root = "/run/data/crio"
runroot = "/run/crio/storage"
storage_driver = "vfs"
log_dir = "/run/data/crio-log"
version_file = "/run/crio/version"
version_file_persist = ""
clean_shutdown_file = "/run/crio/clean"
[crio.api]
listen = "{socket}"
stream_address = "127.0.0.1"
[crio.runtime]
default_runtime = "runc"
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
pinns_path = "{pinns}"
namespaces_dir = "/run/crio/ns"
container_exits_dir = "/run/crio/exits"
container_attach_socket_dir = "/run/crio/attach"
apparmor_profile = "unconfined"
hooks_dir = []
enable_criu_support = false
[crio.runtime.runtimes.runc]
runtime_path = "{runc}"
monitor_path = "/usr/bin/conmon"
[crio.image]
pause_image = "docker.io/test/pause:1"
pause_command = ""
signature_policy = "{policy}"
[crio.network]
network_dir = "/run/data/cni"
plugin_dirs = ["/usr/lib/cni"]
"""


class Crio(Cri):
    """A CRI-O, whose handler `urunc` is that of docs/crio.md with this checkout's urunc.

    `urunc-config` is the same with a configuration of the test's own.
    """

    def __init__(self, world: World, program: str, runtime: Path) -> None:
        self.world = world
        self.calls = world.logs / "calls"
        self.policy = world.logs / "policy.json"
        self.policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        world.run("mount", "-t", "tmpfs", "tmpfs", "/var/lib/cni")  # where CNI's plugins remember the addresses
        network = world.path("/run/data/cni")
        network.mkdir(parents=True)
        (network / "10-bridge.conf").write_text(CNI)
        argv = ("sh", "-c", 'cd / && exec "$@"', "sh", program, f"--config={self._write(program)}")
        self.handlers = world.logs / "conf.d"
        self.handlers.mkdir()
        handler = snippet("crio", "crio.md").replace("/usr/local/bin/urunc", str(self._wrap(runtime)))
        (self.handlers / "50-urunc.conf").write_text(handler)
        own = str(configured(world.logs / "urunc", world.logs, "urunc-own"))
        of_its_own = handler.replace("runtimes.urunc]", "runtimes.urunc-config]").replace(
            str(world.logs / "urunc"), own
        )
        (self.handlers / "51-urunc-config.conf").write_text(of_its_own)
        self.daemon = world.start("crio", *argv, f"--config-dir={self.handlers}")

    def _write(self, program: str) -> Path:
        beside = Path(program).with_name("pinns")
        pinns = str(beside) if beside.exists() else shutil.which("pinns")
        assert pinns, "CRI-O's pinns is neither beside it nor on PATH"
        config = self.world.logs / "crio.conf"
        config.write_text(CONFIG.format(socket=SOCKET, pinns=pinns, runc=which("runc"), policy=self.policy))
        return config

    def _wrap(self, runtime: Path) -> Path:
        """Return a runtime that notes how it is called."""
        effective = next(line for line in Path("/proc/self/status").read_text().splitlines() if "CapEff" in line)
        no_resource = not int(effective.split()[1], 16) >> CAP_SYS_RESOURCE & 1
        wrapper = self.world.logs / "urunc"
        wrapper.write_text(WRAPPER.format(calls=str(self.calls), no_resource=no_resource, runtime=str(runtime)))
        wrapper.chmod(0o755)
        return wrapper

    def load(self, image: images.Image, folder: Path) -> None:
        """Make the image known."""
        archive = image.write(folder / "image.tar")
        store = f"containers-storage:[vfs@/run/data/crio+/run/crio/storage]docker.io/{image.name}"
        self.world.run("skopeo", f"--policy={self.policy}", "copy", f"docker-archive:{archive}", store)


@contextmanager
def started(folder: Path, runtime: Path, testguest: Path) -> Iterator[Crio]:
    """Start a CRI-O that knows the images which test_cri's tests start."""
    program = os.environ.get(VARIABLE) or shutil.which("crio")
    if program is None:
        pytest.skip(f"crio is not on PATH, and {VARIABLE} does not name it")
    for needed in ("skopeo", "conmon"):
        if which(needed) is None:
            pytest.skip(f"{needed} is not installed")
    world = World(folder, hide_unified=True)
    engine = None
    try:
        engine = Crio(world, program, runtime)
        engine.load(images.busybox(), folder)
        engine.load(images.busybox("test/pause:1", PAUSE), folder)
        engine.load(guestimages.testguest(testguest), folder)
        world.path("/run/data/logs").mkdir()
        engine.connect(world.path(SOCKET))
        yield engine
    finally:
        if engine is not None:
            engine.close()
        world.close()


@pytest.fixture(scope="module")
def kubelet(tmp_path_factory: pytest.TempPathFactory, runtime: Path, testguest: Path) -> Iterator[Crio]:
    """A CRI-O for the whole module, in the place of containerd."""
    with started(tmp_path_factory.mktemp("crio"), runtime, testguest) as engine:
        yield engine


@pytest.fixture(autouse=True)
def its_calls(kubelet: Crio) -> None:
    """Forget how the runtime was called before this test."""
    kubelet.calls.write_text("")


SERVED = [guest for guest in guests.GUESTS if guest.networks == (guests.PLAIN,)]
"""There is one network for all pods."""
test_a_guest_that_ends_by_itself = test_cri.test_a_guest_that_ends_by_itself
test_pod_annotations_alone_make_no_unikernel = test_cri.test_pod_annotations_alone_make_no_unikernel
test_a_broken_guest_is_said = test_cri.test_a_broken_guest_is_said


@pytest.mark.parametrize("guest", SERVED, ids=[guest.name for guest in SERVED])
def test_a_pod(kubelet: Crio, pods: Any, testguest: Path, tmp_path: Path, guest: guests.Guest) -> None:
    test_cri_guests.check_a_pod(kubelet, pods, testguest, tmp_path, guest)


def test_how_it_calls_the_runtime(kubelet: Crio, pods: Any) -> None:
    pod = pods("calls")
    guest = pod.start("guest", "guest", "app")
    kubelet.call("UpdateContainerResources", container_id=guest, linux={"cpu_shares": 512})
    kubelet.call("StopContainer", container_id=guest, timeout=10)
    kubelet.call("RemoveContainer", container_id=guest)
    verbs = [line.split()[2 if line.startswith("--root ") else 1] for line in kubelet.calls.read_text().splitlines()]
    assert {"create", "start", "state", "update", "kill", "delete"} <= set(verbs)
