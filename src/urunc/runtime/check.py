"""`check`: what this host can run, and what to install for the rest.

Looking is one small function for each facility, which tries what it tells of where that leaves nothing behind: in
a child with namespaces of its own. Which guest runs on which monitor here is decided from what was seen, purely.
"""

from __future__ import annotations

import os

from ..errors import ConfigError, HostError, UruncError, reason
from ..linux import cgroup_layout, ns
from ..record import Record
from ..vm import choose, guests, monitors
from . import delegate, host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..oci.config import Config
    from ..vm.choose import Row

_KVM = {
    "real": "real: vCPUs run in hardware",
    "software": "/dev/kvm is itself an emulation: it runs small guests, and no Linux",
    "none": "there is no usable /dev/kvm",
}
_SOFTWARE = "with a KVM that has no hardware behind it: guests of plain integer code only"
_MODULES = "load the module kvm_intel or kvm_amd"
_NEEDED_NAMESPACES = ("mount", "network", "pid", "ipc", "uts")
_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
_ALLOW_NOTHING = {"defaultAction": "SCMP_ACT_ERRNO"}


class Facility(Record):
    """Something of the host that is not a monitor. Where a `needed` one is not ok, nothing can run."""

    name: str
    ok: bool
    what: str
    hint: str | None = None
    needed: bool = False


class Program(Record):
    """A monitor on this host. `accel` is "kvm" or "tcg", "" for one without; `note` is what its user should know."""

    name: str
    ok: bool
    path: str = ""
    version: str = ""
    accel: str = ""
    note: str = ""
    hint: str | None = None


class Pair(Record):
    """A guest on a monitor; `why` it cannot run here."""

    guest: str
    monitor: str
    ok: bool
    why: str = ""


class Report(Record):
    """All of it. `ok`: at least one pair can run here."""

    ok: bool
    arch: str
    kvm: str
    monitors: tuple[Program, ...]
    facilities: tuple[Facility, ...]
    pairs: tuple[Pair, ...]


def check(cache: str, config: Config) -> Report:
    """Look at the host and return the report. `cache` is the folder for what is slow to find out."""
    arch, kvm = os.uname().machine, host.kvm_state(cache)
    facilities = (
        find_root(),
        find_kvm(kvm),
        find_cgroup(),
        find_systemd(),
        find_namespaces(),
        find_user_namespaces(),
        find_network(),
        find_seccomp(),
        find_guest_init(),
        find_delegate(config.delegate),
    )
    programs = tuple(find_monitor(name, config, arch, kvm, cache) for name in monitors.MONITORS)
    pairs = judge(choose.matrix(), programs, facilities, arch)
    return Report(
        ok=any(pair.ok for pair in pairs), arch=arch, kvm=kvm, monitors=programs, facilities=facilities, pairs=pairs
    )


def judge(
    rows: tuple[Row, ...], programs: tuple[Program, ...], facilities: tuple[Facility, ...], arch: str
) -> tuple[Pair, ...]:
    """Return each pair of the support matrix, and whether it can run with what was seen. Pure."""
    lacking = next((f"{facility.name}: {facility.what}" for facility in facilities if _stops(facility)), "")
    init = next((facility.what for facility in facilities if facility.name == "guest init" and not facility.ok), "")
    broken = {program.name: program.note for program in programs if not program.ok}
    weak = {program.name: program.note for program in programs if program.note == _SOFTWARE}
    pairs = []
    for row in rows:
        why = lacking or broken.get(row.monitor, "")
        why = why or (init if row.own_init else "")
        why = why or (weak.get(row.monitor, "") if row.full_cpu else "")
        if arch not in row.architectures:
            why = why or f"not on {arch}"
        pairs.append(Pair(guest=row.guest, monitor=row.monitor, ok=not why, why=why))
    return tuple(pairs)


def _stops(facility: Facility) -> bool:
    return facility.needed and not facility.ok


def hints(report: Report) -> tuple[str, ...]:
    """Return what can be done for what is missing, each once."""
    found = [monitor.hint for monitor in report.monitors if not monitor.ok]
    found += [facility.hint for facility in report.facilities if not facility.ok]
    return tuple(dict.fromkeys(hint for hint in found if hint))


def find_monitor(name: str, config: Config, arch: str, kvm: str, cache: str) -> Program:
    """Look for a monitor, all the files that it needs, and whether it can run its vCPUs."""
    can, settings = monitors.load(name).CAPABILITIES, config.monitor(name)
    try:
        found = host.probe_monitor(name, settings, arch, cache)
    except HostError as error:
        return Program(name=name, ok=False, note=error.message, hint=error.hint)
    program = Program(name=name, ok=True, path=found.binary, version=".".join(str(number) for number in found.version))
    try:
        accel, warning = choose.accelerator(can, settings, kvm)
        choose.model(can, settings)
    except (HostError, ConfigError) as error:
        return program.replace(ok=False, note=error.message, hint=error.hint)
    if accel == "kvm" and kvm == "software":
        warning = _SOFTWARE
    return program.replace(accel="" if can.kvm == "no" else accel, note=warning or "")


