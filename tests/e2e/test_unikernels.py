"""The test guest by each engine: started, reached, logged, stopped, removed, with nothing left."""

from __future__ import annotations

from pathlib import Path

import images
import pytest
from engines import Containerd, Docker, Podman
from guestimages import testguest as guest_image
from guests import PORT_ECHO, udp_echo

from world import wait_for

pytestmark = [pytest.mark.root, pytest.mark.engine]

PODMANS = "docker.io/test/guest:1"
ON_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


@pytest.fixture(scope="session")
def image(testguest: Path, runtime: Path) -> images.Image:
    """The test guest's image."""
    if runtime.name == "runc":
        pytest.skip("runc has no unikernels")
    return guest_image(testguest)


class TestDocker:
    @pytest.fixture(autouse=True)
    def _loaded(self, docker: Docker, image: images.Image, tmp_path: Path) -> None:
        docker.load(image, tmp_path)

    def start(self, docker: Docker, *options: str, command: tuple[str, ...] = ("app",)) -> str:
        """Start the guest as `guest`; return its address."""
        docker("run", "--detach", "--name=guest", "--runtime=urunc", *options, "test/guest:1", *command)
        docker.wait_log("guest", "ready")
        return str(docker.inspect("guest")["NetworkSettings"]["IPAddress"])

    def test_it_answers_on_the_bridge(self, docker: Docker) -> None:
        address = self.start(docker)
        assert docker.world.run("ping", "-c1", "-W2", address).returncode == 0
        assert udp_echo(docker.world, address, PORT_ECHO) == "over UDP"

    def test_a_published_port_reaches_it(self, docker: Docker) -> None:
        self.start(docker, f"--publish=7007:{PORT_ECHO}/udp", "--publish=8081:80")
        gateway = "10.88.77.1"
        wait_for("an answer", lambda: udp_echo(docker.world, gateway, 7007) == "over UDP", 10)
        for address in (gateway, "127.0.0.1"):
            assert docker.world.run("curl", "-sf", "--max-time", "5", f"http://{address}:8081/").stdout

    def test_the_log_is_its_console(self, docker: Docker) -> None:
        self.start(docker, command=("app", "one", "two"))
        assert "-- one two" in docker("logs", "guest").stdout

    def test_stop_ends_it_within_the_grace_period(self, docker: Docker) -> None:
        self.start(docker)
        docker("stop", "--time=10", "guest")
        state = docker.inspect("guest")["State"]
        assert not state["Running"]
        assert state["ExitCode"] != 137, "it was killed at the end of the grace period"

    def test_kill_restart_and_again(self, docker: Docker) -> None:
        self.start(docker)
        docker("kill", "guest")
        docker("wait", "guest")
        docker("start", "guest")
        wait_for("the second boot", lambda: docker("logs", "guest").stdout.count("ready") == 2)
        docker("restart", "--time=5", "guest")
        wait_for("the third boot", lambda: docker("logs", "guest").stdout.count("ready") == 3)
        address = docker.inspect("guest")["NetworkSettings"]["IPAddress"]
        assert docker.world.run("ping", "-c1", "-W2", address).returncode == 0

    def test_its_own_end_is_seen(self, docker: Docker) -> None:
        docker("run", "--name=guest", "--runtime=urunc", "test/guest:1", "app", "poweroff")
        assert docker.inspect("guest")["State"]["ExitCode"] == 0

    def test_memory_and_user(self, docker: Docker) -> None:
        self.start(docker, "--memory=192m", "--user=1000:1000")
        memory = int(docker("logs", "guest").stdout.split("memory: ")[1].split()[0])
        assert 64 <= memory < 192

    def test_network_none(self, docker: Docker) -> None:
        self.start(docker, "--network=none")
        assert "nic0" not in docker("logs", "guest").stdout

    def test_network_host_is_refused(self, docker: Docker) -> None:
        links = docker.world.links()
        done = docker("run", "--runtime=urunc", "--network=host", "test/guest:1", check=False)
        assert done.returncode == 125
        assert "network" in done.stderr
        assert docker.world.links() == links

    def test_a_broken_image_says_why(self, docker: Docker, testguest: Path, tmp_path: Path) -> None:
        broken = images.unikernel("test/broken:1", testguest, {"unikernelType": "nonsense", "hypervisor": "qemu"})
        docker.load(broken, tmp_path)
        done = docker("run", "--runtime=urunc", "test/broken:1", check=False)
        assert done.returncode == 125
        assert "nonsense" in done.stderr

    def test_a_read_only_container(self, docker: Docker) -> None:
        self.start(docker, "--read-only")

    def test_top(self, docker: Docker) -> None:
        self.start(docker)
        assert "qemu-system" in docker("top", "guest").stdout

    def test_pause(self, docker: Docker) -> None:
        address = self.start(docker)
        docker("pause", "guest")
        assert docker.world.run("ping", "-c1", "-W1", address, check=False).returncode != 0
        docker("unpause", "guest")
        assert docker.world.run("ping", "-c1", "-W2", address).returncode == 0

    def test_update_never_takes_the_guests_memory(self, docker: Docker) -> None:
        self.start(docker, "--memory=192m", "--memory-swap=512m")
        docker("update", "--memory=256m", "--cpus=1", "--pids-limit=200", "guest")
        assert docker("stats", "--no-stream", "--format={{.MemUsage}}", "guest").stdout.strip().endswith("/ 256MiB")
        done = docker("update", "--memory=128m", "guest", check=False)
        assert done.returncode == 1
        assert "128 MiB are too few: the guest has 1" in done.stderr
        assert "MiB, which stay its own while it runs, and the monitor needs" in done.stderr


