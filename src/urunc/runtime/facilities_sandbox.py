"""What a container's sandbox is made of: the rights and calls, cgroups, namespaces, limits and seccomp of this host.

One small function for each, which tries what it tells of where that leaves nothing behind.
"""

from __future__ import annotations

import os

from ..errors import UruncError
from ..linux import cgroup_layout, fsops, libc, mounts, ns
from ..oci.spec import DeviceRule
from .facility import Facility, tried, try_in_child, why_not

_NEEDED_NAMESPACES = ("mount", "network", "pid", "ipc", "uts")
_CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")
_V1_NAMES = {"blkio": "io"}
_ALLOW_NOTHING = {"defaultAction": "SCMP_ACT_ERRNO"}
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
    problem = try_in_child(_try_mounts)
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
        return found.replace(what=why_not(error), hint=error.hint if isinstance(error, UruncError) else None)
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
        return found.replace(ok=False, what=why_not(error), hint="use a kernel with CONFIG_CGROUP_BPF")
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
    return tried(
        "user namespaces",
        "linux.uidMappings",
        try_in_child(lambda: ns.unshare(("user",))),
        works="can be made",
        hint="raise user.max_user_namespaces (sysctl)",
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
