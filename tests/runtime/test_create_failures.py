"""Every step of `create` fails in turn, or is killed in turn; nothing may stay behind.

The steps are taken from a create that works, so that a new one is covered by being there.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import bundles
import linuxes
from inchild import set_propagation
from urunc.errors import HostError, KernelError, StateError, UruncError
from urunc.linux import cgroup, mountinfo, mounts, ns, proc
from urunc.runtime import create, init, lifecycle, monitor_root, net_devices, status, store
from urunc.runtime.options import Globals, Options
from urunc.runtime.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import ModuleType

    from urunc.runtime.channel import Channel

pytestmark = pytest.mark.root

NAME = "failing"


class Place:
    """A state root, a bundle on the test guest, a network namespace with a veth, and a cgroup to look at."""

    def __init__(self, folder: Path, testguest: Path) -> None:
        self.root = str(folder / "state")
        self.netns = f"urunc-test-{os.getpid()}"
        self.cgroup = f"/urunc-test-{os.getpid()}/{NAME}"
        self.bundle = bundles.unikernel(folder / "bundle", testguest, cgroup=self.cgroup)
        self.bundle.namespace("network", f"/run/netns/{self.netns}")
        self.marks = folder / "poststop"
        self.bundle.hook("poststop", "/bin/sh", "-c", f"echo done >> {self.marks}")
        self.bundle.write()

    def create(self) -> None:
        lifecycle.create(
            Globals(root=self.root), Options(id=NAME, bundle=str(self.bundle.folder), pid_file=f"{self.root}.pid")
        )

    def leftovers(self) -> list[str]:
        """Return what is there that was not there before."""
        found = [name for name in os.listdir(self.root) if name != ".cache"] if os.path.isdir(self.root) else []
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*{self.cgroup}")]
        links = subprocess.run(["ip", "-n", self.netns, "-br", "link"], capture_output=True, text=True, check=True)
        found += [line for line in links.stdout.splitlines() if line.startswith("urunc")]
        qdiscs = subprocess.run(["tc", "-n", self.netns, "qdisc"], capture_output=True, text=True, check=True)
        found += [line for line in qdiscs.stdout.splitlines() if "ingress" in line]
        found += self.processes()
        return found

    def processes(self) -> list[str]:
        """Return the processes that stand in the test's network namespace."""
        inode = os.stat(f"/run/netns/{self.netns}").st_ino
        found = []
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            try:
                if os.stat(f"/proc/{pid}/ns/net").st_ino == inode and proc.start_time(int(pid)):
                    found.append(f"process {pid}")
            except OSError:
                continue
        return found


@pytest.fixture
def place(tmp_path: Path, testguest: Path) -> Iterator[Place]:
    made = Place(tmp_path, testguest)
    subprocess.run(["ip", "netns", "add", made.netns], check=True)
    try:
        for line in ("link add eth0 type veth peer name far", "addr add 10.9.0.2/24 dev eth0", "link set eth0 up"):
            subprocess.run(["ip", "-n", made.netns, *line.split()], check=True)
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", made.netns], check=True)
        for path in Path("/sys/fs/cgroup").glob(f"*/urunc-test-{os.getpid()}"):
            path.rmdir()


def in_child(body: Callable[[], None]) -> int:
    """Run `body` in a forked child, which is where the steps are made to fail; return its exit status."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            body()
            code = 0
        except UruncError as error:
            print(error)
            code = 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def steps_of(place: Place) -> list[str]:
    """Return the steps of a create that works, init's with `init/` before their name."""
    assert in_child(place.create) == 0
    names = [name for name, _at in store.want(place.root, NAME).timeline]
    lifecycle.delete(place.root, NAME, force=True)
    assert place.leftovers() == []
    return [name for name in names if not name.endswith("begin")]


def own(steps: list[str]) -> list[str]:
    """Return the steps that `create` does itself."""
    return [step for step in steps if "/" not in step]


