"""crictl and critest, the kubelet's tools, on Debian's containerd with the handler `urunc`.

URUNC_TEST_CRICTL and URUNC_TEST_CRITEST name the binaries where they are not on PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import guests
import images
import pytest

pytest.importorskip("grpc", reason="the CRI tests need grpcio")

from cri import Kubelet
from test_cri import KEY, STATE, serve_kubelet

from world import wait_for

pytestmark = [pytest.mark.root, pytest.mark.engine]

REGISTRY_PORT = "5000"
PULLED = f"localhost:{REGISTRY_PORT}"
PGREP = b"""#!/bin/sh
for process in /proc/[0-9]*; do
    read -r name < "$process/comm" && [ "$name" = "$1" ] && echo "${process#/proc/}"
done 2> /dev/null
"""
NOT_HERE = (
    "Image",  # from a registry of Google's, as what the next five lines name
    "Multiple Containers",
    "NoNewPrivs",
    "HostPID|PodPID|ContainerPID",
    "RunAsUserName|MaskedPaths",
    "portforward in host network",
    "HostIpc",  # ipcs is not in Debian's busybox
    "host port and container port",  # the bridge of these tests has no portmap
    "not return an error if not found",  # containerd 1.6 does
)
"""What critest asks for and this machine, these images or Debian's containerd do not have, with runc no more than here.

With runc as the handler, all else passes as well (or is skipped by critest itself, as what needs AppArmor or SELinux).
"""


def find(program: str) -> str:
    """Return a tool's path; skip where it is not there."""
    variable = f"URUNC_TEST_{program.upper()}"
    path = os.environ.get(variable) or shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not on PATH, and {variable} does not name it")
    return path


@pytest.fixture(scope="module")
def kubelet(tmp_path_factory: pytest.TempPathFactory, testguest: Path) -> Iterator[Kubelet]:
    """A containerd with the plug-in, for the whole module."""
    yield from serve_kubelet(Kubelet, tmp_path_factory, testguest)


