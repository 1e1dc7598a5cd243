"""What of this host is no monitor: each facility of the kernel, and each program, that something in urunc uses.

One small function for each, which tries what it tells of where that leaves nothing behind: in a child with namespaces
of its own, whose end undoes it. It decides nothing; `check` does.
"""

from __future__ import annotations

import os

from ..errors import HostError, UruncError, reason
from ..linux import cgroup_layout, fsops, libc, mounts, ns
from ..oci.spec import DeviceRule
from ..record import Record
from ..vm import monitors
from . import delegate, host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..oci.config import Config
    from ..vm.machine import Capabilities

_KVM = {
    "real": "real: vCPUs run in hardware",
    "software": "/dev/kvm is itself an emulation: it runs small guests, and no Linux",
    "none": "there is no usable /dev/kvm",
}
_MODULES = "load the module kvm_intel or kvm_amd"
_NEEDED_NAMESPACES = ("mount", "network", "pid", "ipc", "uts")
_CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")
_V1_NAMES = {"blkio": "io"}
_ALLOW_NOTHING = {"defaultAction": "SCMP_ACT_ERRNO"}
_SHIM = "containerd-shim-urunc-v2"

_CAPABILITIES = {  # linux/capability.h: what no container can be made without
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_ADMIN": 12,
    "SYS_ADMIN": 21,
    "MKNOD": 27,
}
_SYS_RESOURCE = 24


class Facility(Record):
    """Something of the host that is not a monitor, and what it is `used` for.

    Where a `needed` one is not ok, nothing can run.
    """

    name: str
    used: str
    ok: bool
    what: str
    hint: str | None = None
    needed: bool = False


def look(config: Config, arch: str, kvm: str, cache: str) -> tuple[Facility, ...]:
    """Return all of them, in the order of a report. `kvm` is what `host.kvm_state` found."""
    return (
        find_root(),
        find_kernel(),
        find_kvm(kvm),
        *find_emulation(config, arch),
        find_clock(arch, cache),
        find_cgroup(),
        find_device_filter(),
        find_systemd(),
        find_namespaces(),
        find_user_namespaces(),
        find_resource_limits(),
        find_seccomp(),
        find_network(),
        find_ipv6(),
        find_nat(),
        find_vhost(),
        find_loop(),
        find_guest_init(arch),
        find_shim(),
        find_delegate(config.delegate),
    )


def find_root() -> Facility:
    """Mounts, device nodes and taps are root's to make; root in a container may lack a right to."""
    uid = os.geteuid()
    what, hint = "this is root" if uid == 0 else f"this is user {uid}", "run as root"
    held = _effective_capabilities()
    lacks = [f"CAP_{name}" for name, bit in _CAPABILITIES.items() if not held >> bit & 1] if uid == 0 else []
    if lacks:
        what, hint = f"root without {', '.join(lacks)}", "run urunc outside of a container, or give it these"
    return Facility(name="root", used="every container", ok=uid == 0 and not lacks, what=what, hint=hint, needed=True)


def _effective_capabilities() -> int:
    """Return CapEff of this process (proc(5)), as bits."""
    with open("/proc/self/status", encoding="utf-8", errors="replace") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))


def find_kernel() -> Facility:
    """The calls for mounts that are nowhere yet (Linux 5.12), and those that a younger kernel does better."""
    problem = _in_child(_try_mounts)
    release = os.uname().release
    older = "" if problem or _has_openat2() else ": without openat2, paths of images are walked step by step"
    return Facility(
        name="kernel",
        used="every container",
        ok=not problem,
        what=f"{release}: {problem}" if problem else f"{release}{older}",
        hint="use Linux 5.12 or newer" if problem else None,
        needed=True,
    )


def _try_mounts() -> None:
    ns.unshare(("mount",))
    mounts.isolate()
    tree = mounts.clone_tree(fsops.detached_tmpfs(), readonly=True)
    mounts.attach(tree, "/")


