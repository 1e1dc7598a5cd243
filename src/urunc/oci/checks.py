"""What a Spec must hold beyond its shape, and what becomes of the parts that do not reach into a virtual machine.

Validation is a list of small checks; a failed one is an error before anything is made. Whether a path, a
program or a kernel facility is there is not looked at: that is the host's side.
"""

from __future__ import annotations

from ..errors import SpecError
from ..record import Record
from .node import plain, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .spec import Device, IdMap, Mount, Spec


class Source(Record):
    """What a mount's source is on the host: "file", "folder", "block" (a device), or "other", which no guest gets."""

    kind: str = "other"
    small: bool = False  # a file, or a folder of files, that may be copied for the guest: see runtime.volumes
    device: tuple[int, int] = (0, 0)  # (major, minor) of a block device


class Volume(Record):
    """A mount that the guest gets, and how: "copy" in its initrd, "share" by 9p, "tmpfs" of its own, "disk"."""

    mount: Mount
    way: str
    readonly: bool = False
    source: Source = Source()


class Takes(Record):
    """What volumes the guest can be given. `shares` is "maybe" where its kernel cannot be looked into."""

    copies: bool = False
    shares: str = "no"  # "no", "maybe" or "yes"
    tmpfs: bool = False
    disks: bool = False


NO_VOLUMES = Takes()


class MountPlan(Record):
    """What becomes of `mounts`."""

    given: tuple[Mount, ...] = ()  # binds of files that the guest gets: hosts, hostname, resolv.conf
    volumes: tuple[Volume, ...] = ()
    dropped: tuple[Mount, ...] = ()  # left out; `messages` says so
    resolv_conf: Mount | None = None  # where to read the name servers, whether or not the guest takes the file
    messages: tuple[str, ...] = ()


def check(spec: Spec) -> None:
    """Raise SpecError for the first check that fails."""
    for each in CHECKS:
        each(spec)


def _mount_namespace(spec: Spec) -> None:
    """The monitor gets a root of its own, which must not become the host's."""
    if spec.namespace("mount") is None:
        raise SpecError("linux.namespaces: a mount namespace is needed")


def _user_namespace(spec: Spec) -> None:
    """config-linux.md, "User namespace mappings": a new namespace is useless without, and they are without it."""
    user = spec.namespace("user")
    if user is None:
        for name, lines in (("uidMappings", spec.uid_maps), ("gidMappings", spec.gid_maps)):
            if lines:
                raise SpecError(f"linux.{name}: given without a user namespace")
    elif user.path is None:
        for name, lines in (("uidMappings", spec.uid_maps), ("gidMappings", spec.gid_maps)):
            if not lines:
                raise SpecError(f"linux.{name}: missing, a new user namespace needs it")
            if not _is_mapped(0, lines):
                raise SpecError(f"linux.{name}: 0 is not mapped, as whom the container is set up")


def _mapped_user(spec: Spec) -> None:
    if not spec.uid_maps or not spec.gid_maps:
        return
    user = spec.process.user
    for path, number, lines in (("uid", user.uid, spec.uid_maps), ("gid", user.gid, spec.gid_maps)):
        if not _is_mapped(number, lines):
            raise SpecError(f"process.user.{path}: {number} is not mapped into the user namespace")
    for index, number in enumerate(user.groups):
        if not _is_mapped(number, spec.gid_maps):
            raise SpecError(f"process.user.additionalGids[{index}]: {number} is not mapped into the user namespace")


def _is_mapped(number: int, lines: tuple[IdMap, ...]) -> bool:
    return any(line.container_id <= number < line.container_id + line.size for line in lines)


def _uts_names(spec: Spec) -> None:
    """Without a namespace of its own, a host name would be set for the whole host."""
    for name, value in (("hostname", spec.hostname), ("domainname", spec.domainname)):
        if value and spec.namespace("uts") is None:
            raise SpecError(f"{name}: needs a uts namespace")