class Crictl:
    """`crictl` on the plug-in's socket, and the files that it takes pods and containers from."""

    def __init__(self, kubelet: Kubelet, program: str, folder: Path) -> None:
        self.kubelet, self.program, self.folder = kubelet, program, folder
        self.config = folder / "crictl.yaml"
        self.config.write_text(f"runtime-endpoint: unix://{kubelet.socket}\nimage-endpoint: unix://{kubelet.socket}\n")

    def __call__(self, *argv: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `crictl <argv>`."""
        return self.kubelet.world.run(self.program, f"--config={self.config}", *argv, check=check)

    def file(self, name: str, values: dict[str, Any]) -> Path:
        """Write what a pod or container is to be."""
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(values))
        return path


@pytest.fixture
def crictl(kubelet: Kubelet, tmp_path: Path) -> Iterator[Crictl]:
    """crictl; afterwards no pod may be left, nor anything of one."""
    tool = Crictl(kubelet, find("crictl"), tmp_path)
    before = kubelet.world.snapshot(*STATE)
    yield tool
    tool("rmp", "--all", "--force")

    def more() -> list[str]:
        now = kubelet.world.snapshot(*STATE)
        return [item for kind in now for item in now[kind] if item not in before[kind] and not keeps(item)]

    def keeps(item: str) -> bool:
        return item in ("cni-test", "/run/containerd/s") or item.endswith((kubelet.world.cgroup, "/k8s.io"))

    wait_for(f"nothing left: {more()}", lambda: not more(), 10)


def test_crictl(kubelet: Kubelet, crictl: Crictl) -> None:
    pod_file = crictl.file(
        "pod",
        {
            "metadata": {"name": "pod", "namespace": "default", "uid": "uid"},
            "log_directory": "/run/data/logs",
            "annotations": {f"{KEY}.hypervisor": "qemu"},
            "linux": {"cgroup_parent": f"/{kubelet.world.cgroup}"},
        },
    )
    pod = crictl("runp", "--runtime=urunc", pod_file).stdout.strip()

    def start(name: str, image: str, *args: str, memory: int = 0) -> str:
        values = {
            "metadata": {"name": name},
            "image": {"image": f"docker.io/test/{image}:1"},
            "args": args,
            "log_path": f"{name}.log",
            "linux": {"resources": {"memory_limit_in_bytes": memory}},
        }
        container = crictl("create", pod, crictl.file(name, values), pod_file).stdout.strip()
        crictl("start", container)
        return container

    sidecar = start("sidecar", "busybox", "sleep", "1000")
    guest = start("guest", "guest", "app", "one", memory=256 << 20)
    wait_for("the guest is ready", lambda: "ready" in crictl("logs", guest).stdout)
    assert "-- one" in crictl("logs", guest).stdout
    address = json.loads(crictl("inspectp", pod).stdout)["status"]["network"]["ip"]
    assert guests.ping(kubelet.world, address)

    assert crictl("exec", sidecar, "echo", "inside").stdout == "inside\n"
    assert "exited with 3" in crictl("exec", "--sync", sidecar, "sh", "-c", "exit 3", check=False).stderr
    assert "a unikernel has one process" in crictl("exec", guest, "sh", check=False).stderr
    stats = json.loads(crictl("stats", "--output=json").stdout)["stats"]
    used = {one["attributes"]["id"]: int(one["memory"]["workingSetBytes"]["value"]) for one in stats}
    assert used[guest] > used[sidecar] > 0
    crictl("update", "--cpu-share=512", sidecar)
    crictl("update", "--cpu-share=512", guest)

    crictl("stop", "--timeout=30", guest)
    state = json.loads(crictl("inspect", guest).stdout)["status"]
    assert (state["state"], state["exitCode"]) == ("CONTAINER_EXITED", 0)
    crictl("rm", guest)
    assert crictl("ps", "--quiet").stdout.split() == [sidecar]
    crictl("stopp", pod)
    crictl("rmp", pod)
    assert crictl("pods", "--quiet").stdout == ""


def conformance_image(name: str, command: tuple[str, ...]) -> images.Image:
    """Return busybox with all it can do: critest looks at processes, mounts and networks with it."""
    image = images.busybox(name, command)
    listed = subprocess.run([images.BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout
    image.links |= {f"bin/{applet}": "busybox" for applet in listed.split() if applet != "busybox"}
    image.file("bin/pgrep", PGREP, 0o755)
    return image


@pytest.fixture(scope="module")
def pulled(kubelet: Kubelet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Serve the images that critest pulls; return the file that names them."""
    folder = tmp_path_factory.mktemp("pulled")
    made = {
        "defaultTestContainerImage": conformance_image("test/conformance:1", ("sleep", "1000")),
        "webServerTestImage": conformance_image("test/web:1", ("httpd", "-f", "-h", "/www")),
    }
    files = [image.write(folder / f"{key}.tar") for key, image in made.items()]
    # A pod's own process must not be called `sleep`, which critest looks for.
    kubelet.load(conformance_image("test/pause:1", ("tail", "-f", "/dev/null")), folder)
    script = Path(__file__).with_name("registry.py")
    kubelet.world.start("registry", "/usr/bin/python3", "-IS", script, REGISTRY_PORT, *files)
    names = folder / "images.yaml"
    names.write_text("".join(f"{key}: {PULLED}/{image.name}\n" for key, image in made.items()))
    return names


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("handler", ["runc", "urunc"])
def test_critest(kubelet: Kubelet, pulled: Path, tmp_path: Path, handler: str) -> None:
    """What Kubernetes asks of a runtime: with our handler, ordinary containers do what runc's do."""
    report = tmp_path / "report.json"
    done = kubelet.world.run(
        *("sh", "-c", 'cd / && exec "$@"', "sh"),  # it asks where it is, and nsenter leaves that open
        find("critest"),
        f"--runtime-endpoint=unix://{kubelet.socket}",
        f"--image-endpoint=unix://{kubelet.socket}",
        f"--runtime-handler={handler}",
        f"--test-images-file={pulled}",
        f"--ginkgo.json-report={report}",
        "--ginkgo.no-color",
        f"--ginkgo.skip={'|'.join(NOT_HERE)}",
        check=False,
        timeout=800,
    )
    assert report.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    specs = [spec for spec in json.loads(report.read_text())[0]["SpecReports"] if spec["LeafNodeType"] == "It"]
    failed = {spec["LeafNodeText"]: spec["Failure"]["Message"] for spec in specs if spec["State"] == "failed"}
    assert not failed, json.dumps(failed, indent=1)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sum(spec["State"] == "passed" for spec in specs) > 50