def find_root() -> Facility:
    """Mounts, device nodes and taps are root's to make."""
    uid = os.geteuid()
    what = "this is root" if uid == 0 else f"this is user {uid}"
    return Facility(name="root", ok=uid == 0, what=what, hint="run as root", needed=True)


def find_kvm(state: str) -> Facility:
    """Whether KVM is real, as `host.kvm_state` found it by running a vCPU."""
    return Facility(name="kvm", ok=state == "real", what=_KVM[state], hint=_MODULES if state == "none" else None)


def find_cgroup() -> Facility:
    """The cgroup version, and the controllers that limits need."""
    try:
        layout = cgroup_layout.detect()
        have = set(layout.hierarchies)
        if layout.version == 2:
            with open(f"{layout.unified}/cgroup.controllers", encoding="utf-8") as file:
                have = {*file.read().split(), "devices"}
    except (UruncError, OSError) as error:
        hint = error.hint if isinstance(error, UruncError) else None
        return Facility(name="cgroup", ok=False, what=_message(error), hint=hint, needed=True)
    if "devices" not in have:
        return Facility(name="cgroup", ok=False, what="the devices controller is not mounted", needed=True)
    missing = [name for name in _CONTROLLERS if name not in have]
    what = f"version {layout.version}" + (f", no limits for {', '.join(missing)}" if missing else "")
    return Facility(name="cgroup", ok=True, what=what, needed=True)


def find_systemd() -> Facility:
    """Engines that use the systemd driver name a scope as cgroupsPath; only systemd can make one."""
    from ..linux import systemd

    ok = os.path.exists(systemd.SYSTEMD_SOCKET)
    what = "runs: a cgroupsPath can be a scope" if ok else "does not run: a cgroupsPath cannot be a scope"
    return Facility(name="systemd", ok=ok, what=what)


def find_namespaces() -> Facility:
    """The kinds of namespaces that a container must or may have."""
    have = {kind for kind in ns.NS_FLAGS if os.path.exists(ns.own_path(kind))}
    missing = sorted(set(ns.NS_FLAGS) - have)
    return Facility(
        name="namespaces",
        ok=have.issuperset(_NEEDED_NAMESPACES),
        what=f"the kernel has no {', '.join(missing)}" if missing else "every kind",
        needed=True,
    )


def find_user_namespaces() -> Facility:
    """User namespaces, made in a child."""
    problem = _in_child(lambda: ns.unshare(("user",)))
    hint = "raise user.max_user_namespaces (sysctl)" if problem else None
    return Facility(name="user namespaces", ok=not problem, what=problem or "can be made", hint=hint)


def find_network() -> Facility:
    """Taps and redirects between them, made in a network namespace that ends with the child."""
    problem = _in_child(_try_network)
    return Facility(
        name="network",
        ok=not problem,
        what=problem or "taps and redirects work",
        hint="load the modules tun, sch_ingress, cls_u32 and act_mirred" if problem else None,
    )


def _try_network() -> None:
    import _socket

    from ..linux import tap, tc
    from ..linux.rtnl import Rtnl

    ns.unshare(("network",))
    names = ("check0", "check1")
    for name in names:
        tap.open_tap(name, persistent=False, uid=0, gid=0, vnet_hdr=True)
    with Rtnl() as rtnl:
        one, other = map(_socket.if_nametoindex, names)
        tc.add_ingress(rtnl, one)
        tc.add_redirect(rtnl, one, other)


def find_seccomp() -> Facility:
    """libseccomp, by compiling a profile."""
    from ..linux import seccomp

    try:
        seccomp.compile(_ALLOW_NOTHING, os.uname().machine)
    except UruncError as error:
        return Facility(name="seccomp", ok=False, what=error.message, hint=error.hint)
    return Facility(name="seccomp", ok=True, what="libseccomp compiles profiles")


def find_guest_init() -> Facility:
    """The init that Linux guests get."""
    from . import load

    try:
        size = len(load.read_guest_init())
    except HostError as error:
        return Facility(name="guest init", ok=False, what=error.message, hint=error.hint)
    return Facility(name="guest init", ok=True, what=f"installed, {size >> 10} kB")


def find_delegate(program: str) -> Facility:
    """The runtime of ordinary containers."""
    path = delegate.find(program)
    return Facility(
        name="delegate",
        ok=path is not None,
        what=path or f"there is no `{program}`: containers that are no unikernels cannot run",
        hint=None if path else delegate.what_to_do(program),
    )


def _in_child(work: Callable[[], object]) -> str:
    """Return why `work` failed in a child process, "" where it did not; what it made is gone with the child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            os.write(writer, _message(error).encode()[:4096])
        finally:
            os._exit(0)
    os.close(writer)
    try:
        with open(reader, "rb") as answer:
            text = answer.read().decode("utf-8", "replace")
    finally:
        _, code = os.waitpid(child, 0)
    return text or ("the attempt was killed" if code else "")


def _message(error: BaseException) -> str:
    if isinstance(error, UruncError):
        return error.message
    return reason(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


def to_data(report: Report) -> dict[str, Any]:
    """Return the report as JSON data, with the guests that this version knows and what is to be done."""
    return {**report.to_data(), "guests": list(guests.GUESTS), "todo": list(hints(report))}
