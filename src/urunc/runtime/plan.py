"""What to do on the host, decided before anything is done. Pure: `urunc create --dry-run` prints its result.

Every name that create or init will make (cgroup, unit, taps, sockets, files) is decided here, so that the
undo can be recorded before the first step.
"""

from __future__ import annotations

from ..errors import ImageError, SpecError
from ..oci import resources as cgroup_rules
from ..oci.spec import DeviceRule, IdMap, Process, User
from ..record import Record
from ..vm import choose, guests, monitors, port
from ..vm.machine import Bind, Boot, Context, Disk, KernelInfo, Machine, Network, Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..oci.app import App
    from ..oci.checks import MountPlan
    from ..oci.config import Config
    from ..oci.resources import CgroupPath, CgroupWrite, Property
    from ..oci.spec import Spec
    from ..vm.machine import Capabilities, GuestFile
    from .options import Options

KERNEL, INITRD, DISK = "/kernel", "/initrd", "/disk0"

DEVICES: dict[str, tuple[int, int]] = {
    "kvm": (10, 232),
    "net/tun": (10, 200),
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
}
"""Device nodes that a monitor may be given: name below /dev -> (major, minor). All are character devices."""

_ALWAYS = ("null", "zero", "urandom")
_TAP_PREFIX = "urunc"


class Facts(Record):
    """What was seen of the host and of the image before the plan is made."""

    arch: str
    cpus: int
    kvm: str  # "none", "real" or "software": see runtime.host.kvm_state
    cgroup_version: int
    own_network: bool  # the container has a network namespace of its own
    kernel: KernelInfo
    binary: str  # the monitor's path on the host
    version: tuple[int, ...] = ()  # the monitor's
    binds: tuple[Bind, ...] = ()  # the monitor, its loader, libraries, modules and firmware
    data_path: str = ""
    initrd_bytes: int = 0  # size of the image's initrd, 0 without one
    guest_init: bytes | None = None  # urunc's own init for Linux guests
    tsc_khz: int = 0  # the host's clock rate, for a guest that cannot measure it; 0 where unknown


class Node(Record):
    """A device node in the monitor's /dev. `uid` and `gid` are the host's."""

    path: str
    major: int
    minor: int
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


class ImageFile(Record):
    """A file of the image at a fixed name in the monitor's root. `source` is inside the rootfs."""

    source: str
    target: str
    readonly: bool = True
    disk: bool = False  # the guest's, and never a copy of it


class Plan(Record):
    """Everything that is decided before the fork."""

    id: str
    rootfs: str
    guest: str
    monitor: str
    namespaces: tuple[str, ...]  # kinds to make
    joins: tuple[tuple[str, str], ...]  # (kind, path) to join
    uid_maps: tuple[IdMap, ...] = ()
    gid_maps: tuple[IdMap, ...] = ()
    host_uid: int = 0  # the monitor's uid and gid as the host sees them
    host_gid: int = 0
    host_groups: tuple[int, ...] = ()
    cgroup: CgroupPath
    cgroup_writes: tuple[CgroupWrite, ...] = ()
    cgroup_properties: tuple[tuple[str, str, object], ...] = ()  # for systemd: name, D-Bus signature, value
    device_rules: tuple[DeviceRule, ...] = ()
    nodes: tuple[Node, ...] = ()
    binds: tuple[Bind, ...] = ()
    images: tuple[ImageFile, ...] = ()
    taps: tuple[str, ...] = ()  # names for as many NICs as the machine may get
    persistent_taps: bool = False
    vnet_hdr: bool = False
    machine: Machine
    overhead_mib: int = 0  # what the monitor needs beside the guest's memory
    root: Root = Root()
    fifos: tuple[str, ...] = ()  # in the container's folder, and bound into the monitor's root
    no_pivot: bool = False  # --no-pivot
    stop: str = "kill"
    warnings: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()  # what else the log should say


