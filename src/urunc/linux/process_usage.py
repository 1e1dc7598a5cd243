"""What one process uses, thread by thread, as the kernel counts it: /proc/PID and its tasks. Knows of no container.

A thread's name is the process's own word; every number is the kernel's.
"""

from __future__ import annotations

import os

from . import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KIB = 1024
_MOST_THREADS = 1024
_MINOR, _MAJOR = 7, 9  # minflt and majflt among the fields of /proc/PID/stat that follow the command's name
_SIZES = {"VmRSS": "residentMemory", "RssAnon": "anonymousMemory", "VmSwap": "swappedMemory"}
_TRANSFERS = {"read_bytes": "readBytes", "write_bytes": "writeBytes"}


def read(pid: int, started: int) -> dict[str, Any]:
    """Return what process `pid` (`started`: its start time in ticks) uses; empty where it is gone.

    Memory and transfers from and to devices are bytes, faults are counts, a thread's times nanoseconds: `cpuTime` that
    it ran, `waitTime` that it could have run and had no CPU. Threads of one name are one entry. What the kernel does
    not count, or does not tell this process, is not there.
    """
    found: dict[str, Any] = {**_faults(pid), **_sizes(pid), **_transfers(pid), "threads": _threads(pid)}
    return found if proc.start_time(pid) == started else {}  # looked at last: all of it was this process's


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(8192).decode("utf-8", "replace")
    except OSError:
        return ""


def _faults(pid: int) -> dict[str, int]:
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    if len(fields) <= _MAJOR:
        return {}
    return {"minorFaults": int(fields[_MINOR]), "majorFaults": int(fields[_MAJOR])}


def _sizes(pid: int) -> dict[str, int]:
    sizes = {}
    for line in _read(f"/proc/{pid}/status").splitlines():
        key, _, value = line.partition(":")
        if key in _SIZES:
            sizes[_SIZES[key]] = int(value.split()[0]) * _KIB
    return sizes


def _transfers(pid: int) -> dict[str, int]:
    lines = (line.partition(":") for line in _read(f"/proc/{pid}/io").splitlines())
    return {_TRANSFERS[key]: int(value) for key, _, value in lines if key in _TRANSFERS}


def _threads(pid: int) -> list[dict[str, Any]]:
    folder = f"/proc/{pid}/task"
    try:
        numbers = sorted(map(int, os.listdir(folder)))[:_MOST_THREADS]
    except OSError:
        return []
    found: dict[str, dict[str, Any]] = {}
    for number in numbers:
        name = _read(f"{folder}/{number}/comm").rstrip("\n")
        times = _read(f"{folder}/{number}/schedstat").split()  # ran, waited, how often
        entry = found.setdefault(name, {"name": name, "count": 0})
        entry["count"] += 1
        for key, value in zip(("cpuTime", "waitTime"), times, strict=False):
            entry[key] = entry.get(key, 0) + int(value)
    return list(found.values())
