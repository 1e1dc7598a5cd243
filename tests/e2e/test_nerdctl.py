"""nerdctl on Debian's containerd, with urunc's shim by its name: bridge by CNI, its own hooks, its own loggers.

URUNC_TEST_NERDCTL names the binary where it is not on PATH.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import guestimages
import images
import pytest
from engines import Containerd
from guests import PORT_ECHO, page, ping, udp_echo
from shims import INTERPRETER, NAME, write_entry

from world import World, wait_for

pytestmark = [pytest.mark.root, pytest.mark.engine]

VARIABLE = "URUNC_TEST_NERDCTL"
RUNTIME = "--runtime=io.containerd.urunc.v2"
BUSYBOX, GUEST = "test/busybox:1", "test/guest:1"
STATE = ("/run/containerd/s", "/run/containerd/runc")
ON_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


class Nerdctl(Containerd):
    """A containerd that finds the shim on its PATH, and `nerdctl` on it, whose state is the world's alone."""

    def __init__(self, world: World, program: str, shims: Path) -> None:
        self.shims = shims
        world.run("mount", "-t", "tmpfs", "tmpfs", "/var/lib/cni")  # where CNI's plugins remember the addresses
        super().__init__(world, Path("/usr/bin/runc"))
        self.nerdctl = (
            program,
            f"--address={self.socket}",
            f"--namespace={self.namespace}",
            "--data-root=/run/data/nerdctl",
            "--cni-path=/usr/lib/cni",
            "--cni-netconfpath=/run/data/cni",
            "--cgroup-manager=cgroupfs",
        )

    def _start(self) -> subprocess.Popen[bytes]:
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{self.shims}:{before}"
        try:
            return super()._start()
        finally:
            os.environ["PATH"] = before

    def do(self, *argv: str, check: bool = True, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run `nerdctl <argv>`."""
        return self.world.run(*self.nerdctl, *argv, check=check, stdin=stdin)

    def on_a_terminal(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run `nerdctl <argv>` on a terminal of its own."""
        return self.world.run(INTERPRETER, "-c", ON_A_TERMINAL, *self.nerdctl, *argv, check=False)

    def start(self, *options: str, command: tuple[str, ...] = ("app", "one")) -> str:
        """Start the guest as `guest` and wait until it is up; return its address."""
        self.do("run", "--detach", "--name=guest", RUNTIME, *options, GUEST, *command)
        self.wait_boots(1)
        return self.show("{{.NetworkSettings.IPAddress}}")

    def wait_boots(self, count: int) -> None:
        """Wait until the guest's log tells of as many boots."""
        wait_for(f"boot {count}", lambda: self.do("logs", "guest").stdout.count("ready") == count)

    def show(self, form: str, name: str = "guest") -> str:
        """Return what `inspect` says of a container."""
        return self.do("inspect", f"--format={form}", name).stdout.strip()


@contextmanager
def started(folder: Path) -> Iterator[Nerdctl]:
    """Start a containerd for nerdctl, with the shims of `folder/bin` on its PATH."""
    program = os.environ.get(VARIABLE) or shutil.which("nerdctl")
    if program is None:
        pytest.skip(f"nerdctl is not on PATH, and {VARIABLE} does not name it")
    write_entry(folder / "bin")
    world = World(folder)
    try:
        engine = Nerdctl(world, program, folder / "bin")
        engine.load(images.busybox(), folder)
        engine.do("run", "--rm", BUSYBOX, "true")  # makes the bridge
        yield engine
    finally:
        world.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, testguest: Path) -> Iterator[Nerdctl]:
    """nerdctl and its containerd for the whole module."""
    folder = tmp_path_factory.mktemp("nerdctl")
    with started(folder) as engine:
        engine.load(guestimages.testguest(testguest), folder)
        yield engine


@pytest.fixture(autouse=True)
def nothing_left(engine: Nerdctl) -> Iterator[None]:
    """Remove what a test has made; then nothing more may be there than before it."""
    before = engine.world.snapshot(*STATE)
    yield
    names = engine.do("ps", "--all", "--quiet").stdout.split()
    if names:
        engine.do("rm", "--force", *names)

    def more() -> list[str]:
        now = engine.world.snapshot(*STATE)
        return [item for kind in now for item in now[kind] if item not in before[kind] and not keeps(kind, item)]

    def keeps(kind: str, item: str) -> bool:
        return engine.keeps(kind, item) or item == "/run/containerd/s"

    try:
        wait_for("nothing left", lambda: not more(), 10)
    except AssertionError:
        pytest.fail(f"left behind: {more()}")


