"""What to do on the host, decided before anything is done. Pure: `urunc create --dry-run` prints its result.

Every name that create or init will make (cgroup, unit, taps, sockets, files) is decided here, so that the
undo can be recorded before the first step.
"""

from __future__ import annotations

from ..errors import ImageError, SpecError
from ..oci import cgroup_path, checks, device_rules, resources
from ..oci import network as networks
from ..oci.spec import DeviceRule, IdMap
from ..record import Record
from ..vm import choose, guests, monitors, port, storage
from ..vm.machine import INITRD, KERNEL, Bind, Boot, Context, GuestMount, KernelInfo, Machine, Network, Root
from ..vm.storage import BlockImage, Device, DiskSource, ShareSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from ..oci.app import App
    from ..oci.cgroup_path import CgroupPath
    from ..oci.checks import MountPlan
    from ..oci.config import Config
    from ..oci.resources import CgroupWrite
    from ..oci.scope import Property
    from ..oci.spec import Device as SpecDevice
    from ..oci.spec import Resources, Spec
    from ..vm.machine import Capabilities, GuestFile
    from .options import Options

DEVICES: dict[str, tuple[int, int]] = {
    "kvm": (10, 232),
    "net/tun": (10, 200),
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "vhost-net": (10, 238),
}
"""Device nodes that a monitor may be given: name below /dev -> (major, minor). All are character devices."""

_ALWAYS = ("null", "zero", "urandom")
_TAP_PREFIX = "urunc"


class Facts(Record):
    """What was seen of the host and of the image before the plan is made."""

    arch: str  # the machine's, which may be another than the host's
    cpus: int
    kvm: str  # "none", "real" or "software", see runtime.host.kvm_state; "foreign" for another architecture
    cgroup_version: int
    own_network: bool  # the container has a network namespace of its own
    kernel: KernelInfo
    binary: str  # the monitor's path on the host
    version: tuple[int, ...] = ()  # the monitor's
    binds: tuple[Bind, ...] = ()  # the monitor, its loader, libraries, modules and firmware
    data_path: str = ""
    initrd_bytes: int = 0  # size of the image's initrd, 0 without one
    block: BlockImage | None = None  # the image's, where it names one
    device: Device | None = None  # what is mounted as the rootfs, where the image asks for it and it is a block device
    modules: tuple[GuestFile, ...] = ()  # see Context.modules
    has: tuple[str, ...] = ()  # drivers that a Linux guest's kernel surely has
    lacks: tuple[str, ...] = ()  # .. and has not
    guest_init: bytes | None = None  # urunc's own init for Linux guests
    tsc_khz: int = 0  # the host's clock rate, for a guest that cannot measure it; 0 where unknown


class Node(Record):
    """A device node in the monitor's /dev. `uid` and `gid` are the host's; `kind` is c or b."""

    path: str
    major: int
    minor: int
    kind: str = "c"
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


class ImageFile(Record):
    """A file of the image at a fixed name in the monitor's root. `source` is inside the rootfs."""

    source: str
    target: str
    readonly: bool = True
    disk: bool = False  # the guest's, and never a copy of it
    copy: bool = False  # the rootfs will be unmounted


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
    disks: tuple[DiskSource, ...] = ()
    shares: tuple[ShareSource, ...] = ()
    device: Device | None = None  # the rootfs's, to be unmounted for the guest
    mounts: tuple[GuestMount, ...] = ()  # what the guest mounts beside its root
    taps: tuple[str, ...] = ()  # names for as many NICs as the machine may get
    persistent_taps: bool = False
    vnet_hdr: bool = False
    network: str = networks.REDIRECT  # how the guest is connected: see oci.network
    machine: Machine
    overhead_mib: int = 0  # what the monitor needs beside the guest's memory
    root: Root = Root()
    fifos: tuple[str, ...] = ()  # in the container's folder, and bound into the monitor's root
    no_pivot: bool = False  # --no-pivot
    stop: str = "kill"
    warnings: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()  # what else the log should say


