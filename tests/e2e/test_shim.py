"""containerd drives containerd-shim-urunc-v2 by `ctr run --runtime`: unikernels, ordinary containers, a pod of both."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import guestimages
import images
import pytest
from engines import Containerd
from shims import INTERPRETER, NAME, write_entry
from test_linux import image as linux_image

import bundles
from world import World, wait_for

pytestmark = [pytest.mark.root, pytest.mark.engine]

BUSYBOX, GUEST, BROKEN = (f"docker.io/test/{name}:1" for name in ("busybox", "guest", "broken"))
STATE = ("/run/containerd/s", "/run/containerd/runc")

ON_A_TERMINAL = """
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
"""


def unread(pipe: int) -> int:
    """Return how many bytes wait in a pipe."""
    return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout's shim."""
    return write_entry(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def guest(testguest: Path) -> images.Image:
    """The test guest's image."""
    return guestimages.testguest(testguest)


class Ctr:
    """`ctr` with the shim under test, and what a test asks of it again and again."""

    def __init__(self, engine: Containerd, shim: Path) -> None:
        self.engine, self.world = engine, engine.world
        self.by = f"--runtime={shim}"

    def __call__(self, *argv: str, **options: Any) -> Any:
        return self.engine(*argv, **options)

    def run(self, *argv: str, **options: Any) -> Any:
        """`ctr run` with the shim."""
        return self.engine("run", self.by, *argv, **options)

    def start(self, name: str, *command: str, image: str = GUEST, options: tuple[str, ...] = ()) -> None:
        """Start a detached container whose output goes to a file; wait until the guest is ready."""
        log = f"/run/data/{name}.log"
        self.run("--detach", f"--log-uri=file://{log}", *options, image, name, *command)
        if image == GUEST:
            wait_for("the guest is ready", lambda: "ready" in self.world.run("cat", log).stdout)

    def status(self, name: str) -> str:
        return self.engine.task_status(name)

    def end(self, name: str) -> None:
        """Kill and remove a container."""
        self("task", "kill", "--signal=KILL", name, check=False)
        wait_for("the task ends", lambda: self.status(name) in ("STOPPED", ""))
        self("task", "rm", name, check=False)
        self("container", "rm", name)

    def stop(self, words: str, service: Any, signal: str = "TERM") -> None:
        """End a service of the world: what was started is nsenter, which passes no signal on."""
        for pid, command in self.world.processes():
            if words in command and not command.startswith("nsenter"):
                self.world.run("kill", f"-{signal}", str(pid))
        service.wait(30)

    def shims(self) -> list[int]:
        """Return the pids of the shims, as the world sees them."""
        return [pid for pid, command in self.world.processes() if f"{NAME} " in command]

    def on_a_terminal(self, *argv: str) -> Any:
        """Run `ctr <argv>` on a terminal of its own."""
        options = (f"--address={self.engine.socket}", f"--namespace={self.engine.namespace}")
        return self.world.run(INTERPRETER, "-c", ON_A_TERMINAL, "ctr", *options, *argv, check=False)


@pytest.fixture
def ctr(containerd: Containerd, shim: Path, guest: images.Image, tmp_path: Path) -> Iterator[Ctr]:
    """`ctr` on the shared containerd, which must hold nothing more afterwards."""
    containerd.load(guest, tmp_path)
    before = containerd.world.snapshot(*STATE)
    yield Ctr(containerd, shim)
    containerd.remove_all()

    def more() -> list[str]:
        now = containerd.world.snapshot(*STATE)
        return [item for kind in now for item in now[kind] if item not in before[kind] and not keeps(item)]

    def keeps(item: str) -> bool:
        return containerd.keeps("cgroups", item) or containerd.keeps("files", item) or item == "/run/containerd/s"

    try:
        wait_for("nothing left", lambda: not more(), 20)
    except AssertionError:
        pytest.fail(f"left behind: {more()}")


class TestOrdinary:
    """An ordinary container: runc does it, the shim serves it."""

    def test_output_and_status(self, ctr: Ctr) -> None:
        done = ctr.run("--rm", BUSYBOX, "once", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
        assert (done.stdout, done.returncode) == ("out\n", 7)
        assert done.stderr.endswith("err\n")

    def test_input_and_its_end(self, ctr: Ctr) -> None:
        options = f"--address={ctr.engine.socket} --namespace={ctr.engine.namespace}"
        line = f"(sleep 1; echo typed) | ctr {options} run --rm {ctr.by} {BUSYBOX} cat cat"
        assert ctr.world.run("sh", "-c", line).stdout == "typed\n"

    def test_a_terminal(self, ctr: Ctr) -> None:
        done = ctr.on_a_terminal(
            "run", "--rm", "-t", ctr.by, BUSYBOX, "tty", "sh", "-c", "ls -l /proc/self/fd/0; exit 5"
        )
        assert "/dev/pts/" in done.stdout
        assert done.returncode == 5

    def test_exec(self, ctr: Ctr) -> None:
        ctr.start("long", "sleep", "1000", image=BUSYBOX)
        done = ctr("task", "exec", "--exec-id=one", "long", "sh", "-c", "echo inside; exit 3", check=False)
        assert (done.stdout, done.returncode) == ("inside\n", 3)
        on_tty = ctr.on_a_terminal("task", "exec", "-t", "--exec-id=two", "long", "sh", "-c", "test -t 0 && echo tty")
        assert "tty" in on_tty.stdout
        ctr.end("long")

    def test_an_exec_that_outlives_nothing(self, ctr: Ctr) -> None:
        ctr.start("long", "sleep", "1000", image=BUSYBOX)
        ctr("task", "exec", "--detach", "--exec-id=bg", "long", "sleep", "1000")
        assert len(ctr("task", "ps", "long").stdout.splitlines()) == 3
        assert "bg" in ctr("task", "ps", "long").stdout
        ctr.end("long")

    def test_pause_and_resume(self, ctr: Ctr) -> None:
        ctr.start("long", "sleep", "1000", image=BUSYBOX)
        ctr("task", "pause", "long")
        assert ctr.status("long") == "PAUSED"
        ctr("task", "resume", "long")
        assert ctr.status("long") == "RUNNING"
        ctr.end("long")

    def test_a_missing_program_is_said(self, ctr: Ctr) -> None:
        done = ctr.run("--rm", BUSYBOX, "missing", "/no/such", check=False)
        assert done.returncode != 0
        assert "no such file" in done.stderr

    def test_a_container_killed_for_want_of_memory_says_so(self, ctr: Ctr, containerd: Containerd) -> None:
        events = containerd.world.start(
            "events", "ctr", f"--address={containerd.socket}", f"--namespace={containerd.namespace}", "events"
        )
        hog = "x=1; while true; do x=$x$x; done"
        done = ctr.run("--rm", "--memory-limit=33554432", BUSYBOX, "hog", "sh", "-c", hog, check=False)
        assert done.returncode == 137
        log = containerd.world.logs / "events.log"
        wait_for("the event", lambda: "/tasks/oom" in log.read_text())
        ctr.stop(f"namespace={containerd.namespace} events", events)
        topics = [line.split()[5] for line in log.read_text().splitlines() if " /tasks/" in line and "hog" in line]
        assert [topic for topic in topics if topic != "/tasks/oom"] == [
            "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete",
        ]  # fmt: skip
        assert topics.index("/tasks/oom") < topics.index("/tasks/exit")


class TestGuest:
    """A unikernel through the shim."""

    def test_output_at_its_own_end(self, ctr: Ctr) -> None:
        done = ctr.run("--rm", GUEST, "guest", "app", "poweroff", check=False)
        assert "-- poweroff" in done.stdout
        assert done.returncode == 0

    def test_its_life(self, ctr: Ctr) -> None:
        ctr.start("guest", "app", "one")
        assert ctr.status("guest") == "RUNNING"
        assert "memory.usage_in_bytes" in ctr("task", "metrics", "guest").stdout
        assert len(ctr("task", "ps", "guest").stdout.splitlines()) == 2
        ctr("task", "kill", "--signal=TERM", "guest")
        wait_for("the task ends", lambda: ctr.status("guest") == "STOPPED")
        assert "already finished" in ctr("task", "kill", "guest", check=False).stderr
        ctr("task", "rm", "guest", check=False)
        ctr("container", "rm", "guest")

    def test_pause_and_resume(self, ctr: Ctr) -> None:
        ctr.start("guest", "app")
        ctr("task", "pause", "guest")
        assert ctr.status("guest") == "PAUSED"
        ctr("task", "resume", "guest")
        assert ctr.status("guest") == "RUNNING"
        ctr.end("guest")

    def test_what_it_cannot_do_is_said(self, ctr: Ctr) -> None:
        ctr.start("guest", "app")
        done = ctr("task", "exec", "--exec-id=x", "guest", "sh", check=False)
        assert "a unikernel has one process" in done.stderr
        done = ctr("task", "checkpoint", "guest", check=False)
        assert "urunc has no checkpoints" in done.stderr
        ctr.end("guest")

    def test_a_terminal(self, ctr: Ctr) -> None:
        done = ctr.on_a_terminal("run", "--rm", "-t", ctr.by, GUEST, "guest", "app", "poweroff")
        assert "-- poweroff" in done.stdout
        assert done.returncode == 0

    def test_a_logger(self, ctr: Ctr) -> None:
        script = ctr.world.path("/run/data/logger")
        script.write_text(
            "#!/bin/sh\nexec 5>&-\necho $CONTAINER_ID $1 $2 > /run/data/logged\ncat <&3 >> /run/data/logged\n"
        )
        script.chmod(0o755)
        ctr.run("--detach", "--log-uri=binary:///run/data/logger?key=value", GUEST, "guest", "app", "poweroff")
        wait_for("the end", lambda: ctr.status("guest") == "STOPPED")
        wait_for("the log", lambda: "-- poweroff" in ctr.world.path("/run/data/logged").read_text())
        assert ctr.world.path("/run/data/logged").read_text().startswith("guest key value\n")
        ctr.end("guest")

    def test_a_full_fifo_makes_the_guest_wait_and_loses_nothing(self, ctr: Ctr) -> None:
        ctr.run("--detach", GUEST, "guest", "app", "flood")
        [fifo] = ctr.world.path("/run/containerd/fifo").glob("*/guest-stdout")
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            wait_for("the fifo is full", lambda: unread(reader) > 60_000)
            time.sleep(0.3)  # for what does not fit
            output = os.read(reader, 1 << 20)
            wait_for("more is written", lambda: unread(reader) > 1000)
            output += os.read(reader, 1 << 20)
        finally:
            os.close(reader)
        assert ctr.status("guest") == "RUNNING"
        numbers = [int(line.split()[1]) for line in output.splitlines()[:-1] if line.startswith(b"flood")]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > 5000
        ctr.end("guest")

    def test_a_configuration_of_its_own(self, ctr: Ctr) -> None:
        ctr.world.path("/run/data/urunc.toml").write_text("[monitors.qemu]\ndefault_memory_mb = 77\n")
        option = "--runtime-config-path=/run/data/urunc.toml"
        assert "memory: 77 MiB" in ctr.run("--rm", option, GUEST, "guest", "app", "poweroff").stdout
        done = ctr.run("--rm", "--runtime-config-path=/no/such.toml", GUEST, "guest", check=False)
        assert "OCI runtime create failed: /no/such.toml: no such file or directory" in done.stderr

    def test_a_broken_image_is_said_word_for_word(self, ctr: Ctr, testguest: Path, tmp_path: Path) -> None:
        broken = images.unikernel("test/broken:1", testguest, {"unikernelType": "nonsense", "hypervisor": "qemu"})
        ctr.engine.load(broken, tmp_path)
        done = ctr.run("--rm", BROKEN, "broken", check=False)
        assert "OCI runtime create failed: unknown guest `nonsense`" in done.stderr


class TestLinux:
    """A Linux guest, whose init tells the shim how the application ended."""

    IMAGE = "docker.io/test/linux:1"
    MEMORY = ("--memory-limit", str(320 << 20))

    @pytest.fixture(autouse=True)
    def _loaded(self, ctr: Ctr, tmp_path_factory: pytest.TempPathFactory) -> None:
        if self.IMAGE not in ctr("image", "ls", "--quiet").stdout:
            ctr.engine.load(linux_image("test/linux:1", {}), tmp_path_factory.mktemp("linux"))

    def test_the_exit_status_is_the_applications(self, ctr: Ctr) -> None:
        done = ctr.run("--rm", *self.MEMORY, self.IMAGE, "linux", "sh", "-c", "echo said; exit 42", check=False)
        assert "said" in done.stdout
        assert done.returncode == 42

    def test_a_signal_reaches_it(self, ctr: Ctr) -> None:
        trap = "trap 'echo caught; exit 9' TERM; echo waiting; while :; do sleep 0.1; done"
        ctr.start("linux", "sh", "-c", trap, image=self.IMAGE, options=self.MEMORY)
        log = ctr.world.path("/run/data/linux.log")
        wait_for("the application runs", lambda: "waiting" in log.read_text())
        ctr("task", "kill", "--signal=TERM", "linux")
        wait_for("the task ends", lambda: ctr.status("linux") == "STOPPED")
        assert "caught" in log.read_text()
        assert "exit code 9" in ctr("task", "rm", "linux", check=False).stderr
        ctr("container", "rm", "linux")


@pytest.mark.parametrize("tender", ["hvt", "spt"])
class TestSolo5:
    """Solo5's own test guests, whose tender's exit status is the guest's."""

    def run(self, ctr: Ctr, tmp_path: Path, tender: str, test: str, *command: str) -> Any:
        """Run one of Solo5's tests to its end."""
        name = f"test/{tender}-{test.replace('_', '-')}:1"
        ctr.engine.load(guestimages.solo5(tender, test, name), tmp_path)
        return ctr.run("--rm", f"docker.io/{name}", "solo5", *command, check=False)

    def test_output_at_its_own_end(self, ctr: Ctr, tmp_path: Path, tender: str) -> None:
        done = self.run(ctr, tmp_path, tender, "test_hello", "Hello_Solo5")
        assert "SUCCESS" in done.stdout
        assert done.returncode == 0

    def test_its_failure_is_the_containers(self, ctr: Ctr, tmp_path: Path, tender: str) -> None:
        assert self.run(ctr, tmp_path, tender, "test_ssp").returncode == 255

    def test_its_life(self, ctr: Ctr, tmp_path: Path, tender: str) -> None:
        name = f"test/{tender}-time:1"
        ctr.engine.load(guestimages.solo5(tender, "test_time", name), tmp_path)
        ctr.run("--detach", "--log-uri=file:///run/data/solo5.log", f"docker.io/{name}", "solo5")
        assert ctr.status("solo5") == "RUNNING"
        ctr("task", "pause", "solo5")
        assert ctr.status("solo5") == "PAUSED"
        assert ctr("task", "ps", "solo5").stdout.count("\n") == 2
        ctr("task", "resume", "solo5")
        ctr("task", "kill", "--signal=TERM", "solo5")
        wait_for("the task ends", lambda: ctr.status("solo5") == "STOPPED")
        ctr.end("solo5")

    def test_a_device_that_it_lacks_is_said(self, ctr: Ctr, tmp_path: Path, tender: str) -> None:
        assert "storage" in self.run(ctr, tmp_path, tender, "test_blk").stderr


class TestPod:
    """Containers that share a sandbox's id share a shim."""

    POD = "--annotation=io.kubernetes.cri.sandbox-id=pod"

    def test_a_guest_and_its_neighbours(self, ctr: Ctr) -> None:
        ctr.start("pause", "sleep", "1000", image=BUSYBOX, options=(self.POD,))
        ctr.start("guest", "app", options=(self.POD,))
        ctr.start("sidecar", "sleep", "1000", image=BUSYBOX, options=(self.POD,))
        assert len(ctr.shims()) == 1
        assert ctr("task", "exec", "--exec-id=x", "sidecar", "echo", "hi").stdout == "hi\n"
        ctr.end("guest")
        assert ctr.status("sidecar") == "RUNNING"
        ctr.end("sidecar")
        ctr.end("pause")
        wait_for("the shim ends", lambda: not ctr.shims())


class TestFaults:
    """What dies, and what is left then."""

    def test_a_killed_shim_is_cleared(self, ctr: Ctr) -> None:
        ctr.start("guest", "app")
        ctr.start("long", "sleep", "1000", image=BUSYBOX)
        for pid in ctr.shims():
            ctr.world.run("kill", "-KILL", str(pid))
        wait_for("containerd notices", lambda: not ctr("task", "ls", "--quiet").stdout.strip())
        ctr("container", "rm", "guest", "long")

    @pytest.mark.parametrize("ours", [True, False], ids=["guest", "ordinary"])
    def test_a_create_does_not_outlive_its_shim_for_long(
        self, ctr: Ctr, tmp_path: Path, testguest: Path, ours: bool
    ) -> None:
        """A hook holds it up. It is ended by the `delete` that containerd runs, and leaves nothing, by runc either."""
        cgroup = f"/{ctr.engine.namespace}/slow"
        make = (
            bundles.unikernel(tmp_path / "b", testguest, cgroup=cgroup)
            if ours
            else bundles.ordinary(tmp_path / "b", cgroup=cgroup)
        )
        make.config["root"]["path"] = str(make.rootfs)
        begun = tmp_path / "begun"
        make.hook("createRuntime", "/bin/sh", "-c", f"echo > {begun}; exec sleep 987")
        config = f"--config={make.write()}/config.json"
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(ctr.run, "--detach", config, "slow", check=False)
            wait_for("the hook runs", begun.exists)
            shim = min(pid for pid, command in ctr.world.processes() if "-id slow start" in command)
            ctr.world.run("kill", "-KILL", str(shim))  # its children are called the same, and are younger
            assert running.result().returncode != 0
        wait_for("the hook has ended", lambda: not any("sleep 987" in line for _, line in ctr.world.processes()))
        ctr("container", "rm", "slow", check=False)

    def test_twenty_at_once(self, ctr: Ctr) -> None:
        names = [f"guest{number}" for number in range(20)]
        with ThreadPoolExecutor(20) as pool:
            done = list(pool.map(lambda name: ctr.run("--rm", GUEST, name, "app", "poweroff", check=False), names))
        assert [one.returncode for one in done] == [0] * 20, done
        assert all("-- poweroff" in one.stdout for one in done)

    @pytest.mark.slow
    def test_a_hundred_leave_nothing(self, ctr: Ctr) -> None:
        def run(number: int) -> int:
            image, command = (GUEST, ("app", "poweroff")) if number % 2 else (BUSYBOX, ("true",))
            return int(ctr.run("--rm", image, f"many{number}", *command, check=False).returncode)

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(run, range(100))) == [0] * 100

    def test_a_pods_shim_grows_by_nothing(self, ctr: Ctr) -> None:
        ctr.start("pause", "sleep", "1000", image=BUSYBOX, options=(TestPod.POD,))
        [shim] = ctr.shims()

        def held() -> list[str]:
            return ctr.world.run("ls", f"/proc/{shim}/fd").stdout.split()

        def cycle(name: str) -> None:
            ctr.run("--rm", TestPod.POD, BUSYBOX, name, "true")
            ctr.run("--rm", TestPod.POD, GUEST, name, "app", "poweroff")
            ctr("task", "exec", "--exec-id=x", "pause", "true")

        cycle("first")
        before = held()
        for number in range(5):
            cycle(f"next{number}")
        wait_for("as many descriptors as before", lambda: held() == before, 10)
        children = ctr.world.run("cat", f"/proc/{shim}/task/{shim}/children").stdout.split()
        assert len(children) == 1
        ctr.end("pause")


@pytest.fixture
def own(tmp_path: Path, shim: Path, guest: images.Image, runtime: Path) -> Iterator[Ctr]:
    """`ctr` on a containerd that the test may kill."""
    world = World(tmp_path / "world")
    try:
        engine = Containerd(world, runtime)
        for image in (images.busybox(), guest):
            engine.load(image, tmp_path)
        yield Ctr(engine, shim)
        engine.remove_all()
    finally:
        world.close()


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_containerd_restarts(own: Ctr, signal: str) -> None:
    own.start("guest", "app")
    own.start("long", "sh", "-c", "while true; do echo tick; sleep 0.1; done", image=BUSYBOX)
    pids = sorted(own.shims())
    own.stop("/usr/bin/containerd --config", own.engine.daemon, signal)
    time.sleep(0.5)
    assert sorted(own.shims()) == pids
    own.engine.daemon = own.engine._start()
    wait_for("containerd answers", own.engine._answers)
    assert own.status("guest") == own.status("long") == "RUNNING"
    assert own("task", "exec", "--exec-id=x", "long", "echo", "hi").stdout == "hi\n"
    assert "memory.usage_in_bytes" in own("task", "metrics", "guest").stdout
    own("task", "pause", "guest")
    own("task", "resume", "guest")
    own.end("long")
    own("task", "kill", "--signal=TERM", "guest")
    wait_for("the task ends", lambda: own.status("guest") == "STOPPED")
    own.end("guest")
    wait_for("the shims end", lambda: not own.shims())
