"""Translate `linux.resources` into what is written to the files of a cgroup, on version 1 or 2.

Pure: the same resources always give the same writes, so a plan can be printed and tested without a cgroup.
Must not know how a file is written: that is `linux.cgroup_files`. Devices are `device_rules`, systemd is `scope`.

Order and meanings are runc's (runtime specification, config-linux.md, "Control groups"), with one
difference: a limit that the cgroup version cannot express is an error, where runc leaves it out silently.
"""

from __future__ import annotations

from ..errors import SpecError
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .spec import Resources

DEFAULT_PERIOD = 100_000
"""The kernel's cpu period in microseconds, on both versions."""

_AT = "linux.resources."


class CgroupWrite(Record):
    """One write of `value` to `file` of a controller. `optional`: nothing is lost where the file does not exist.

    `fallback` is written instead where the file does not exist.
    """

    controller: str
    file: str
    value: str
    optional: bool = False
    fallback: CgroupWrite | None = None


def writes(resources: Resources, version: int) -> tuple[CgroupWrite, ...]:
    """Return what to write for these resources, in order, on cgroup `version` 1 or 2.

    Devices are not among them. Raises SpecError.
    """
    check(resources)
    if version == 1:
        return (*_memory1(resources), *_cpu1(resources), *_io1(resources), *_net1(resources), *_both(resources, 1))
    return (*_memory2(resources), *_cpu2(resources), *_io2(resources), *_both(resources, 2), *_unified(resources))


def check(resources: Resources) -> None:
    """Raise SpecError for what no kernel takes, on either version, though each value is within the specification's."""
    limit, swap = resources.memory_limit or 0, resources.memory_swap or 0
    if swap > 0 and limit == 0:
        raise SpecError(f"{_AT}memory.swap: {swap} without memory.limit")
    if swap > 0 and limit > swap:
        raise SpecError(f"{_AT}memory.swap: {swap} is memory and swap together, and below memory.limit ({limit})")
    if limit == -1 and swap > 0:
        raise SpecError(f"{_AT}memory.swap: {swap} is below memory.limit, which is unlimited")
    for path, weight in _weights(resources):
        if weight and not 10 <= weight <= 1000:
            raise SpecError(f"{_AT}blockIO.{path}: {weight} is not within 10 and 1000")
    for name, text in (("cpus", resources.cpus), ("mems", resources.mems)):
        if text:
            parse_list(text, f"{_AT}cpu.{name}")


def _weights(resources: Resources) -> tuple[tuple[str, int | None], ...]:
    """Return every weight of `blockIO` with its path there."""
    return (
        ("weight", resources.block_io_weight),
        ("leafWeight", resources.block_io_leaf_weight),
        *((f"weightDevice[{at}].weight", one.weight) for at, one in enumerate(resources.block_io_device_weights)),
        *(
            (f"weightDevice[{at}].leafWeight", one.leaf_weight)
            for at, one in enumerate(resources.block_io_device_weights)
        ),
    )


def _set(controller: str, file: str, value: int | None, *, optional: bool = False) -> tuple[CgroupWrite, ...]:
    """Return a write where the value is given; 0 means "not given" to runc."""
    return (CgroupWrite(controller=controller, file=file, value=str(value), optional=optional),) if value else ()


def _memory1(resources: Resources) -> tuple[CgroupWrite, ...]:
    limit = _set("memory", "memory.limit_in_bytes", resources.memory_limit)
    swap = _set("memory", "memory.memsw.limit_in_bytes", resources.memory_swap, optional=resources.memory_swap == -1)
    if resources.memory_limit == -1 and not resources.memory_swap:
        swap = _set("memory", "memory.memsw.limit_in_bytes", -1, optional=True)
    # The kernel keeps limit <= memory+swap at every moment: to lift both, the outer one goes first.
    both = swap + limit if swap and swap[0].value == "-1" else limit + swap
    oom = _set("memory", "memory.oom_control", int(resources.memory_disable_oom_killer))
    soft = _set("memory", "memory.soft_limit_in_bytes", resources.memory_reservation)
    return both + soft + oom + _given("memory", "memory.swappiness", resources.memory_swappiness)


def _memory2(resources: Resources) -> tuple[CgroupWrite, ...]:
    if resources.memory_disable_oom_killer:
        raise SpecError(f"{_AT}memory.disableOOMKiller: cgroup v2 cannot disable it")
    if resources.memory_swappiness is not None:
        raise SpecError(f"{_AT}memory.swappiness: cgroup v2 has no swappiness")
    swap = swap_alone(resources)
    found: tuple[CgroupWrite, ...] = ()
    if swap is not None:
        # A kernel without swap accounting has no such file: nothing to forbid or to allow then.
        found = (CgroupWrite(controller="memory", file="memory.swap.max", value=_max(swap), optional=swap <= 0),)
    for file, value in (("memory.max", resources.memory_limit), ("memory.low", resources.memory_reservation)):
        if value:
            found += (CgroupWrite(controller="memory", file=file, value=_max(value)),)
    return found


