"""Docker 26 and containerd 1.7, from a newer Debian, with urunc's shim under that Debian's Python and QEMU."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import guestimages
import images
import pytest
from engines import Docker
from shims import INTERPRETER, NAME, write_entry
from test_linux import image as linux_image
from tree import Tree, want_tree

from world import wait_for

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

RUNTIME = "--runtime=io.containerd.urunc.v2"
BUSYBOX, GUEST = "test/busybox:1", "test/guest:1"
ON_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.sendto(b"hello", (sys.argv[1], int(sys.argv[2])))
print(s.recv(100).decode())
"""


class NewDocker(Docker):
    """A dockerd that knows the shim by its name alone."""

    def __init__(self, world: Tree, shims: Path) -> None:
        self.path = f"{shims}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        super().__init__(world, Path("/usr/sbin/runc"))
        self.client = "/usr/bin/docker"


@contextmanager
def started(folder: Path) -> Iterator[NewDocker]:
    """Start Docker 26 in the newer Debian's tree, with the shims of `folder/bin` on its PATH."""
    tree = want_tree()
    write_entry(folder / "bin")
    world = Tree(folder, tree)
    try:
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{folder}/bin:{before}"
        engine = NewDocker(world, folder / "bin")
        os.environ["PATH"] = before
        yield engine
    finally:
        world.close()


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory, testguest: Path) -> Iterator[NewDocker]:
    """Docker 26 for the whole module."""
    folder = tmp_path_factory.mktemp("newer")
    with started(folder) as engine:
        engine.load(images.busybox(), folder)
        engine.load(guestimages.testguest(testguest), folder)
        yield engine


@pytest.fixture(autouse=True)
def nothing_left(docker: NewDocker) -> Iterator[None]:
    yield
    docker.remove_all()

    def left() -> list[str]:
        found = [command for _, command in docker.world.processes() if NAME in command or "qemu-system" in command]
        roots = docker.world.path("/run/containerd/s")
        return found + ([str(path) for path in roots.iterdir()] if roots.exists() else [])

    wait_for(f"nothing left: {left()}", lambda: not left(), 10)


def start(docker: NewDocker, *options: str, command: tuple[str, ...] = ("app",)) -> str:
    """Start the guest as `guest`; return its address."""
    docker("run", "--detach", "--name=guest", RUNTIME, *options, GUEST, *command)
    docker.wait_log("guest", "ready")
    return str(docker.inspect("guest")["NetworkSettings"]["IPAddress"])


def ask(docker: NewDocker, host: str, port: int) -> str:
    return docker.world.run(INTERPRETER, "-IS", "-c", ASK, host, str(port), check=False).stdout.strip()


