"""The decisions about a machine that need no host: accelerator, memory, vCPUs, and which guest runs on what.

Pure. Knows the registries, but names no guest and no monitor.
"""

from __future__ import annotations

from ..errors import ConfigError, HostError, SpecError
from ..record import Record
from . import guests, monitors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..oci.config import MonitorConfig
    from .machine import Capabilities, KernelInfo

MIB = 1024 * 1024


class Row(Record):
    """One line of the support matrix: a guest, a monitor that runs it, and what can back the guest's root."""

    guest: str
    monitor: str
    roots: tuple[str, ...]
    architectures: tuple[str, ...]
    kvm: str  # "no", "optional" or "required"
    own_init: bool = False  # guests.OWN_INIT
    full_cpu: bool = False  # guests.FULL_CPU


def supports(guest: str, monitor: str) -> bool:
    """Return whether that guest runs on that monitor. False for names that no registry holds."""
    return guest in guests.GUESTS and monitor in monitors.MONITORS and monitor in guests.load(guest).MONITORS


def matrix() -> tuple[Row, ...]:
    """Return the support matrix, one row for each pair, in the registries' order. Loads every guest's module."""
    known = ((guest, monitor) for guest in guests.GUESTS for monitor in guests.load(guest).MONITORS)
    return tuple(_row(guest, monitor) for guest, monitor in known if monitor in monitors.MONITORS)


def _row(guest: str, monitor: str) -> Row:
    module, can = guests.load(guest), monitors.load(monitor).CAPABILITIES
    return Row(
        guest=guest,
        monitor=monitor,
        roots=tuple(kind for kind in module.ROOTS if _can_back(can, kind)),
        architectures=("x86_64",) if monitor in module.X86_64_ONLY else tuple(arch for arch, _ in can.binaries),
        kvm=can.kvm,
        own_init=module.OWN_INIT,
        full_cpu=module.FULL_CPU,
    )


def _can_back(can: Capabilities, kind: str) -> bool:
    if kind == "block":
        return can.max_disks > 0
    return kind != "9p" or kind in can.shares


def architecture(can: Capabilities, kernel: KernelInfo, host: str) -> str:
    """Return the machine's architecture: the kernel's own where the monitor can emulate it, else that of the `host`."""
    return kernel.arch if can.kvm == "optional" and kernel.arch in dict(can.binaries) else host


_NO_KVM = {
    "none": "there is no usable /dev/kvm",
    "software": "this machine's KVM has no hardware behind it",
    "foreign": "the kernel is for another architecture than this machine's",
}


def accelerator(can: Capabilities, config: MonitorConfig, kvm: str) -> tuple[str, str | None]:
    """Return the accelerator, "kvm" or "tcg", and what the user should be told about it, or None.

    `kvm` is what `runtime.host.kvm_state` found: "none", "software" or "real"; or "foreign", where the machine's
    architecture is not the host's. "tcg" stands for "no KVM" with monitors that do not know KVM. Raises HostError
    where KVM is demanded or required and not there.
    """
    if can.kvm == "no":
        return "tcg", None
    if can.kvm == "required":
        if kvm == "none":
            raise HostError(
                f"`{can.name}` needs KVM: /dev/kvm cannot be used", hint="load the module kvm_intel or kvm_amd"
            )
        return "kvm", None
    if config.accel == "tcg":
        return "tcg", None
    if kvm == "real":
        return "kvm", None
    why = _NO_KVM[kvm]
    if config.accel == "kvm":
        instead = f'set monitors.{can.name}.accel = "auto"'
        raise HostError(
            f"monitors.{can.name}.accel is `kvm`, which cannot be had: {why}",
            hint=instead if kvm == "foreign" else f"load the module kvm_intel or kvm_amd, or {instead}",
        )
    return "tcg", f"{can.name} emulates the CPU in software, which is slow and no strong wall: {why}"


def model(can: Capabilities, config: MonitorConfig, arch: str) -> str:
    """Return the machine type, "" where there is only one: on all but x86_64.

    Raises ConfigError where the configuration names one that the monitor has not.
    """
    if arch != "x86_64" or not config.machine:
        return can.models[0] if can.models and arch == "x86_64" else ""
    if config.machine not in can.models:
        known = ", ".join(can.models) or "none"
        raise ConfigError(
            f"monitors.{can.name}.machine: `{config.machine}` is not a machine type of it, which has {known}"
        )
    return config.machine


def guest_memory(limit: int | None, config: MonitorConfig, overhead_mib: int, minimum_mib: int) -> int:
    """Return the guest's memory in MiB: what the cgroup's limit (bytes) leaves beside the monitor's own need.

    Without a limit (None, or not above 0) it is the configuration's default. `minimum_mib` is the larger of
    what guest and monitor need. Raises SpecError, with both numbers, where the limit leaves less.
    """
    if limit is None or limit <= 0:
        return max(config.default_memory_mb, minimum_mib)
    own = overhead(config, overhead_mib)
    memory = limit // MIB - own
    if memory < minimum_mib:
        raise SpecError(
            f"linux.resources.memory.limit: {limit // MIB} MiB are too few: "
            f"the monitor needs {own} MiB for itself and the guest at least {minimum_mib} MiB",
            hint=f"give at least {own + minimum_mib} MiB",
        )
    return memory


def measured_overhead(can: Capabilities, kernel: KernelInfo, initrd_bytes: int) -> int:
    """Return what the monitor was measured to need beside the guest's memory, in MiB, with this kernel and initrd."""
    copied = kernel.load_bytes + initrd_bytes if can.multiboot_twice and kernel.multiboot else 0
    return can.overhead_mib + -(-copied // MIB)


def overhead(config: MonitorConfig, measured_mib: int) -> int:
    """Return what the monitor needs beside the guest's memory, in MiB: the configured figure, else the measured one."""
    return measured_mib if config.overhead_mb is None else config.overhead_mb


def check_pids(limit: int | None, can: Capabilities, path: str) -> None:
    """Raise SpecError where the limit, at JSON `path`, is below the monitor's need: it would start, but do no I/O."""
    if limit is not None and 0 < limit < can.min_pids:
        raise SpecError(
            f"{path}: {limit} are too few, the monitor `{can.name}` needs threads",
            hint=f"give at least {can.min_pids}",
        )


def vcpus(quota: int | None, period: int | None, config: MonitorConfig, can: Capabilities, host_cpus: int) -> int:
    """Return the number of vCPUs: the cpu limit rounded up, at least 1, at most the host's and the monitor's.

    `quota` and `period` are `linux.resources.cpu`'s, in microseconds; without a quota (None, 0 or negative) it is
    the configuration's default.
    """
    wanted = config.default_vcpus
    if quota is not None and quota > 0:
        wanted = -(-quota // (period or 100_000))
    return max(1, min(wanted, host_cpus, can.max_vcpus))