class TestContainerd:
    @pytest.fixture(autouse=True)
    def _loaded(self, containerd: Containerd, image: images.Image, tmp_path: Path) -> None:
        containerd.load(image, tmp_path)

    def test_life(self, containerd: Containerd, runtime: Path) -> None:
        by = f"--runc-binary={runtime}"
        containerd("run", "--detach", by, "docker.io/test/guest:1", "guest", "app", "one")
        assert containerd.task_status("guest") == "RUNNING"
        containerd("task", "kill", "--signal=TERM", "guest")
        wait_for("the task ends", lambda: containerd.task_status("guest") == "STOPPED")
        containerd("task", "rm", "guest", check=False)
        containerd("container", "rm", "guest")

    def test_output_comes_back_at_its_own_end(self, containerd: Containerd, runtime: Path) -> None:
        by = f"--runc-binary={runtime}"
        done = containerd("run", "--rm", by, "docker.io/test/guest:1", "guest", "app", "poweroff", check=False)
        assert "-- poweroff" in done.stdout
        assert done.returncode == 0


class TestPodman:
    @pytest.fixture(autouse=True)
    def _loaded(self, podman: Podman, image: images.Image, tmp_path: Path) -> None:
        podman.load(image, tmp_path)

    def start(self, podman: Podman, *options: str, command: tuple[str, ...] = ("app", "one")) -> str:
        """Start the guest as `guest` and wait until it is up; return its address."""
        podman.create("--detach", "--name=guest", *options, PODMANS, *command)
        self.wait_boots(podman, 1)
        return self.show(podman, "{{.NetworkSettings.IPAddress}}")

    def wait_boots(self, podman: Podman, count: int) -> None:
        """Wait until the guest's log tells of as many boots."""
        wait_for(f"boot {count}", lambda: podman("logs", "guest").stdout.count("ready") == count)

    def show(self, podman: Podman, form: str) -> str:
        """Return what `inspect` says of the guest."""
        return podman("inspect", f"--format={form}", "guest").stdout.strip()

    def test_life(self, podman: Podman) -> None:
        address = self.start(podman)
        assert "-- one" in podman("logs", "guest").stdout
        assert podman.world.run("ping", "-c1", "-W2", address).returncode == 0
        podman("stop", "--time=10", "guest")
        assert self.show(podman, "{{.State.Status}} {{.State.ExitCode}}") == "exited 0"
        podman("start", "guest")
        self.wait_boots(podman, 2)
        podman("restart", "--time=10", "guest")
        self.wait_boots(podman, 3)
        podman("kill", "--signal=KILL", "guest")
        assert podman("wait", "guest").stdout.strip() == "137"
        podman("rm", "guest")

    @pytest.mark.parametrize("mode", ["redirect", "nat"])
    def test_a_published_port(self, podman: Podman, mode: str) -> None:
        annotation = f"--annotation=com.urunc.network={mode}"
        self.start(podman, annotation, f"--publish=7007:{PORT_ECHO}/udp", "--publish=8081:80")
        gateway = self.show(podman, "{{.NetworkSettings.Gateway}}")
        wait_for("an answer", lambda: udp_echo(podman.world, gateway, 7007) == "over UDP", 10)
        assert podman.world.run("curl", "-sf", "--max-time", "5", f"http://{gateway}:8081/").stdout

    def test_its_own_end_is_seen(self, podman: Podman) -> None:
        done = podman.create("--rm", PODMANS, "app", "poweroff", check=False)
        assert "-- poweroff" in done.stdout
        assert done.returncode == 0

    def test_a_terminal(self, podman: Podman) -> None:
        argv = podman.argv("run", f"--cgroup-parent=/{podman.world.cgroup}", "--rm", "-it", PODMANS, "app", "poweroff")
        done = podman.world.run("/usr/bin/python3", "-c", ON_A_TERMINAL, *argv, check=False, env=podman.env)
        assert "-- poweroff" in done.stdout
        assert done.returncode == 0

    def test_limits_and_stats(self, podman: Podman) -> None:
        self.start(podman, "--memory=192m", "--user=1000:1000")
        memory = int(podman("logs", "guest").stdout.split("memory: ")[1].split()[0])
        assert 64 <= memory < 192
        used = podman("stats", "--no-stream", "--no-reset", "--format={{.MemUsage}}", "guest").stdout.strip()
        assert not used.startswith("0B")
        assert used.endswith("/ 201.3MB")  # of 1000 each

    def test_pause(self, podman: Podman) -> None:
        address = self.start(podman)
        podman("pause", "guest")
        assert podman.world.run("ping", "-c1", "-W1", address, check=False).returncode != 0
        podman("unpause", "guest")
        assert podman.world.run("ping", "-c1", "-W2", address).returncode == 0

    def test_what_it_cannot_do_is_said(self, podman: Podman) -> None:
        self.start(podman)
        assert "a unikernel has one process" in podman("exec", "guest", "sh", check=False).stderr
        done = podman.create("--rm", "--network=host", PODMANS, check=False)
        assert done.returncode == 126
        assert "network" in done.stderr

    def test_a_pod_with_a_sidecar(self, podman: Podman) -> None:
        """They share the network's namespace, and the guest has it. The sidecar is runc's."""
        podman("pod", "create", "--name=pod", "--infra=false", f"--cgroup-parent=/{podman.world.cgroup}", check=False)
        try:
            podman("run", "--detach", "--pod=pod", "--name=sidecar", "docker.io/test/busybox:1")
            podman("run", "--detach", "--pod=pod", "--name=guest", PODMANS, "app")
            self.wait_boots(podman, 1)
            assert podman("exec", "sidecar", "echo", "inside").stdout == "inside\n"
        finally:
            podman("pod", "rm", "--force", "--time=0", "pod")
