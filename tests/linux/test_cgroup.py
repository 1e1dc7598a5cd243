"""Real cgroups: this host's own layout (v1, hybrid or v2), and a view of v2 alone in a mount namespace."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cgroup_child import CGROUPS, run_on_v2, sleeper
from urunc.errors import HostError, KernelError, StateError
from urunc.linux import cgroup, devices_bpf
from urunc.oci import resources
from urunc.oci.resources import CgroupPath, CgroupWrite
from urunc.oci.spec import DeviceRule, Resources

pytestmark = pytest.mark.root
MIB = 1024 * 1024
count = itertools.count()

Paths = dict[str, str]


def new_paths(suffix: str = "") -> Paths:
    """Return paths below a parent that no other test has."""
    name = f"/urunc-test-{os.getpid()}-{next(count)}"
    return cgroup.paths(cgroup.detect(), CgroupPath(driver="cgroupfs", path=name + suffix))


def wipe(paths: Paths) -> None:
    cgroup.kill_all(paths)
    cgroup.remove(paths)


@pytest.fixture
def paths() -> Iterator[Paths]:
    found = new_paths()
    yield found
    wipe(found)
    assert not any(os.path.exists(place) for place in found.values())


def need(paths: Paths, controller: str) -> str:
    """Return the controller's directory; skip where the host does not have it."""
    if cgroup.version_of(paths) == 1:
        if controller not in paths:
            pytest.skip(f"no {controller} controller on this host")
        return paths[controller]
    with open(f"{CGROUPS}/cgroup.controllers", encoding="ascii") as stream:
        if controller not in (*stream.read().split(), "freezer", "devices"):
            pytest.skip(f"no {controller} controller on this host")
    return paths[""]


def text(path: str) -> str:
    with open(path, encoding="ascii") as stream:
        return stream.read().strip()


def limit(paths: Paths, **asked: object) -> None:
    cgroup.apply(paths, resources.writes(Resources(**asked), cgroup.version_of(paths)))


# Making and removing


def test_make_says_what_it_made_parents_first() -> None:
    paths = new_paths("/pod/web")
    made = cgroup.make(paths)
    try:
        assert len(made) == 3 * len(set(paths.values()))
        assert all(made.index(os.path.dirname(place)) < made.index(place) for place in paths.values())
        assert cgroup.make(paths) == []
    finally:
        cgroup.remove(paths)
    assert not any(os.path.exists(place) for place in made)
    cgroup.remove(paths)


def test_a_shared_parent_goes_with_its_last_container() -> None:
    first = new_paths("/a")
    second = {name: f"{os.path.dirname(place)}/b" for name, place in first.items()}
    cgroup.make(first)
    cgroup.make(second)
    cgroup.remove(first)
    assert all(os.path.isdir(place) for place in second.values())
    cgroup.remove(second)
    assert not any(os.path.exists(os.path.dirname(place)) for place in first.values())


def test_a_parent_that_was_there_stays(paths: Paths) -> None:
    for place in set(paths.values()):
        os.mkdir(place)
    below = {name: f"{place}/web" for name, place in paths.items()}
    cgroup.make(below)
    cgroup.remove(below)
    assert all(os.path.isdir(place) for place in paths.values())
    for place in set(paths.values()):
        os.rmdir(place)


def test_children_made_by_others_go_too(paths: Paths) -> None:
    cgroup.make(paths)
    for place in set(paths.values()):
        os.makedirs(f"{place}/inner/deep")
    cgroup.remove(paths)
    assert not any(os.path.exists(place) for place in paths.values())


def test_a_cgroup_with_a_process_in_it_is_not_taken(paths: Paths) -> None:
    for place in set(paths.values()):
        os.mkdir(place)
    with sleeper() as pid:
        place = next(iter(paths.values()))
        with open(f"{place}/cgroup.procs", "w", encoding="ascii") as stream:
            stream.write(str(pid))
        with pytest.raises(StateError, match="is not empty"):
            cgroup.make(paths)
        cgroup.kill_all(paths)  # what an undo would do: the process is not ours, and must live
        cgroup.remove(paths)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        assert os.path.isdir(place)
    for place in set(paths.values()):
        os.rmdir(place)