def plan(
    options: Options, rootfs: str, spec: Spec, app: App, mounts: MountPlan, config: Config, facts: Facts, systemd: bool
) -> Plan:
    """Decide everything for the container. Raises SpecError, ImageError, HostError or ConfigError.

    `rootfs` is the host path of the container's root; `systemd` whether an empty cgroupsPath means systemd.
    """
    if not facts.own_network:
        raise SpecError(
            "linux.namespaces: a virtual machine cannot share the host's network",
            hint="give the container a network namespace of its own: start it without `--network host`",
        )
    can, settings = monitors.load(app.monitor).CAPABILITIES, config.monitor(app.monitor)
    choose.check_pids(spec.resources.pids_limit, can, "linux.resources.pids.limit")
    accel, accel_warning = choose.accelerator(can, settings, facts.kvm)
    machine, root = _machine(options, spec, app, config, facts, accel)
    monitors.load(app.monitor).check(machine)
    nodes = _nodes(spec, can, accel)
    rules = cgroup_rules.device_rules(spec.resources.devices, _rules(nodes))
    cgroup = _cgroup(options.id, spec, systemd)
    by_systemd = cgroup.driver == "systemd"
    limits = cgroup_rules.rounded_quota(spec.resources) if by_systemd else spec.resources
    return Plan(
        id=options.id,
        rootfs=rootfs,
        guest=app.guest,
        monitor=app.monitor,
        namespaces=tuple(space.kind for space in spec.namespaces if space.path is None),
        joins=tuple((space.kind, space.path) for space in spec.namespaces if space.path is not None),
        uid_maps=spec.uid_maps,
        gid_maps=spec.gid_maps,
        host_uid=mapped(machine.uid, spec.uid_maps, "linux.uidMappings"),
        host_gid=mapped(machine.gid, spec.gid_maps, "linux.gidMappings"),
        host_groups=tuple(
            mapped(group, spec.gid_maps, "linux.gidMappings")
            for group in (spec.process.user.groups if spec.process else ())
        ),
        cgroup=cgroup,
        cgroup_writes=cgroup_rules.writes(limits, facts.cgroup_version),
        cgroup_properties=_scope_properties(spec, facts.cgroup_version, rules) if by_systemd else (),
        device_rules=rules,
        nodes=nodes,
        binds=facts.binds,
        images=_images(app, machine.boot, root),
        taps=tuple(f"{_TAP_PREFIX}{index}-{_short(options.id)}" for index in range(can.max_nics)),
        persistent_taps=can.tap_by == "name",
        vnet_hdr=can.vnet_hdr,
        machine=machine,
        overhead_mib=choose.overhead(settings, can.overhead_mib),
        root=root,
        fifos=port.FIFOS if _has_control(can, machine.boot) else (),
        no_pivot=options.no_pivot,
        stop=_stop(can, machine.boot),
        warnings=(accel_warning,) if accel_warning else (),
        messages=(*app.messages, *mounts.messages, *machine.boot.messages),
    )


def _machine(options: Options, spec: Spec, app: App, config: Config, facts: Facts, accel: str) -> tuple[Machine, Root]:
    """Return the machine as far as it is known before the network is, and what backs the guest's root."""
    can, settings = monitors.load(app.monitor).CAPABILITIES, config.monitor(app.monitor)
    root = find_root(app, spec.root_readonly)
    model = choose.model(can, settings)
    user = spec.process.user if spec.process else User()
    context = guest_context(spec, facts, model, accel)
    boot = guests.load(app.guest).boot(app, Network(), root, can, context)
    cpu = spec.resources
    machine = Machine(
        name=options.id,
        arch=facts.arch,
        memory_mib=_memory(spec, app, config, boot, facts),
        vcpus=choose.vcpus(cpu.cpu_quota, cpu.cpu_period, settings, can, facts.cpus),
        accel=accel,
        model=model,
        kernel=facts.kernel,
        initrd=bool(app.initrd or boot.initrd_tail),
        boot=boot,
        disks=_disks(app, root),
        uid=user.uid,
        gid=user.gid,
        first_fd=3 + options.preserve_fds,
        vhost=settings.vhost,
    )
    return machine, root


def guest_context(spec: Spec, facts: Facts, model: str, accel: str, files: tuple[GuestFile, ...] = ()) -> Context:
    """Return what a guest module may know beside the app, the network and the root."""
    process = spec.process or Process()
    user = process.user
    return Context(
        arch=facts.arch,
        model=model,
        accel=accel,
        kernel=facts.kernel,
        tsc_khz=facts.tsc_khz,
        init=facts.guest_init,
        uid=user.uid,
        gid=user.gid,
        groups=user.groups,
        umask=user.umask,
        rlimits=tuple((limit.kind, limit.soft, limit.hard) for limit in process.rlimits),
        terminal=process.terminal,
        files=files,
    )


