"""Limits and device rules in real control files: this host's own layout (v1, hybrid or v2), and a view of v2 alone."""

from __future__ import annotations

import os
import signal

import pytest

from cgroups import MIB, Paths, eater, end_of, need, on_v2, sleeper, text
from urunc.errors import HostError, KernelError
from urunc.linux import cgroup, cgroup_files, cgroup_stats, devices_bpf
from urunc.oci import device_rules, resources
from urunc.oci.resources import CgroupWrite
from urunc.oci.spec import DeviceRule, Resources

pytestmark = pytest.mark.root


def limit(paths: Paths, **asked: object) -> None:
    cgroup_files.apply(paths, resources.writes(Resources(**asked), cgroup_files.version_of(paths)))


def test_limits_are_in_their_files(paths: Paths) -> None:
    cgroup.make(paths)
    place = {name: need(paths, name) for name in ("memory", "pids", "cpu", "cpuset")}
    limit(paths, memory_limit=64 * MIB, pids_limit=7, cpu_quota=50000, cpu_period=20000, cpus="0")
    assert text(f"{place['pids']}/pids.max") == "7"
    assert text(f"{place['cpuset']}/cpuset.cpus") == "0"
    if cgroup_files.version_of(paths) == 2:
        assert text(f"{place['memory']}/memory.max") == str(64 * MIB)
        assert text(f"{place['cpu']}/cpu.max") == "50000 20000"
    else:
        assert text(f"{place['memory']}/memory.limit_in_bytes") == str(64 * MIB)
        assert text(f"{place['cpu']}/cpu.cfs_quota_us") == "50000"


def test_memory_and_swap_can_go_up_and_down(paths: Paths) -> None:
    """Each bounds the other: which may be written first depends on what they are."""
    cgroup.make(paths)
    place = need(paths, "memory")
    if cgroup_files.version_of(paths) == 1 and not os.path.exists(f"{place}/memory.memsw.limit_in_bytes"):
        pytest.skip("no swap accounting on this host")
    for size in (64 * MIB, 128 * MIB, 32 * MIB):
        limit(paths, memory_limit=size, memory_swap=size)
        file = "memory.max" if cgroup_files.version_of(paths) == 2 else "memory.memsw.limit_in_bytes"
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
        cgroup_files.apply(paths, [CgroupWrite(controller="nosuch", file="nosuch.max", value="1")])
    cgroup_files.apply(paths, [CgroupWrite(controller="nosuch", file="nosuch.max", value="1", optional=True)])


def test_a_missing_file_takes_the_fallback(paths: Paths) -> None:
    cgroup.make(paths)
    place = need(paths, "pids")
    real = CgroupWrite(controller="pids", file="pids.max", value="5")
    cgroup_files.apply(paths, [real.replace(file="pids.nosuch", value="9", fallback=real)])
    assert text(f"{place}/pids.max") == "5"
    with pytest.raises(KernelError, match=r"cannot set `pids\.nosuch` to `5`"):
        cgroup_files.apply(paths, [real.replace(file="pids.nosuch")])


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
    assert cgroup_files.oom_count(paths) == 0
    with eater(64 * MIB) as (pid, tell):
        cgroup.join(paths, pid)
        tell()
        assert end_of(pid) == -signal.SIGKILL
    assert cgroup_files.oom_count(paths) == 1


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
    version = cgroup_files.version_of(paths)
    rules = [
        DeviceRule(allow=True, kind="c", major=1, minor=3),
        DeviceRule(allow=True, kind="c", major=1, minor=5, access="r"),
    ]
    cgroup_files.apply_devices(paths, device_rules.settle(rules), version)
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


def test_v2_filters_devices() -> None:
    def check(paths: Paths) -> None:
        cgroup.make(paths)
        check_devices(paths)

    on_v2(check)


def test_v2_replaces_its_own_device_filter() -> None:
    def check(paths: Paths) -> None:
        cgroup.make(paths)
        everything = device_rules.settle([DeviceRule(allow=True)])
        for rules in (everything, everything, device_rules.settle([])):
            cgroup_files.apply_devices(paths, rules, 2)
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
        assert cgroup_stats.read(paths)["hugetlb"]["2MB"] == {"usage": 0, "max": 0, "failcnt": 0}

    on_v2(check)