def _has_openat2() -> bool:
    try:
        os.close(libc.openat2(libc.AT_FDCWD, "/", os.O_PATH))
    except OSError:
        return False
    return True


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
    from . import load

    found = Facility(name=f"{arch} kernels", used="images of that architecture, in software", ok=False, what="")
    try:
        what = host.find_monitor(name, config.monitor(name), arch)
    except HostError as error:
        package = (error.hint or "").partition(",")[0]
        return found.replace(what=error.message.rpartition(": ")[2], hint=f"{package}, for {arch} kernels")
    try:
        load.read_guest_init(arch)
    except HostError as error:
        return found.replace(ok=True, what=f"{what}; no Linux guests: {error.message}")
    return found.replace(ok=True, what=what)


def find_clock(arch: str, cache: str) -> Facility:
    """The frequency of the time stamp counter, which Linux in software is told: on a microvm it cannot measure it."""
    khz = host.tsc_khz(cache) if arch == "x86_64" else 0
    what = f"{khz / 1000:.0f} MHz" if khz else "not known: Linux measures it itself, and cannot on `microvm`"
    return Facility(name="time stamp counter", used="Linux in software", ok=khz > 0, what=what)


def find_cgroup() -> Facility:
    """The cgroup version, and the controllers that limits need."""
    found = Facility(name="cgroup", used="every container, and its limits", ok=False, what="", needed=True)
    try:
        layout = cgroup_layout.detect()
        have = {_V1_NAMES.get(name, name) for name in layout.hierarchies}
        if layout.version == 2:
            with open(f"{layout.unified}/cgroup.controllers", encoding="utf-8") as file:
                have = {*file.read().split(), "devices"}
    except (UruncError, OSError) as error:
        return found.replace(what=_message(error), hint=error.hint if isinstance(error, UruncError) else None)
    if "devices" not in have:
        return found.replace(what="the devices controller is not mounted")
    missing = [name for name in _CONTROLLERS if name not in have]
    what = f"version {layout.version}" + (f", no limits for {', '.join(missing)}" if missing else "")
    return found.replace(ok=True, what=what)


def find_device_filter() -> Facility:
    """What keeps devices from a container: cgroup v1's controller, or a program for v2, which is loaded and dropped."""
    from ..linux import devices_bpf

    found = Facility(name="device filter", used="every container", ok=True, what="cgroup v1's controller", needed=True)
    try:
        if cgroup_layout.detect().version == 1:
            return found
        os.close(devices_bpf.load(devices_bpf.assemble((DeviceRule(allow=False),))))
    except (UruncError, OSError) as error:
        return found.replace(ok=False, what=_message(error), hint="use a kernel with CONFIG_CGROUP_BPF")
    return found.replace(what="eBPF, on cgroup v2")


def find_systemd() -> Facility:
    """Engines that use the systemd driver name a scope as cgroupsPath; only systemd can make one."""
    from ..linux import systemd

    ok = os.path.exists(systemd.SYSTEMD_SOCKET)
    what = "runs: a cgroupsPath can be a scope" if ok else "does not run: a cgroupsPath cannot be a scope"
    return Facility(name="systemd", used="engines with the systemd driver", ok=ok, what=what)


def find_namespaces() -> Facility:
    """The kinds of namespaces that a container must or may have."""
    have = {kind for kind in ns.NS_FLAGS if os.path.exists(ns.own_path(kind))}
    missing = sorted(set(ns.NS_FLAGS) - have)
    return Facility(
        name="namespaces",
        used="every container",
        ok=have.issuperset(_NEEDED_NAMESPACES),
        what=f"the kernel has no {', '.join(missing)}" if missing else "every kind",
        needed=True,
    )


def find_user_namespaces() -> Facility:
    """User namespaces, made in a child."""
    problem = _in_child(lambda: ns.unshare(("user",)))
    hint = "raise user.max_user_namespaces (sysctl)" if problem else None
    return Facility(
        name="user namespaces",
        used="linux.uidMappings",
        ok=not problem,
        what=problem or "can be made",
        hint=hint,
    )


def find_resource_limits() -> Facility:
    """Whether limits may be raised above urunc's own."""
    ok = bool(_effective_capabilities() >> _SYS_RESOURCE & 1)
    return Facility(
        name="resource limits",
        used="process.rlimits and oomScoreAdj",
        ok=ok,
        what="can be raised" if ok else "can only be lowered: there is no CAP_SYS_RESOURCE",
        hint=None if ok else "give CAP_SYS_RESOURCE to whoever calls urunc, or lower the engine's default limits",
    )


