"""`update`: change the limits around a monitor that runs. What the guest has, memory and vCPUs, stays what it is.

Nothing is remembered: what is in force is what the cgroup's files say, and where a change needs the other half
of a pair (quota and period, memory and swap) it is read there. A change that fails half way is taken back.
"""

from __future__ import annotations

from .. import jsonio, log
from ..errors import SpecError, UruncError, UsageError, reason
from ..linux import cgroup
from ..oci import resources as cgroup_rules
from ..oci.node import Node
from ..oci.parse_linux import read_resources, unsupported
from ..oci.spec import Resources
from ..record import Record
from ..vm import choose, monitors
from . import status, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..oci.resources import CgroupWrite
    from .store import Container

UNLIMITED = 2**62
"""Above this a v1 limit is none: the kernel shows the largest number of whole pages."""

_SIZES = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}

FLAGS = {
    "blkio_weight": ("blockIO", "weight"),
    "cpu_period": ("cpu", "period"),
    "cpu_quota": ("cpu", "quota"),
    "cpu_burst": ("cpu", "burst"),
    "cpu_share": ("cpu", "shares"),
    "cpu_rt_period": ("cpu", "realtimePeriod"),
    "cpu_rt_runtime": ("cpu", "realtimeRuntime"),
    "cpu_idle": ("cpu", "idle"),
    "cpuset_cpus": ("cpu", "cpus"),
    "cpuset_mems": ("cpu", "mems"),
    "memory": ("memory", "limit"),
    "memory_reservation": ("memory", "reservation"),
    "memory_swap": ("memory", "swap"),
    "pids_limit": ("pids", "limit"),
}
"""What each flag is in `linux.resources`. The values of `memory*` are sizes, of `cpuset*` lists, the rest numbers."""

_IGNORED = ("kernel_memory", "kernel_memory_tcp")
_IMPOSSIBLE = ("l3_cache_schema", "mem_bw_schema")


class Now(Record):
    """What is in force, as far as a change may need it. Bytes and microseconds; -1 is no limit."""

    cpu_quota: int = -1
    cpu_period: int = cgroup_rules.DEFAULT_PERIOD
    memory_limit: int = -1
    memory_swap: int = -1  # memory and swap together; cgroup v1 only


def update(root: str, name: str, wanted: Resources) -> None:
    """Apply the limits that are given, and leave the others. Device rules are left alone, as by runc.

    Raises StateError, SpecError where a limit cannot be, KernelError and HostError where it is refused.
    """
    with store.Lock(root, name):
        container = store.want(root, name)
        status.require("update", container, status.of(root, container))
        change = complete(wanted, look(container.cgroup))
        check(container, change)
        _apply(container, change)


def check(container: Container, wanted: Resources) -> None:
    """Raise SpecError where a limit is below what the guest and its monitor have or need."""
    choose.check_pids(wanted.pids_limit, monitors.load(container.monitor).CAPABILITIES, "resources.pids.limit")
    guest, overhead, limit = container.memory_mib, container.overhead_mib, wanted.memory_limit
    if limit is None:
        return
    if 0 < limit < (guest + overhead) << 20:
        raise SpecError(
            f"resources.memory.limit: {limit >> 20} MiB are too few: the guest has {guest} MiB, which stay its own"
            f" while it runs, and the monitor needs {overhead} MiB",
            hint=f"give at least {guest + overhead} MiB",
        )
    log.info(f"the memory of `{container.id}`'s guest stays {guest} MiB: only the limit around it changes")


def complete(wanted: Resources, now: Now) -> Resources:
    """Return the change with the other half of a pair that it gives one half of. Raises SpecError."""
    change = wanted
    if (change.cpu_quota is None) != (change.cpu_period is None):
        change = change.replace(
            cpu_quota=now.cpu_quota if change.cpu_quota is None else change.cpu_quota,
            cpu_period=now.cpu_period if change.cpu_period is None else change.cpu_period,
        )
    if change.memory_swap is not None and change.memory_swap > 0 and change.memory_limit is None:
        change = change.replace(memory_limit=now.memory_limit)
    limit, together = change.memory_limit or 0, now.memory_swap
    if change.memory_swap is None and 0 <= together < limit:
        raise SpecError(
            f"resources.memory.limit: {limit >> 20} MiB are more than memory and swap together may be,"
            f" {together >> 20} MiB",
            hint="raise memory.swap (--memory-swap) as well",
        )
    return change


