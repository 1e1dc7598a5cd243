"""Docker and containerd that have systemd make the cgroups, on a machine that systemd has booted.

Not part of scripts/test. In the machine of scripts/systemd-machine, where QEMU emulates a QEMU, it takes minutes:

    URUNC_MACHINE_PACKAGES=docker.io,containerd scripts/systemd-machine tests/e2e/test_systemd_engines.py
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import guestimages
import images
import pytest
from engines import CONTAINERD_CONFIG, Containerd, Docker
from shims import write_entry

from world import World, wait_for, which

pytestmark = [
    pytest.mark.root,
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not Path("/run/systemd/system").is_dir(), reason="this host was not booted by systemd"),
]
GUEST, BUSYBOX = "docker.io/test/guest:1", "docker.io/test/busybox:1"
LONG = 300


class Machine(World):
    """The machine itself: nothing is hidden, for systemd is outside."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.services = {}
        self.cgroup = "urunc-test"

    def argv(self, argv: Sequence[str | Path]) -> list[str]:
        """Return the command line as it is."""
        return [str(word) for word in argv]

    def path(self, inside: str) -> Path:
        """Return the path as it is."""
        return Path(inside)

    def run(self, *argv: str | Path, timeout: float = LONG, **options: object) -> subprocess.CompletedProcess[str]:
        """Run a command, with time for an emulated machine."""
        return super().run(*argv, timeout=max(timeout, LONG), **options)  # type: ignore[arg-type]

    def close(self) -> None:
        """End the services."""
        for service in self.services.values():
            service.terminate()
            service.wait(60)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    for program in ("dockerd", "containerd", "ctr", "qemu-system-x86_64"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    machine = Machine(tmp_path)
    yield machine
    machine.close()


def scope_of(pid: int) -> str:
    """Return the cgroup of a process, of the hierarchy in which systemd has its units."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line.split(":", 2)[2] for line in lines if line.startswith("0::") or ":name=systemd:" in line)


def is_loaded(unit: str) -> bool:
    """Return whether systemd knows the unit."""
    argv = ["systemctl", "list-units", "--all", "--plain", unit]
    shown = subprocess.run(argv, check=False, capture_output=True, text=True)
    return unit in shown.stdout


class SystemdDocker(Docker):
    """A dockerd with systemd's driver, beside the machine's own: without networks, which they would share."""

    def __init__(self, world: Machine, runtime: Path) -> None:
        self.world = world
        self.socket = f"unix://{world.logs}/docker.sock"
        self.client = which("docker") or "docker"
        self.daemon = world.start(
            "dockerd",
            which("dockerd") or "dockerd",
            f"--host={self.socket}",
            "--exec-opt=native.cgroupdriver=systemd",
            f"--data-root={world.logs}/docker",
            f"--exec-root={world.logs}/docker-exec",
            f"--pidfile={world.logs}/docker.pid",
            "--bridge=none",
            "--iptables=false",
            f"--add-runtime=urunc={runtime}",
        )
        wait_for("dockerd answers", self._answers, LONG)


def test_docker(machine: Machine, runtime: Path, testguest: Path, tmp_path: Path) -> None:
    docker = SystemdDocker(machine, runtime)
    docker.load(guestimages.testguest(testguest), tmp_path)
    options = ("--runtime=urunc", "--network=none", "--memory=256m", "--security-opt=apparmor=unconfined")
    docker("run", "--detach", "--name=guest", *options, "test/guest:1", "app")
    docker.wait_log("guest", "ready", LONG)
    state = docker.inspect("guest")
    unit = f"docker-{state['Id']}.scope"
    assert scope_of(state["State"]["Pid"]) == f"/system.slice/{unit}"
    assert is_loaded(unit)
    assert docker("stats", "--no-stream", "--format={{.MemUsage}}", "guest").stdout.strip().endswith("/ 256MiB")
    docker("stop", "--time=60", "guest")
    assert docker.inspect("guest")["State"]["ExitCode"] != 137
    docker("rm", "guest")
    assert not is_loaded(unit)


class SystemdContainerd(Containerd):
    """A containerd of the machine's."""

    def config(self) -> str:
        """Return the configuration, with folders on the disk."""
        config = CONTAINERD_CONFIG.format(socket=self.socket)
        return config.replace("/run/data", str(self.world.logs))


def test_the_shim(machine: Machine, testguest: Path, tmp_path: Path) -> None:
    """A kubelet with systemd's driver gives `cgroupsPath` in its form, and no shim but runc's hears of it otherwise."""
    containerd = SystemdContainerd(machine, Path("/usr/bin/runc"))
    by = f"--runtime={write_entry(tmp_path / 'bin')}"
    for image in (guestimages.testguest(testguest), images.busybox()):
        containerd.load(image, tmp_path)
    for name, image, command in (("guest", GUEST, ("app",)), ("plain", BUSYBOX, ("sleep", "1000"))):
        unit = f"urunc-test-{name}.scope"
        log = f"--log-uri=file://{tmp_path}/{name}.log"
        place = f"--cgroup=system.slice:urunc-test:{name}"
        containerd("run", "--detach", by, log, place, image, name, *command)
        [pid] = [
            int(line.split()[1]) for line in containerd("task", "ls").stdout.splitlines() if line.startswith(f"{name} ")
        ]
        assert scope_of(pid) == f"/system.slice/{unit}"
        assert is_loaded(unit)
        containerd("task", "kill", "--signal=KILL", name)
        wait_for("the task ends", lambda name=name: containerd.task_status(name) == "STOPPED", LONG)
        containerd("task", "rm", name, check=False)
        containerd("container", "rm", name)
        wait_for("the scope is gone", lambda unit=unit: not is_loaded(unit), LONG)
