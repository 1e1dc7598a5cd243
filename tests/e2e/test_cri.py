"""A pod through Kubernetes' interface: pause, a unikernel and a sidecar, by the RuntimeClass handler `urunc`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import guestimages
import images
import pytest

grpc = pytest.importorskip("grpc", reason="the CRI tests need grpcio")

from cri import EXITED, RUNNING, Kubelet  # noqa: E402
from shims import write_entry  # noqa: E402

from world import World, wait_for  # noqa: E402

pytestmark = [pytest.mark.root, pytest.mark.engine]

STATE = ("/run/containerd/s", "/run/containerd/runc", "/run/containerd/io.containerd.grpc.v1.cri", "/run/netns")
KEY = "com.urunc.unikernel"


@pytest.fixture(scope="module")
def kubelet(tmp_path_factory: pytest.TempPathFactory, testguest: Path) -> Iterator[Kubelet]:
    """A containerd with the plug-in, for the whole module."""
    yield from serve_kubelet(Kubelet, tmp_path_factory, testguest)


def serve_kubelet(kind: type[Kubelet], tmp_path_factory: pytest.TempPathFactory, testguest: Path) -> Iterator[Kubelet]:
    """Start one of this kind with the images of the tests."""
    if not Path("/usr/lib/cni/bridge").exists():
        pytest.skip("containernetworking-plugins is not installed")
    folder = tmp_path_factory.mktemp("cri")
    world = World(folder)
    engine = None
    try:
        engine = kind(world, Path("/usr/bin/runc"), write_entry(folder / "bin"))
        engine.load(images.busybox(), folder)
        engine.load(images.busybox("test/pause:1", ("sleep", "100000")), folder)
        engine.load(guestimages.testguest(testguest), folder)
        yield engine
    finally:
        if engine is not None:
            engine.close()
        world.close()


class Pod:
    """A pod sandbox and its containers."""

    def __init__(
        self, kubelet: Kubelet, name: str, annotations: dict[str, str] | None = None, handler: str = "urunc"
    ) -> None:
        self.kubelet = kubelet
        self.logs = f"/run/data/logs/{name}"
        self.config: dict[str, Any] = {
            "metadata": {"name": name, "uid": f"{name}-uid", "namespace": "default"},
            "hostname": name,
            "log_directory": self.logs,
            "annotations": annotations or {},
            "linux": {"cgroup_parent": f"/{kubelet.world.cgroup}"},
        }
        self.id: str = kubelet.call("RunPodSandbox", config=self.config, runtime_handler=handler)["pod_sandbox_id"]

    def start(self, name: str, image: str, *args: str, memory: int = 0, mounts: Sequence[dict[str, Any]] = ()) -> str:
        """Create and start a container; return its id."""
        config = {
            "metadata": {"name": name},
            "image": dict.fromkeys(("image", "user_specified_image"), f"docker.io/test/{image}:1"),
            "args": list(args),
            "mounts": list(mounts),
            "log_path": f"{name}.log",
            "linux": {"resources": {"memory_limit_in_bytes": memory}},
        }
        made = self.kubelet.call("CreateContainer", pod_sandbox_id=self.id, config=config, sandbox_config=self.config)
        container: str = made["container_id"]
        self.kubelet.call("StartContainer", container_id=container)
        return container

    def log(self, name: str) -> str:
        """Return what the container has written, of CRI's log file."""
        path = self.kubelet.world.path(f"{self.logs}/{name}.log")
        if not path.exists():
            return ""
        parts = [line.split(" ", 3)[2:] for line in path.read_text().splitlines()]  # P is a part of a line, F its end
        return "".join(text if tag == "P" else text + "\n" for tag, text in parts)

    @property
    def address(self) -> str:
        status = self.kubelet.call("PodSandboxStatus", pod_sandbox_id=self.id)["status"]
        return str(status["network"]["ip"])

    def status(self, container: str) -> dict[str, Any]:
        status: dict[str, Any] = self.kubelet.call("ContainerStatus", container_id=container)["status"]
        return status

    def remove(self) -> None:
        """Stop and remove the pod with all its containers, as a kubelet does."""
        self.kubelet.call("StopPodSandbox", pod_sandbox_id=self.id)
        self.kubelet.call("RemovePodSandbox", pod_sandbox_id=self.id)


