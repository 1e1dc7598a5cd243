"""From `linux` of a decoded config.json to the Spec's fields: config-linux.md of the OCI runtime specification 1.3."""

from __future__ import annotations

from .node import INT64, UINT16, UINT32, UINT64, Node, show
from .spec import Device, DeviceRule, DeviceWeight, IdMap, MemoryPolicy, Namespace, Resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAMESPACES = ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")
PROPAGATIONS = ("shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable")

_ACTIONS = (
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
)
_OPERATORS = (
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
)
_DOMAIN = "LINUX"  # of `personality`: the guest's kernel has no other
_NAME_MAX = 15  # of a network device, in bytes
_MAP_LINES = 340  # user_namespaces(7)
CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE"
    " NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT"
    " SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP"
    " MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
"""Without their CAP_. Accepted, and none is kept: the application has its own kernel, and its monitor needs none."""

_UNSUPPORTED = ("intelRdt",)
_UNSUPPORTED_RESOURCES = (
    ("memory", "kernel"),
    ("memory", "kernelTCP"),
)


def read_linux(node: Node) -> dict[str, Any]:
    """Return the Spec's fields that `linux` decides. Raises SpecError."""
    return {
        "namespaces": _namespaces(node.items("namespaces")),
        "uid_maps": _id_maps(node, "uidMappings"),
        "gid_maps": _id_maps(node, "gidMappings"),
        "time_offsets": tuple(_time_offset(*entry) for entry in node.entries("timeOffsets")),
        "devices": tuple(_device(item) for item in node.items("devices")),
        "cgroups_path": node.text("cgroupsPath"),
        "resources": read_resources(node.section("resources")),
        "rootfs_propagation": node.word("rootfsPropagation", PROPAGATIONS),
        "net_devices": tuple(_net_device(*entry) for entry in node.entries("netDevices")),
        "memory_policy": _memory_policy(node.key("memoryPolicy")),
        "seccomp": _seccomp(node.key("seccomp")),
        "sysctl": tuple((key, item.as_text()) for key, item in node.entries("sysctl")),
        "masked_paths": node.texts("maskedPaths"),
        "readonly_paths": node.texts("readonlyPaths"),
    }


def unsupported(node: Node) -> tuple[str, ...]:
    """Return the JSON paths of what is asked for and cannot be given, where leaving it out would break a promise."""
    found = [f"linux.{name}" for name in _UNSUPPORTED if is_given(node.key(name))]
    resources = node.section("resources")
    for names in _UNSUPPORTED_RESOURCES:
        at = resources if len(names) == 1 else resources.section(names[0])
        if is_given(at.key(names[-1])):
            found.append("linux.resources." + ".".join(names))
    if node.section("personality").text("domain", _DOMAIN) != _DOMAIN:
        found.append("linux.personality.domain")
    return tuple(found)


def unknown_capabilities(process: Node) -> tuple[str, ...]:
    """Return the names in `process.capabilities` that are no capability's (config.md, "Linux Process": a warning)."""
    sets = process.section("capabilities")
    named = (name for key in sets.members() for name in sets.texts(key))
    known = {f"CAP_{name}" for name in CAPABILITIES.split()}
    return tuple(dict.fromkeys(name for name in named if name not in known))


def is_given(node: Node | None) -> bool:
    """Return whether it is asked for: engines write empty lists, objects and zeros for what their user did not."""
    return node is not None and bool(node.value)


def _namespaces(nodes: list[Node]) -> tuple[Namespace, ...]:
    found: dict[str, Namespace] = {}
    for node in nodes:
        kind = node.need("type")
        name = kind.as_text()
        if name not in NAMESPACES:
            raise kind.fail(f"unknown namespace {show(name)}")
        if name in found:
            raise kind.fail(f"namespace {show(name)} is listed twice")
        path = node.need("path").as_path() if node.text("path") else None
        found[name] = Namespace(kind=name, path=path)
    return tuple(found.values())


def _id_maps(linux: Node, key: str) -> tuple[IdMap, ...]:
    nodes = linux.items(key)
    if len(nodes) > _MAP_LINES:
        raise linux.need(key).fail(f"more than {_MAP_LINES} lines")
    maps: list[IdMap] = []
    for node in nodes:
        new = _id_map(node)
        for old in maps:
            if _overlap(new.container_id, old.container_id, new, old) or _overlap(new.host_id, old.host_id, new, old):
                raise node.fail("overlaps an earlier line")
        maps.append(new)
    return tuple(maps)


