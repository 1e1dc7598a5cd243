"""Resources as cgroup writes, device rules and systemd properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc.errors import SpecError
from urunc.oci import resources
from urunc.oci.resources import CgroupPath
from urunc.oci.spec import DeviceRule, Resources

MIB = 1024 * 1024


def lines(given_resources: Resources, version: int) -> list[str]:
    return [f"{write.file}={write.value}" for write in resources.writes(given_resources, version)]


# Limits


def test_nothing_asked_is_nothing_written() -> None:
    assert resources.writes(Resources(), 1) == resources.writes(Resources(), 2) == ()


@pytest.mark.parametrize(
    ("asked", "v1", "v2"),
    [
        ({"memory_limit": 64 * MIB}, ["memory.limit_in_bytes=67108864"], ["memory.max=67108864"]),
        (
            {"memory_limit": 64 * MIB, "memory_swap": 96 * MIB},
            ["memory.limit_in_bytes=67108864", "memory.memsw.limit_in_bytes=100663296"],
            ["memory.swap.max=33554432", "memory.max=67108864"],
        ),
        (
            {"memory_limit": 64 * MIB, "memory_swap": 64 * MIB},
            ["memory.limit_in_bytes=67108864", "memory.memsw.limit_in_bytes=67108864"],
            ["memory.swap.max=0", "memory.max=67108864"],
        ),
        (
            {"memory_limit": 64 * MIB, "memory_swap": -1},
            ["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=67108864"],
            ["memory.swap.max=max", "memory.max=67108864"],
        ),
        (
            {"memory_limit": -1},
            ["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"],
            ["memory.swap.max=max", "memory.max=max"],
        ),
        ({"memory_limit": 0, "memory_swap": 0}, [], []),
        ({"memory_reservation": 5}, ["memory.soft_limit_in_bytes=5"], ["memory.low=5"]),
        ({"memory_reservation": -1}, ["memory.soft_limit_in_bytes=-1"], ["memory.low=max"]),
        ({"cpu_shares": 1024}, ["cpu.shares=1024"], ["cpu.weight=100"]),
        (
            {"cpu_quota": 50000, "cpu_period": 20000},
            ["cpu.cfs_period_us=20000", "cpu.cfs_quota_us=50000"],
            ["cpu.max=50000 20000"],
        ),
        ({"cpu_quota": 50000}, ["cpu.cfs_quota_us=50000"], ["cpu.max=50000 100000"]),
        ({"cpu_quota": -1}, ["cpu.cfs_quota_us=-1"], ["cpu.max=max 100000"]),
        ({"cpu_period": 20000}, ["cpu.cfs_period_us=20000"], ["cpu.max=max 20000"]),
        (
            {"cpu_quota": 9, "cpu_burst": 7},
            ["cpu.cfs_quota_us=9", "cpu.cfs_burst_us=7"],
            ["cpu.max=9 100000", "cpu.max.burst=7"],
        ),
        ({"cpu_idle": 0, "cpu_shares": 2}, ["cpu.shares=2", "cpu.idle=0"], ["cpu.idle=0", "cpu.weight=1"]),
        ({"cpu_idle": 1, "cpu_shares": 2}, ["cpu.shares=2", "cpu.idle=1"], ["cpu.idle=1"]),
        (
            {"cpus": "0-2,7", "mems": "0"},
            ["cpuset.cpus=0-2,7", "cpuset.mems=0"],
            ["cpuset.cpus=0-2,7", "cpuset.mems=0"],
        ),
        ({"pids_limit": 7}, ["pids.max=7"], ["pids.max=7"]),
        ({"pids_limit": 0}, ["pids.max=1"], ["pids.max=1"]),
        ({"pids_limit": -1}, ["pids.max=max"], ["pids.max=max"]),
        (
            {"hugepage_limits": (("2MB", 4096),)},
            ["hugetlb.2MB.limit_in_bytes=4096", "hugetlb.2MB.rsvd.limit_in_bytes=4096"],
            ["hugetlb.2MB.max=4096", "hugetlb.2MB.rsvd.max=4096"],
        ),
        ({"block_io_weight": 500}, ["blkio.weight=500"], ["io.bfq.weight=500"]),
        (
            {"block_io_throttle": (("read_bps", 8, 0, 1000), ("write_iops", 8, 16, 0))},
            ["blkio.throttle.read_bps_device=8:0 1000", "blkio.throttle.write_iops_device=8:16 0"],
            ["io.max=8:0 rbps=1000", "io.max=8:16 wiops=max"],
        ),
    ],
)
def test_writes_of_both_versions(asked: dict[str, object], v1: list[str], v2: list[str]) -> None:
    assert lines(Resources(**asked), 1) == v1
    assert lines(Resources(**asked), 2) == v2


def test_what_only_v1_has() -> None:
    asked = Resources(
        memory_swappiness=0,
        memory_disable_oom_killer=True,
        cpu_realtime_period=1000,
        cpu_realtime_runtime=950,
        network_class_id=1048577,
        network_priorities=(("eth0", 500), ("lo", 0)),
    )
    assert lines(asked, 1) == [
        "memory.oom_control=1",
        "memory.swappiness=0",
        "cpu.rt_period_us=1000",
        "cpu.rt_runtime_us=950",
        "net_cls.classid=1048577",
        "net_prio.ifpriomap=eth0 500",
        "net_prio.ifpriomap=lo 0",
    ]


def test_unified_is_written_last_a_line_at_a_time() -> None:
    asked = Resources(memory_limit=MIB, unified=(("memory.high", "500"), ("io.max", "8:0 rbps=1\n8:16 rbps=2\n")))
    assert lines(asked, 2) == ["memory.max=1048576", "memory.high=500", "io.max=8:0 rbps=1", "io.max=8:16 rbps=2"]
    assert {write.controller for write in resources.writes(asked, 2)} == {"memory", "io"}


def test_weight_falls_back_to_the_plain_scheduler() -> None:
    (v1,) = resources.writes(Resources(block_io_weight=10), 1)
    (v2,) = resources.writes(Resources(block_io_weight=1000), 2)
    assert v1.fallback is not None
    assert v2.fallback is not None
    assert (v1.fallback.file, v1.fallback.value) == ("blkio.bfq.weight", "10")
    assert (v2.fallback.file, v2.fallback.value) == ("io.weight", "10000")


def test_only_what_loses_nothing_is_optional() -> None:
    asked = Resources(memory_limit=MIB, memory_swap=MIB, cpu_burst=0, hugepage_limits=(("1GB", 0),), pids_limit=1)
    optional = [write.file for version in (1, 2) for write in resources.writes(asked, version) if write.optional]
    assert optional == [
        "cpu.cfs_burst_us",
        "hugetlb.1GB.rsvd.limit_in_bytes",
        "memory.swap.max",
        "cpu.max.burst",
        "hugetlb.1GB.rsvd.max",
    ]


@pytest.mark.parametrize(
    ("asked", "version", "path"),
    [
        ({"memory_limit": -2}, 1, "memory.limit"),
        ({"memory_limit": 2, "memory_swap": 1}, 1, "memory.swap"),
        ({"memory_limit": 2, "memory_swap": 1}, 2, "memory.swap"),
        ({"memory_swap": 1}, 2, "memory.swap"),
        ({"memory_limit": -1, "memory_swap": 1}, 2, "memory.swap"),
        ({"memory_swappiness": 101}, 1, "memory.swappiness"),
        ({"memory_swappiness": 10}, 2, "memory.swappiness"),
        ({"memory_disable_oom_killer": True}, 2, "memory.disableOOMKiller"),
        ({"cpu_shares": 1}, 1, "cpu.shares"),
        ({"cpu_shares": 300000}, 1, "cpu.shares"),
        ({"cpu_idle": 2}, 1, "cpu.idle"),
        ({"cpu_realtime_runtime": 1}, 2, "cpu.realtimeRuntime"),
        ({"cpus": "1-"}, 1, "cpu.cpus"),
        ({"cpus": "2-1"}, 1, "cpu.cpus"),
        ({"cpus": "0-99999999999"}, 2, "cpu.cpus"),
        ({"mems": "a"}, 2, "cpu.mems"),
        ({"block_io_weight": 9}, 1, "blockIO.weight"),
        ({"hugepage_limits": (("../2MB", 1),)}, 1, "hugepageLimits"),
        ({"hugepage_limits": (("MB", 1),)}, 2, "hugepageLimits"),
        ({"unified": (("memory.max", "1"),)}, 1, "unified"),
        ({"unified": (("../memory.max", "1"),)}, 2, "unified"),
        ({"unified": (("memory", "1"),)}, 2, "unified"),
        ({"network_class_id": 1}, 2, "network"),
    ],
)
def test_what_cannot_be_is_refused_by_its_path(asked: dict[str, object], version: int, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        resources.writes(Resources(**asked), version)
    assert caught.value.message.startswith(f"linux.resources.{path}: ")


@pytest.mark.parametrize(("shares", "weight"), [(0, 0), (1, 1), (2, 1), (1024, 100), (262144, 10000), (10**6, 10000)])
def test_weight_keeps_minimum_default_and_maximum(shares: int, weight: int) -> None:
    assert resources.cpu_weight(shares) == weight


@given(st.integers(2, 262143))
def test_weight_grows_with_shares(shares: int) -> None:
    assert 1 <= resources.cpu_weight(shares) <= resources.cpu_weight(shares + 1) <= 10000


# Paths


@pytest.mark.parametrize(
    ("text", "flag", "driver", "path"),
    [
        ("/default/web", False, "cgroupfs", "/default/web"),
        ("/default/web", True, "cgroupfs", "/default/web"),
        ("pods/web", False, "cgroupfs", "pods/web"),
        ("../../web", False, "cgroupfs", "web"),
        ("/../../a/./b//c/..", False, "cgroupfs", "/a/b"),
        ("system.slice:docker:1234", True, "systemd", "/system.slice/docker-1234.scope"),
        ("system.slice:docker:1234", False, "systemd", "/system.slice/docker-1234.scope"),
        ("a-b.slice:cri:x", False, "systemd", "/a.slice/a-b.slice/cri-x.scope"),
        ("-.slice:cri:x", False, "systemd", "/cri-x.scope"),
        (":docker:1234", True, "systemd", "/system.slice/docker-1234.scope"),
        (":docker:1234", False, "cgroupfs", ":docker:1234"),
        ("a:b:c", True, "cgroupfs", "a:b:c"),
    ],
)
def test_the_form_decides(text: str, flag: bool, driver: str, path: str) -> None:
    found = resources.parse_cgroups_path(text, flag)
    assert (found.driver, found.path) == (driver, path)


@pytest.mark.parametrize(
    "text",
    [
        "/",
        "..",
        "./",
        "a\0b",
        "a-.slice:p:n",
        ".slice:p:n",
        "a/b.slice:p:n",
        "s.slice:p:../n",
        "s.slice:p:",
        "s.slice:p:x.slice",
    ],
)
def test_a_bad_path_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"^linux\.cgroupsPath: "):
        resources.parse_cgroups_path(text, True)


@given(st.text(alphabet="ab/.-:\\", max_size=30), st.booleans())
def test_no_path_leaves_its_root(text: str, flag: bool) -> None:
    try:
        found = resources.parse_cgroups_path(text, flag)
    except SpecError:
        return
    assert not {"", ".", ".."} & set(found.path.removeprefix("/").split("/"))


def test_without_a_path_the_id_names_the_cgroup() -> None:
    assert resources.default_path("web", systemd=False) == CgroupPath(driver="cgroupfs", path="web")
    scope = resources.default_path("web", systemd=True)
    assert (scope.path, scope.slice, scope.unit) == ("/system.slice/urunc-web.scope", "system.slice", "urunc-web.scope")


@pytest.mark.parametrize(
    ("name", "path"),
    [("a.slice", "/a.slice"), ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"), ("-.slice", "/")],
)
def test_slices_expand(name: str, path: str) -> None:
    assert resources.expand_slice(name) == path


# Devices


def rule(text: str) -> DeviceRule:
    """Return the rule of `+c 1:* rw`."""
    sign, (kind, numbers, access) = text[0], text[1:].split()
    major, minor = (None if word == "*" else int(word) for word in numbers.split(":"))
    return DeviceRule(allow=sign == "+", kind=kind, major=major, minor=minor, access=access)


def settled(*texts: str) -> list[str]:
    found = resources.device_rules(rule(text) for text in texts)
    return [
        f"{'+' if one.allow else '-'}{one.kind} "
        f"{'*' if one.major is None else one.major}:{'*' if one.minor is None else one.minor} {one.access}"
        for one in found
    ]


def test_the_start_is_deny_all() -> None:
    assert settled() == ["-a *:* rwm"]


def test_exceptions_merge() -> None:
    assert settled("-a *:* rwm", "+c 1:3 r", "+c 1:3 w", "+b *:* m") == ["-a *:* rwm", "+c 1:3 rw", "+b *:* m"]


def test_allow_all_then_denials() -> None:
    assert settled("+c 1:3 r", "+a *:* rwm", "-c 1:5 w") == ["+a *:* rwm", "-c 1:5 w"]


def test_a_wide_denial_takes_back_the_narrow_allowances() -> None:
    assert settled("+c 1:3 rwm", "+c 1:5 rw", "+c 2:1 r", "-c 1:* w") == [
        "-a *:* rwm",
        "+c 1:3 rm",
        "+c 1:5 r",
        "+c 2:1 r",
    ]


def test_a_hole_in_a_wildcard_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^linux\.resources\.devices\[1\]: "):
        settled("+c 1:* rwm", "-c 1:3 w")
    assert settled("+c 1:* r", "-c 1:3 w") == ["-a *:* rwm", "+c 1:* r"]


def test_the_plan_adds_after_the_spec() -> None:
    kvm = DeviceRule(allow=True, kind="c", major=10, minor=232, access="rw")
    assert resources.device_rules([rule("-a *:* rwm")], [kvm])[-1] == kvm


@pytest.mark.parametrize(
    ("bad", "path"),
    [
        (DeviceRule(allow=True, kind="p"), "type"),
        (DeviceRule(allow=True, access=""), "access"),
        (DeviceRule(allow=True, access="rx"), "access"),
        (DeviceRule(allow=True, kind="c", major=-1), "major"),
        (DeviceRule(allow=True, kind="c", minor=2**32), "minor"),
    ],
)
def test_a_bad_rule_is_refused(bad: DeviceRule, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        resources.device_rules([bad])
    assert caught.value.message.startswith(f"linux.resources.devices[0].{path}: ")


numbers = st.none() | st.integers(0, 2)
rules = st.builds(
    DeviceRule,
    allow=st.booleans(),
    kind=st.sampled_from("aabbccc"),
    major=numbers,
    minor=numbers,
    access=st.sets(st.sampled_from("rwm"), min_size=1).map(lambda letters: "".join(sorted(letters))),
)


def allowed(listed: list[DeviceRule], kind: str, major: int, minor: int, letter: str) -> bool:
    """Return what the rules say, one after the other, the last that matches deciding."""
    answer = False
    for one in listed:
        same = one.kind == kind and one.major in (None, major) and one.minor in (None, minor)
        if one.kind == "a" or (same and letter in one.access):
            answer = one.allow
    return answer


@given(st.lists(rules, max_size=6))
def test_settling_changes_no_answer(listed: list[DeviceRule]) -> None:
    try:
        short = list(resources.device_rules(listed))
    except SpecError:
        return
    assert short[0].kind == "a"
    assert all(one.kind != "a" and one.allow != short[0].allow for one in short[1:])
    for kind in "bc":
        for major in range(3):
            for minor in range(3):
                for letter in "rwm":
                    place = (kind, major, minor, letter)
                    assert allowed(short, *place) == allowed(listed, *place), place


# systemd


def test_the_scope_is_asked_for_as_runc_asks() -> None:
    path = resources.parse_cgroups_path("a-b.slice:docker:12", True)
    properties = {name: (kind, value) for name, kind, value in resources.scope_properties(path, (77,), 2)}
    assert properties["Slice"] == ("s", "a-b.slice")
    assert properties["PIDs"] == ("au", [77])
    assert properties["Delegate"] == ("b", True)
    assert properties["DefaultDependencies"] == ("b", False)
    assert "IOAccounting" in properties
    assert "BlockIOAccounting" in {name for name, _, _ in resources.scope_properties(path, (), 1)}


def properties(version: int, **asked: object) -> dict[str, object]:
    return {name: value for name, _, value in resources.systemd_properties(Resources(**asked), version)}


def test_limits_for_systemd() -> None:
    asked: dict[str, object] = {"memory_limit": 64 * MIB, "memory_swap": 96 * MIB, "cpu_shares": 1024, "pids_limit": 9}
    assert properties(2, **asked) == {
        "MemoryMax": 64 * MIB,
        "MemorySwapMax": 32 * MIB,
        "CPUWeight": 100,
        "TasksMax": 9,
    }
    assert properties(1, **asked) == {"MemoryLimit": 64 * MIB, "CPUShares": 1024, "TasksMax": 9}
    assert properties(2, memory_limit=-1, pids_limit=-1) == {
        "MemoryMax": resources.UNLIMITED,
        "MemorySwapMax": resources.UNLIMITED,
        "TasksMax": resources.UNLIMITED,
    }
    assert properties(2, pids_limit=0) == {"TasksMax": 1}
    assert properties(2, cpu_idle=1, cpu_shares=500) == {"CPUWeight": 0}


@pytest.mark.parametrize(
    ("quota", "period", "per_second", "rounded"),
    [(50000, 100000, 500000, 50000), (50000, None, 500000, 50000), (333, 1000, 340000, 340), (1, 100000, 10000, 1000)],
)
def test_the_quota_goes_up_to_a_whole_per_cent(quota: int, period: int | None, per_second: int, rounded: int) -> None:
    asked = Resources(cpu_quota=quota, cpu_period=period)
    assert properties(2, cpu_quota=quota, cpu_period=period)["CPUQuotaPerSecUSec"] == per_second
    assert resources.rounded_quota(asked).cpu_quota == rounded


def test_a_quota_without_limit_is_infinity() -> None:
    assert properties(2, cpu_quota=-1, cpu_period=5000) == {
        "CPUQuotaPeriodUSec": 5000,
        "CPUQuotaPerSecUSec": resources.UNLIMITED,
    }
    assert resources.rounded_quota(Resources(cpu_quota=-1)) == Resources(cpu_quota=-1)


def test_cpus_are_a_bitmap() -> None:
    assert properties(2, cpus="0-2,9", mems="0") == {"AllowedCPUs": b"\x07\x02", "AllowedMemoryNodes": b"\x01"}


def test_unified_files_that_systemd_knows() -> None:
    unified = (
        ("memory.high", " 500\n"),
        ("cpu.max", "max 1000"),
        ("pids.max", "0"),
        ("rdma.max", "x"),
        ("cpuset.cpus", "1"),
    )
    assert properties(2, unified=unified) == {
        "MemoryHigh": 500,
        "CPUQuotaPeriodUSec": 1000,
        "CPUQuotaPerSecUSec": resources.UNLIMITED,
        "TasksMax": 1,
        "AllowedCPUs": b"\x02",
    }
    with pytest.raises(SpecError, match=r"memory\.high"):
        properties(2, unified=(("memory.high", "lots"),))


def test_devices_for_systemd() -> None:
    listed = resources.device_rules(map(rule, ["+c 1:3 rw", "+b *:* m", "+c 136:* rw", "+c *:5 r"]))
    found = resources.systemd_properties(Resources(), 2, listed)
    assert found == (
        ("DeviceAllow", "a(ss)", []),
        ("DevicePolicy", "s", "strict"),
        ("DeviceAllow", "a(ss)", [("/dev/char/1:3", "rw"), ("block-*", "m"), ("char-136", "rw")]),
    )
    everything = resources.systemd_properties(Resources(), 2, resources.device_rules([rule("+a *:* rwm")]))
    assert everything[1] == ("DevicePolicy", "s", "auto")
