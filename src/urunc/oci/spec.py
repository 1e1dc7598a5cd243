"""The fields of config.json that urunc reads, typed. Reading them is `parse`'s, imported when there is one to read.

Implements the reading side of the OCI runtime specification 1.3: config.md and config-linux.md. Unknown
properties are ignored (config.md, "Extensibility"); a known property of a wrong type is an error that starts
with its JSON path.
"""

from __future__ import annotations

from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class IdMap(Record):
    """One line of a uid or gid map (config-linux.md, "User namespace mappings")."""

    container_id: int
    host_id: int
    size: int


class Namespace(Record):
    """A namespace to make (`path` is None) or to join. `kind` is the specification's name: mount, pid, network, .."""

    kind: str
    path: str | None = None


class Hook(Record):
    """One entry of `hooks` (config.md, "POSIX-platform Hooks"). `timeout` is in seconds."""

    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] | None = None
    timeout: int | None = None


class Hooks(Record):
    """The six kinds of hooks, each in its listed order."""

    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


class Mount(Record):
    """One entry of `mounts` (config.md, "Mounts"). `type` is "bind" where an option says bind or rbind.

    `destination` is absolute and clean (no `..`); `source` is as written, relative to the bundle where it is a bind.
    """

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()

    def has(self, option: str) -> bool:
        """Return whether the option is given, or its recursive kin: `rro` for `ro` (config.md, "Mounts")."""
        return option in self.options or f"r{option}" in self.options


class Rlimit(Record):
    """One entry of `process.rlimits`; `kind` is RLIMIT_NOFILE and so on; the limits are unsigned 64 bit."""

    kind: str
    soft: int
    hard: int


class User(Record):
    """`process.user`, POSIX platforms."""

    uid: int = 0
    gid: int = 0
    umask: int | None = None
    groups: tuple[int, ...] = ()


class Scheduler(Record):
    """`process.scheduler`: the kernel's numbers; times are nanoseconds."""

    policy: int
    flags: int = 0
    nice: int = 0
    priority: int = 0
    runtime: int = 0
    deadline: int = 0
    period: int = 0


class MemoryPolicy(Record):
    """`linux.memoryPolicy`: the kernel's number of the mode, with its flags, and the nodes."""

    mode: int
    nodes: tuple[int, ...] = ()


class Process(Record):
    """`process`. `args` may be empty: then the image's own command line is used."""

    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = "/"
    terminal: bool = False
    console_size: tuple[int, int] | None = None  # (height, width) in characters
    user: User = User()
    rlimits: tuple[Rlimit, ...] = ()
    oom_score_adj: int | None = None
    scheduler: Scheduler | None = None
    io_priority: int | None = None  # ioPriority, as ioprio_set(2) takes it
    apparmor: str = ""  # apparmorProfile
    selinux: str = ""  # selinuxLabel
    unknown_capabilities: tuple[str, ...] = ()  # names in `capabilities` that are none


class Device(Record):
    """One entry of `linux.devices`; `kind` is c, b, u or p."""

    path: str
    kind: str
    major: int = 0
    minor: int = 0
    mode: int | None = None
    uid: int = 0
    gid: int = 0


class DeviceRule(Record):
    """One entry of `linux.resources.devices`; `major` and `minor` are None for "all"; `kind` is a, b or c."""

    allow: bool
    kind: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


class DeviceWeight(Record):
    """One entry of `linux.resources.blockIO.weightDevice`; None is "not given"."""

    major: int
    minor: int
    weight: int | None = None
    leaf_weight: int | None = None


class Resources(Record):
    """`linux.resources`. Sizes are bytes, times microseconds.

    None is "not given", -1 "no limit" where the specification says so.
    """

    memory_limit: int | None = None
    memory_reservation: int | None = None
    memory_swap: int | None = None
    memory_swappiness: int | None = None
    memory_disable_oom_killer: bool = False
    memory_check_before_update: bool = False  # a limit that is not above what is in use is refused
    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpu_burst: int | None = None
    cpu_realtime_runtime: int | None = None
    cpu_realtime_period: int | None = None
    cpu_idle: int | None = None
    cpus: str = ""
    mems: str = ""
    pids_limit: int | None = None
    block_io_weight: int | None = None
    block_io_leaf_weight: int | None = None
    block_io_device_weights: tuple[DeviceWeight, ...] = ()
    # (read_bps|write_bps|read_iops|write_iops, major, minor, rate)
    block_io_throttle: tuple[tuple[str, int, int, int], ...] = ()
    hugepage_limits: tuple[tuple[str, int], ...] = ()  # (page size such as 2MB, bytes)
    rdma: tuple[tuple[str, int | None, int | None], ...] = ()  # (device, handles, objects), None is "not given"
    network_class_id: int | None = None
    network_priorities: tuple[tuple[str, int], ...] = ()  # (interface, priority)
    unified: tuple[tuple[str, str], ...] = ()  # (file, content), cgroup v2 only
    devices: tuple[DeviceRule, ...] = ()


class Spec(Record):
    """What urunc reads of config.json."""

    version: str
    process: Process
    rootfs: str  # as written; relative to the bundle where it is not absolute
    root_readonly: bool = False
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks = Hooks()
    annotations: dict[str, str] = {}
    namespaces: tuple[Namespace, ...] = ()
    uid_maps: tuple[IdMap, ...] = ()
    gid_maps: tuple[IdMap, ...] = ()
    time_offsets: tuple[tuple[str, int, int], ...] = ()  # (monotonic|boottime, seconds, nanoseconds)
    devices: tuple[Device, ...] = ()
    cgroups_path: str = ""
    resources: Resources = Resources()
    rootfs_propagation: str = ""
    memory_policy: MemoryPolicy | None = None
    net_devices: tuple[tuple[str, str], ...] = ()  # (the host's name, its name in the container)
    seccomp: dict[str, Any] | None = None  # linux.seccomp, shape checked, compiled by `linux.seccomp`
    sysctl: tuple[tuple[str, str], ...] = ()
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()  # JSON paths of what is asked for and urunc has no way to give

    def namespace(self, kind: str) -> Namespace | None:
        """Return the namespace of that kind, None where the container keeps the host's."""
        for namespace in self.namespaces:
            if namespace.kind == kind:
                return namespace
        return None


def parse(data: Any) -> Spec:
    """Return the Spec of a decoded config.json. Raises SpecError, whose message starts with the JSON path."""
    from .parse import read_spec

    return read_spec(data)