def _id_map(node: Node) -> IdMap:
    line = IdMap(
        container_id=node.need("containerID").as_number(UINT32),
        host_id=node.need("hostID").as_number(UINT32),
        size=node.need("size").as_number((1, 2**32 - 1)),
    )
    if max(line.container_id, line.host_id) + line.size > 2**32:
        raise node.fail("reaches beyond 32 bits")
    return line


def _overlap(new_start: int, old_start: int, new: IdMap, old: IdMap) -> bool:
    return new_start < old_start + old.size and old_start < new_start + new.size


def _time_offset(clock: str, node: Node) -> tuple[str, int, int]:
    if clock not in ("monotonic", "boottime"):
        raise node.fail(f"unknown clock {show(clock)}")
    return clock, node.number("secs") or 0, node.number("nanosecs", (0, 999_999_999)) or 0


def _device(node: Node) -> Device:
    kind = node.need("type")
    if kind.value not in ("c", "b", "u", "p"):
        raise kind.unwanted("c, b, u or p")
    numbered = kind.value != "p"
    return Device(
        path=node.need("path").as_path(),
        kind=kind.as_text(),
        major=node.need("major").as_number(UINT32) if numbered else 0,
        minor=node.need("minor").as_number(UINT32) if numbered else 0,
        mode=node.number("fileMode", UINT32),
        uid=node.number("uid", UINT32) or 0,
        gid=node.number("gid", UINT32) or 0,
    )


def _device_rule(node: Node) -> DeviceRule:
    access = node.text("access", "rwm")
    if not access or set(access) - set("rwm"):
        raise node.need("access").unwanted("some of r, w and m")
    if type(node.need("allow").value) is not bool:
        raise node.need("allow").unwanted("a boolean")
    return DeviceRule(
        allow=node.flag("allow"),
        kind=node.word("type", ("a", "b", "c"), "a"),
        major=_device_number(node, "major"),
        minor=_device_number(node, "minor"),
        access=access,
    )


def _device_number(node: Node, key: str) -> int | None:
    number = node.number(key, (-1, 2**32 - 1))
    return None if number == -1 else number


def read_resources(node: Node) -> Resources:
    """Return `linux.resources`, or what `update --resources` reads. Raises SpecError.

    A zero where the kernel has no such limit (size, weight, share, quota, period) counts as "not given", as
    for runc: Docker writes `"blockIO": {"weight": 0}` into every document.
    """
    memory, cpu, block, network = (node.section(name) for name in ("memory", "cpu", "blockIO", "network"))
    return Resources(
        **_memory(memory),
        **_cpu(cpu),
        pids_limit=node.section("pids").number("limit"),
        block_io_weight=block.number("weight", UINT16) or None,
        block_io_leaf_weight=block.number("leafWeight", UINT16) or None,
        block_io_device_weights=tuple(_device_weight(item) for item in block.items("weightDevice")),
        block_io_throttle=_throttles(block),
        hugepage_limits=tuple(_hugepage_limit(item) for item in node.items("hugepageLimits")),
        rdma=tuple(_rdma(*entry) for entry in node.entries("rdma")),
        network_class_id=network.number("classID", UINT32),
        network_priorities=tuple(_priority(item) for item in network.items("priorities")),
        unified=tuple(_unified(*entry) for entry in node.entries("unified")),
        devices=tuple(_device_rule(item) for item in node.items("devices")),
    )


def _memory(node: Node) -> dict[str, Any]:
    sizes = (-1, INT64[1])
    return {
        "memory_limit": node.number("limit", sizes) or None,
        "memory_reservation": node.number("reservation", sizes) or None,
        "memory_swap": node.number("swap", sizes) or None,
        "memory_swappiness": _swappiness(node),
        "memory_disable_oom_killer": node.flag("disableOOMKiller"),
        "memory_check_before_update": node.flag("checkBeforeUpdate"),
    }


def _swappiness(node: Node) -> int | None:
    """0 to 100; the largest unsigned value stands for "not given" in old versions of Docker and Podman."""
    value = node.number("swappiness", UINT64)
    if value is None or value == UINT64[1]:
        return None
    return node.number("swappiness", (0, 100))


def _cpu(node: Node) -> dict[str, Any]:
    return {
        "cpu_shares": node.number("shares", UINT64) or None,
        "cpu_quota": node.number("quota", (-1, INT64[1])) or None,
        "cpu_period": node.number("period", UINT64) or None,
        "cpu_burst": node.number("burst", UINT64),
        "cpu_realtime_runtime": node.number("realtimeRuntime") or None,
        "cpu_realtime_period": node.number("realtimePeriod", UINT64) or None,
        "cpu_idle": node.number("idle", (0, 1)),
        "cpus": _cpu_list(node, "cpus"),
        "mems": _cpu_list(node, "mems"),
    }