@pytest.fixture
def pods(kubelet: Kubelet) -> Iterator[Any]:
    """Make pods; they are removed, and nothing may be left of them."""
    before = kubelet.world.snapshot(*STATE)
    made: list[Pod] = []

    def make(name: str, *args: Any, **options: Any) -> Pod:
        made.append(Pod(kubelet, name, *args, **options))
        return made[-1]

    yield make
    for pod in made:
        pod.remove()

    def more() -> list[str]:
        now = kubelet.world.snapshot(*STATE)
        return [item for kind in now for item in now[kind] if item not in before[kind] and not keeps(kind, item)]

    def keeps(kind: str, item: str) -> bool:
        bridge = kind == "links" and item.startswith("cni-")
        return bridge or item == "/run/containerd/s" or item.endswith((kubelet.world.cgroup, "/k8s.io"))

    wait_for(f"nothing left: {more()}", lambda: not more(), 10)


def test_a_pod_of_three(kubelet: Kubelet, pods: Any) -> None:
    pod = pods("three", {f"{KEY}.hypervisor": "qemu"})
    sidecar = pod.start("sidecar", "busybox", "sleep", "1000")
    guest = pod.start("guest", "guest", "app", "one", memory=256 << 20)
    wait_for("the guest is ready", lambda: "ready" in pod.log("guest"))
    assert "-- one" in pod.log("guest")
    assert kubelet.world.run("ping", "-c1", "-W2", pod.address).returncode == 0

    shims = [command for _, command in kubelet.world.processes() if "containerd-shim-urunc-v2 " in command]
    assert len(shims) == 1

    done = kubelet.call(
        "ExecSync", container_id=sidecar, cmd=["sh", "-c", "echo out; echo err >&2; exit 3"], timeout=10
    )
    assert (done["stdout"], done["stderr"], done["exit_code"]) == (b"out\n", b"err\n", 3)
    with pytest.raises(grpc.RpcError, match="a unikernel has one process"):
        kubelet.call("ExecSync", container_id=guest, cmd=["sh"], timeout=10)

    stats = kubelet.call("ContainerStats", container_id=guest)["stats"]
    assert stats["memory"]["working_set_bytes"]["value"] > 1 << 20
    assert stats["cpu"]["usage_core_nano_seconds"]["value"] > 0
    kubelet.call("UpdateContainerResources", container_id=guest, linux={"cpu_shares": 512})

    kubelet.call("StopContainer", container_id=guest, timeout=10)
    assert pod.status(guest)["state"] == EXITED
    assert pod.status(guest)["exit_code"] != 137, "it was killed at the end of the grace period"
    assert pod.status(sidecar)["state"] == RUNNING
    kubelet.call("RemoveContainer", container_id=guest)
    again = pod.start("guest", "guest", "app", "two")
    wait_for("the second boot", lambda: "-- two" in pod.log("guest"))
    assert pod.status(again)["state"] == RUNNING


def test_a_guest_that_ends_by_itself(kubelet: Kubelet, pods: Any) -> None:
    pod = pods("ends")
    guest = pod.start("guest", "guest", "app", "poweroff")
    wait_for("the end", lambda: pod.status(guest)["state"] == EXITED)
    assert (pod.status(guest)["exit_code"], pod.status(guest)["reason"]) == (0, "Completed")


def test_pod_annotations_alone_make_no_unikernel(kubelet: Kubelet, pods: Any) -> None:
    annotations = {f"{KEY}.unikernelType": "unikraft", f"{KEY}.hypervisor": "qemu", f"{KEY}.binary": "/nowhere"}
    pod = pods("annotated", annotations)
    plain = pod.start("plain", "busybox", "sh", "-c", "echo ordinary; sleep 1000")
    wait_for("its output", lambda: "ordinary" in pod.log("plain"))
    assert pod.status(plain)["state"] == RUNNING


