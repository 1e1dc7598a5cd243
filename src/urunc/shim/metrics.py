"""The two messages that Stats answers with: containerd/cgroups' Metrics of cgroup v1 and of v2, as tables.

`ctr task metrics`, `docker stats` and the CRI plug-in read them. Only fields that the kernel's files give are here.
"""

from __future__ import annotations

from .wire import Table


def _counters(names: str, first: int = 1) -> tuple[tuple[int, str, str], ...]:
    return tuple((number, name, "uint64") for number, name in enumerate(names.split(), first))


# --- io.containerd.cgroups.v1
_V1 = "io.containerd.cgroups.v1."
V1_HUGETLB = Table(_V1 + "HugetlbStat", *_counters("usage max failcnt"), (4, "pagesize", "string"))
V1_PIDS = Table(_V1 + "PidsStat", *_counters("current limit"))
V1_CPU_USAGE = Table(_V1 + "CPUUsage", *_counters("total kernel user"), (4, "per_cpu", "uint64", "repeated"))
V1_THROTTLE = Table(_V1 + "Throttle", *_counters("periods throttled_periods throttled_time"))
V1_CPU = Table(_V1 + "CPUStat", (1, "usage", "message", V1_CPU_USAGE), (2, "throttling", "message", V1_THROTTLE))
V1_MEMORY_ENTRY = Table(_V1 + "MemoryEntry", *_counters("limit usage max failcnt"))
V1_MEMORY_COUNTERS = (
    "cache rss rss_huge mapped_file dirty writeback pg_pg_in pg_pg_out pg_fault pg_maj_fault inactive_anon active_anon "
    "inactive_file active_file unevictable hierarchical_memory_limit hierarchical_swap_limit total_cache total_rss "
    "total_rss_huge total_mapped_file total_dirty total_writeback total_pg_pg_in total_pg_pg_out total_pg_fault "
    "total_pg_maj_fault total_inactive_anon total_active_anon total_inactive_file total_active_file total_unevictable"
)
V1_MEMORY = Table(
    _V1 + "MemoryStat",
    *_counters(V1_MEMORY_COUNTERS),
    (33, "usage", "message", V1_MEMORY_ENTRY),
    (34, "swap", "message", V1_MEMORY_ENTRY),
    (35, "kernel", "message", V1_MEMORY_ENTRY),
    (36, "kernel_tcp", "message", V1_MEMORY_ENTRY),
)
V1_OOM_CONTROL = Table(_V1 + "MemoryOomControl", *_counters("oom_kill_disable under_oom oom_kill"))
V1_BLKIO_ENTRY = Table(
    _V1 + "BlkIOEntry", (1, "op", "string"), (2, "device", "string"), *_counters("major minor value", first=3)
)
V1_BLKIO = Table(
    _V1 + "BlkIOStat",
    (1, "io_service_bytes_recursive", "message", "repeated", V1_BLKIO_ENTRY),
    (2, "io_serviced_recursive", "message", "repeated", V1_BLKIO_ENTRY),
)
V1_METRICS = Table(
    _V1 + "Metrics",
    (1, "hugetlb", "message", "repeated", V1_HUGETLB),
    (2, "pids", "message", V1_PIDS),
    (3, "cpu", "message", V1_CPU),
    (4, "memory", "message", V1_MEMORY),
    (5, "blkio", "message", V1_BLKIO),
    (9, "memory_oom_control", "message", V1_OOM_CONTROL),
)

# --- io.containerd.cgroups.v2
_V2 = "io.containerd.cgroups.v2."
V2_PIDS = Table(_V2 + "PidsStat", *_counters("current limit"))
V2_CPU = Table(
    _V2 + "CPUStat",
    *_counters("usage_usec user_usec system_usec nr_periods nr_throttled throttled_usec"),
)
V2_MEMORY_COUNTERS = (
    "anon file kernel_stack slab sock shmem file_mapped file_dirty file_writeback anon_thp inactive_anon active_anon "
    "inactive_file active_file unevictable slab_reclaimable slab_unreclaimable pgfault pgmajfault workingset_refault "
    "workingset_activate workingset_nodereclaim pgrefill pgscan pgsteal pgactivate pgdeactivate pglazyfree pglazyfreed "
    "thp_fault_alloc thp_collapse_alloc"
)
V2_MEMORY = Table(
    _V2 + "MemoryStat",
    *_counters(V2_MEMORY_COUNTERS),
    *_counters("usage usage_limit swap_usage swap_limit max_usage swap_max_usage", first=32),
)
V2_MEMORY_EVENTS = Table(_V2 + "MemoryEvents", *_counters("low high max oom oom_kill"))
V2_IO_ENTRY = Table(_V2 + "IOEntry", *_counters("major minor rbytes wbytes rios wios"))
V2_IO = Table(_V2 + "IOStat", (1, "usage", "message", "repeated", V2_IO_ENTRY))
V2_HUGETLB = Table(_V2 + "HugeTlbStat", *_counters("current max"), (3, "pagesize", "string"))
V2_METRICS = Table(
    _V2 + "Metrics",
    (1, "pids", "message", V2_PIDS),
    (2, "cpu", "message", V2_CPU),
    (4, "memory", "message", V2_MEMORY),
    (6, "io", "message", V2_IO),
    (7, "hugetlb", "message", "repeated", V2_HUGETLB),
    (8, "memory_events", "message", V2_MEMORY_EVENTS),
)