def plan(
    options: Options,
    rootfs: str,
    spec: Spec,
    app: App,
    mounts: MountPlan,
    config: Config,
    facts: Facts,
    *,
    systemd: bool,
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
    stored = _Storage(spec, app, mounts, can, facts)
    machine = _machine(options, spec, app, config, facts, accel, stored)
    monitors.load(app.monitor).check(machine)
    uid, (gid, *groups) = monitor_user(spec)
    nodes = _nodes(can, accel, uid, gid, vhost=settings.vhost) + _disk_nodes(stored.disks, uid, gid)
    rules = device_rules.settle(spec.resources.devices, _rules(nodes))
    return Plan(
        id=options.id,
        rootfs=rootfs,
        guest=app.guest,
        monitor=app.monitor,
        namespaces=tuple(space.kind for space in spec.namespaces if space.path is None),
        joins=tuple((space.kind, space.path) for space in spec.namespaces if space.path is not None),
        uid_maps=spec.uid_maps,
        gid_maps=spec.gid_maps,
        host_uid=uid,
        host_gid=gid,
        host_groups=tuple(groups),
        **_cgroup(options.id, spec, facts.cgroup_version, rules, systemd=systemd),
        nodes=nodes,
        binds=facts.binds,
        images=_images(app, machine.boot, stored.disks, copy=stored.device is not None),
        disks=stored.disks,
        shares=stored.folders,
        device=stored.device,
        mounts=stored.mounts,
        **_network(options.id, spec, can),
        machine=machine,
        overhead_mib=choose.overhead(settings, choose.measured_overhead(can, facts.kernel, facts.initrd_bytes)),
        root=stored.root,
        fifos=port.FIFOS if _has_control(can, machine.boot) else (),
        no_pivot=options.no_pivot,
        stop=_stop(can, machine.boot),
        warnings=((accel_warning,) if accel_warning else ()) + checks.warnings(spec),
        messages=(*app.messages, *mounts.messages, *machine.boot.messages),
    )


class _Storage:
    """The guest's root, and the disks, shares and mounts that it gets. Raises SpecError, ImageError, HostError."""

    def __init__(self, spec: Spec, app: App, mounts: MountPlan, can: Capabilities, facts: Facts) -> None:
        self.root = storage.find_root(app, can, spec.root_readonly, facts.block, facts.device)
        self.device = facts.device if self.root.kind == "block" and self.root.rootfs else None
        self._check(spec, app, facts)
        self.disks = storage.disk_sources(app, can, self.root, facts.block, facts.device)
        self.drives = storage.disks(app, self.disks)  # of the machine, as `shares`; the others are where they come from
        self.shares, self.folders = storage.root_shares(self.root)
        self.mounts = storage.block_mounts(app, self.root, self.disks, facts.block)
        blocks = checks.find_disks(spec, takes_disks=guests.load(app.guest).OWN_INIT and can.max_disks > 0)
        if mounts.volumes or blocks:
            self._attach(mounts, blocks, can)

    def _check(self, spec: Spec, app: App, facts: Facts) -> None:
        if facts.block:
            storage.check_block(app, facts.block)
        storage.check_drivers(self.root, facts.lacks)
        if self.device and app.block:
            raise ImageError("`block` and `mountRootfs` exclude each other: the image's file goes with its rootfs")
        if self.device and spec.hooks.start_container:
            raise SpecError(
                "hooks.startContainer: the container's rootfs is the guest's own disk, and no longer mounted by then",
                hint="use createRuntime or createContainer hooks",
            )

    def _attach(self, mounts: MountPlan, blocks: tuple[SpecDevice, ...], can: Capabilities) -> None:
        from ..vm import volumes

        more = volumes.attach(mounts.volumes, blocks, can, len(self.disks), len(self.shares))
        self.disks += more.disks
        self.drives += volumes.disks(more.disks)
        self.shares += more.shares
        self.folders += more.folders
        self.mounts += more.mounts


def _machine(
    options: Options,
    spec: Spec,
    app: App,
    config: Config,
    facts: Facts,
    accel: str,
    stored: _Storage,
) -> Machine:
    """Return the machine as far as it is known before the network is."""
    can, settings = monitors.load(app.monitor).CAPABILITIES, config.monitor(app.monitor)
    model = choose.model(can, settings, facts.arch)
    user = spec.process.user
    balloon = settings.balloon and can.balloon
    context = guest_context(spec, facts, model, accel, mounts=stored.mounts, balloon=balloon)
    boot = guests.load(app.guest).boot(app, Network(), stored.root, can, context)
    cpu = spec.resources
    return Machine(
        name=options.id,
        arch=facts.arch,
        memory_mib=_memory(spec, app, config, boot, facts),
        vcpus=choose.vcpus(cpu.cpu_quota, cpu.cpu_period, settings, can, facts.cpus),
        accel=accel,
        model=model,
        kernel=facts.kernel,
        initrd=bool(app.initrd or boot.initrd_tail),
        disks=stored.drives,
        shares=stored.shares,
        boot=boot,
        uid=user.uid,
        gid=user.gid,
        first_fd=3 + options.preserve_fds,
        vhost=settings.vhost,
        balloon=boot.balloon,
    )


def guest_context(
    spec: Spec,
    facts: Facts,
    model: str,
    accel: str,
    files: tuple[GuestFile, ...] = (),
    mounts: tuple[GuestMount, ...] = (),
    *,
    balloon: bool = False,
) -> Context:
    """Return what a guest module may know beside the app, the network and the root."""
    process, user = spec.process, spec.process.user
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
        console_size=process.console_size,
        files=files,
        modules=facts.modules,
        mounts=mounts,
        balloon=balloon,
    )