def _time_offsets(spec: Spec) -> None:
    if not spec.time_offsets:
        return
    time = spec.namespace("time")
    if time is None:
        raise SpecError("linux.timeOffsets: needs a time namespace")
    if time.path is not None:
        raise SpecError(f"linux.timeOffsets: the time namespace {show(time.path)} has its own")


def _net_devices(spec: Spec) -> None:
    """config-linux.md, "Network Devices"; two of one name have no place, whichever is first."""
    if spec.net_devices and spec.namespace("network") is None:
        raise SpecError("linux.netDevices: needs a network namespace")
    names = [inside for _name, inside in spec.net_devices]
    for name in names:
        if "%d" not in name and sum(completes(other, name) for other in names) > 1:
            raise SpecError(f"linux.netDevices: two devices are to be {show(name)}")


def completes(pattern: str, name: str) -> bool:
    """Return whether the kernel may call a device `name` that is to be `pattern`, which may hold `%d` once."""
    start, number, end = pattern.partition("%d")
    if not number:
        return name == pattern
    middle = name[len(start) : len(name) - len(end)]
    return middle.isdigit() and name == start + middle + end


def _quota_and_burst(spec: Spec) -> None:
    """config-linux.md, "CPU": burst MUST be no larger than any positive quota."""
    quota, burst = spec.resources.cpu_quota, spec.resources.cpu_burst
    if quota is not None and burst is not None and 0 < quota < burst:
        raise SpecError(f"linux.resources.cpu.burst: {burst} is above the quota {quota}")


def _devices(spec: Spec) -> None:
    """A node of the host is of no use to a guest with a kernel of its own, and leaving it out would be a surprise.

    A block device is: see `find_disks`.
    """
    for index, device in enumerate(spec.devices):
        if device.kind != "b" and device.path not in _HARMLESS_DEVICES:
            raise SpecError(
                f"linux.devices[{index}]: {show(device.path)} cannot be given to a virtual machine",
                hint="start the container without --privileged and --device",
            )


def _unsupported(spec: Spec) -> None:
    for path in spec.unsupported:
        raise SpecError(f"{path}: not supported", hint=_INSTEAD.get(path))


_IMAGES_OWN = (
    "an image names its own, below its root: the annotations `com.urunc.unikernel.binary`, `initrd` and `block`"
)
_INSTEAD = {
    "vm.hypervisor": "an image names its monitor, by the annotation `com.urunc.unikernel.hypervisor`; its program is "
    "`path` in [monitors.NAME] of the configuration",
    "vm.kernel": _IMAGES_OWN,
    "vm.image": _IMAGES_OWN,
    "vm.hwConfig": "memory and vCPUs follow linux.resources",
}
"""What to do about some of what is not supported."""


CHECKS = (
    _mount_namespace,
    _user_namespace,
    _mapped_user,
    _uts_names,
    _time_offsets,
    _net_devices,
    _quota_and_burst,
    _devices,
    _unsupported,
)

_HARMLESS_DEVICES = (
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/console",
    "/dev/ptmx",
    "/dev/fuse",
    "/dev/kvm",
    "/dev/net/tun",
    "/dev/vhost-net",
    "/dev/vhost-vsock",
)
"""Every guest has its own of the first; engines add the others to any container of a machine that has them."""


_QUIET_SYSCTLS = ("net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range")
"""Docker and containerd set these in every container; a guest's own kernel needs neither."""


def notes(spec: Spec) -> tuple[str, ...]:
    """Return one line for the log for each part of the Spec that was asked for and does not reach into the guest.

    Not a word of masked and read-only paths: every engine lists them, and the guest never sees the host's /proc.
    """
    process = spec.process
    sysctls = tuple(name for name, _ in spec.sysctl if name not in _QUIET_SYSCTLS)
    found = [
        (sysctls, "linux.sysctl does not reach the guest's kernel"),
        ((process.apparmor,) if process.apparmor else (), "process.apparmorProfile is not applied"),
        ((process.selinux,) if process.selinux else (), "process.selinuxLabel is not applied"),
    ]
    return tuple(f"{what}{_listed(names)}" for names, what in found if names)


