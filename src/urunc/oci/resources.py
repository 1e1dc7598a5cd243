"""Translate `linux.resources` and `linux.cgroupsPath` into what is written to cgroup files or told to systemd.

Pure: the same resources always give the same writes, so a plan can be printed and tested without a cgroup.
Must not know where a cgroup is mounted or how a file is written: that is `linux.cgroup`.

Order and meanings are runc's (runtime specification, config-linux.md, "Control groups"), with one
difference: a limit that the cgroup version cannot express is an error, where runc leaves it out silently.
"""

from __future__ import annotations

import math

from ..errors import SpecError
from ..record import Record
from .spec import DeviceRule, Resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Property = tuple[str, str, object]
    """A property of a systemd unit: name, D-Bus signature, value."""
    Numbers = tuple[str, int | None, int | None]
    """Which devices: kind, major, minor; None is any."""

UNLIMITED = 2**64 - 1
"""systemd's "infinity"."""

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


class CgroupPath(Record):
    """Where the container's cgroup is, and who makes it.

    `path` is below the hierarchy's mount point where it starts with `/`, else below the runtime's own cgroup.
    With the systemd driver it is the scope's place, and `slice` and `unit` name what systemd is asked for.
    """

    driver: str  # cgroupfs or systemd
    path: str
    slice: str = ""
    prefix: str = ""
    name: str = ""

    @property
    def unit(self) -> str:
        """The scope's name, such as `docker-1234.scope`."""
        return f"{self.prefix}-{self.name}.scope"


def parse_cgroups_path(text: str, systemd_flag: bool) -> CgroupPath:
    """Return what `linux.cgroupsPath` means. The form decides: `slice:prefix:name` is systemd, else cgroupfs.

    `systemd_flag` (`--systemd-cgroup`) only allows the slice to be left out: `:prefix:name` is then in
    `system.slice`. Raises SpecError. `text` must not be empty: then the caller takes `default_path`.
    """
    parts = text.split(":")
    if len(parts) == 3 and (parts[0].endswith(".slice") or (systemd_flag and not parts[0])):
        return _scope(*parts)
    if "\0" in text or "\n" in text:
        raise SpecError(f"linux.cgroupsPath: `{text!r}` is not a path")
    path = _clean(text)
    if not path.strip("/"):
        raise SpecError(f"linux.cgroupsPath: `{text}` is the root cgroup")
    return CgroupPath(driver="cgroupfs", path=path)


def default_path(container_id: str, systemd: bool) -> CgroupPath:
    """Return the cgroup of a container whose spec names none: one named by its id, as runc does."""
    if systemd:
        return _scope("", "urunc", container_id)
    return CgroupPath(driver="cgroupfs", path=container_id)


def expand_slice(name: str) -> str:
    """Return a slice's place in the hierarchy: `a-b.slice` is `/a.slice/a-b.slice`, `-.slice` is `/`."""
    stem = name.removesuffix(".slice")
    if stem == "-":
        return "/"
    words = stem.split("-")
    if stem == name or not all(words) or not _is_unit_name(name):
        raise SpecError(f"linux.cgroupsPath: `{name}` is not a slice")
    return "".join(f"/{'-'.join(words[: count + 1])}.slice" for count in range(len(words)))


def _scope(slice_name: str, prefix: str, name: str) -> CgroupPath:
    scope = CgroupPath(driver="systemd", path="", slice=slice_name or "system.slice", prefix=prefix, name=name)
    if not name or not _is_unit_name(scope.unit):
        raise SpecError(f"linux.cgroupsPath: `{scope.unit}` is not a unit name")
    if name.endswith(".slice"):
        raise SpecError(f"linux.cgroupsPath: `{name}` is a slice, a container is a scope")
    return scope.replace(path=expand_slice(scope.slice).rstrip("/") + "/" + scope.unit)


def _is_unit_name(name: str) -> bool:
    return len(name) <= 255 and name.isascii() and all(char.isalnum() or char in ":-_.\\@" for char in name)


def _clean(path: str) -> str:
    """Resolve `.` and `..` without ever leaving the root; an absolute path stays absolute."""
    words: list[str] = []
    for word in path.split("/"):
        if word == "..":
            words = words[:-1]
        elif word not in ("", "."):
            words.append(word)
    return ("/" if path.startswith("/") else "") + "/".join(words)


def writes(resources: Resources, version: int) -> tuple[CgroupWrite, ...]:
    """Return what to write for these resources, in order, on cgroup `version` 1 or 2.

    Devices are not among them: see `device_rules`. Raises SpecError.
    """
    _check(resources)
    if version == 1:
        return (*_memory1(resources), *_cpu1(resources), *_io1(resources), *_net1(resources), *_both(resources, 1))
    return (*_memory2(resources), *_cpu2(resources), *_io2(resources), *_both(resources, 2), *_unified(resources))