def at_step(place: Place, wanted: str, act: Callable[[], None]) -> int:
    """Create, and call `act` when the step `wanted` is done."""

    def done(self: Timeline, step: str) -> None:
        self.steps.append((step, 0))
        if step == wanted:
            act()

    def body() -> None:
        Timeline.done = done  # type: ignore[method-assign]
        place.create()

    return in_child(body)


def fail() -> None:
    raise KernelError("the test lets this step fail")


def die() -> None:
    os.kill(os.getpid(), 9)


def test_a_failing_step_leaves_nothing(place: Place) -> None:
    steps = own(steps_of(place))
    assert steps == ["plan", "fork", "cgroup", "join", "hooks", "network", "root", "created"]
    for step in steps:
        place.marks.unlink(missing_ok=True)
        assert at_step(place, step, fail) == 1, step
        assert place.leftovers() == [], step
        ran = place.marks.exists()
        assert ran == (steps.index(step) >= steps.index("hooks")), f"{step}: poststop hooks ran: {ran}"


def test_a_failing_step_mounts_the_rootfs_again(place: Place, tmp_path: Path) -> None:
    """A rootfs on a block device is unmounted for the guest; every mount is in the child's own namespace here."""
    disk, rootfs = tmp_path / "disk", str(place.bundle.rootfs)
    linuxes.make_disk(place.bundle.rootfs, disk)
    place.bundle.annotate(unikernelType="mirage", mountRootfs="true")
    place.bundle.write()
    create = place.create

    def mounted_create() -> None:
        ns.unshare(("mount",))
        set_propagation("rprivate")
        subprocess.run(["mount", "-o", "loop,nosuid", str(disk), rootfs], check=True)
        before = mountinfo.find(rootfs)
        try:
            create()
        except UruncError:
            if mountinfo.find(rootfs) != before:
                os._exit(77)
            raise
        assert mountinfo.find(rootfs) is None

    place.create = mounted_create  # type: ignore[method-assign]
    steps = own(steps_of(place))
    assert "device" in steps
    for step in steps:
        assert at_step(place, step, fail) == 1, step
        assert place.leftovers() == [], step


def test_a_killed_create_leaves_what_delete_force_clears(place: Place) -> None:
    for step in own(steps_of(place)):
        assert at_step(place, step, die) == -9, step
        container = store.find(place.root, NAME)
        assert container is not None, step
        assert status.of(place.root, container) in (status.STOPPED, status.CREATED), step
        lifecycle.delete(place.root, NAME, force=True)
        assert place.leftovers() == [], step


def test_a_failure_between_the_cgroups_leaves_nothing(place: Place) -> None:
    """An init that is in some of the hierarchies, and in the one that is asked for its processes not."""

    def join_one(paths: dict[str, str], pid: int) -> None:
        cgroup._join_one(next(iter(paths.values())), pid)
        fail()

    def body() -> None:
        cgroup.join = join_one
        place.create()

    assert in_child(body) == 1
    assert place.leftovers() == []