def warnings(spec: Spec) -> tuple[str, ...]:
    """Return what must be a warning (config.md, "Linux Process": a capability that cannot be granted)."""
    unknown = spec.process.unknown_capabilities
    return (f"process.capabilities holds unknown names{_listed(unknown)}",) if unknown else ()


def _listed(names: tuple[str, ...]) -> str:
    few = ", ".join(plain(name) for name in names[:3])
    return f": {few}{' ..' if len(names) > 3 else ''}"


_FILES = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
"""What an engine binds from files of its own making, and a guest can be given."""

_USER_FILES = {"/etc/passwd": "/userdata/passwd", "/etc/group": "/userdata/group"}
"""Podman makes these where the user is not in the image's: destination -> how the source ends."""

_KERNEL_MOUNTS = {
    "/proc": ("proc",),
    "/sys": ("sysfs", "bind"),
    "/sys/fs/cgroup": ("cgroup", "cgroup2", "tmpfs", "bind"),
    "/sys/fs/cgroup/systemd": ("bind",),
    "/dev": ("tmpfs", "devtmpfs"),
    "/dev/pts": ("devpts",),
    "/dev/shm": ("tmpfs", "bind"),  # noqa: S108
    "/dev/mqueue": ("mqueue", "bind"),
    "/run": ("tmpfs",),
    "/run/lock": ("tmpfs",),
    "/tmp": ("tmpfs",),  # noqa: S108
    "/var/tmp": ("tmpfs",),  # noqa: S108
    "/var/log/journal": ("tmpfs",),
}
"""What engines mount into every container, path -> types; none holds content. The guest's own take their place."""

_ENGINE_BINDS = (
    "/dev/termination-log",
    "/run/.containerenv",
    "/var/run/.containerenv",
    "/run/secrets",
    "/var/run/secrets/kubernetes.io/serviceaccount",
    "/run/secrets/kubernetes.io/serviceaccount",
)
"""What engines bind without their user's asking, and a guest that does not ask can do without."""


_OWN_FOLDERS = ("/", "/proc", "/sys", "/dev")
"""Where a guest's init has mounts of its own, or the root."""

_DISK_TYPES = ("ext2", "ext3", "ext4", "erofs", "squashfs", "xfs", "btrfs")


def find_disks(spec: Spec, *, takes_disks: bool) -> tuple[Device, ...]:
    """Return the block devices of `linux.devices`, which the guest gets as disks. Raises SpecError where it cannot."""
    found = tuple(device for device in spec.devices if device.kind == "b")
    for index, device in enumerate(spec.devices):
        if device.kind == "b" and not takes_disks:
            raise SpecError(f"linux.devices[{index}]: {show(device.path)} cannot be given to the guest as a disk")
    return found


def undecided(spec: Spec) -> tuple[int, ...]:
    """Return the numbers of the mounts whose source `classify_mounts` must know."""
    return tuple(
        index
        for index, mount in enumerate(spec.mounts)
        if not (_is_kernel_mount(mount) or _is_engine_file(mount))
        and (mount.type == "bind" or mount.type in _DISK_TYPES)
    )