class TestGuest:
    def test_it_answers(self, docker: NewDocker) -> None:
        assert ask(docker, start(docker), 7) == "hello"

    def test_a_published_port(self, docker: NewDocker) -> None:
        start(docker, "--publish=7007:7/udp")
        wait_for("an answer", lambda: ask(docker, "10.88.77.1", 7007) == "hello", 10)

    def test_stop_and_its_state(self, docker: NewDocker) -> None:
        start(docker)
        docker("stop", "--time=10", "guest")
        state = docker.inspect("guest")["State"]
        assert (state["Running"], state["OOMKilled"]) == (False, False)
        assert state["ExitCode"] != 137, "it was killed at the end of the grace period"

    def test_kill_by_a_signal(self, docker: NewDocker) -> None:
        start(docker)
        docker("kill", "--signal=KILL", "guest")
        assert docker("wait", "guest").stdout.strip() == "137"

    def test_restart(self, docker: NewDocker) -> None:
        start(docker)
        docker("restart", "--time=5", "guest")
        wait_for("the second boot", lambda: docker("logs", "guest").stdout.count("ready") == 2)
        address = docker.inspect("guest")["NetworkSettings"]["IPAddress"]
        assert ask(docker, address, 7) == "hello"

    def test_a_policy_of_restarts(self, docker: NewDocker) -> None:
        start(docker, "--restart=on-failure:2")
        for count in (2, 3):
            [pid] = [pid for pid, command in docker.world.processes() if command.startswith("/usr/bin/qemu-system")]
            docker.world.run("kill", "-KILL", str(pid))
            wait_for("the next boot", lambda count=count: docker("logs", "guest").stdout.count("ready") == count)
        assert docker.inspect("guest")["RestartCount"] == 2

    def test_logs_follow(self, docker: NewDocker) -> None:
        start(docker)
        follow = docker.world.start("follow", docker.client, f"--host={docker.socket}", "logs", "--follow", "guest")
        docker("stop", "--time=5", "guest")
        assert follow.wait(20) == 0
        log = docker.world.logs / "follow.log"
        assert "ready" in log.read_text()
        log.unlink()

    def test_limits_user_and_stats(self, docker: NewDocker) -> None:
        start(docker, "--memory=192m", "--cpus=1.5", "--user=1000:1000", "--annotation=com.example.key=value")
        memory = int(docker("logs", "guest").stdout.split("memory: ")[1].split()[0])
        assert 64 <= memory < 192
        stats = docker("stats", "--no-stream", "--format={{.MemUsage}}", "guest").stdout
        assert "192MiB" in stats
        assert not stats.startswith("0B")
        assert docker("top", "guest").stdout.count("qemu-system") == 1

    def test_pause(self, docker: NewDocker) -> None:
        address = start(docker)
        docker("pause", "guest")
        assert docker.inspect("guest")["State"]["Paused"]
        docker("unpause", "guest")
        assert ask(docker, address, 7) == "hello"

    def test_update(self, docker: NewDocker) -> None:
        start(docker, "--cpu-shares=512")
        docker("update", "--cpu-shares=256", "guest")
        assert docker.inspect("guest")["HostConfig"]["CpuShares"] == 256

    def test_a_terminal(self, docker: NewDocker) -> None:
        argv = (docker.client, f"--host={docker.socket}", "run", "--rm", "-it", RUNTIME, GUEST, "app", "poweroff")
        done = docker.world.run(INTERPRETER, "-c", ON_A_TERMINAL, *argv, check=False)
        assert "-- poweroff" in done.stdout
        assert done.returncode == 0

    def test_exec_is_refused(self, docker: NewDocker) -> None:
        start(docker)
        done = docker("exec", "guest", "sh", check=False)
        assert done.returncode != 0
        assert "a unikernel has one process" in done.stdout + done.stderr

    def test_network_host_is_refused(self, docker: NewDocker) -> None:
        done = docker("run", RUNTIME, "--network=host", GUEST, check=False)
        assert done.returncode == 125
        assert "network" in done.stderr


class TestLinux:
    @pytest.mark.parametrize("machine", ["q35", "microvm"])
    def test_standard_input_and_its_end(self, docker: NewDocker, tmp_path: Path, machine: str) -> None:
        """By the newer Debian's QEMU, whose character devices are not the older one's."""
        docker.load(linux_image("test/linux:1", {}), tmp_path)
        config = docker.world.path("/etc/urunc/config.toml")
        config.parent.mkdir(exist_ok=True)
        config.write_text(f'[monitors.qemu]\nmachine = "{machine}"\n')
        data = os.urandom(3 << 20)
        argv = (docker.client, f"--host={docker.socket}", "run", "--rm", "-i", RUNTIME, "--memory=320m", "test/linux:1")
        script = "sleep 0.3; busybox sha256sum; busybox wc -c"
        try:
            done = docker.world.run(*argv, "sh", "-c", script, stdin=data)
        finally:
            config.unlink()
        assert done.stdout.split()[-3:] == [hashlib.sha256(data).hexdigest(), "-", "0"]


class TestOrdinary:
    def test_output_status_and_input(self, docker: NewDocker) -> None:
        done = docker("run", "--rm", RUNTIME, BUSYBOX, "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
        assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)
        line = f"echo typed | {docker.client} --host={docker.socket} run --rm -i {RUNTIME} {BUSYBOX} cat"
        assert docker.world.run("sh", "-c", line).stdout == "typed\n"

    def test_exec(self, docker: NewDocker) -> None:
        docker("run", "--detach", "--name=long", RUNTIME, BUSYBOX)
        done = docker("exec", "long", "sh", "-c", "echo inside; exit 3", check=False)
        assert (done.stdout, done.returncode) == ("inside\n", 3)
        docker("stop", "--time=1", "long")
        assert docker.inspect("long")["State"]["ExitCode"] == 137

    def test_a_missing_program(self, docker: NewDocker) -> None:
        done = docker("run", "--rm", RUNTIME, BUSYBOX, "/no/such", check=False)
        assert done.returncode == 127
        assert "no such file" in done.stderr

    def test_killed_for_want_of_memory(self, docker: NewDocker) -> None:
        hog = "x=1; while true; do x=$x$x; done"
        docker("run", "--name=hog", RUNTIME, "--memory=16m", "--memory-swap=16m", BUSYBOX, "sh", "-c", hog, check=False)
        state = docker.inspect("hog")["State"]
        assert (state["ExitCode"], state["OOMKilled"]) == (137, True)
