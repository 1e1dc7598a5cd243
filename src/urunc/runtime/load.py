"""Read what `create` needs before it decides: bundle, image, configuration, host. No effect but reading."""

from __future__ import annotations

import os
import time

from ..errors import HostError, SpecError
from ..linux import cgroup_layout, proc
from ..oci import checks
from ..oci import spec as specs
from ..oci.annotations import PREFIX
from ..oci.app import URUNC_JSON
from ..oci.checks import Takes
from ..oci.spec import IdMap
from ..record import Record
from ..vm import choose, guests, monitors
from . import bundle as bundles
from . import host, image, settings, store, streams
from . import plan as plans
from .plan import Facts, plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..linux.cgroup_layout import Layout
    from ..linux.idmap import Line
    from ..oci.app import App
    from ..oci.checks import MountPlan
    from ..oci.config import Config
    from ..oci.spec import Spec
    from ..vm.machine import KernelInfo
    from ..vm.storage import BlockImage
    from .options import Options
    from .plan import Plan


class Request(Record):
    """One `create`: what the bundle asks for, and what was decided."""

    bundle: str
    rootfs: str
    spec: Spec
    app: App
    mounts: MountPlan
    config: Config
    cgroups: Layout
    facts: Facts
    plan: Plan
    began: int = 0  # monotonic nanoseconds


def may_be_unikernel(document: Any, bundle: str) -> bool:
    """Return whether a config.json that breaks the specification could be a unikernel's: the delegate gets the others.

    It speaks of a unikernel in its annotations, or its rootfs, where one can be found, holds `/urunc.json`.
    """
    if not isinstance(document, dict):
        return True
    values, root = document.get("annotations"), document.get("root")
    if isinstance(values, dict) and any(key.startswith(PREFIX) for key in values):
        return True
    path = root.get("path") if isinstance(root, dict) else None
    return isinstance(path, str) and "\0" not in path and os.path.lexists(os.path.join(bundle, path) + URUNC_JSON)


def rootfs_path(bundle: str, spec: Spec) -> str:
    """Return the absolute host path of the container's root (config.md, "Root": relative to the bundle)."""
    return os.path.realpath(os.path.join(bundle, spec.rootfs))


def load(root: str, options: Options, *, systemd: bool) -> Request | None:
    """Read and decide everything. None: not a unikernel, the delegate takes the container."""
    began = time.monotonic_ns()
    document = bundles.read_config(options.bundle)
    try:
        spec = specs.parse(document)
    except SpecError:
        if may_be_unikernel(document, options.bundle):
            raise
        return None
    path = rootfs_path(options.bundle, spec)
    rootfs = image.open_rootfs(path)
    try:
        app = image.find_app(spec, rootfs)
        if app is None:
            return None
        config = read_settings(root)
        spec = _with_joined_maps(spec)
        checks.check(spec)
        _check_rlimits(spec)
        _check_sockets()
        layout = cgroup_layout.detect()
        facts = look(root, spec, app, config, rootfs, layout)
        mounts = _find_volumes(options.bundle, spec, app, config, facts)
        mounts = mounts.replace(messages=(*checks.notes(spec), *mounts.messages))
        decided = plan(options, path, spec, app, mounts, config, facts, systemd=systemd)
    finally:
        os.close(rootfs)
    return Request(
        bundle=options.bundle,
        rootfs=path,
        spec=spec,
        app=app,
        mounts=mounts,
        config=config,
        cgroups=layout,
        facts=facts,
        plan=decided,
        began=began,
    )


def _with_joined_maps(spec: Spec) -> Spec:
    """Put the id maps of a user namespace that is given by path into the Spec: they say who the monitor is outside."""
    user = spec.namespace("user")
    if user is None or user.path is None:
        return spec
    from ..linux import idmap

    uids, gids = idmap.read_maps(user.path)
    return spec.replace(uid_maps=_id_maps(uids), gid_maps=_id_maps(gids))


def _id_maps(lines: list[Line]) -> tuple[IdMap, ...]:
    return tuple(IdMap(container_id=inside, host_id=outside, size=size) for inside, outside, size in lines)


def _check_rlimits(spec: Spec) -> None:
    """Raise SpecError for a limit that init could not set: only `start` would find that out.

    In a user namespace nobody can raise one, whatever their capabilities.
    """
    for index, limit in enumerate(spec.process.rlimits):
        allowed = proc.may_set_rlimit(limit.kind, limit.hard, raising=spec.namespace("user") is None)
        if not allowed:
            raise SpecError(
                f"process.rlimits[{index}].hard: {limit.kind} cannot be set to {limit.hard}, above urunc's own limit",
                hint="give a lower one (docker run --ulimit), or CAP_SYS_RESOURCE to whoever calls urunc",
            )


def _check_sockets() -> None:
    """Raise HostError where sockets were handed to this process for the container (sd_listen_fds(3)).

    runc gives them to the container's process; a guest has no descriptors of the host's, and would never answer.
    """
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and count.isdecimal() and int(count) > 0:
        raise HostError(
            f"LISTEN_FDS: {count} listening sockets cannot be given to a virtual machine",
            hint="let the guest listen itself: systemd-socket-proxyd passes connections on to its address",
        )