def _cgroup(name: str, spec: Spec, version: int, rules: tuple[DeviceRule, ...], *, systemd: bool) -> dict[str, Any]:
    """Return the Plan's fields that say where the container's cgroup is, and what limits it."""
    text, limits = spec.cgroups_path, spec.resources
    path = cgroup_path.parse(text, systemd=systemd) if text else cgroup_path.default(name, systemd=systemd)
    properties: tuple[Property, ...] = ()
    if path.driver == "systemd":
        limits, properties = _for_systemd(spec, version, rules)
    return {
        "cgroup": path,
        "cgroup_writes": resources.writes(limits, version),
        "cgroup_properties": properties,
        "device_rules": rules,
    }


def _for_systemd(spec: Spec, version: int, rules: tuple[DeviceRule, ...]) -> tuple[Resources, tuple[Property, ...]]:
    """Return the limits as systemd rounds them, and what it is told of them and by the engine's annotations."""
    from ..oci import scope
    from ..oci.unit_properties import unit_properties

    properties = scope.limit_properties(spec.resources, version, rules)
    return scope.rounded_quota(spec.resources), (*properties, *unit_properties(spec.annotations))


def monitor_user(spec: Spec) -> tuple[int, tuple[int, ...]]:
    """Return the monitor's uid and its gids, the primary one first, as the host sees them. Raises SpecError."""
    user = spec.process.user
    groups = (_mapped(group, spec.gid_maps, "linux.gidMappings") for group in (user.gid, *user.groups))
    return _mapped(user.uid, spec.uid_maps, "linux.uidMappings"), tuple(groups)


def _mapped(inside: int, maps: tuple[IdMap, ...], path: str) -> int:
    """Return the host's id for `inside`. Raises SpecError where the maps (at JSON `path`) do not cover it."""
    if not maps:
        return inside
    for line in maps:
        if line.container_id <= inside < line.container_id + line.size:
            return line.host_id + inside - line.container_id
    raise SpecError(f"{path}: id {inside} of process.user is not mapped")


