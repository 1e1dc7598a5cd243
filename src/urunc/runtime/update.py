"""`update`: change the limits around a monitor that runs. What the guest has, memory and vCPUs, stays what it is.

But for a guest with a memory balloon: it gives memory back before the limit sinks, and has it again once it has risen.

Nothing is remembered: what is in force is what the cgroup's files say, and where a change needs the other half
of a pair (quota and period, memory and swap) it is read there. A change that fails half way is taken back.
"""

from __future__ import annotations

from .. import log
from ..errors import SpecError, UruncError
from ..linux import cgroup_files
from ..oci import resources
from ..record import Record
from ..vm import choose, monitors
from . import status, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..oci.resources import CgroupWrite
    from ..oci.spec import Resources
    from .store import Container

LEAST_MIB = 48
"""What a guest is left with by its balloon at least: as much as a Linux boots with."""

UNLIMITED = 2**62
"""Above this a v1 limit is none: the kernel shows the largest number of whole pages."""


class Now(Record):
    """What is in force, as far as a change may need it. Bytes and microseconds; -1 is no limit."""

    cpu_quota: int = -1
    cpu_period: int = resources.DEFAULT_PERIOD
    memory_limit: int = -1
    memory_swap: int = -1  # memory and swap together; cgroup v1 only


def update(root: str, name: str, wanted: Resources) -> None:
    """Apply the limits that are given, and leave the others. Device rules are left alone, as by runc.

    Raises StateError, SpecError where a limit cannot be, KernelError and HostError where it is refused.
    """
    with store.Lock(root, name):
        container, change, memory, running = _decide(root, name, wanted)
        if memory is None or not (container.balloon and running):
            _apply(container, change)
            return
    _update_with_balloon(root, container, wanted, memory)


def _decide(root: str, name: str, wanted: Resources) -> tuple[Container, Resources, int | None, bool]:
    """Return the container, its whole change, what is left for the guest (see `check`), and whether it runs."""
    container = store.want(root, name)
    now = status.of(root, container)
    status.require("update", container, now)
    change = complete(wanted, look(container.cgroup))
    running = now == status.RUNNING
    return container, change, check(container, change, running=running), running


def _update_with_balloon(root: str, container: Container, wanted: Resources, memory: int) -> None:
    """Change the limits when the guest fits into them. The lock is free while it works on that: `kill` never waits."""
    from . import balloon

    place = f"{root}/{container.id}"
    before = balloon.size(place, container) >> 20
    if memory < before:
        balloon.shrink(place, container, memory)
    try:
        with store.Lock(root, container.id):
            _container, change, _memory, _running = _decide(root, container.id, wanted)
            _apply(container, change)
    except UruncError:
        if memory < before:
            balloon.restore(place, container, before)
        raise
    if memory > before:
        balloon.resize(place, container, memory)
    log.info(f"the guest of `{container.id}` has {memory} MiB of memory, of {container.memory_mib}")


def check(container: Container, wanted: Resources, *, running: bool = False) -> int | None:
    """Return the MiB that the limits leave for the guest, None where they do not speak of memory.

    Raises SpecError where a limit is below what the guest and its monitor have or need. A balloon, in a guest that is
    `running`, makes that less than what the guest has.
    """
    choose.check_pids(wanted.pids_limit, monitors.load(container.monitor).CAPABILITIES, "resources.pids.limit")
    guest, overhead, limit = container.memory_mib, container.overhead_mib, wanted.memory_limit
    if limit is None:
        return None
    if 0 < limit < (guest + overhead) << 20:
        left = (limit >> 20) - overhead
        if container.balloon and running and left >= LEAST_MIB:
            return left
        if container.balloon and running:
            raise SpecError(
                f"resources.memory.limit: {limit >> 20} MiB are too few: the monitor needs {overhead} MiB, and a guest "
                f"{LEAST_MIB} MiB at least",
                hint=f"give at least {LEAST_MIB + overhead} MiB",
            )
        raise SpecError(
            f"resources.memory.limit: {limit >> 20} MiB are too few: the guest has {guest} MiB, which stay its own"
            f" while it runs, and the monitor needs {overhead} MiB",
            hint=f"give at least {guest + overhead} MiB",
        )
    if not container.balloon:
        log.info(f"the memory of `{container.id}`'s guest stays {guest} MiB: only the limit around it changes")
    return guest


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
            cpu_period=_limit(period) if period else resources.DEFAULT_PERIOD,
            memory_limit=_limit(_text(place, "memory.max")),
        )
    cpu, memory = paths.get("cpu", ""), paths.get("memory", "")
    period = _text(cpu, "cpu.cfs_period_us")
    return Now(
        cpu_quota=_limit(_text(cpu, "cpu.cfs_quota_us")),
        cpu_period=_limit(period) if period else resources.DEFAULT_PERIOD,
        memory_limit=_limit(_text(memory, "memory.limit_in_bytes")),
        memory_swap=_limit(_text(memory, "memory.memsw.limit_in_bytes")),
    )


def _text(place: str, file: str) -> str:
    """Return a cgroup file's text without its last newline, "" where it, or its controller, is not there."""
    if not place:
        return ""
    try:
        return cgroup_files.read_raw(f"{place}/{file}").rstrip("\n")
    except OSError:
        return ""


def _limit(text: str) -> int:
    return int(text) if text.isdecimal() and int(text) < UNLIMITED else -1


def _apply(container: Container, change: Resources) -> None:
    """Write the files, then tell systemd where it holds the cgroup; take all back where either refuses."""
    paths, version = container.cgroup, cgroup_files.version_of(container.cgroup)
    if change.memory_check_before_update and version == 2:
        _check_usage(paths[""], change)
    if container.scope:
        from ..linux import systemd
        from ..oci import scope

        writes = resources.writes(scope.rounded_quota(change), version)
    else:
        writes = resources.writes(change, version)
    before = _before(paths, writes)
    try:
        cgroup_files.apply(paths, writes)
        if container.scope:
            systemd.set_properties(container.scope, scope.limit_properties(change, version))
    except UruncError:
        _take_back(paths, before)
        raise


def _check_usage(place: str, change: Resources) -> None:
    """Refuse a memory limit that is not above what is in use, as v1's kernel does; v2's would kill the guest.

    config-linux.md, "Memory", checkBeforeUpdate. The kernel's figure counts files that it keeps and could drop.
    """
    used = _text(place, "memory.current")
    for name, limit in (("limit", change.memory_limit), ("swap", change.memory_swap)):
        if used.isdecimal() and limit is not None and 0 < limit <= int(used):
            raise SpecError(
                f"resources.memory.{name}: {limit} bytes are not more than the {used} in use, and "
                "memory.checkBeforeUpdate is given"
            )


def _before(paths: dict[str, str], writes: tuple[CgroupWrite, ...]) -> list[CgroupWrite]:
    """Return the writes that restore what is there now. A block device's own limit cannot be restored."""
    found = []
    for write in reversed(writes):
        text = _text(paths.get("") or paths.get(write.controller, ""), write.file)
        if text and "\n" not in text:
            found.append(write.replace(value=text))
    return found


def _take_back(paths: dict[str, str], before: list[CgroupWrite]) -> None:
    for write in before:
        try:
            cgroup_files.apply(paths, (write,))
        except UruncError as error:
            log.warn(f"taking back the failed update: {error}")