class TestGuest:
    def test_its_life(self, engine: Nerdctl) -> None:
        address = engine.start()
        assert ping(engine.world, address)
        assert "-- one" in engine.do("logs", "guest").stdout
        assert engine.do("top", "guest").stdout.count("qemu-system") == 1
        engine.do("stop", "--time=60", "guest")
        assert engine.show("{{.State.Status}} {{.State.ExitCode}}") == "exited 0"
        engine.do("start", "guest")
        engine.wait_boots(2)
        engine.do("restart", "--time=60", "guest")
        engine.wait_boots(3)
        engine.do("kill", "--signal=KILL", "guest")
        assert engine.do("wait", "guest").stdout.strip() == "137"
        engine.do("rm", "guest")

    def test_published_ports(self, engine: Nerdctl) -> None:
        engine.start(f"--publish=7007:{PORT_ECHO}/udp", "--publish=8081:80")
        gateway = "10.4.0.1"  # of the network that nerdctl makes
        wait_for("an answer", lambda: udp_echo(engine.world, gateway, 7007) == "over UDP", 10)
        for host in (gateway, "127.0.0.1"):
            assert "-- one" in page(engine.world, f"{host}:8081")

    def test_limits_user_and_stats(self, engine: Nerdctl) -> None:
        engine.start("--memory=192m", "--cpus=1.5", "--user=1000:1000")
        memory = int(engine.do("logs", "guest").stdout.split("memory: ")[1].split()[0])
        assert 64 <= memory < 192
        used = engine.do("stats", "--no-stream", "--format={{.MemUsage}}", "guest").stdout
        assert used.strip().endswith("/ 192MiB")
        assert not used.startswith("0B")

    def test_pause(self, engine: Nerdctl) -> None:
        address = engine.start()
        engine.do("pause", "guest")
        assert engine.show("{{.State.Status}}") == "paused"
        assert not ping(engine.world, address)
        engine.do("unpause", "guest")
        assert ping(engine.world, address)

    def test_its_own_end(self, engine: Nerdctl) -> None:
        done = engine.do("run", "--rm", RUNTIME, GUEST, "app", "poweroff", check=False)
        assert "-- poweroff" in done.stdout
        assert done.returncode == 0

    def test_a_terminal(self, engine: Nerdctl) -> None:
        done = engine.on_a_terminal("run", "--rm", "-it", RUNTIME, GUEST, "app", "poweroff")
        assert "-- poweroff" in done.stdout
        assert done.returncode == 0

    def test_networks(self, engine: Nerdctl) -> None:
        done = engine.do("run", "--rm", RUNTIME, "--network=none", GUEST, "app", "poweroff")
        assert "nic0" not in done.stdout
        done = engine.do("run", "--rm", RUNTIME, "--network=host", GUEST, check=False)
        assert "a virtual machine cannot share the host's network" in done.stderr

    def test_what_it_cannot_do_is_said(self, engine: Nerdctl) -> None:
        engine.start()
        assert "a unikernel has one process" in engine.do("exec", "guest", "sh", check=False).stderr
        done = engine.do("run", "--rm", RUNTIME, "--volume=/run/data/volume:/volume", GUEST, check=False)
        assert "mount `/volume` cannot be given to the guest" in done.stderr


@pytest.mark.parametrize("by", [(), (RUNTIME,)], ids=["runc", "urunc"])
class TestOrdinary:
    def test_output_status_and_input(self, engine: Nerdctl, by: tuple[str, ...]) -> None:
        done = engine.do("run", "--rm", *by, BUSYBOX, "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
        assert (done.stdout, done.returncode) == ("out\n", 7)
        assert done.stderr.endswith("err\n")

    def test_input_that_ends_at_once(self, engine: Nerdctl, by: tuple[str, ...]) -> None:
        """It ends before the container is made."""
        assert engine.do("run", "--rm", "-i", *by, BUSYBOX, "cat", stdin=b"typed\n").stdout == "typed\n"

    def test_exec_and_a_terminal(self, engine: Nerdctl, by: tuple[str, ...]) -> None:
        engine.do("run", "--detach", "--name=long", *by, BUSYBOX)
        done = engine.do("exec", "long", "sh", "-c", "echo inside; exit 3", check=False)
        assert done.stdout == "inside\n"
        assert "exit code 3" in done.stderr
        assert "tty" in engine.on_a_terminal("exec", "-it", "long", "sh", "-c", "test -t 0 && echo tty").stdout
        engine.do("stop", "--time=1", "long")
        assert engine.show("{{.State.ExitCode}}", "long") == "137"

    def test_a_missing_program(self, engine: Nerdctl, by: tuple[str, ...]) -> None:
        done = engine.do("run", "--rm", *by, BUSYBOX, "/no/such", check=False)
        assert done.returncode != 0
        assert "no such file" in done.stderr


def test_one_shim_serves_one_container(engine: Nerdctl) -> None:
    engine.start()
    shims: list[Any] = [command for _, command in engine.world.processes() if f"{NAME} " in command]
    assert len(shims) == 1
