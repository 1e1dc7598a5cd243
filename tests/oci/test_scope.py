"""What systemd is told of a container's scope."""

from __future__ import annotations

import pytest

from urunc.errors import SpecError
from urunc.oci import cgroup_path, device_rules, scope
from urunc.oci.spec import DeviceRule, Resources

MIB = 1024 * 1024


def test_the_scope_is_asked_for_as_runc_asks() -> None:
    path = cgroup_path.parse("a-b.slice:docker:12", systemd=True)
    properties = {name: (kind, value) for name, kind, value in scope.own_properties(path, (77,), 2)}
    assert properties["Slice"] == ("s", "a-b.slice")
    assert properties["PIDs"] == ("au", [77])
    assert properties["Delegate"] == ("b", True)
    assert properties["DefaultDependencies"] == ("b", False)
    assert "IOAccounting" in properties
    assert "BlockIOAccounting" in {name for name, _, _ in scope.own_properties(path, (), 1)}


def properties(version: int, **asked: object) -> dict[str, object]:
    return {name: value for name, _, value in scope.limit_properties(Resources(**asked), version)}


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
        "MemoryMax": scope.UNLIMITED,
        "MemorySwapMax": scope.UNLIMITED,
        "TasksMax": scope.UNLIMITED,
    }
    assert properties(2, pids_limit=0) == {"TasksMax": scope.UNLIMITED}
    assert properties(2, cpu_idle=1, cpu_shares=500) == {"CPUWeight": 0}


@pytest.mark.parametrize(
    ("quota", "period", "per_second", "rounded"),
    [(50000, 100000, 500000, 50000), (50000, None, 500000, 50000), (333, 1000, 340000, 340), (1, 100000, 10000, 1000)],
)
def test_the_quota_goes_up_to_a_whole_per_cent(quota: int, period: int | None, per_second: int, rounded: int) -> None:
    asked = Resources(cpu_quota=quota, cpu_period=period)
    assert properties(2, cpu_quota=quota, cpu_period=period)["CPUQuotaPerSecUSec"] == per_second
    assert scope.rounded_quota(asked).cpu_quota == rounded


def test_a_quota_without_limit_is_infinity() -> None:
    assert properties(2, cpu_quota=-1, cpu_period=5000) == {
        "CPUQuotaPeriodUSec": 5000,
        "CPUQuotaPerSecUSec": scope.UNLIMITED,
    }
    assert scope.rounded_quota(Resources(cpu_quota=-1)) == Resources(cpu_quota=-1)


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
        "CPUQuotaPerSecUSec": scope.UNLIMITED,
        "TasksMax": 1,
        "AllowedCPUs": b"\x02",
    }
    with pytest.raises(SpecError, match=r"memory\.high"):
        properties(2, unified=(("memory.high", "lots"),))


@pytest.mark.parametrize("value", ["x", "-1", "", str(2**64), "9" * 5000])
def test_a_unified_number_that_systemd_cannot_take(value: str) -> None:
    with pytest.raises(SpecError, match="not a number of 64 bits"):
        properties(2, unified=(("memory.high", value),))


def test_devices_for_systemd() -> None:
    listed = device_rules.settle(
        [
            DeviceRule(allow=True, kind="c", major=1, minor=3, access="rw"),
            DeviceRule(allow=True, kind="b", access="m"),
            DeviceRule(allow=True, kind="c", major=136, access="rw"),
            DeviceRule(allow=True, kind="c", minor=5, access="r"),
        ]
    )
    found = scope.limit_properties(Resources(), 2, listed)
    assert found == (
        ("DeviceAllow", "a(ss)", []),
        ("DevicePolicy", "s", "strict"),
        ("DeviceAllow", "a(ss)", [("/dev/char/1:3", "rw"), ("block-*", "m"), ("char-136", "rw")]),
    )
    everything = scope.limit_properties(Resources(), 2, device_rules.settle([DeviceRule(allow=True)]))
    assert everything[1] == ("DevicePolicy", "s", "auto")