def _check(resources: Resources) -> None:
    """Refuse what no kernel takes, on either version."""
    for name, value in (
        ("memory.limit", resources.memory_limit),
        ("memory.reservation", resources.memory_reservation),
        ("memory.swap", resources.memory_swap),
    ):
        if value is not None and value < -1:
            raise SpecError(f"{_AT}{name}: {value} is neither a number of bytes nor -1")
    limit, swap = resources.memory_limit or 0, resources.memory_swap or 0
    if swap > 0 and limit == 0:
        raise SpecError(f"{_AT}memory.swap: {swap} without memory.limit")
    if swap > 0 and limit > swap:
        raise SpecError(f"{_AT}memory.swap: {swap} is memory and swap together, and below memory.limit ({limit})")
    if limit == -1 and swap > 0:
        raise SpecError(f"{_AT}memory.swap: {swap} is below memory.limit, which is unlimited")
    if resources.memory_swappiness is not None and not 0 <= resources.memory_swappiness <= 100:
        raise SpecError(f"{_AT}memory.swappiness: {resources.memory_swappiness} is not within 0 and 100")
    if resources.cpu_idle not in (None, 0, 1):
        raise SpecError(f"{_AT}cpu.idle: {resources.cpu_idle} is neither 0 nor 1")
    if resources.block_io_weight and not 10 <= resources.block_io_weight <= 1000:
        raise SpecError(f"{_AT}blockIO.weight: {resources.block_io_weight} is not within 10 and 1000")
    for name, text in (("cpus", resources.cpus), ("mems", resources.mems)):
        if text:
            parse_list(text, f"{_AT}cpu.{name}")


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
    swap = _swap2(resources)
    found: tuple[CgroupWrite, ...] = ()
    if swap is not None:
        # A kernel without swap accounting has no such file: nothing to forbid or to allow then.
        found = (CgroupWrite(controller="memory", file="memory.swap.max", value=_max(swap), optional=swap <= 0),)
    for file, value in (("memory.max", resources.memory_limit), ("memory.low", resources.memory_reservation)):
        if value:
            found += (CgroupWrite(controller="memory", file=file, value=_max(value)),)
    return found


def _swap2(resources: Resources) -> int | None:
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
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def _io1(resources: Resources) -> tuple[CgroupWrite, ...]:
    found: tuple[CgroupWrite, ...] = ()
    if resources.block_io_weight:
        bfq = CgroupWrite(controller="blkio", file="blkio.bfq.weight", value=str(resources.block_io_weight))
        found = (bfq.replace(file="blkio.weight", fallback=bfq),)
    return found + tuple(
        CgroupWrite(controller="blkio", file=f"blkio.throttle.{kind}_device", value=f"{major}:{minor} {rate}")
        for kind, major, minor, rate in resources.block_io_throttle
    )


_IO_MAX = {"read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops", "write_iops": "wiops"}


def _io2(resources: Resources) -> tuple[CgroupWrite, ...]:
    found: tuple[CgroupWrite, ...] = ()
    if resources.block_io_weight:
        weight = 1 + (resources.block_io_weight - 10) * 9999 // 990
        plain = CgroupWrite(controller="io", file="io.weight", value=str(weight))
        found = (plain.replace(file="io.bfq.weight", value=str(resources.block_io_weight), fallback=plain),)
    return found + tuple(
        CgroupWrite(controller="io", file="io.max", value=f"{major}:{minor} {_IO_MAX[kind]}={rate or 'max'}")
        for kind, major, minor, rate in resources.block_io_throttle
    )


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
    return tuple(found)


def _pids_max(limit: int) -> str:
    # systemd cannot set 0; 1 means the same to a cgroup with its first process in it (runc).
    return "max" if limit < 0 else str(max(limit, 1))


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


def device_rules(rules: Iterable[DeviceRule], extra: Iterable[DeviceRule] = ()) -> tuple[DeviceRule, ...]:
    """Return the device rules settled: one rule for all devices first, then only exceptions to it.

    The start is deny-all; then the spec's `rules` in order, then what the plan adds. Settling makes cgroup v1,
    the eBPF filter of v2 and systemd agree. Raises SpecError where a rule would take one device out of a
    wildcard rule, which v1's kernel ignores silently.
    """
    allow_all = False
    exceptions: dict[Numbers, str] = {}
    for index, rule in enumerate((*rules, *extra)):
        _check_rule(rule, index)
        key = (rule.kind, rule.major, rule.minor)
        if rule.kind == "a":  # whatever its numbers say: the kernel's own reading
            allow_all, exceptions = rule.allow, {}
        elif rule.allow != allow_all:
            exceptions[key] = _access(exceptions.get(key, "") + rule.access)
        else:
            _take_back(exceptions, key, rule, index)
    settled = [DeviceRule(allow=allow_all)]
    for (kind, major, minor), access in exceptions.items():
        settled.append(DeviceRule(allow=not allow_all, kind=kind, major=major, minor=minor, access=access))
    return tuple(settled)


