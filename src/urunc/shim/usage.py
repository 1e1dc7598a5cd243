"""What a container's cgroup has used, as the messages that Stats answers with. Imported when it is asked for."""

from __future__ import annotations

from ..linux import cgroup_files, cgroup_stats
from . import messages, metrics

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .wire import Values

_V1_ALIASES = {
    "pg_pg_in": "pgpgin",
    "pg_pg_out": "pgpgout",
    "pg_fault": "pgfault",
    "pg_maj_fault": "pgmajfault",
    "hierarchical_swap_limit": "hierarchical_memsw_limit",
}
"""Fields of MemoryStat that the kernel's memory.stat names otherwise."""


def read(paths: dict[str, str]) -> Values:
    """Return an Any with the Metrics of the cgroup's version."""
    data = cgroup_stats.read(paths)
    if cgroup_files.version_of(paths) == 2:
        return messages.pack(metrics.V2_METRICS, _v2(paths, data))
    return messages.pack(metrics.V1_METRICS, _v1(paths, data))


def _v1(paths: dict[str, str], data: dict[str, Any]) -> Values:
    usage, throttling = data["cpu"]["usage"], data["cpu"]["throttling"]
    raw, memory = data["memory"]["raw"], data["memory"]
    stat = {name: raw.get(_v1_name(name), 0) for name in metrics.V1_MEMORY_COUNTERS.split()}
    entries = {"usage": "usage", "swap": "swap", "kernel": "kernel", "kernel_tcp": "kernelTCP"}
    return {
        "hugetlb": [{"pagesize": size, **values} for size, values in data["hugetlb"].items()],
        "pids": data["pids"],
        "cpu": {
            "usage": {
                "total": usage["total"],
                "kernel": usage["kernel"],
                "user": usage["user"],
                "per_cpu": usage["percpu"],
            },
            "throttling": {
                "periods": throttling["periods"],
                "throttled_periods": throttling["throttledPeriods"],
                "throttled_time": throttling["throttledTime"],
            },
        },
        "memory": {**stat, **{field: memory[name] for field, name in entries.items()}},
        "blkio": {
            "io_service_bytes_recursive": data["blkio"]["ioServiceBytesRecursive"],
            "io_serviced_recursive": data["blkio"]["ioServicedRecursive"],
        },
        "memory_oom_control": _oom_control(paths.get("memory")),
    }


def _v1_name(field: str) -> str:
    total = "total_" if field.startswith("total_") else ""
    name = field.removeprefix(total)
    return total + _V1_ALIASES.get(name, name)


def _oom_control(place: str | None) -> Values:
    found = _keyed(f"{place}/memory.oom_control") if place else {}
    return {name: found.get(name, 0) for name in ("oom_kill_disable", "under_oom", "oom_kill")}


def _v2(paths: dict[str, str], data: dict[str, Any]) -> Values:
    place = paths[""]
    usage, throttling = data["cpu"]["usage"], data["cpu"]["throttling"]
    raw, memory = data["memory"]["raw"], data["memory"]["usage"]
    events = _keyed(f"{place}/memory.events")
    return {
        "pids": data["pids"],
        "cpu": {
            "usage_usec": usage["total"] // 1000,
            "user_usec": usage["user"] // 1000,
            "system_usec": usage["kernel"] // 1000,
            "nr_periods": throttling["periods"],
            "nr_throttled": throttling["throttledPeriods"],
            "throttled_usec": throttling["throttledTime"] // 1000,
        },
        "memory": {
            **{name: raw.get(name, 0) for name in metrics.V2_MEMORY_COUNTERS.split()},
            "usage": memory["usage"],
            "usage_limit": memory["limit"],
            "max_usage": memory["max"],
            **_swap(place),
        },
        "io": {"usage": _io(data["blkio"])},
        "hugetlb": [
            {"pagesize": size, "current": values["usage"], "max": values["max"]}
            for size, values in data["hugetlb"].items()
        ],
        "memory_events": {name: events.get(name, 0) for name in ("low", "high", "max", "oom", "oom_kill")},
    }


def _swap(place: str) -> Values:
    found = {}
    for field, file in (("swap_usage", "memory.swap.current"), ("swap_limit", "memory.swap.max")):
        try:
            with open(f"{place}/{file}", encoding="ascii") as stream:
                text = stream.read().strip()
        except OSError:
            continue
        found[field] = cgroup_stats.UNLIMITED if text == "max" else int(text)
    return found


_IO = {
    ("ioServiceBytesRecursive", "Read"): "rbytes",
    ("ioServiceBytesRecursive", "Write"): "wbytes",
    ("ioServicedRecursive", "Read"): "rios",
    ("ioServicedRecursive", "Write"): "wios",
}


def _io(blkio: dict[str, list[dict[str, Any]]]) -> list[Values]:
    devices: dict[tuple[int, int], Values] = {}
    for (kind, operation), field in _IO.items():
        for entry in blkio[kind]:
            if entry["op"] == operation:
                place = devices.setdefault((entry["major"], entry["minor"]), {})
                place[field] = entry["value"]
    return [{"major": major, "minor": minor, **values} for (major, minor), values in devices.items()]


def _keyed(path: str) -> dict[str, int]:
    try:
        with open(path, encoding="ascii") as stream:
            pairs = [line.partition(" ") for line in stream.read().splitlines()]
    except OSError:
        return {}
    return {name: int(value) for name, _, value in pairs if value.isdigit()}