def look(paths: dict[str, str]) -> Now:
    """Return what is in force in the cgroup."""
    if "" in paths:
        place = paths[""]
        quota, period = (_text(place, "cpu.max") + " ").split(" ")[:2]
        return Now(
            cpu_quota=_limit(quota),
            cpu_period=_limit(period) if period else cgroup_rules.DEFAULT_PERIOD,
            memory_limit=_limit(_text(place, "memory.max")),
        )
    cpu, memory = paths.get("cpu", ""), paths.get("memory", "")
    period = _text(cpu, "cpu.cfs_period_us")
    return Now(
        cpu_quota=_limit(_text(cpu, "cpu.cfs_quota_us")),
        cpu_period=_limit(period) if period else cgroup_rules.DEFAULT_PERIOD,
        memory_limit=_limit(_text(memory, "memory.limit_in_bytes")),
        memory_swap=_limit(_text(memory, "memory.memsw.limit_in_bytes")),
    )


def _text(place: str, file: str) -> str:
    """Return a cgroup file's text without its last newline, "" where it, or its controller, is not there."""
    if not place:
        return ""
    try:
        with open(f"{place}/{file}", encoding="utf-8") as stream:
            return stream.read().rstrip("\n")
    except OSError:
        return ""


def _limit(text: str) -> int:
    return int(text) if text.isdecimal() and int(text) < UNLIMITED else -1


def _apply(container: Container, change: Resources) -> None:
    """Write the files, then tell systemd where it holds the cgroup; take all back where either refuses."""
    paths, version = container.cgroup, cgroup.version_of(container.cgroup)
    limits = cgroup_rules.rounded_quota(change) if container.scope else change
    writes = cgroup_rules.writes(limits, version)
    before = _before(paths, writes)
    try:
        cgroup.apply(paths, writes)
        if container.scope:
            from ..linux import dbus

            dbus.set_properties(container.scope, cgroup_rules.systemd_properties(change, version))
    except UruncError:
        _take_back(paths, before)
        raise


def _before(paths: dict[str, str], writes: tuple[CgroupWrite, ...]) -> list[CgroupWrite]:
    """Return the writes that restore what is there now. Files of several lines (a device each) cannot be restored."""
    found = []
    for write in reversed(writes):
        text = _text(paths.get("") or paths.get(write.controller, ""), write.file)
        if text and "\n" not in text:
            found.append(write.replace(value=text))
    return found


def _take_back(paths: dict[str, str], before: list[CgroupWrite]) -> None:
    for write in before:
        try:
            cgroup.apply(paths, (write,))
        except UruncError as error:
            log.warn(f"taking back the failed update: {error}")


def read(source: str) -> Resources:
    """Return what the file `source`, or standard input for `-`, holds: JSON of `linux.resources`. Raises SpecError."""
    try:
        with open(0 if source == "-" else source, "rb", closefd=source != "-") as file:
            return parse(file.read(jsonio.MAX_BYTES + 1))
    except OSError as error:
        raise SpecError(f"cannot read `{source}`: {reason(error)}") from None


def parse(data: bytes) -> Resources:
    """Return the Resources of a JSON document. Raises SpecError, with the JSON path."""
    try:
        document = jsonio.loads(data)
    except ValueError as error:
        raise SpecError(f"resources: not JSON: {error}") from None
    return _resources(document)


def _resources(document: Any) -> Resources:
    found = read_resources(Node(document, "resources"))
    for path in unsupported(Node({"resources": document}, "linux")):
        raise SpecError(f"{path.removeprefix('linux.')}: urunc has no way to give it")
    return found


def from_flags(flags: Mapping[str, str | int]) -> Resources:
    """Return what the verb's flags ask for, `flags` by their names with `_` for `-`. Raises UsageError, SpecError."""
    document: dict[str, dict[str, Any]] = {}
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        if name in _IMPOSSIBLE:
            raise UsageError(f"flag `{flag}`: urunc has no way to give it")
        if name in _IGNORED:
            log.warn(f"flag `{flag}` is ignored: the kernel's memory counts as the container's")
        elif name in FLAGS and value != "":
            section, key = FLAGS[name]
            document.setdefault(section, {})[key] = _flag_value(name, flag, str(value))
    return _resources(document)


def _flag_value(name: str, flag: str, text: str) -> int | str:
    if name.startswith("cpuset"):
        return text
    number = parse_size(text) if name.startswith("memory") else _number(text)
    if number is None:
        want = "a size such as 512m, or -1" if name.startswith("memory") else "a whole number"
        raise UsageError(f"flag `{flag}` needs {want}, not `{text}`")
    return number


def _number(text: str) -> int | None:
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else None


def parse_size(text: str) -> int | None:
    """Return the bytes that `512m`, `1.5GiB` or `1024` are (units of 1024), -1 for `-1`; None where it is no size."""
    if text == "-1":
        return -1
    stem = text.strip().lower().removesuffix("b").removesuffix("i")
    unit = stem[-1:] if stem[-1:] in _SIZES else ""
    whole, dot, part = stem.removesuffix(unit).strip().partition(".")
    if not (whole.isascii() and whole.isdecimal() and len(whole) < 20) or (dot and not part.isdecimal()):
        return None
    number = int(whole) << _SIZES[unit]
    return number + (int(part) << _SIZES[unit]) // 10 ** len(part) if dot else number
