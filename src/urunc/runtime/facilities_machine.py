"""What a monitor needs for its machines beside itself: KVM, a clock, loop devices, its own parts, a guest's init."""

from __future__ import annotations

from ..errors import HostError
from ..vm import monitors
from . import host, probe
from .facility import Facility, tried, try_to_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..oci.config import Config
    from ..vm.machine import Capabilities

_KVM = {
    "real": "real: vCPUs run in hardware",
    "software": "/dev/kvm is itself an emulation: it runs small guests, and no Linux",
    "none": "there is no usable /dev/kvm",
}
_MODULES = "load the module kvm_intel or kvm_amd"


def find_kvm(state: str) -> Facility:
    """Whether KVM is real, as `host.kvm_state` found it by running a vCPU."""
    hint = _MODULES if state == "none" else None
    return Facility(name="kvm", used="vCPUs in hardware", ok=state == "real", what=_KVM[state], hint=hint)


def find_emulation(config: Config, arch: str) -> tuple[Facility, ...]:
    """Monitors that emulate another architecture than this machine's, and the init for Linux guests there."""
    found = []
    for name in monitors.MONITORS:
        can = monitors.load(name).CAPABILITIES
        others = [other for other, _ in can.binaries if other != arch] if can.kvm == "optional" else []
        found += [_find_emulator(name, config, other) for other in others]
    return tuple(found)


def _find_emulator(name: str, config: Config, arch: str) -> Facility:
    found = Facility(name=f"{arch} kernels", used="images of that architecture, in software", ok=False, what="")
    try:
        what = host.find_monitor(name, config.monitor(name), arch)
    except HostError as error:
        package = (error.hint or "").partition(",")[0]
        return found.replace(what=error.message.rpartition(": ")[2], hint=f"{package}, for {arch} kernels")
    try:
        host.read_guest_init(arch)
    except HostError as error:
        return found.replace(ok=True, what=f"{what}; no Linux guests: {error.message}")
    return found.replace(ok=True, what=what)


def find_clock(arch: str, cache: str) -> Facility:
    """The frequency of the time stamp counter, which Linux in software is told: on a microvm it cannot measure it."""
    khz = host.tsc_khz(cache) if arch == "x86_64" else 0
    what = f"{khz / 1000:.0f} MHz" if khz else "not known: Linux measures it itself, and cannot on `microvm`"
    return Facility(name="time stamp counter", used="Linux in software", ok=khz > 0, what=what)


def find_loop() -> Facility:
    """What makes a block device of a file, for a monitor that opens its disks by path."""
    return tried(
        "loop devices",
        "disk images that the monitor's user may not open",
        try_to_open("/dev/loop-control"),
        works="/dev/loop-control can be opened",
        hint="load the module loop",
    )


def find_guest_init(arch: str) -> Facility:
    """The init that Linux guests get."""
    found = Facility(name="guest init", used="Linux guests", ok=True, what="")
    try:
        size = len(host.read_guest_init(arch))
    except HostError as error:
        return found.replace(ok=False, what=error.message, hint=error.hint)
    return found.replace(what=f"installed, {size >> 10} kB")


def find_parts(can: Capabilities, binary: str) -> Facility:
    """What a monitor was built with, by its own lists: distributions leave out what they do not support."""
    lists: dict[str, set[str]] = {}
    for option, _, _ in can.parts:
        if option not in lists:
            _, output, _ = probe.run([binary, option, "help"])
            lists[option] = {word.strip('",') for word in output.decode("utf-8", "replace").split()}
    missing = [f"no {part} ({use})" for option, part, use in can.parts if part not in lists[option]]
    return Facility(
        name=f"{can.name}'s parts",
        used=f"what {can.name} can do",
        ok=not missing,
        what=", ".join(missing) or "all there",
        hint=f"install a {can.name} that is built with everything, and set monitors.{can.name}.path"
        if missing
        else None,
    )
