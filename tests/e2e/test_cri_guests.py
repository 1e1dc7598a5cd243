"""Every guest in a pod through Kubernetes' interface, with a pause container and a sidecar, annotated as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

grpc = pytest.importorskip("grpc", reason="the CRI tests need grpcio")

from cri import EXITED, NETWORKS, RUNNING, Kubelet  # noqa: E402
from drivers import put_tender  # noqa: E402
from guests import GUESTS, PLAIN, Guest, wait_answer, wait_ready  # noqa: E402
from test_cri import KEY, kubelet, pods  # noqa: E402

__all__ = ["kubelet", "pods"]

pytestmark = [pytest.mark.root, pytest.mark.engine]

FAR = 300
"""A grace period, in seconds, that no test waits for: a stop that comes back was heard."""


def handler(kubelet: Any, guest: Guest) -> str:
    """Return the handler that has the guest's network or tender. A guest's own tender becomes the handler's."""
    if guest.tender:
        put_tender(kubelet.world, guest)
        return "urunc-config"
    return "urunc" if guest.networks == (PLAIN,) else f"urunc-{NETWORKS[guest.networks]}"


def check_a_pod(kubelet: Any, pods: Any, testguest: Path, tmp_path: Path, guest: Guest) -> None:
    """Run the guest in a pod with a sidecar, from its start to a second one."""
    kubelet.load(guest.image(testguest, tmp_path), tmp_path)
    annotations = {f"{KEY}.{key}": value for key, value in guest.pod.items()}
    pod = pods(f"of-{guest.name}", annotations, handler=handler(kubelet, guest))
    sidecar = pod.start("sidecar", "busybox", "sh", "-c", "echo beside; exec sleep 1000")
    unikernel = pod.start("unikernel", guest.name, *guest.command, memory=guest.memory)

    wait_ready(guest, lambda: pod.log("unikernel"))
    wait_answer(guest, kubelet.world, pod.address)
    assert pod.log("sidecar") == "beside\n"
    done = kubelet.call("ExecSync", container_id=sidecar, cmd=["echo", "inside"], timeout=10)
    assert (done["stdout"], done["exit_code"]) == (b"inside\n", 0)
    with pytest.raises(grpc.RpcError, match="a unikernel has one process"):
        kubelet.call("ExecSync", container_id=unikernel, cmd=["sh"], timeout=10)

    listed = kubelet.call("ListContainerStats", filter={"pod_sandbox_id": pod.id})["stats"]
    stats = {one["attributes"]["id"]: one for one in listed}
    assert stats.keys() == {sidecar, unikernel}
    assert all(one["memory"]["working_set_bytes"]["value"] for one in stats.values())
    assert stats[unikernel]["cpu"]["usage_core_nano_seconds"]["value"] > 0

    kubelet.call("StopContainer", container_id=unikernel, timeout=FAR)
    assert pod.status(unikernel)["state"] == EXITED
    assert pod.status(sidecar)["state"] == RUNNING
    kubelet.call("RemoveContainer", container_id=unikernel)
    again = pod.start("unikernel", guest.name, *guest.command, memory=guest.memory)
    wait_answer(guest, kubelet.world, pod.address)
    assert pod.status(again)["state"] == RUNNING


@pytest.mark.parametrize("guest", GUESTS, ids=[guest.name for guest in GUESTS])
def test_a_pod(kubelet: Kubelet, pods: Any, testguest: Path, tmp_path: Path, guest: Guest) -> None:
    check_a_pod(kubelet, pods, testguest, tmp_path, guest)
