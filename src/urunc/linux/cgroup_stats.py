"""What a cgroup has used, in the shape of the data of runc's `events --stats`. Read by one verb, so a file of its own.

The names are runc's (types/events.go), which containerd and monitoring tools parse; times are nanoseconds, sizes
bytes. A controller that is not there leaves its part at zero.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UNLIMITED = 2**64 - 1
_NANOSECONDS_PER_TICK = 10_000_000  # USER_HZ is 100 on every architecture


def read(paths: dict[str, str]) -> dict[str, Any]:
    """Return cpu, cpuset, memory, pids, blkio and hugetlb of the cgroup at these paths (see `cgroup_files`)."""
    if "" in paths:
        place = paths[""]
        return {
            "cpu": _cpu2(place),
            "cpuset": _cpuset(place, ".effective"),
            "memory": _memory2(place),
            "pids": _pids(place),
            "blkio": _io2(place),
            "hugetlb": _hugetlb(place, "current", None, "events"),
        }
    return {
        "cpu": _cpu1(paths.get("cpu"), paths.get("cpuacct")),
        "cpuset": _cpuset(paths.get("cpuset"), ""),
        "memory": _memory1(paths.get("memory")),
        "pids": _pids(paths.get("pids")),
        "blkio": _blkio1(paths.get("blkio")),
        "hugetlb": _hugetlb(paths.get("hugetlb"), "usage_in_bytes", "max_usage_in_bytes", "failcnt"),
    }


def _text(place: str | None, file: str) -> str:
    """Return a file's text, "" where it or its controller is not there."""
    if place is None:
        return ""
    try:
        with open(f"{place}/{file}", encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _number(place: str | None, file: str) -> int:
    """Return a file of one number; `max` is UNLIMITED, a missing file 0."""
    text = _text(place, file).strip()
    if text == "max":
        return UNLIMITED
    return int(text) if text.removeprefix("-").isdigit() else 0


def _keyed(place: str | None, file: str) -> dict[str, int]:
    pairs = (line.partition(" ") for line in _text(place, file).splitlines())
    return {name: int(number) for name, _, number in pairs if number.isdigit()}


def _cpu1(cpu: str | None, cpuacct: str | None) -> dict[str, Any]:
    throttling, times = _keyed(cpu, "cpu.stat"), _keyed(cpuacct, "cpuacct.stat")
    percpu = [int(word) for word in _text(cpuacct, "cpuacct.usage_percpu").split()]
    usage = {
        "total": _number(cpuacct, "cpuacct.usage"),
        "percpu": percpu,
        "kernel": times.get("system", 0) * _NANOSECONDS_PER_TICK,
        "user": times.get("user", 0) * _NANOSECONDS_PER_TICK,
    }
    return {
        "usage": usage,
        "throttling": {
            "periods": throttling.get("nr_periods", 0),
            "throttledPeriods": throttling.get("nr_throttled", 0),
            "throttledTime": throttling.get("throttled_time", 0),
        },
    }


def _cpu2(place: str) -> dict[str, Any]:
    stat = _keyed(place, "cpu.stat")
    return {
        "usage": {
            "total": stat.get("usage_usec", 0) * 1000,
            "kernel": stat.get("system_usec", 0) * 1000,
            "user": stat.get("user_usec", 0) * 1000,
        },
        "throttling": {
            "periods": stat.get("nr_periods", 0),
            "throttledPeriods": stat.get("nr_throttled", 0),
            "throttledTime": stat.get("throttled_usec", 0) * 1000,
        },
    }


_CPUSET = (
    *("cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page"),
    *("memory_spread_slab", "memory_pressure", "sched_load_balance", "sched_relax_domain_level"),
)


def _cpuset(place: str | None, ending: str) -> dict[str, Any]:
    """Return the cpus and nodes, and v1's switches, which v2 has not: zeros there."""
    lists = {name: _list(_text(place, f"cpuset.{name}{ending}").strip()) for name in ("cpus", "mems")}
    return {**lists, **{name: _number(place, f"cpuset.{name}") for name in _CPUSET}}


def _list(text: str) -> list[int]:
    numbers: list[int] = []
    for word in text.split(",") if text else ():
        first, _, last = word.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def _entry1(place: str | None, prefix: str) -> dict[str, int]:
    return {
        "limit": _number(place, f"{prefix}.limit_in_bytes"),
        "usage": _number(place, f"{prefix}.usage_in_bytes"),
        "max": _number(place, f"{prefix}.max_usage_in_bytes"),
        "failcnt": _number(place, f"{prefix}.failcnt"),
    }


def _memory1(place: str | None) -> dict[str, Any]:
    raw = _keyed(place, "memory.stat")
    return {
        "cache": raw.get("cache", 0),
        "usage": _entry1(place, "memory"),
        "swap": _entry1(place, "memory.memsw"),
        "kernel": _entry1(place, "memory.kmem"),
        "kernelTCP": _entry1(place, "memory.kmem.tcp"),
        "raw": raw,
    }


def _memory2(place: str) -> dict[str, Any]:
    raw = _keyed(place, "memory.stat")
    events = _keyed(place, "memory.events")
    usage = {
        "limit": _number(place, "memory.max"),
        "usage": _number(place, "memory.current"),
        "max": _number(place, "memory.peak"),
        "failcnt": events.get("max", 0),
    }
    swap_limit = _number(place, "memory.swap.max")
    # The shape is v1's, where swap means memory and swap together.
    swap = {
        "limit": UNLIMITED if UNLIMITED in (swap_limit, usage["limit"]) else swap_limit + usage["limit"],
        "usage": _number(place, "memory.swap.current") + usage["usage"],
        "max": 0,
        "failcnt": 0,
    }
    empty = {"limit": 0, "usage": 0, "max": 0, "failcnt": 0}
    return {
        "cache": raw.get("file", 0),
        "usage": usage,
        "swap": swap,
        "kernel": empty | {"usage": raw.get("kernel", 0)},
        "kernelTCP": empty | {"usage": raw.get("sock", 0)},
        "raw": raw,
    }


def _pids(place: str | None) -> dict[str, int]:
    limit = _number(place, "pids.max")
    return {"current": _number(place, "pids.current"), "limit": 0 if limit == UNLIMITED else limit}


_BLKIO1 = {
    "ioServiceBytesRecursive": ("blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive"),
    "ioServicedRecursive": ("blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive"),
    "ioQueueRecursive": ("blkio.bfq.io_queued_recursive",),
    "ioServiceTimeRecursive": ("blkio.bfq.io_service_time_recursive",),
    "ioWaitTimeRecursive": ("blkio.bfq.io_wait_time_recursive",),
    "ioMergedRecursive": ("blkio.bfq.io_merged_recursive",),
    "ioTimeRecursive": ("blkio.bfq.time_recursive",),
    "sectorsRecursive": ("blkio.bfq.sectors_recursive",),
}


def _blkio1(place: str | None) -> dict[str, Any]:
    """Return the counters of the BFQ scheduler where it is in use, of the throttling layer elsewhere."""
    found = {}
    for name, files in _BLKIO1.items():
        found[name] = next((entries for file in files if (entries := _entries(_text(place, file)))), [])
    return found


def _entries(text: str) -> list[dict[str, Any]]:
    """Return lines such as `8:0 Read 4096`, or `8:0 12`, as entries; the line of totals is left out."""
    found = []
    for line in text.splitlines():
        words = line.split()
        major, colon, minor = words[0].partition(":") if words else ("", "", "")
        if colon and 2 <= len(words) <= 3 and words[-1].isdigit():
            operation = words[1] if len(words) == 3 else ""
            found.append({"major": int(major), "minor": int(minor), "op": operation, "value": int(words[-1])})
    return found


_IO2 = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "dbytes": ("ioServiceBytesRecursive", "Discard"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
    "dios": ("ioServicedRecursive", "Discard"),
}


def _io2(place: str) -> dict[str, Any]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in _BLKIO1}
    for line in _text(place, "io.stat").splitlines():
        device, *words = line.split()
        major, colon, minor = device.partition(":")
        for word in words if colon else ():
            key, _, number = word.partition("=")
            if key in _IO2 and number.isdigit():
                name, operation = _IO2[key]
                found[name].append({"major": int(major), "minor": int(minor), "op": operation, "value": int(number)})
    return found


def _hugetlb(place: str | None, usage: str, peak: str | None, failures: str) -> dict[str, Any]:
    if place is None:
        return {}
    found = {}
    for size in _page_sizes(place, usage):
        # Reservations are counted apart since Linux 5.7, and are what a monitor's huge memory is (runc).
        name = f"hugetlb.{size}"
        rsvd = f"{name}.rsvd" if os.path.exists(f"{place}/{name}.rsvd.{usage}") else name
        failed = (
            _keyed(place, f"{name}.events").get("max", 0)
            if failures == "events"
            else _number(place, f"{rsvd}.{failures}")
        )
        found[size] = {
            "usage": _number(place, f"{rsvd}.{usage}"),
            "max": _number(place, f"{rsvd}.{peak}") if peak else 0,
            "failcnt": failed,
        }
    return found


def _page_sizes(place: str, usage: str) -> list[str]:
    try:
        names = os.listdir(place)
    except OSError:
        return []
    sizes = (name.removeprefix("hugetlb.").removesuffix(f".{usage}") for name in names if name.startswith("hugetlb."))
    return sorted({size for size in sizes if "." not in size})