def _find_volumes(bundle: str, spec: Spec, app: App, config: Config, facts: Facts) -> MountPlan:
    """Return what becomes of the mounts; those that are no engine's own are looked at."""
    undecided = checks.undecided(spec)
    takes = _takes(spec, app, facts)
    sources = {}
    if undecided and takes != checks.NO_VOLUMES:
        from . import volumes

        sources = {index: volumes.look(bundle, spec.mounts[index], index) for index in undecided}
    takes_files = guests.load(app.guest).OWN_INIT
    return checks.classify_mounts(
        spec, takes_files=takes_files, unsupported=config.unsupported_mounts, takes=takes, sources=sources
    )


def _takes(spec: Spec, app: App, facts: Facts) -> Takes:
    """Return which volumes the guest can be given: those that urunc's own init mounts, by what its kernel has."""
    if not guests.load(app.guest).OWN_INIT:
        return checks.NO_VOLUMES
    can = monitors.load(app.monitor).CAPABILITIES
    shares = "no"
    if "9p" in can.shares and "9p" not in facts.lacks:
        shares = "yes" if "9p" in facts.has else "maybe"
    copies = not spec.root_readonly or app.initrd is not None or not (app.block or app.mount_rootfs)
    return Takes(copies=copies, shares=shares, tmpfs=True, disks=can.max_disks > 0)


def read_settings(root: str) -> Config:
    """Return the host's configuration. Raises ConfigError."""
    return settings.load(store.cache(root))


def look(root: str, spec: Spec, app: App, config: Config, rootfs: int, layout: Layout) -> Facts:
    """Return what the plan must know of the host and the image."""
    cache = store.cache(root)
    can, wishes = monitors.load(app.monitor).CAPABILITIES, config.monitor(app.monitor)
    kernel = image.read_kernel(rootfs, app.kernel)
    arch = choose.architecture(can, kernel, os.uname().machine)
    found = host.probe_monitor(app.monitor, wishes, arch, cache)
    emulates, own_init = can.kvm == "optional", guests.load(app.guest).OWN_INIT
    stored: dict[str, Any] = {}
    if app.block or app.mount_rootfs or (own_init and not app.initrd):
        stored = _look_at_storage(spec, app, rootfs, kernel, balloon=wishes.balloon)
    return Facts(
        arch=arch,
        cpus=host.cpu_count(),
        kvm=_kvm(cache, arch, wanted=can.kvm != "no" and wishes.accel != "tcg"),
        cgroup_version=layout.version,
        own_network=_own_network(spec),
        kernel=kernel,
        binary=found.binary,
        version=found.version,
        binds=found.binds,
        data_path=wishes.data_path or can.data_path,
        initrd_bytes=image.file_bytes(rootfs, app.initrd, "initrd"),
        streams=streams.look(spec),
        guest_init=host.read_guest_init(arch) if own_init else None,
        tsc_khz=host.tsc_khz(cache) if emulates and arch == "x86_64" else 0,
        **stored,
    )


def _kvm(cache: str, arch: str, *, wanted: bool) -> str:
    """Return `Facts.kvm` for a machine of that architecture. Where KVM is not wanted it is not looked for."""
    if arch != os.uname().machine:
        return "foreign"
    return host.kvm_state(cache) if wanted else "none"


def _look_at_storage(spec: Spec, app: App, rootfs: int, kernel: KernelInfo, *, balloon: bool) -> dict[str, Any]:
    """Return the Facts' fields that say what the block image is, what backs the rootfs, and what modules there are."""
    from ..vm.machine import driver
    from ..vm.modules import DRIVERS, SHARE_DRIVERS
    from . import storage

    block = _look_at_block(spec, app.block, rootfs) if app.block else None
    device = storage.find_device(os.path.realpath(f"/proc/self/fd/{rootfs}")) if app.mount_rootfs else None
    if app.initrd or not guests.load(app.guest).OWN_INIT:
        return {"block": block, "device": device}
    filesystems = [driver(found.filesystem) for found in (block, device) if found and found.filesystem]
    names = (*DRIVERS, *SHARE_DRIVERS, *filesystems, *(("virtio_balloon",) if balloon else ()))
    modules, has, lacks = storage.read_modules(rootfs, app.kernel, kernel, names)
    return {"block": block, "device": device, "modules": modules, "has": has, "lacks": lacks}


def _look_at_block(spec: Spec, path: str, rootfs: int) -> BlockImage:
    from . import storage

    uid, gids = plans.monitor_user(spec)
    file = image.open_file(rootfs, path, "block image")
    try:
        return storage.look_at_block(file, path, readonly=spec.root_readonly, uid=uid, gids=gids)
    finally:
        os.close(file)


def _own_network(spec: Spec) -> bool:
    namespace = spec.namespace("network")
    if namespace is None or namespace.path is None:
        return namespace is not None
    from . import net

    return net.is_own_namespace(namespace.path)
