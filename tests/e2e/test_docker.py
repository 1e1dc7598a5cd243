"""Docker drives the runtime: an ordinary container, once by runc itself and once by urunc, which hands it on."""

from __future__ import annotations

import pytest
from engines import Docker

from world import wait_for

pytestmark = [pytest.mark.root, pytest.mark.engine]

IMAGE = "test/busybox:1"


@pytest.fixture(params=["runc", "urunc"])
def by(request: pytest.FixtureRequest) -> str:
    """The name under which dockerd knows the runtime."""
    return f"--runtime={request.param}"


def test_output_and_exit_status_come_back(docker: Docker, by: str) -> None:
    done = docker("run", "--rm", by, IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_standard_input_reaches_the_process(docker: Docker, by: str) -> None:
    done = docker.world.run(
        docker.client, f"--host={docker.socket}", "run", "--rm", "-i", by, IMAGE, "cat", stdin=b"in and out\n"
    )
    assert done.stdout == "in and out\n"


def test_published_port_logs_inspect_and_stop(docker: Docker, by: str) -> None:
    docker("run", "--detach", "--name=web", by, "--publish=8080:80", IMAGE, "httpd", "-f", "-v", "-h", "/www")
    page = wait_for("the page", lambda: docker.world.run("curl", "-sf", "http://127.0.0.1:8080/", check=False).stdout)
    assert page == "a page from an ordinary container\n"
    docker.wait_log("web", "response:200")
    state = docker.inspect("web")["State"]
    assert state["Running"]
    assert f"/proc/{state['Pid']}" and docker.world.path(f"/proc/{state['Pid']}").exists()
    docker("stop", "--time=1", "web")
    assert not docker.inspect("web")["State"]["Running"]


def test_kill_ends_it_and_restart_begins_again(docker: Docker, by: str) -> None:
    docker("run", "--detach", "--name=again", by, IMAGE, "sh", "-c", "echo begun; exec sleep 1000")
    docker.wait_log("again", "begun")
    docker("kill", "again")
    assert docker("wait", "again").stdout.strip() == "137"
    docker("start", "again")
    wait_for("the second start", lambda: docker("logs", "again").stdout.count("begun") == 2)
    docker("restart", "--time=0", "again")
    wait_for("the third start", lambda: docker("logs", "again").stdout.count("begun") == 3)
    assert docker.inspect("again")["State"]["Running"]


def test_exec_and_pause_are_handed_on(docker: Docker, by: str) -> None:
    docker("run", "--detach", "--name=busy", by, IMAGE)
    assert docker("exec", "busy", "echo", "from inside").stdout == "from inside\n"
    docker("pause", "busy")
    assert docker.inspect("busy")["State"]["Paused"]
    docker("unpause", "busy")
    assert docker("top", "busy").stdout.count("sleep") == 1


def test_a_missing_program_is_said(docker: Docker, by: str) -> None:
    done = docker("run", "--rm", by, IMAGE, "/no/such", check=False)
    assert done.returncode == 127
    assert "no such file" in done.stderr.lower()