def test_what_another_container_holds_is_not_ended_nor_removed(paths: Paths) -> None:
    """The undo of one that was refused the cgroup of another, or of the parent of another's."""
    below = {name: f"{place}/below" for name, place in paths.items()}
    cgroup.make(below, "first 1")
    with sleeper() as pid:
        cgroup.join(below, pid)
        for taken in (below, paths):
            with pytest.raises(StateError, match="is not empty"):
                cgroup.make(taken, "second 2")
            cgroup.kill_all(taken, "second 2")
            cgroup.remove(taken, mark="second 2")
            assert os.waitpid(pid, os.WNOHANG) == (0, 0)
            assert cgroup.pids(taken) == [pid]
        cgroup.kill_all(below, "first 1")
        assert os.waitpid(pid, 0)[0] == pid
    cgroup.remove(below, mark="first 1")
    assert not any(os.path.exists(place) for place in paths.values())


def test_a_make_that_was_killed_before_its_mark_is_undone(paths: Paths) -> None:
    cgroup.make(paths)
    cgroup.remove(paths, mark="first 1")
    assert not any(os.path.exists(place) for place in paths.values())


def test_a_busy_cgroup_is_an_error_after_a_while(paths: Paths) -> None:
    cgroup.make(paths)
    with sleeper() as pid:
        cgroup.join(paths, pid)
        with pytest.raises(KernelError, match="cannot remove cgroup"):
            cgroup.remove(paths, seconds=0.01)


# Processes


def test_join_puts_a_process_everywhere(paths: Paths) -> None:
    cgroup.make(paths)
    with sleeper() as pid:
        cgroup.join(paths, pid)
        assert cgroup.pids(paths) == [pid]
        assert all(text(f"{place}/cgroup.procs") == str(pid) for place in paths.values())


def test_hastening_moves_nothing() -> None:
    before = Path("/proc/self/cgroup").read_text()
    cgroup.hasten_join()
    assert Path("/proc/self/cgroup").read_text() == before


def test_joining_a_dead_process_says_so(paths: Paths) -> None:
    cgroup.make(paths)
    with sleeper() as pid:
        pass
    with pytest.raises(KernelError) as caught:
        cgroup.join(paths, pid)
    assert "no such process" in caught.value.message


def test_pids_are_found_below_too(paths: Paths) -> None:
    cgroup.make(paths)
    below = {name: f"{place}/inner" for name, place in paths.items()}
    for place in set(below.values()):
        os.mkdir(place)
    cpuset = below.get("cpuset")
    if cpuset:
        for file in ("cpuset.cpus", "cpuset.mems"):
            with open(f"{cpuset}/{file}", "w", encoding="ascii") as stream:
                stream.write(text(f"{os.path.dirname(cpuset)}/{file}"))
    with sleeper() as pid:
        cgroup.join(below, pid)
        assert cgroup.pids(paths) == [pid]


def test_pids_of_nothing(paths: Paths) -> None:
    assert cgroup.pids(paths) == []


def test_freeze_and_thaw(paths: Paths) -> None:
    cgroup.make(paths)
    need(paths, "freezer")

    def work() -> None:
        while True:
            os.getpid()

    with sleeper(work) as pid:
        cgroup.join(paths, pid)
        assert not cgroup.is_frozen(paths)
        cgroup.freeze(paths)
        assert cgroup.is_frozen(paths)
        before = text(f"/proc/{pid}/stat").split()[13:15]
        time.sleep(0.05)
        assert text(f"/proc/{pid}/stat").split()[13:15] == before
        cgroup.thaw(paths)
        assert not cgroup.is_frozen(paths)
        cgroup.thaw(paths)


def test_kill_all_reaches_a_frozen_process_and_its_children(paths: Paths) -> None:
    cgroup.make(paths)
    need(paths, "freezer")
    with sleeper(lambda: None) as pid:
        cgroup.join(paths, pid)
        cgroup.freeze(paths)
        cgroup.kill_all(paths)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        assert not cgroup.is_frozen(paths)
    cgroup.remove(paths)