def find_root(app: App, readonly: bool) -> Root:
    """Return what backs the guest's root: an initrd, else a block image mounted at `/`, else nothing of the image.

    Raises ImageError where the guest cannot take it, or where the container's own rootfs is asked for.
    """
    if app.initrd:
        root = Root(kind="initrd", readonly=readonly)
    elif app.block and app.block_mount in (None, "", "/"):
        root = Root(kind="block", readonly=readonly)
    elif app.mount_rootfs:
        raise ImageError("`mountRootfs` cannot be met: the container's rootfs is no disk of its own")
    else:
        root = Root(kind="none", readonly=readonly)
    if root.kind not in guests.load(app.guest).ROOTS:
        raise ImageError(f"guest `{app.guest}` cannot take {root.kind} as its root")
    return root


def _cgroup(name: str, spec: Spec, systemd: bool) -> CgroupPath:
    if spec.cgroups_path:
        return cgroup_rules.parse_cgroups_path(spec.cgroups_path, systemd)
    return cgroup_rules.default_path(name, systemd)


def _scope_properties(spec: Spec, version: int, rules: tuple[DeviceRule, ...]) -> tuple[Property, ...]:
    """Return what systemd is told beside the files: the limits, and what the engine's annotations ask for."""
    from ..oci.unit_properties import unit_properties

    return (*cgroup_rules.systemd_properties(spec.resources, version, rules), *unit_properties(spec.annotations))


def mapped(inside: int, maps: tuple[IdMap, ...], path: str) -> int:
    """Return the host's id for `inside`. Raises SpecError where the maps (at JSON `path`) do not cover it."""
    if not maps:
        return inside
    for line in maps:
        if line.container_id <= inside < line.container_id + line.size:
            return line.host_id + inside - line.container_id
    raise SpecError(f"{path}: id {inside} of process.user is not mapped")


def _short(name: str) -> str:
    """Return seven characters that stand for an id in an interface's name (15 bytes at most)."""
    value = 0x811C9DC5  # FNV-1a: stable from run to run, as `hash` is not
    for byte in name.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"{value:08x}"[:7]


def _memory(spec: Spec, app: App, config: Config, boot: Boot, facts: Facts) -> int:
    """Return the guest's memory in MiB. Raises ImageError where the image's initrd alone is larger."""
    can = monitors.load(app.monitor).CAPABILITIES
    least = max(can.min_memory_mib, boot.min_memory_mib)
    memory = choose.guest_memory(spec.resources.memory_limit, config.monitor(app.monitor), can.overhead_mib, least)
    if facts.initrd_bytes > memory << 20:
        raise ImageError(
            f"initrd `{app.initrd}` of {facts.initrd_bytes >> 20} MiB does not fit into the guest's {memory} MiB",
            hint="raise the container's memory limit",
        )
    return memory


def _disks(app: App, root: Root) -> tuple[Disk, ...]:
    if app.block is None:
        return ()
    return (Disk(path=DISK, readonly=root.readonly, name=app.block_device or ""),)


def _images(app: App, boot: Boot, root: Root) -> tuple[ImageFile, ...]:
    files = [ImageFile(source=app.kernel, target=KERNEL)]
    if app.initrd and not boot.initrd_tail:
        files.append(ImageFile(source=app.initrd, target=INITRD))
    if app.block:
        files.append(ImageFile(source=app.block, target=DISK, readonly=root.readonly, disk=True))
    return tuple(files)


def _nodes(spec: Spec, can: Capabilities, accel: str) -> tuple[Node, ...]:
    names = list(_ALWAYS)
    if accel == "kvm":
        names.append("kvm")
    if can.tap_by == "name":
        names.append("net/tun")
    user = spec.process.user if spec.process else None
    uid = mapped(user.uid if user else 0, spec.uid_maps, "linux.uidMappings")
    gid = mapped(user.gid if user else 0, spec.gid_maps, "linux.gidMappings")
    return tuple(Node(path=name, major=DEVICES[name][0], minor=DEVICES[name][1], uid=uid, gid=gid) for name in names)


def _rules(nodes: tuple[Node, ...]) -> tuple[DeviceRule, ...]:
    return tuple(DeviceRule(allow=True, kind="c", major=node.major, minor=node.minor, access="rw") for node in nodes)


def _has_control(can: Capabilities, boot: Boot) -> bool:
    return boot.control and can.control


def _stop(can: Capabilities, boot: Boot) -> str:
    if _has_control(can, boot):
        return "control"
    if boot.ctrl_alt_del:
        return "ctrl-alt-del"
    if boot.acpi_shutdown and can.qmp:
        return "acpi"
    return "term" if can.handles_term else "kill"
