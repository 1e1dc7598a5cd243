"""Usage as runc's `events --stats` gives it, from files as both versions have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgroups import Paths, sleeper
from urunc.linux import cgroup, cgroup_files, cgroup_stats

MAX = 2**64 - 1


def fill(folder: Path, files: dict[str, str]) -> str:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)
    return str(folder)


def test_v1(tmp_path: Path) -> None:
    cpu = fill(
        tmp_path / "cpu",
        {
            "cpu.stat": "nr_periods 7\nnr_throttled 2\nthrottled_time 900\nnr_bursts 0\n",
            "cpuacct.usage": "5000\n",
            "cpuacct.usage_percpu": "2000 3000 \n",
            "cpuacct.stat": "user 3\nsystem 1\n",
        },
    )
    memory = fill(
        tmp_path / "memory",
        {
            "memory.stat": "cache 4096\nrss 8192\ntotal_rss 8192\n",
            "memory.usage_in_bytes": "12288\n",
            "memory.max_usage_in_bytes": "20480\n",
            "memory.failcnt": "3\n",
            "memory.limit_in_bytes": "9223372036854771712\n",
            "memory.kmem.usage_in_bytes": "100\n",
        },
    )
    blkio = fill(
        tmp_path / "blkio",
        {
            "blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 0\nTotal 4096\n",
            "blkio.bfq.sectors_recursive": "8:0 16\n",
        },
    )
    pids = fill(tmp_path / "pids", {"pids.current": "4\n", "pids.max": "max\n"})
    hugetlb = fill(
        tmp_path / "hugetlb",
        {
            "hugetlb.2MB.usage_in_bytes": "1\n",
            "hugetlb.2MB.rsvd.usage_in_bytes": "2\n",
            "hugetlb.2MB.rsvd.max_usage_in_bytes": "3\n",
            "hugetlb.2MB.rsvd.failcnt": "4\n",
        },
    )
    cpuset = fill(
        tmp_path / "cpuset",
        {
            "cpuset.cpus": "0-2,7\n",
            "cpuset.mems": "0\n",
            "cpuset.sched_load_balance": "1\n",
            "cpuset.sched_relax_domain_level": "-1\n",
        },
    )
    paths = {"cpu": cpu, "cpuacct": cpu, "memory": memory, "blkio": blkio, "pids": pids, "hugetlb": hugetlb}
    found = cgroup_stats.read({**paths, "cpuset": cpuset})
    assert (found["cpuset"]["cpus"], found["cpuset"]["mems"]) == ([0, 1, 2, 7], [0])
    assert (found["cpuset"]["sched_load_balance"], found["cpuset"]["sched_relax_domain_level"]) == (1, -1)
    assert found["cpu"] == {
        "usage": {"total": 5000, "percpu": [2000, 3000], "kernel": 10_000_000, "user": 30_000_000},
        "throttling": {"periods": 7, "throttledPeriods": 2, "throttledTime": 900},
    }
    assert found["memory"]["usage"] == {"limit": 9223372036854771712, "usage": 12288, "max": 20480, "failcnt": 3}
    assert found["memory"]["cache"] == 4096
    assert found["memory"]["raw"]["total_rss"] == 8192
    assert found["memory"]["kernel"]["usage"] == 100
    assert found["memory"]["swap"] == {"limit": 0, "usage": 0, "max": 0, "failcnt": 0}
    assert found["pids"] == {"current": 4, "limit": 0}
    assert found["blkio"]["ioServiceBytesRecursive"] == [
        {"major": 8, "minor": 0, "op": "Read", "value": 4096},
        {"major": 8, "minor": 0, "op": "Write", "value": 0},
    ]
    assert found["blkio"]["sectorsRecursive"] == [{"major": 8, "minor": 0, "op": "", "value": 16}]
    assert found["hugetlb"] == {"2MB": {"usage": 2, "max": 3, "failcnt": 4}}


def test_v2(tmp_path: Path) -> None:
    place = fill(
        tmp_path / "web",
        {
            "cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 1\nnr_throttled 1\nthrottled_usec 9\n",
            "memory.stat": "anon 8192\nfile 4096\nkernel 300\nsock 20\n",
            "memory.current": "12288\n",
            "memory.peak": "20480\n",
            "memory.max": "65536\n",
            "memory.swap.current": "100\n",
            "memory.swap.max": "1000\n",
            "memory.events": "low 0\nhigh 0\nmax 6\noom 1\noom_kill 2\n",
            "io.stat": "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n254:0 \n",
            "pids.current": "4\n",
            "pids.max": "9\n",
            "hugetlb.2MB.current": "1\n",
            "hugetlb.2MB.events": "max 5\n",
        },
    )
    found = cgroup_stats.read({"": place})
    assert found["cpu"]["usage"] == {"total": 5000, "kernel": 2000, "user": 3000}
    assert found["cpu"]["throttling"] == {"periods": 1, "throttledPeriods": 1, "throttledTime": 9000}
    assert found["memory"]["usage"] == {"limit": 65536, "usage": 12288, "max": 20480, "failcnt": 6}
    assert found["memory"]["swap"] == {"limit": 66536, "usage": 12388, "max": 0, "failcnt": 0}
    assert found["memory"]["kernel"]["usage"] == 300
    assert found["pids"] == {"current": 4, "limit": 9}
    assert found["blkio"]["ioServicedRecursive"] == [
        {"major": 8, "minor": 0, "op": "Read", "value": 1},
        {"major": 8, "minor": 0, "op": "Write", "value": 0},
        {"major": 8, "minor": 0, "op": "Discard", "value": 0},
    ]
    assert found["hugetlb"] == {"2MB": {"usage": 1, "max": 0, "failcnt": 5}}
    assert cgroup_files.oom_count({"": place}) == 2


def test_no_limit_on_v2(tmp_path: Path) -> None:
    place = fill(tmp_path / "web", {"memory.max": "max\n", "memory.swap.max": "0\n"})
    memory = cgroup_stats.read({"": place})["memory"]
    assert memory["usage"]["limit"] == memory["swap"]["limit"] == MAX


def test_controllers_that_are_not_there_are_zero(tmp_path: Path) -> None:
    found = cgroup_stats.read({"devices": str(tmp_path)})
    assert found["memory"]["usage"]["usage"] == found["cpu"]["usage"]["total"] == found["pids"]["current"] == 0
    assert found["hugetlb"] == {}


@pytest.mark.root
def test_usage_has_the_shape_of_runcs_events(paths: Paths) -> None:
    cgroup.make(paths)
    with sleeper() as pid:
        cgroup.join(paths, pid)
        found = cgroup_stats.read(paths)
    assert set(found) == {"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb"}
    assert set(found["cpu"]["usage"]) >= {"total", "kernel", "user"}
    assert set(found["memory"]["usage"]) == {"limit", "usage", "max", "failcnt"}
    if cgroup_files.version_of(paths) == 1 and "pids" in paths:
        assert found["pids"]["current"] == 1