def classify_mounts(
    spec: Spec,
    *,
    takes_files: bool,
    unsupported: str = "error",
    takes: Takes = NO_VOLUMES,
    sources: Mapping[int, Source] | None = None,
) -> MountPlan:
    """Decide what becomes of every mount of the Spec.

    `takes_files` is whether the guest can be given small files (Linux with an initrd), `takes` which volumes, whose
    `sources` are known by the mounts' numbers; `unsupported` is the configuration's `unsupported_mounts`. Raises
    SpecError for a mount that cannot be given, a message instead where `unsupported` is "warn".
    """
    given, volumes, dropped, kernel = [], [], [], []
    messages: list[str] = []
    for index, mount in enumerate(spec.mounts):
        if takes_files and _is_engine_file(mount):
            given.append(mount)
            continue
        volume = _find_volume(mount, (sources or {}).get(index, Source()), takes, spec)
        if volume:
            volumes.append(volume)
            if volume.way == "copy":
                messages.append(f"mount {show(mount.destination)} is a copy: the guest does not see later changes")
            continue
        dropped.append(mount)
        if _is_kernel_mount(mount):
            kernel.append(mount.destination)
        elif _is_engine_bind(mount, spec):
            messages.append(f"mount {show(mount.destination)} is left out: the guest cannot take it")
        else:
            messages.append(_unsupported_mount(index, mount, unsupported))
    if kernel:
        messages.insert(0, f"mounts left out, the guest has its own: {', '.join(kernel)}")
    return MountPlan(
        given=tuple(given),
        volumes=tuple(volumes),
        dropped=tuple(dropped),
        resolv_conf=_find_resolv_conf(spec),
        messages=tuple(messages),
    )


def _find_volume(mount: Mount, source: Source, takes: Takes, spec: Spec) -> Volume | None:
    """Return how the guest gets a mount, None where it does not.

    A share shows later changes, so it comes before a copy. What an engine mounts unasked is not worth a guest that
    does not boot: it is shared only with a kernel that surely can.
    """
    if _is_kernel_mount(mount) or _is_engine_file(mount) or mount.destination in _OWN_FOLDERS:
        return None
    unasked = _is_engine_bind(mount, spec)
    readonly = mount.has("ro")
    way = ""
    if mount.type == "tmpfs" and takes.tmpfs and not unasked:
        way = "tmpfs"
    elif mount.type == "bind" and source.kind in ("file", "folder"):
        if takes.shares == "yes":
            way = "share"
        elif takes.copies and readonly and source.small:
            way = "copy"
        elif takes.shares == "maybe" and not unasked:
            way = "share"
    elif mount.type in _DISK_TYPES and source.kind == "block" and takes.disks:
        way = "disk"
    return Volume(mount=mount, way=way, readonly=readonly, source=source) if way else None


def _is_kernel_mount(mount: Mount) -> bool:
    return mount.type in _KERNEL_MOUNTS.get(mount.destination, ())


def _is_engine_file(mount: Mount) -> bool:
    source = _USER_FILES.get(mount.destination)
    known = mount.destination in _FILES or (source is not None and mount.source.endswith(source))
    return mount.type == "bind" and known


def _is_engine_bind(mount: Mount, spec: Spec) -> bool:
    if mount.destination in _ENGINE_BINDS:
        return mount.type in ("bind", "tmpfs")
    return _is_engine_file(mount) or (mount.type == "bind" and _is_termination_log(mount, spec))


def _is_termination_log(mount: Mount, spec: Spec) -> bool:
    """The kubelet binds `../pods/UID/containers/NAME/ID` at the pod's terminationMessagePath, which is any path."""
    if mount.destination == spec.annotations.get("io.kubernetes.container.terminationMessagePath"):
        return True
    parts = mount.source.split("/")
    return len(parts) >= 5 and parts[-5] == "pods" and parts[-3] == "containers"


def _unsupported_mount(index: int, mount: Mount, unsupported: str) -> str:
    what = f"mount {show(mount.destination)} cannot be given to the guest"
    if unsupported == "warn":
        return f"{what}, and is left out"
    raise SpecError(f"mounts[{index}]: {what}", hint='`unsupported_mounts = "warn"` in [runtime] leaves it out')


def _find_resolv_conf(spec: Spec) -> Mount | None:
    """Return the bind of /etc/resolv.conf; the last one covers the others."""
    binds = [mount for mount in spec.mounts if mount.destination == "/etc/resolv.conf" and mount.type == "bind"]
    return binds[-1] if binds else None
