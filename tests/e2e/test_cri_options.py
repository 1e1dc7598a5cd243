"""The options of a RuntimeClass's handler, in containerd's configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grpc", reason="the CRI tests need grpcio")

from cri import Kubelet
from shims import NAME
from test_cri import kubelet, pods

from world import wait_for

__all__ = ["kubelet", "pods"]

pytestmark = [pytest.mark.root, pytest.mark.engine]


def test_a_configuration_of_the_handlers_own(kubelet: Kubelet, pods: Any) -> None:
    kubelet.world.path("/run/data/urunc.toml").write_text("[monitors.qemu]\ndefault_memory_mb = 77\n")
    pod = pods("configured", handler="urunc-config")
    pod.start("guest", "guest", "app")
    wait_for("the guest is ready", lambda: "ready" in pod.log("guest"))
    assert "memory: 77 MiB" in pod.log("guest")


@pytest.fixture
def shim_cgroup(kubelet: Kubelet) -> Iterator[str]:
    """A cgroup for shims, in one hierarchy; the path that /proc shows."""
    path = f"/{kubelet.world.cgroup}/shims"
    top = Path("/sys/fs/cgroup/pids")
    folder = (top if top.is_dir() else top.parent) / path.lstrip("/")
    folder.mkdir(parents=True)
    yield path
    folder.rmdir()


def test_a_table_of_options(kubelet: Kubelet, shim_cgroup: str, pods: Any) -> None:
    if " 1.6." in kubelet("version").stdout:
        pytest.skip("containerd 1.6 sends a table's ConfigPath alone to a shim that is not runc's")
    pod = pods("options", handler="urunc-options")
    pod.start("guest", "guest", "app")
    wait_for("the guest is ready", lambda: "ready" in pod.log("guest"))
    [shim] = [pid for pid, command in kubelet.world.processes() if f"{NAME} " in command]
    assert f":{shim_cgroup}\n" in kubelet.world.run("cat", f"/proc/{shim}/cgroup").stdout
    assert len(list(kubelet.world.path("/run/data/state/k8s.io").glob("[!.]*"))) == 2
