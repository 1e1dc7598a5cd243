"""Metrics of cgroups made of plain files, and the word of the kernel that memory ran out."""

from __future__ import annotations

from pathlib import Path

from urunc.shim import metrics, usage
from urunc.shim.wire import decode

V1 = {
    "cpuacct.usage": "3000000",
    "cpuacct.stat": "user 2\nsystem 1\n",
    "cpuacct.usage_percpu": "1000000 2000000\n",
    "cpu.stat": "nr_periods 4\nnr_throttled 3\nthrottled_time 2\n",
    "memory.stat": "cache 5\nrss 6\npgpgin 7\npgmajfault 8\ntotal_pgfault 9\nhierarchical_memsw_limit 10\n",
    "memory.usage_in_bytes": "11",
    "memory.limit_in_bytes": "9223372036854771712",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "pids.current": "1",
    "pids.max": "64",
    "blkio.throttle.io_service_bytes_recursive": "8:0 Read 4096\n8:0 Write 1\nTotal 4097\n",
    "hugetlb.2MB.usage_in_bytes": "12",
}
V2 = {
    "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 1\nnr_throttled 2\nthrottled_usec 3\n",
    "memory.stat": "anon 5\nfile 6\npgfault 7\nworkingset_refault_anon 8\n",
    "memory.current": "9",
    "memory.max": "max",
    "memory.peak": "10",
    "memory.swap.current": "11",
    "memory.swap.max": "12",
    "memory.events": "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\n",
    "pids.current": "1",
    "pids.max": "max",
    "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
}


def fill(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (folder / name).write_text(text)
    return str(folder)


def test_version_1(tmp_path: Path) -> None:
    place = fill(tmp_path, V1)
    packed = usage.read(dict.fromkeys(("cpu", "cpuacct", "memory", "pids", "blkio", "hugetlb"), place))
    assert packed["type_url"] == "io.containerd.cgroups.v1.Metrics"
    found = decode(metrics.V1_METRICS, packed["value"])
    assert found["cpu"]["usage"] == {
        "total": 3000000, "kernel": 10_000_000, "user": 20_000_000, "per_cpu": [1000000, 2000000]
    }  # fmt: skip
    assert found["cpu"]["throttling"] == {"periods": 4, "throttled_periods": 3, "throttled_time": 2}
    memory = found["memory"]
    assert (memory["cache"], memory["rss"], memory["pg_pg_in"], memory["pg_maj_fault"]) == (5, 6, 7, 8)
    assert (memory["total_pg_fault"], memory["hierarchical_swap_limit"]) == (9, 10)
    assert (memory["usage"]["usage"], memory["usage"]["limit"]) == (11, 9223372036854771712)
    assert found["memory_oom_control"]["oom_kill"] == 2
    assert found["pids"] == {"current": 1, "limit": 64}
    assert found["blkio"]["io_service_bytes_recursive"][0]["value"] == 4096
    assert found["hugetlb"][0]["pagesize"] == "2MB"


def test_version_2(tmp_path: Path) -> None:
    packed = usage.read({"": fill(tmp_path, V2)})
    assert packed["type_url"] == "io.containerd.cgroups.v2.Metrics"
    found = decode(metrics.V2_METRICS, packed["value"])
    assert found["cpu"] == {
        "usage_usec": 30, "user_usec": 20, "system_usec": 10, "nr_periods": 1, "nr_throttled": 2, "throttled_usec": 3
    }  # fmt: skip
    memory = found["memory"]
    assert (memory["anon"], memory["file"], memory["pgfault"]) == (5, 6, 7)
    assert (memory["usage"], memory["usage_limit"], memory["max_usage"]) == (9, 2**64 - 1, 10)
    assert (memory["swap_usage"], memory["swap_limit"]) == (11, 12)
    assert found["memory_events"] == {"low": 0, "high": 1, "max": 2, "oom": 3, "oom_kill": 4}
    assert found["io"]["usage"] == [{"major": 8, "minor": 0, "rbytes": 1, "wbytes": 2, "rios": 3, "wios": 4}]


def test_a_cgroup_that_is_gone_has_used_nothing(tmp_path: Path) -> None:
    for paths in ({"": f"{tmp_path}/gone"}, {"memory": f"{tmp_path}/gone", "cpu": f"{tmp_path}/gone"}):
        assert usage.read(paths)["value"] is not None