def swap_alone(resources: Resources) -> int | None:
    """Return the swap alone: the specification's `swap` is memory and swap together. -1 is no limit."""
    limit, swap = resources.memory_limit or 0, resources.memory_swap or 0
    if swap == 0:
        return -1 if limit == -1 else None
    return -1 if swap == -1 else swap - limit


def _max(value: int) -> str:
    return "max" if value == -1 else str(value)


def _given(controller: str, file: str, value: int | None) -> tuple[CgroupWrite, ...]:
    """Return a write where the value is given, 0 included."""
    return () if value is None else (CgroupWrite(controller=controller, file=file, value=str(value)),)


def _cpu1(resources: Resources) -> tuple[CgroupWrite, ...]:
    shares = resources.cpu_shares or 0
    if shares and not 2 <= shares <= 262144:
        raise SpecError(f"{_AT}cpu.shares: {shares} is not within 2 and 262144")
    return (
        *_set("cpu", "cpu.shares", shares),
        *_set("cpu", "cpu.cfs_period_us", resources.cpu_period),
        *_set("cpu", "cpu.cfs_quota_us", resources.cpu_quota),
        *_burst(resources, "cpu.cfs_burst_us"),
        *_given("cpu", "cpu.idle", resources.cpu_idle),
        *_set("cpu", "cpu.rt_period_us", resources.cpu_realtime_period),
        *_set("cpu", "cpu.rt_runtime_us", resources.cpu_realtime_runtime),
    )


def _cpu2(resources: Resources) -> tuple[CgroupWrite, ...]:
    if resources.cpu_realtime_period or resources.cpu_realtime_runtime:
        raise SpecError(f"{_AT}cpu.realtimeRuntime: cgroup v2 has no realtime limits")
    found = _given("cpu", "cpu.idle", resources.cpu_idle)
    if resources.cpu_idle != 1:  # an idle group has no weight: the kernel refuses to set one
        found += _set("cpu", "cpu.weight", cpu_weight(resources.cpu_shares or 0))
    if resources.cpu_quota or resources.cpu_period:
        quota = resources.cpu_quota or -1
        value = f"{quota if quota > 0 else 'max'} {resources.cpu_period or DEFAULT_PERIOD}"
        found += (CgroupWrite(controller="cpu", file="cpu.max", value=value),)
    return found + _burst(resources, "cpu.max.burst")


def _burst(resources: Resources, file: str) -> tuple[CgroupWrite, ...]:
    if resources.cpu_burst is None:
        return ()
    optional = resources.cpu_burst == 0
    return (CgroupWrite(controller="cpu", file=file, value=str(resources.cpu_burst), optional=optional),)


def cpu_weight(shares: int) -> int:
    """Return v2's weight (1 to 10000, default 100) for v1's shares (2 to 262144, default 1024); 0 is unset.

    runc's and crun's curve: a quadratic in log2 that keeps the minimum, the default and the maximum.
    """
    if shares == 0:
        return 0
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    from math import ceil, log2  # 40 us, and most containers are on v1 or have no shares

    log = log2(shares)
    return ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def _io1(resources: Resources) -> tuple[CgroupWrite, ...]:
    found = _set("blkio", "blkio.leaf_weight", resources.block_io_leaf_weight)
    if resources.block_io_weight:
        found = (*_weight1("weight", str(resources.block_io_weight)), *found)
    for one in resources.block_io_device_weights:
        place = f"{one.major}:{one.minor}"
        if one.weight:
            found += _weight1("weight_device", f"{place} {one.weight}")
        if one.leaf_weight:
            value = f"{place} {one.leaf_weight}"
            found += (CgroupWrite(controller="blkio", file="blkio.leaf_weight_device", value=value),)
    return found + tuple(
        CgroupWrite(controller="blkio", file=f"blkio.throttle.{kind}_device", value=f"{major}:{minor} {rate}")
        for kind, major, minor, rate in resources.block_io_throttle
    )


def _weight1(file: str, value: str) -> tuple[CgroupWrite, ...]:
    """Return the write for the scheduler CFQ, which Linux 5.0 removed, and BFQ's instead where it is not there."""
    bfq = CgroupWrite(controller="blkio", file=f"blkio.bfq.{file}", value=value)
    return (bfq.replace(file=f"blkio.{file}", fallback=bfq),)


_IO_MAX = {"read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops", "write_iops": "wiops"}