def test_a_broken_guest_is_said(kubelet: Kubelet, pods: Any, testguest: Path, tmp_path: Path) -> None:
    kubelet.load(
        images.unikernel("test/broken:1", testguest, {"unikernelType": "nonsense", "hypervisor": "qemu"}), tmp_path
    )
    pod = pods("broken")
    with pytest.raises(grpc.RpcError, match="unknown guest `nonsense`"):
        pod.start("broken", "broken", "app")


PROXY = """
echo "to $REDIRECT_IP"
mkdir -p /pages
busybox wget -q -O /pages/first "http://$REDIRECT_IP/"
exec httpd -f -p 8012 -h /pages
"""


def test_knatives_arrangement(kubelet: Kubelet, pods: Any) -> None:
    """By the containers' names alone: the proxy is runc's and keeps the pod's network, the guest is behind it."""

    def page(url: str) -> str:
        argv = ("curl", "-sf", "--max-time", "3", f"http://{pod.address}{url}")
        return str(wait_for(url, lambda: kubelet.world.run(*argv, check=False).stdout))

    pod = pods("knative")
    guest = pod.start("user-container", "guest", "app", "first")
    wait_for("the guest is ready", lambda: "ready" in pod.log("user-container"))
    proxy = pod.start("queue-proxy", "busybox", "sh", "-c", PROXY)
    assert "testguest: app" in page(":8012/first")  # what the proxy had from the guest
    assert "to 172.16.1.2" in pod.log("queue-proxy")
    assert "testguest: app" in page("/")  # the guest itself, at a port that the proxy does not have
    kubelet.call("StopContainer", container_id=guest, timeout=10)
    kubelet.call("RemoveContainer", container_id=guest)
    assert "testguest: app" in page(":8012/first")
    pod.start("user-container", "guest", "app", "second")
    wait_for("the second boot", lambda: "-- second" in pod.log("user-container"))
    assert "testguest: app" in page("/")
    assert pod.status(proxy)["state"] == RUNNING


TRAFFIC = """
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
lost = 0
for number in range(int(sys.argv[2])):
    s.sendto(b"%d" % number, (sys.argv[1], 7))
    try:
        lost += s.recv(100) != b"%d" % number
    except TimeoutError:
        lost += 1
    time.sleep(0.01)
print("lost", lost)
"""


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_containerd_restarts_and_no_request_is_lost(kubelet: Kubelet, pods: Any, signal: str) -> None:
    pod = pods(f"restart-{signal.lower()}")
    guest = pod.start("guest", "guest", "app")
    wait_for("the guest is ready", lambda: "ready" in pod.log("guest"))
    world = kubelet.world
    traffic = world.start("traffic", "/usr/bin/python3", "-IS", "-c", TRAFFIC, pod.address, "300")
    line = f"{kubelet.program('containerd')} --config"
    daemon = next(pid for pid, command in world.processes() if command.startswith(line))
    world.run("kill", f"-{signal}", str(daemon))
    kubelet.daemon.wait(30)
    kubelet.daemon = kubelet._start()
    wait_for("the plug-in is ready", kubelet._ready, 60)
    assert traffic.wait(60) == 0
    log = world.logs / "traffic.log"
    assert log.read_text() == "lost 0\n"
    log.unlink()
    assert pod.status(guest)["state"] == RUNNING
    assert kubelet.call("ContainerStats", container_id=guest)["stats"]["memory"]["working_set_bytes"]["value"]
    kubelet.call("StopContainer", container_id=guest, timeout=10)
    assert pod.status(guest)["state"] == EXITED


def test_the_handler_says_what_it_can(kubelet: Kubelet) -> None:
    """What containerd 2 asks every handler for: `-info`."""
    from urunc.shim.messages import FEATURES, RUNTIME_INFO
    from urunc.shim.wire import decode

    done = kubelet.world.run("sh", "-c", f"{kubelet.shim} -info < /dev/null | base64 -w0")
    import base64

    info = decode(RUNTIME_INFO, base64.b64decode(done.stdout))
    assert info["name"] == "io.containerd.urunc.v2"
    assert info["features"]["type_url"] == FEATURES
    assert "hooks" in json.loads(info["features"]["value"])