def _check_rule(rule: DeviceRule, index: int) -> None:
    at = f"{_AT}devices[{index}]"
    if rule.kind not in ("a", "b", "c"):
        raise SpecError(f"{at}.type: `{rule.kind}` is not a, b or c")
    if not rule.access or set(rule.access) - set("rwm"):
        raise SpecError(f"{at}.access: `{rule.access}` is not made of r, w and m")
    for name, number in (("major", rule.major), ("minor", rule.minor)):
        if number is not None and not 0 <= number < 2**32:
            raise SpecError(f"{at}.{name}: {number} is not a device number")


def _access(letters: str) -> str:
    return "".join(letter for letter in "rwm" if letter in letters)


def _covers(wide: Numbers, narrow: Numbers) -> bool:
    return wide[0] == narrow[0] and wide[1] in (None, narrow[1]) and wide[2] in (None, narrow[2])


def _overlaps(one: Numbers, other: Numbers) -> bool:
    return one[0] == other[0] and all(a is None or b is None or a == b for a, b in zip(one[1:], other[1:], strict=True))


def _take_back(
    exceptions: dict[Numbers, str],
    key: Numbers,
    rule: DeviceRule,
    index: int,
) -> None:
    """Take the rule's accesses back from the exceptions that it covers."""
    for other, access in list(exceptions.items()):
        if _covers(key, other):
            left = _access("".join(set(access) - set(rule.access)))
            if left:
                exceptions[other] = left
            else:
                del exceptions[other]
        elif _overlaps(other, key) and set(access) & set(rule.access):
            raise SpecError(f"{_AT}devices[{index}]: cannot take a part out of a wildcard rule before it")


def scope_properties(path: CgroupPath, pids: Iterable[int], version: int) -> tuple[Property, ...]:
    """Return the properties of the container's scope itself, as runc sets them; `systemd_properties` has its limits."""
    return (
        ("Description", "s", f"urunc container {path.name}"),
        ("Slice", "s", path.slice),
        ("Delegate", "b", True),
        ("PIDs", "au", list(pids)),
        ("MemoryAccounting", "b", True),
        ("CPUAccounting", "b", True),
        ("IOAccounting" if version == 2 else "BlockIOAccounting", "b", True),
        ("TasksAccounting", "b", True),
        ("DefaultDependencies", "b", False),
    )


def systemd_properties(
    resources: Resources, version: int, rules: Iterable[DeviceRule] | None = None
) -> tuple[Property, ...]:
    """Return the limits as properties for StartTransientUnit or SetUnitProperties (systemd 244 and later).

    `rules` are settled ones (`device_rules`), None to leave devices alone. systemd must know the limits though
    `writes` sets them too, else it writes its own at the next reload. Raises SpecError.
    """
    _check(resources)
    memory = _systemd_memory1(resources) if version == 1 else _systemd_memory2(resources)
    return (
        *(() if rules is None else _systemd_devices(rules)),
        *memory,
        *_systemd_cpu(resources, version),
        *_systemd_rest(resources, version),
    )


def _bytes(value: int) -> int:
    return UNLIMITED if value == -1 else value


def _systemd_memory1(resources: Resources) -> tuple[Property, ...]:
    return (("MemoryLimit", "t", _bytes(resources.memory_limit)),) if resources.memory_limit else ()


def _systemd_memory2(resources: Resources) -> tuple[Property, ...]:
    found: list[Property] = []
    if resources.memory_limit:
        found.append(("MemoryMax", "t", _bytes(resources.memory_limit)))
    if resources.memory_reservation:
        found.append(("MemoryLow", "t", _bytes(resources.memory_reservation)))
    swap = _swap2(resources)
    if swap is not None:
        found.append(("MemorySwapMax", "t", _bytes(swap)))
    return tuple(found)