def _cpu_list(node: Node, key: str) -> str:
    text = node.text(key)
    if set(text) - set("0123456789,-"):
        raise node.need(key).fail(f"want a list such as 0-3,7, got {show(text)}")
    return text


def _throttles(block: Node) -> tuple[tuple[str, int, int, int], ...]:
    kinds = (
        ("read_bps", "throttleReadBpsDevice"),
        ("write_bps", "throttleWriteBpsDevice"),
        ("read_iops", "throttleReadIOPSDevice"),
        ("write_iops", "throttleWriteIOPSDevice"),
    )
    return tuple((kind, *_throttle(item)) for kind, key in kinds for item in block.items(key))


def _throttle(node: Node) -> tuple[int, int, int]:
    return (
        node.need("major").as_number(UINT32),
        node.need("minor").as_number(UINT32),
        node.need("rate").as_number(UINT64),
    )


def _device_weight(node: Node) -> DeviceWeight:
    if node.key("weight") is None and node.key("leafWeight") is None:
        raise node.fail("want weight or leafWeight")
    return DeviceWeight(
        major=node.need("major").as_number(UINT32),
        minor=node.need("minor").as_number(UINT32),
        weight=node.number("weight", UINT16) or None,
        leaf_weight=node.number("leafWeight", UINT16) or None,
    )


def _hugepage_limit(node: Node) -> tuple[str, int]:
    size = node.need("pageSize")
    text = size.as_text()
    if not (text[-2:] in ("KB", "MB", "GB") and text[:-2].isascii() and text[:-2].isdigit()):
        raise size.fail(f"want a size such as 2MB, got {show(text)}")
    return text, node.need("limit").as_number(UINT64)


def _rdma(device: str, node: Node) -> tuple[str, int | None, int | None]:
    if not device or not device.isprintable() or " " in device:
        raise node.fail("want the name of a device")
    handles, objects = node.number("hcaHandles", UINT32), node.number("hcaObjects", UINT32)
    if handles is None and objects is None:
        raise node.fail("want hcaHandles or hcaObjects")
    return device, handles, objects


def _priority(node: Node) -> tuple[str, int]:
    return node.need("name").as_text(), node.need("priority").as_number(UINT32)


def _unified(name: str, node: Node) -> tuple[str, str]:
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise node.fail("want the name of a cgroup file")
    return name, node.as_text()


def _net_device(name: str, node: Node) -> tuple[str, str]:
    """Section "Network Devices". `%d` in the name inside, once, is a number that the kernel chooses."""
    inside = node.text("name") or name
    for which, text in (("of the host", name), ("inside", inside.replace("%d", "0", 1))):
        odd = not text or text in (".", "..") or len(text.encode()) > _NAME_MAX or any(c in "/:%" for c in text)
        if odd or not text.isprintable() or " " in text:
            raise node.fail(f"{show(text)} is no name of a device {which}")
    return name, inside


def _memory_policy(node: Node | None) -> MemoryPolicy | None:
    if node is None:
        return None
    from .parse_scheduling import read_memory_policy

    return read_memory_policy(node)


def _seccomp(node: Node | None) -> dict[str, Any] | None:
    """Check the shape of `linux.seccomp` (section "Seccomp") and return it as it is, for the compiler."""
    if node is None:
        return None
    _action(node, "defaultAction")
    node.number("defaultErrnoRet", UINT32)
    node.texts("architectures")
    node.texts("flags")
    node.text("listenerPath")
    node.text("listenerMetadata")
    for item in node.items("syscalls"):
        _seccomp_rule(item)
    return node.members()


def _action(node: Node, key: str) -> None:
    action = node.need(key)
    if action.as_text() not in _ACTIONS:
        raise action.fail(f"unknown action {show(action.as_text())}")


def _seccomp_rule(node: Node) -> None:
    if not node.texts("names"):
        raise node.fail("names no system call")
    _action(node, "action")
    node.number("errnoRet", UINT32)
    for item in node.items("args"):
        item.need("index").as_number((0, 5))
        item.need("value").as_number(UINT64)
        item.number("valueTwo", UINT64)
        operator = item.need("op")
        if operator.as_text() not in _OPERATORS:
            raise operator.fail(f"unknown operator {show(operator.as_text())}")
