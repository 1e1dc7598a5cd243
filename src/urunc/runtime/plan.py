"""What to do on the host, decided before anything is done. Pure: `urunc create --dry-run` prints its result.

Every name that create or init will make (cgroup, unit, taps, sockets, files) is decided here, so that the
undo can be recorded before the first step. The machine, what it is given of disks and folders, and the devices of its
monitor are decided in `plan_machine`, `plan_storage` and `plan_devices`.
"""

from __future__ import annotations

from ..errors import SpecError
from ..oci import cgroup_path, checks, resources
from ..oci import network as networks
from ..oci.spec import DeviceRule, IdMap
from ..record import Record
from ..vm import choose, monitors, port
from ..vm.machine import INITRD, KERNEL, Bind, Boot, GuestMount, KernelInfo, Machine, Root, Streams
from ..vm.storage import BlockImage, Device, DiskSource, ShareSource
from . import plan_devices, plan_machine, plan_storage
from .plan_devices import Node

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
    from ..oci.spec import Resources, Spec
    from ..vm.machine import Capabilities, GuestFile
    from .options import Options

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
    streams: Streams = Streams()
    tsc_khz: int = 0  # the host's clock rate, for a guest that cannot measure it; 0 where unknown


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
    stored = plan_storage.decide(spec, app, mounts, can, facts)
    machine = plan_machine.machine(options, spec, app, config, facts, accel, stored)
    monitors.load(app.monitor).check(machine)
    uid, (gid, *groups) = monitor_user(spec)
    nodes = plan_devices.monitor_nodes(can, accel, uid, gid, vhost=settings.vhost)
    nodes += plan_devices.disk_nodes(stored.disk_sources, uid, gid)
    rules = plan_devices.rules(spec, nodes)
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
        images=_images(app, machine.boot, stored.disk_sources, copy=stored.device is not None),
        disks=stored.disk_sources,
        shares=stored.share_sources,
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


def allow(made: Plan, spec: Spec, version: int, more: Iterable[Node]) -> Plan:
    """Return the plan with device rules for `more` nodes: loop devices, of which nobody knows before which they are.

    `version` is the cgroups'.
    """
    rules = plan_devices.rules(spec, (*made.nodes, *more))
    if made.cgroup.driver != "systemd":
        return made.replace(device_rules=rules)
    _limits, properties = _for_systemd(spec, version, rules)
    return made.replace(device_rules=rules, cgroup_properties=properties)


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
