"""What is written to cgroup files for `linux.resources`, on both versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc.errors import SpecError
from urunc.oci import resources
from urunc.oci.spec import DeviceWeight, Resources

MIB = 1024 * 1024


def lines(given_resources: Resources, version: int) -> list[str]:
    return [f"{write.file}={write.value}" for write in resources.writes(given_resources, version)]


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
        ({"pids_limit": 0}, ["pids.max=max"], ["pids.max=max"]),
        ({"pids_limit": -1}, ["pids.max=max"], ["pids.max=max"]),
        (
            {"hugepage_limits": (("2MB", 4096),)},
            ["hugetlb.2MB.limit_in_bytes=4096", "hugetlb.2MB.rsvd.limit_in_bytes=4096"],
            ["hugetlb.2MB.max=4096", "hugetlb.2MB.rsvd.max=4096"],
        ),
        (
            {"rdma": (("mlx5_1", 3, 10000), ("rxe3", None, 0))},
            ["rdma.max=mlx5_1 hca_handle=3 hca_object=10000", "rdma.max=rxe3 hca_object=0"],
            ["rdma.max=mlx5_1 hca_handle=3 hca_object=10000", "rdma.max=rxe3 hca_object=0"],
        ),
        ({"block_io_weight": 500}, ["blkio.weight=500"], ["io.bfq.weight=500"]),
        (
            {
                "block_io_device_weights": (
                    DeviceWeight(major=8, minor=0, weight=500),
                    DeviceWeight(major=8, minor=16),
                    DeviceWeight(major=8, minor=32, weight=10),
                )
            },
            ["blkio.weight_device=8:0 500", "blkio.weight_device=8:32 10"],
            ["io.bfq.weight=8:0 500", "io.bfq.weight=8:32 10"],
        ),
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
        block_io_leaf_weight=11,
        block_io_device_weights=(DeviceWeight(major=8, minor=0, weight=500, leaf_weight=300),),
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
        "blkio.leaf_weight=11",
        "blkio.weight_device=8:0 500",
        "blkio.leaf_weight_device=8:0 300",
        "net_cls.classid=1048577",
        "net_prio.ifpriomap=eth0 500",
        "net_prio.ifpriomap=lo 0",
    ]


def test_unified_is_written_last_a_line_at_a_time() -> None:
    asked = Resources(memory_limit=MIB, unified=(("memory.high", "500"), ("io.max", "8:0 rbps=1\n8:16 rbps=2\n")))
    assert lines(asked, 2) == ["memory.max=1048576", "memory.high=500", "io.max=8:0 rbps=1", "io.max=8:16 rbps=2"]
    assert {write.controller for write in resources.writes(asked, 2)} == {"memory", "io"}


def test_weight_falls_back_to_the_plain_scheduler() -> None:
    devices = (DeviceWeight(major=8, minor=0, weight=10),)
    v1 = resources.writes(Resources(block_io_weight=10, block_io_device_weights=devices), 1)
    v2 = resources.writes(Resources(block_io_weight=1000, block_io_device_weights=devices), 2)
    assert [(write.fallback.file, write.fallback.value) for write in v1 + v2 if write.fallback] == [
        ("blkio.bfq.weight", "10"),
        ("blkio.bfq.weight_device", "8:0 10"),
        ("io.weight", "10000"),
        ("io.weight", "8:0 1"),
    ]


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
        ({"memory_limit": 2, "memory_swap": 1}, 1, "memory.swap"),
        ({"memory_limit": 2, "memory_swap": 1}, 2, "memory.swap"),
        ({"memory_swap": 1}, 2, "memory.swap"),
        ({"memory_limit": -1, "memory_swap": 1}, 2, "memory.swap"),
        ({"memory_swappiness": 10}, 2, "memory.swappiness"),
        ({"memory_disable_oom_killer": True}, 2, "memory.disableOOMKiller"),
        ({"cpu_shares": 1}, 1, "cpu.shares"),
        ({"cpu_shares": 300000}, 1, "cpu.shares"),
        ({"cpu_realtime_runtime": 1}, 2, "cpu.realtimeRuntime"),
        ({"cpus": "1-"}, 1, "cpu.cpus"),
        ({"cpus": "2-1"}, 1, "cpu.cpus"),
        ({"cpus": "0-99999999999"}, 2, "cpu.cpus"),
        ({"mems": "a"}, 2, "cpu.mems"),
        ({"block_io_weight": 9}, 1, "blockIO.weight"),
        ({"block_io_leaf_weight": 1001}, 1, "blockIO.leafWeight"),
        ({"block_io_leaf_weight": 10}, 2, "blockIO.leafWeight"),
        (
            {
                "block_io_device_weights": (
                    DeviceWeight(major=8, minor=0, weight=10),
                    DeviceWeight(major=8, minor=0, weight=9),
                )
            },
            2,
            "blockIO.weightDevice[1].weight",
        ),
        (
            {"block_io_device_weights": (DeviceWeight(major=8, minor=0, leaf_weight=9),)},
            1,
            "blockIO.weightDevice[0].leafWeight",
        ),
        (
            {"block_io_device_weights": (DeviceWeight(major=8, minor=0, leaf_weight=10),)},
            2,
            "blockIO.weightDevice[0].leafWeight",
        ),
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