def test_whoever_has_inits_pid_after_it_is_left_alone(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    init_network = create._Creation._init_network

    def open_late(self: create._Creation) -> int:
        known, self.container = self.container, self.container.replace(start_time=self.container.start_time - 1)
        try:
            return init_network(self)
        finally:
            self.container = known

    def body() -> None:
        create._Creation._init_network = open_late  # type: ignore[method-assign]
        place.create()

    assert in_child(body) == 1
    assert "init ended before its network was looked at" in capfd.readouterr().out
    assert place.leftovers() == []


def test_a_caller_who_is_not_root(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostError, match="only root can create"):
        place.create()
    assert place.leftovers() == []


def test_the_id_is_free_again_after_a_failure(place: Place) -> None:
    assert at_step(place, "network", fail) == 1
    assert in_child(place.create) == 0
    lifecycle.delete(place.root, NAME, force=True)
    assert place.leftovers() == []


def vanish() -> None:
    os._exit(1)  # process 1 of a namespace does not hear its own SIGKILL


INIT_STEPS = (
    (init, "_enter_namespaces"),
    (init, "_become_first"),
    (init, "_prepare"),
    (init, "_set_names"),
    (monitor_root, "build"),
)


@pytest.mark.parametrize("act", [fail, vanish])
@pytest.mark.parametrize(("module", "name"), INIT_STEPS)
def test_a_failing_init_leaves_nothing(place: Place, module: ModuleType, name: str, act: Callable[[], None]) -> None:
    def body() -> None:
        setattr(module, name, lambda *_: act())
        place.create()

    assert in_child(body) == 1
    assert place.leftovers() == []


def test_init_failing_between_its_steps_leaves_nothing(place: Place) -> None:
    steps = [step for step in steps_of(place) if step.startswith("init/")]
    assert steps == [f"init/{name}" for name in ("namespaces", "joined", "orders", "root", "hooks", "pivot")]
    for step in steps:
        assert at_step(place, step, fail) == 1, step
        assert place.leftovers() == [], step


def test_a_failing_pivot_leaves_nothing(place: Place) -> None:
    def body() -> None:
        mounts.pivot = lambda _root: fail()
        place.create()

    assert in_child(body) == 1
    assert place.leftovers() == []


def test_an_init_killed_while_it_waits_is_stopped(place: Place) -> None:
    assert in_child(place.create) == 0
    container = store.want(place.root, NAME)
    proc.send_signal(container.pid, container.start_time, 9)
    assert proc.wait_gone(container.pid, container.start_time, 5)
    assert lifecycle.state(place.root, NAME)["status"] == "stopped"
    with pytest.raises(StateError, match="container is stopped"):
        lifecycle.start(place.root, NAME)
    lifecycle.delete(place.root, NAME)
    assert place.leftovers() == []


@pytest.fixture
def device(place: Place) -> Iterator[str]:
    """A device of the host's that the container is to have."""
    name = f"ut{os.getpid() % 10**8}"
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"], check=True)
    place.bundle.config["linux"]["netDevices"] = {name: {"name": "nic7"}}
    place.bundle.write()
    yield name
    subprocess.run(["ip", "link", "delete", name], check=True)


def test_a_device_of_the_host_is_given_back_once(place: Place, device: str, capfd: pytest.CaptureFixture[str]) -> None:
    given_back = net_devices.move_back

    def tell(devices: Sequence[store.NetDevice], namespace: int) -> None:
        print("given back", [(each.name, each.inside, each.moved) for each in devices])
        given_back(devices, namespace)

    def body() -> None:
        net_devices.move_back = tell
        place.create()

    place.bundle.hook("createRuntime", "/bin/false")
    place.bundle.write()
    assert in_child(body) == 1
    assert capfd.readouterr().out.count("given back") == 1
    assert place.leftovers() == []


def test_a_device_of_the_host_is_given_back_after_a_kill(place: Place, device: str) -> None:
    def body() -> None:
        create._Creation._run_runtime_hooks = lambda _self: os._exit(7)  # type: ignore[method-assign]
        place.create()

    assert in_child(body) == 7
    (known,) = store.want(place.root, NAME).net_devices
    assert (known.name, known.inside, known.moved, known.up) == (device, "nic7", True, False)
    lifecycle.delete(place.root, NAME, force=True)
    assert place.leftovers() == []
    assert os.path.exists(f"/sys/class/net/{device}")


def test_init_that_is_gone_before_it_gets_a_device(
    place: Place, device: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def body() -> None:
        join = create._Creation._join

        def join_and_forget(self: create._Creation, speaker: Channel) -> None:
            join(self, speaker)
            self.container = self.container.replace(start_time=self.container.start_time - 1)

        create._Creation._join = join_and_forget  # type: ignore[method-assign]
        place.create()

    assert in_child(body) == 1
    assert "init ended before its network was looked at" in capfd.readouterr().out
    assert place.leftovers() == []
