"""Podman drives the runtime through conmon, which passes neither --root nor --log: an ordinary container."""

from __future__ import annotations

import pytest
from engines import Podman

from world import wait_for, which

pytestmark = [pytest.mark.root, pytest.mark.engine]

IMAGE = "docker.io/test/busybox:1"


@pytest.fixture(params=["runc", "urunc"])
def engine(request: pytest.FixtureRequest, podman: Podman) -> Podman:
    """Podman, told which runtime to use."""
    return podman.using(which("runc") or "runc") if request.param == "runc" else podman


def test_output_and_exit_status_come_back(engine: Podman) -> None:
    done = engine.create("--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_published_port_logs_and_stop(engine: Podman) -> None:
    engine.create("--detach", "--name=web", "--publish=8080:80", IMAGE, "httpd", "-f", "-v", "-h", "/www")
    page = wait_for("the page", lambda: engine.world.run("curl", "-sf", "http://127.0.0.1:8080/", check=False).stdout)
    assert page == "a page from an ordinary container\n"
    wait_for("the request in the log", lambda: "response:200" in engine("logs", "web").stderr)
    engine("stop", "--time=1", "web")
    assert engine("inspect", "--format={{.State.Status}}", "web").stdout.strip() == "exited"