def _io2(resources: Resources) -> tuple[CgroupWrite, ...]:
    for path, weight in _weights(resources):
        if weight and path.endswith("leafWeight"):
            raise SpecError(f"{_AT}blockIO.{path}: cgroup v2 has no leaf weights")
    found: tuple[CgroupWrite, ...] = ()
    if resources.block_io_weight:
        found = _weight2("", resources.block_io_weight)
    for one in resources.block_io_device_weights:
        if one.weight:
            found += _weight2(f"{one.major}:{one.minor} ", one.weight)
    return found + tuple(
        CgroupWrite(controller="io", file="io.max", value=f"{major}:{minor} {_IO_MAX[kind]}={rate or 'max'}")
        for kind, major, minor, rate in resources.block_io_throttle
    )


def _weight2(device: str, weight: int) -> tuple[CgroupWrite, ...]:
    """Return the write for the scheduler BFQ, and io.weight's (1 to 10000) instead where it is not there."""
    plain = CgroupWrite(controller="io", file="io.weight", value=f"{device}{1 + (weight - 10) * 9999 // 990}")
    return (plain.replace(file="io.bfq.weight", value=f"{device}{weight}", fallback=plain),)


def _net1(resources: Resources) -> tuple[CgroupWrite, ...]:
    if resources.unified:
        raise SpecError(f"{_AT}unified: this host has cgroup v1")
    return _set("net_cls", "net_cls.classid", resources.network_class_id) + tuple(
        CgroupWrite(controller="net_prio", file="net_prio.ifpriomap", value=f"{name} {priority}")
        for name, priority in resources.network_priorities
    )


def _both(resources: Resources, version: int) -> tuple[CgroupWrite, ...]:
    """Return what is the same on both versions, up to a file's ending."""
    found: list[CgroupWrite] = []
    for file, text in (("cpuset.cpus", resources.cpus), ("cpuset.mems", resources.mems)):
        if text:
            found.append(CgroupWrite(controller="cpuset", file=file, value=text))
    if resources.pids_limit is not None:
        found.append(CgroupWrite(controller="pids", file="pids.max", value=_pids_max(resources.pids_limit)))
    ending = "limit_in_bytes" if version == 1 else "max"
    for size, limit in resources.hugepage_limits:
        if not _is_page_size(size):
            raise SpecError(f"{_AT}hugepageLimits: `{size}` is not a page size such as 2MB")
        write = CgroupWrite(controller="hugetlb", file=f"hugetlb.{size}.{ending}", value=str(limit))
        # Reservations have a limit of their own since Linux 5.7.
        found += [write, write.replace(file=f"hugetlb.{size}.rsvd.{ending}", optional=True)]
    for device, *limits in resources.rdma:
        pairs = zip(("hca_handle", "hca_object"), limits, strict=True)
        words = [device, *(f"{name}={limit}" for name, limit in pairs if limit is not None)]
        found.append(CgroupWrite(controller="rdma", file="rdma.max", value=" ".join(words)))
    return tuple(found)


def _pids_max(limit: int) -> str:
    # Podman before 5.4 and CRI-O write 0 for "no limit", and so do runc before 1.4 and crun take it; a monitor would
    # not come far with none.
    return "max" if limit <= 0 else str(limit)


def _is_page_size(text: str) -> bool:
    return text[:-2].isascii() and text[:-2].isdigit() and text[-2:] in ("KB", "MB", "GB")


def _unified(resources: Resources) -> tuple[CgroupWrite, ...]:
    if resources.network_class_id or resources.network_priorities:
        raise SpecError(f"{_AT}network: cgroup v2 has neither net_cls nor net_prio")
    found = []
    for file, value in resources.unified:
        controller, dot, rest = file.partition(".")
        if not dot or not controller or not rest or "/" in file or "\0" in file:
            raise SpecError(f"{_AT}unified: `{file}` is not of the form controller.parameter")
        # Files such as io.max take one line a write.
        found += [
            CgroupWrite(controller=controller, file=file, value=line) for line in value.split("\n") if line.strip()
        ]
    return tuple(found)


def parse_list(text: str, path: str) -> frozenset[int]:
    """Return the numbers of a cpu or node list such as `0-2,7`. `path` is the JSON path for the SpecError."""
    numbers: set[int] = set()
    for word in text.split(","):
        first, dash, last = word.strip().partition("-")
        last = last if dash else first
        if not (first.isascii() and last.isascii() and first.isdigit() and last.isdigit()):
            raise SpecError(f"{path}: `{text}` is not a list such as 0-2,7")
        if not int(first) <= int(last) < 65536:
            raise SpecError(f"{path}: `{word}` is not a range")
        numbers.update(range(int(first), int(last) + 1))
    return frozenset(numbers)