def _network(name: str, spec: Spec, can: Capabilities) -> dict[str, Any]:
    """Return the Plan's fields that say how the guest is connected."""
    return {
        "taps": tuple(f"{_TAP_PREFIX}{index}-{_short(name)}" for index in range(can.max_nics)),
        "persistent_taps": can.tap_by == "name",
        "vnet_hdr": can.vnet_hdr,
        "network": networks.mode(spec.annotations),
    }


def _short(name: str) -> str:
    """Return seven characters that stand for an id in an interface's name (15 bytes at most)."""
    value = 0x811C9DC5  # FNV-1a: stable from run to run, as `hash` is not
    for byte in name.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"{value:08x}"[:7]


def _memory(spec: Spec, app: App, config: Config, boot: Boot, facts: Facts) -> int:
    """Return the guest's memory in MiB. Raises SpecError, or ImageError where kernel or initrd do not fit into it.

    A limit must leave room for the initrd too. Without one, an image does not get more by a larger initrd.
    """
    can, limit = monitors.load(app.monitor).CAPABILITIES, spec.resources.memory_limit
    least = max(can.min_memory_mib, boot.min_memory_mib)
    with_initrd = least + -(-facts.initrd_bytes >> 20)
    measured = choose.measured_overhead(can, facts.kernel, facts.initrd_bytes)
    wanted = with_initrd if limit and limit > 0 else least
    memory = choose.guest_memory(limit, config.monitor(app.monitor), measured, wanted)
    for what, path, needed in (
        ("kernel", app.kernel, facts.kernel.load_bytes >> 20),
        ("initrd", app.initrd, with_initrd),
    ):
        if needed > memory:
            raise ImageError(
                f"{what} `{path}` does not fit into the guest's {memory} MiB, which needs {needed}",
                hint="raise the container's memory limit",
            )
    return memory


def _images(app: App, boot: Boot, disks: tuple[DiskSource, ...], *, copy: bool) -> tuple[ImageFile, ...]:
    files = [ImageFile(source=app.kernel, target=KERNEL, copy=copy)]
    if app.initrd and not boot.initrd_tail:
        files.append(ImageFile(source=app.initrd, target=INITRD, copy=copy))
    files += [
        ImageFile(source=disk.source, target=disk.path, readonly=disk.readonly, disk=True)
        for disk in disks
        if disk.by == "bind"
    ]
    return tuple(files)


def _disk_nodes(disks: tuple[DiskSource, ...], uid: int, gid: int) -> tuple[Node, ...]:
    """Return the nodes of block devices, where the monitor opens them itself."""
    return tuple(
        Node(
            path=disk.path.removeprefix("/dev/"),
            major=disk.number[0],
            minor=disk.number[1],
            kind="b",
            uid=uid,
            gid=gid,
        )
        for disk in disks
        if disk.by == "node"
    )


def _nodes(can: Capabilities, accel: str, uid: int, gid: int, *, vhost: bool) -> tuple[Node, ...]:
    names = list(_ALWAYS)
    if accel == "kvm":
        names.append("kvm")
    if can.tap_by == "name":
        names.append("net/tun")
    elif vhost:
        names.append("vhost-net")
    return tuple(Node(path=name, major=DEVICES[name][0], minor=DEVICES[name][1], uid=uid, gid=gid) for name in names)


def _rules(nodes: Iterable[Node]) -> tuple[DeviceRule, ...]:
    return tuple(
        DeviceRule(allow=True, kind=node.kind, major=node.major, minor=node.minor, access="rw") for node in nodes
    )


def allow(made: Plan, spec: Spec, version: int, more: Iterable[Node]) -> Plan:
    """Return the plan with device rules for `more` nodes: loop devices, of which nobody knows before which they are.

    `version` is the cgroups'.
    """
    rules = device_rules.settle(spec.resources.devices, _rules((*made.nodes, *more)))
    if made.cgroup.driver != "systemd":
        return made.replace(device_rules=rules)
    _limits, properties = _for_systemd(spec, version, rules)
    return made.replace(device_rules=rules, cgroup_properties=properties)


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