def find_seccomp() -> Facility:
    """libseccomp, by compiling a profile."""
    from ..linux import seccomp

    found = Facility(name="seccomp", used="linux.seccomp profiles", ok=True, what="libseccomp compiles profiles")
    try:
        seccomp.compile(_ALLOW_NOTHING, os.uname().machine)
    except UruncError as error:
        return found.replace(ok=False, what=error.message, hint=error.hint)
    return found


def find_network() -> Facility:
    """Taps and redirects between them, made in a network namespace that ends with the child."""
    problem = _in_child(_try_network)
    return Facility(
        name="network",
        used="a guest's network",
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


def find_ipv6() -> Facility:
    """Whether the kernel has IPv6 at all."""
    ok = os.path.exists("/proc/sys/net/ipv6")
    what = "the kernel has it" if ok else "the kernel has none, or was started with ipv6.disable=1"
    return Facility(name="ipv6", used="networks with IPv6", ok=ok, what=what)


def find_nat() -> Facility:
    """The rules of network mode `nat`, made in a network namespace that ends with the child."""
    problem = _in_child(_try_nat)
    return Facility(
        name="nat",
        used="com.urunc.network = nat, and Knative",
        ok=not problem,
        what=problem or "nftables takes the rules",
        hint="load the modules nf_tables, nft_chain_nat, nft_masq, nft_redir and nft_socket" if problem else None,
    )


def _try_nat() -> None:
    from ..linux.nftables import Nftables
    from . import nat

    ns.unshare(("network",))
    families = {4, 6} if os.path.exists("/proc/sys/net/ipv6") else {4}
    addresses = ["192.0.2.1", "2001:db8::1"][: len(families)]
    with Nftables() as tables:
        tables.add_table("check0", b"", nat.rules("check0", addresses, families))


def find_vhost() -> Facility:
    """The kernel's own half of a NIC, which the configuration has to ask for."""
    problem = _try_open("/dev/vhost-net")
    return Facility(
        name="vhost-net",
        used="vhost = true",
        ok=not problem,
        what=problem or "/dev/vhost-net can be opened",
        hint="load the module vhost_net, for vhost = true" if problem else None,
    )


def find_loop() -> Facility:
    """What makes a block device of a file, for a monitor that opens its disks by path."""
    problem = _try_open("/dev/loop-control")
    return Facility(
        name="loop devices",
        used="disk images that the monitor's user may not open",
        ok=not problem,
        what=problem or "/dev/loop-control can be opened",
        hint="load the module loop" if problem else None,
    )


def _try_open(path: str) -> str:
    """Return why a device cannot be opened, "" where it can."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{path}: {reason(error)}"
    return ""


def find_guest_init(arch: str) -> Facility:
    """The init that Linux guests get."""
    from . import load

    found = Facility(name="guest init", used="Linux guests", ok=True, what="")
    try:
        size = len(load.read_guest_init(arch))
    except HostError as error:
        return found.replace(ok=False, what=error.message, hint=error.hint)
    return found.replace(what=f"installed, {size >> 10} kB")


def find_parts(can: Capabilities, binary: str) -> Facility:
    """What a monitor was built with, by its own lists: distributions leave out what they do not support."""
    from . import probe

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


def find_shim() -> Facility:
    """Containerd finds it on its own PATH, which may be another than this one."""
    path = _on_path(_SHIM)
    return Facility(
        name="shim",
        used="containerd, by --runtime io.containerd.urunc.v2",
        ok=path is not None,
        what=path or f"there is no `{_SHIM}` on PATH",
        hint=None if path else "run `make install`, for containerd's shim",
    )


def _on_path(program: str) -> str | None:
    paths = (os.path.join(folder, program) for folder in os.environ.get("PATH", "").split(":") if folder)
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def find_delegate(program: str) -> Facility:
    """The runtime of ordinary containers."""
    path = delegate.find(program)
    return Facility(
        name="delegate",
        used="containers that are no unikernels",
        ok=path is not None,
        what=path or f"there is no `{program}`",
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