def _systemd_cpu(resources: Resources, version: int) -> tuple[Property, ...]:
    found: list[Property] = []
    if version == 1 and resources.cpu_shares:
        found.append(("CPUShares", "t", resources.cpu_shares))
    elif version == 2 and resources.cpu_idle == 1:
        found.append(("CPUWeight", "t", 0))  # systemd's way to say idle, since 252
    elif version == 2 and resources.cpu_shares:
        found.append(("CPUWeight", "t", cpu_weight(resources.cpu_shares)))
    if resources.cpu_period:
        found.append(("CPUQuotaPeriodUSec", "t", resources.cpu_period))
    if resources.cpu_quota or resources.cpu_period:
        found.append(("CPUQuotaPerSecUSec", "t", _quota_per_second(resources) or UNLIMITED))
    for name, text in (("AllowedCPUs", resources.cpus), ("AllowedMemoryNodes", resources.mems)):
        if text:
            found.append((name, "ay", _bitmap(parse_list(text, f"{_AT}cpu"))))
    return tuple(found)


def _quota_per_second(resources: Resources) -> int:
    """Return microseconds of cpu per second in systemd's steps of one per cent, rounded up; 0 for no limit."""
    quota = resources.cpu_quota or 0
    if quota <= 0:
        return 0
    return -(-(quota * 1_000_000 // (resources.cpu_period or DEFAULT_PERIOD)) // 10_000) * 10_000


def rounded_quota(resources: Resources) -> Resources:
    """Return the resources with the cpu quota that systemd will set, so that files and systemd agree (as runc)."""
    per_second = _quota_per_second(resources)
    if not per_second:
        return resources
    return resources.replace(cpu_quota=per_second * (resources.cpu_period or DEFAULT_PERIOD) // 1_000_000)


def _bitmap(numbers: frozenset[int]) -> bytes:
    """Return a set of numbers as systemd's byte array: number n is bit n % 8 of byte n // 8."""
    return sum(1 << number for number in numbers).to_bytes(max(numbers) // 8 + 1, "little")


def _systemd_rest(resources: Resources, version: int) -> tuple[Property, ...]:
    found: list[Property] = []
    if resources.pids_limit is not None:
        found.append(("TasksMax", "t", UNLIMITED if resources.pids_limit < 0 else max(resources.pids_limit, 1)))
    if version == 1 and resources.block_io_weight:
        found.append(("BlockIOWeight", "t", resources.block_io_weight))
    if version == 2:
        for file, value in resources.unified:
            found += _systemd_unified(file, value.strip())
    return tuple(found)


_UNIFIED_BYTES = {
    "memory.high": "MemoryHigh",
    "memory.low": "MemoryLow",
    "memory.min": "MemoryMin",
    "memory.max": "MemoryMax",
    "memory.swap.max": "MemorySwapMax",
    "pids.max": "TasksMax",
    "cpu.weight": "CPUWeight",
}
_UNIFIED_LISTS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}


def _systemd_unified(file: str, value: str) -> tuple[Property, ...]:
    """Return the properties for one file of `unified`; none where systemd has no word for it: the file is written."""
    at = f"{_AT}unified"
    if file in _UNIFIED_LISTS:
        return ((_UNIFIED_LISTS[file], "ay", _bitmap(parse_list(value, f"{at}.{file}"))),)
    if file == "cpu.max":
        quota, _, period = value.partition(" ")
        numbers = Resources(
            cpu_quota=-1 if quota == "max" else _number(quota, f"{at}.{file}"),
            cpu_period=_number(period.strip() or str(DEFAULT_PERIOD), f"{at}.{file}"),
        )
        return _systemd_cpu(numbers, 2)
    if file in _UNIFIED_BYTES:
        amount = UNLIMITED if value == "max" else _number(value, f"{at}.{file}")
        return ((_UNIFIED_BYTES[file], "t", max(amount, 1) if file == "pids.max" else amount),)
    return ()


def _number(text: str, path: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise SpecError(f"{path}: `{text}` is not a number")
    return int(text)


def _systemd_devices(rules: Iterable[DeviceRule]) -> tuple[Property, ...]:
    """Return DevicePolicy and DeviceAllow. What systemd cannot say stays denied until our own filter is there."""
    first, *exceptions = rules
    empty: Property = ("DeviceAllow", "a(ss)", [])  # clears what an existing unit has
    if first.allow:
        return (empty, ("DevicePolicy", "s", "strict" if exceptions else "auto"))
    entries = [(name, rule.access) for rule in exceptions if (name := _systemd_device(rule))]
    return (empty, ("DevicePolicy", "s", "strict"), ("DeviceAllow", "a(ss)", entries))


def _systemd_device(rule: DeviceRule) -> str | None:
    kind = "block" if rule.kind == "b" else "char"
    if rule.major is None:
        return None if rule.minor is not None else f"{kind}-*"
    return f"{kind}-{rule.major}" if rule.minor is None else f"/dev/{kind}/{rule.major}:{rule.minor}"
