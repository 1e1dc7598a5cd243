"""containerd drives the runtime by `ctr run --runc-binary`: an ordinary container."""

from __future__ import annotations

from pathlib import Path

import pytest
from engines import Containerd

from world import wait_for, which

pytestmark = [pytest.mark.root, pytest.mark.engine]

IMAGE = "docker.io/test/busybox:1"


@pytest.fixture(params=["runc", "urunc"])
def by(request: pytest.FixtureRequest, runtime: Path) -> str:
    """The option that names the runtime."""
    return f"--runc-binary={which('runc') if request.param == 'runc' else runtime}"


def test_output_and_exit_status_come_back(containerd: Containerd, by: str) -> None:
    done = containerd("run", "--rm", by, IMAGE, "once", "sh", "-c", "echo out; exit 7", check=False)
    assert (done.stdout, done.returncode) == ("out\n", 7)


def test_life_of_a_detached_container(containerd: Containerd, by: str) -> None:
    containerd("run", "--detach", by, IMAGE, "long", "sleep", "1000")
    assert containerd.task_status("long") == "RUNNING"
    containerd("task", "pause", "long")
    assert containerd.task_status("long") == "PAUSED"
    containerd("task", "resume", "long")
    containerd("task", "kill", "--signal=KILL", "long")
    wait_for("the task ends", lambda: containerd.task_status("long") == "STOPPED")
    containerd("task", "rm", "long", check=False)  # says the exit status, 137, as its own
    containerd("container", "rm", "long")


def test_a_missing_program_is_said(containerd: Containerd, by: str) -> None:
    done = containerd("run", "--rm", by, IMAGE, "missing", "/no/such", check=False)
    assert done.returncode != 0
    assert "no such file" in done.stderr.lower()