def test_kill_all_without_a_freezer(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old v1 kernel: neither cgroup.kill nor a freezer hierarchy."""
    cgroup.make(paths)
    monkeypatch.setattr(cgroup, "_kill_tree", lambda _: False)
    few = {name: place for name, place in paths.items() if name != "freezer"}
    with sleeper() as pid:
        cgroup.join(paths, pid)
        cgroup.kill_all(few)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_what_is_gone_is_neither_frozen_nor_killed_nor_counted(paths: Paths) -> None:
    assert not cgroup.is_frozen(paths)
    assert cgroup.oom_count(paths) == 0
    cgroup.thaw(paths)
    cgroup.kill_all(paths)
    cgroup.remove(paths)


# Limits


def test_limits_are_in_their_files(paths: Paths) -> None:
    cgroup.make(paths)
    place = {name: need(paths, name) for name in ("memory", "pids", "cpu", "cpuset")}
    limit(paths, memory_limit=64 * MIB, pids_limit=7, cpu_quota=50000, cpu_period=20000, cpus="0")
    assert text(f"{place['pids']}/pids.max") == "7"
    assert text(f"{place['cpuset']}/cpuset.cpus") == "0"
    if cgroup.version_of(paths) == 2:
        assert text(f"{place['memory']}/memory.max") == str(64 * MIB)
        assert text(f"{place['cpu']}/cpu.max") == "50000 20000"
    else:
        assert text(f"{place['memory']}/memory.limit_in_bytes") == str(64 * MIB)
        assert text(f"{place['cpu']}/cpu.cfs_quota_us") == "50000"


def test_memory_and_swap_can_go_up_and_down(paths: Paths) -> None:
    """Each bounds the other: which may be written first depends on what they are."""
    cgroup.make(paths)
    place = need(paths, "memory")
    if cgroup.version_of(paths) == 1 and not os.path.exists(f"{place}/memory.memsw.limit_in_bytes"):
        pytest.skip("no swap accounting on this host")
    for size in (64 * MIB, 128 * MIB, 32 * MIB):
        limit(paths, memory_limit=size, memory_swap=size)
        file = "memory.max" if cgroup.version_of(paths) == 2 else "memory.memsw.limit_in_bytes"
        assert text(f"{place}/{file}") == str(size)


def test_a_limit_that_the_kernel_refuses_names_file_and_value(paths: Paths) -> None:
    cgroup.make(paths)
    need(paths, "cpuset")
    with pytest.raises(KernelError) as caught:
        limit(paths, cpus="4095")
    assert "cannot set `cpuset.cpus` to `4095`" in caught.value.message


def test_a_limit_without_its_controller_is_an_error(paths: Paths) -> None:
    cgroup.make(paths)
    with pytest.raises(HostError, match="the nosuch controller is not"):
        cgroup.apply(paths, [CgroupWrite(controller="nosuch", file="nosuch.max", value="1")])
    cgroup.apply(paths, [CgroupWrite(controller="nosuch", file="nosuch.max", value="1", optional=True)])


def test_a_missing_file_takes_the_fallback(paths: Paths) -> None:
    cgroup.make(paths)
    place = need(paths, "pids")
    real = CgroupWrite(controller="pids", file="pids.max", value="5")
    cgroup.apply(paths, [real.replace(file="pids.nosuch", value="9", fallback=real)])
    assert text(f"{place}/pids.max") == "5"
    with pytest.raises(KernelError, match=r"cannot set `pids\.nosuch` to `5`"):
        cgroup.apply(paths, [real.replace(file="pids.nosuch")])


def test_the_pids_limit_holds(paths: Paths) -> None:
    cgroup.make(paths)
    need(paths, "pids")
    limit(paths, pids_limit=1)
    reading, writing = os.pipe()

    def fork_when_told() -> None:
        os.read(go[0], 1)
        try:
            if os.fork() == 0:
                os._exit(0)
            os.write(writing, b"forked")
        except BlockingIOError:
            os.write(writing, b"refused")

    go = os.pipe()
    with sleeper(fork_when_told) as pid:
        cgroup.join(paths, pid)
        os.write(go[1], b"x")
        assert os.read(reading, 16) == b"refused"
    for fd in (reading, writing, *go):
        os.close(fd)


def test_memory_over_the_limit_is_counted(paths: Paths) -> None:
    cgroup.make(paths)
    need(paths, "memory")
    limit(paths, memory_limit=16 * MIB, memory_swap=16 * MIB)
    go = os.pipe()

    def eat() -> None:
        os.read(go[0], 1)
        _ = bytearray(os.urandom(1) * (64 * MIB))

    assert cgroup.oom_count(paths) == 0
    with sleeper(eat) as pid:
        cgroup.join(paths, pid)
        os.write(go[1], b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert cgroup.oom_count(paths) == 1
    for fd in go:
        os.close(fd)


def test_usage_has_the_shape_of_runcs_events(paths: Paths) -> None:
    cgroup.make(paths)
    with sleeper() as pid:
        cgroup.join(paths, pid)
        found = cgroup.stats(paths)
    assert set(found) == {"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb"}
    assert set(found["cpu"]["usage"]) >= {"total", "kernel", "user"}
    assert set(found["memory"]["usage"]) == {"limit", "usage", "max", "failcnt"}
    if cgroup.version_of(paths) == 1 and "pids" in paths:
        assert found["pids"]["current"] == 1


# Devices


def open_devices(names: tuple[str, ...], flags: int) -> dict[str, bool]:
    found = {}
    for name in names:
        try:
            os.close(os.open(f"/dev/{name}", flags))
            found[name] = True
        except PermissionError:
            found[name] = False
    return found


def check_devices(paths: Paths) -> None:
    """Join the cgroup, and see the rules hold: null both ways, zero read only, urandom not at all, no mknod."""
    version = cgroup.version_of(paths)
    rules = [
        DeviceRule(allow=True, kind="c", major=1, minor=3),
        DeviceRule(allow=True, kind="c", major=1, minor=5, access="r"),
    ]
    cgroup.apply_devices(paths, resources.device_rules(rules), version)
    go, answer = os.pipe(), os.pipe()

    def try_them() -> None:
        os.read(go[0], 1)
        found = [open_devices(("null", "zero", "urandom"), flags) for flags in (os.O_RDONLY, os.O_WRONLY)]
        node = f"/dev/urunc-test-{os.getpid()}"
        try:
            os.mknod(node, 0o20600, os.makedev(1, 9))
            os.unlink(node)
            made = True
        except PermissionError:
            made = False
        os.write(answer[1], repr((*found, made)).encode())

    with sleeper(try_them) as pid:
        cgroup.join(paths, pid)
        os.write(go[1], b"x")
        got = os.read(answer[0], 4096).decode()
    read = {"null": True, "zero": True, "urandom": False}
    write = {"null": True, "zero": False, "urandom": False}
    assert got == repr((read, write, False))
    for fd in (*go, *answer):
        os.close(fd)


def test_devices_are_denied_but_for_the_exceptions(paths: Paths) -> None:
    cgroup.make(paths)
    check_devices(paths)


# A view of v2 alone; on this kernel v2 may have no controllers, and then only the core files are tried


def on_v2(check: Callable[[Paths], None]) -> None:
    def inside() -> None:
        found = new_paths("/web")
        assert list(found) == [""]
        try:
            check(found)
        finally:
            wipe(found)
        assert not os.path.exists(os.path.dirname(found[""]))

    run_on_v2(inside)


def test_v2_makes_joins_freezes_kills_and_removes() -> None:
    def check(paths: Paths) -> None:
        assert len(cgroup.make(paths)) == 2
        with sleeper() as pid:
            cgroup.join(paths, pid)
            assert cgroup.pids(paths) == [pid]
            cgroup.freeze(paths)
            assert cgroup.is_frozen(paths)
            cgroup.kill_all(paths)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL

    on_v2(check)


def test_v2_enables_every_controller_down_to_the_parent() -> None:
    def check(paths: Paths) -> None:
        cgroup.make(paths)
        have = set(text(f"{CGROUPS}/cgroup.controllers").split())
        assert set(text(f"{paths['']}/cgroup.controllers").split()) == have

    on_v2(check)


def test_v2_filters_devices() -> None:
    def check(paths: Paths) -> None:
        cgroup.make(paths)
        check_devices(paths)

    on_v2(check)


def test_v2_replaces_its_own_device_filter() -> None:
    def check(paths: Paths) -> None:
        cgroup.make(paths)
        everything = resources.device_rules([DeviceRule(allow=True)])
        for rules in (everything, everything, resources.device_rules([])):
            cgroup.apply_devices(paths, rules, 2)
        group = os.open(paths[""], os.O_RDONLY)
        programs = devices_bpf._attached(group)
        assert len(programs) == 1
        for fd in (group, *programs):
            os.close(fd)
        check_devices(paths)

    on_v2(check)


def test_v2_names_the_controller_that_is_missing() -> None:
    def check(paths: Paths) -> None:
        cgroup.make(paths)
        if "memory" in text(f"{paths['']}/cgroup.controllers").split():
            return
        with pytest.raises(HostError, match="the memory controller is not enabled"):
            limit(paths, memory_limit=MIB)

    on_v2(check)


def test_v2_limits_huge_pages() -> None:
    def check(paths: Paths) -> None:
        cgroup.make(paths)
        if not os.path.exists(f"{paths['']}/hugetlb.2MB.max"):
            return
        limit(paths, hugepage_limits=(("2MB", 4 * MIB),))
        assert text(f"{paths['']}/hugetlb.2MB.max") == str(4 * MIB)
        assert cgroup.stats(paths)["hugetlb"]["2MB"] == {"usage": 0, "max": 0, "failcnt": 0}

    on_v2(check)
