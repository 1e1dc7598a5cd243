"""`events`: what a container uses, and that it ran out of memory, in runc's shape (types/events.go).

The figures are the kernel's: the cgroup's, the network namespace's, and the process's under `process`, which every
monitor has. What the monitor says of itself stands apart, under `monitor`: it is as trustworthy as the guest, and a
container without an answer has figures all the same.
"""

from __future__ import annotations

import os
import select
import time

from ..errors import StateError, UsageError
from ..linux import cgroup_stats, proc, process_usage
from ..linux.oom import Oom
from . import status, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .store import Container

_NET_FIELDS = ("Bytes", "Packets", "Errors", "Dropped")  # the first four columns each way of /proc/net/dev
_NET_COLUMNS = 16
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_LONGEST = (2**31 - 1) / 1000  # of poll(2), in seconds
_DISK_FIELDS = {
    "readBytes": "rd_bytes",
    "writeBytes": "wr_bytes",
    "reads": "rd_operations",
    "writes": "wr_operations",
    "flushes": "flush_operations",
}


def stats(root: str, name: str) -> dict[str, Any]:
    """Return one event of type `stats`. Raises StateError where the container does not run."""
    container = store.want(root, name)
    now = status.of(root, container)
    status.require("events", container, now)
    return _stats(root, container, now)


def follow(root: str, name: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield an event of type `stats` every `seconds`, one of type `oom` as it happens, until the container ends."""
    container = store.want(root, name)
    status.require("events", container, status.of(root, container))
    try:
        process = proc.open_process(container.pid, container.start_time)
    except ProcessLookupError:
        return
    try:
        with Oom(container.cgroup) as oom:
            yield from _follow(root, container, process, oom, seconds)
    finally:
        os.close(process)


def _follow(root: str, container: Container, process: int, oom: Oom, seconds: float) -> Iterator[dict[str, Any]]:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    if oom.fd >= 0:
        poll.register(oom.fd, oom.mask)
    due = time.monotonic() + seconds
    while True:
        ready = [fd for fd, _ in poll.poll(max(0.0, due - time.monotonic()) * 1000)]
        for _ in range(oom.take()):
            yield {"type": "oom", "id": container.id}
        if process in ready:
            return
        if oom.fd in ready and oom.is_over():
            poll.unregister(oom.fd)
            oom.close()
        if time.monotonic() >= due:
            due += seconds
            yield _stats(root, container, status.of(root, container))


def _stats(root: str, container: Container, now: str) -> dict[str, Any]:
    interfaces, taps = _interfaces(container)
    data = {
        **cgroup_stats.read(container.cgroup),
        "intel_rdt": {},
        "network_interfaces": interfaces,
        "process": {**process_usage.read(container.pid, container.start_time), "taps": taps},
        "monitor": _monitor(f"{root}/{container.id}", container, now),
    }
    return {"type": "stats", "id": container.id, "data": data}


def _interfaces(container: Container) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the counters of the interfaces before the container's taps, and those of the taps.

    As the guest is behind the former, they are its own: what they receive, it does. A tap receives what it sends.
    """
    lines = _net_dev(container.pid, container.start_time)
    entries = [entry for line in lines if (entry := _interface(line)) and entry["Name"] != "lo"]
    taps = [entry for entry in entries if entry["Name"] in container.taps]
    return [entry for entry in entries if entry not in taps], taps


def _net_dev(pid: int, started: int) -> list[str]:
    try:
        with open(proc.open_file(pid, started, "net/dev"), encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _interface(line: str) -> dict[str, Any] | None:
    """Return the counters of a line of /proc/net/dev, None for its titles."""
    name, colon, rest = line.partition(":")
    numbers = rest.split()
    if not colon or len(numbers) < _NET_COLUMNS or not all(number.isdecimal() for number in numbers):
        return None
    entry: dict[str, Any] = {"Name": name.strip()}
    for way, first in (("Rx", 0), ("Tx", _NET_COLUMNS // 2)):
        entry.update((f"{way}{field}", int(numbers[first + at])) for at, field in enumerate(_NET_FIELDS))
    return entry


def _monitor(place: str, container: Container, now: str) -> dict[str, Any]:
    """Return what is known of the monitor, and what it says of itself where it can be asked and runs."""
    found = {"name": container.monitor, "accel": container.accel, "guestMemory": container.memory_mib << 20}
    if now != status.RUNNING:
        return found
    asked = [_by_qmp] if os.path.exists(f"{place}/qmp.sock") else [_by_api] if _has_api(container) else []
    asked += [_balloon] if container.balloon else []
    for ask in asked:
        try:
            found.update(ask(place, container))
        except StateError:  # it is busy, or has just ended: it would not answer the next question either
            break
    return found


def _balloon(place: str, container: Container) -> dict[str, Any]:
    """Return what the guest says of its memory: that which it has left itself, and how it uses that."""
    from . import balloon

    found: dict[str, Any] = {"guestMemoryActual": balloon.size(place, container)}
    try:
        usage = balloon.usage(place, container)
    except StateError:  # an older monitor has no such question
        usage = {}
    return {**found, "guestMemoryUsage": usage} if usage else found


def _by_qmp(place: str, container: Container) -> dict[str, Any]:
    from . import control

    state, blocks = control.ask(place, "query-status", "query-blockstats")
    return {
        "status": str(state.get("status"))[:32] if isinstance(state, dict) else "unknown",
        "disks": [_disk(item) for item in blocks if isinstance(item, dict)] if isinstance(blocks, list) else [],
    }


def _has_api(container: Container) -> bool:
    return container.stop == "ctrl-alt-del" or container.balloon


def _by_api(place: str, container: Container) -> dict[str, Any]:
    from . import monitor_api

    state = monitor_api.instance(container.pid, container.start_time).get("state")
    return {"status": state[:32].lower() if isinstance(state, str) else "unknown"}


def _disk(item: dict[str, Any]) -> dict[str, Any]:
    given = item.get("stats")
    counters = given if isinstance(given, dict) else {}
    numbers = {name: counters.get(key) for name, key in _DISK_FIELDS.items()}
    return {
        "device": str(item.get("device"))[:64],
        **{name: number for name, number in numbers.items() if type(number) is int},
    }


def parse_interval(text: str) -> float:
    """Return the seconds of a duration as Go writes it, such as `5s`, `1m30s` or `500ms`. Raises UsageError."""
    seconds, rest = 0.0, text
    while rest:
        number = rest[: next((at for at, char in enumerate(rest) if not (char.isdecimal() or char == ".")), len(rest))]
        rest = rest[len(number) :]
        unit = rest[: next((at for at, char in enumerate(rest) if char.isdecimal() or char == "."), len(rest))]
        rest = rest[len(unit) :]
        try:
            seconds += float(number) * _UNITS[unit]
        except (ValueError, KeyError):
            raise UsageError(f"flag `--interval` needs a duration such as 5s, not `{text}`") from None
    if not 0 < seconds <= _LONGEST:
        raise UsageError("flag `--interval` needs a duration greater than 0, and of 24 days at most")
    return seconds
