"""Read what `create` needs before it decides: bundle, image, configuration, host. No effect but reading."""

from __future__ import annotations

import os
import time

from ..errors import HostError, ImageError, SpecError, reason
from ..linux import cgroup_layout, fsops, proc
from ..oci import app as apps
from ..oci import checks
from ..oci import spec as specs
from ..oci.annotations import PREFIX
from ..oci.app import MAX_URUNC_JSON, URUNC_JSON
from ..oci.checks import Takes
from ..oci.spec import IdMap
from ..record import Record
from ..vm import choose, elf, guests, monitors
from . import bundle as bundles
from . import host, settings, store, streams
from . import plan as plans
from .plan import Facts, plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

    from ..linux.cgroup_layout import Layout
    from ..linux.idmap import Line
    from ..oci.app import App
    from ..oci.checks import MountPlan
    from ..oci.config import Config
    from ..oci.spec import Spec
    from ..vm.machine import GuestFile, KernelInfo
    from ..vm.storage import BlockImage, Device
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


def open_rootfs(path: str) -> int:
    """Return an O_PATH descriptor of the rootfs. Raises SpecError where it is no folder."""
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SpecError(f"root.path: cannot open `{path}`: {reason(error)}") from None


def find_app(spec: Spec, rootfs: int) -> App | None:
    """Return what the bundle boots, None where it is no unikernel. Raises ImageError for one that is broken."""
    try:
        urunc_json = fsops.read_in_root(rootfs, URUNC_JSON, MAX_URUNC_JSON)
    except OSError as error:  # too large, or a link that leads in a circle
        raise ImageError(f"{URUNC_JSON}: {reason(error)}") from None
    return apps.find_app(
        spec,
        urunc_json,
        guests=guests.GUESTS,
        monitors=monitors.MONITORS,
        supports=choose.supports,
        has_file=lambda path: _is_there(rootfs, path),
        infer=lambda path, guest, monitor: _infer(rootfs, path, guest, monitor),
    )


def _infer(rootfs: int, path: str, guest: str | None, monitor: str | None) -> tuple[str, str]:
    """Return guest and monitor of a kernel, of which the image does not give both. Raises ImageError."""
    from ..vm import infer

    with _open_kernel(rootfs, path) as file:
        read_at = _reader(file.fileno())
        kernel = elf.inspect(read_at, path)
        return infer.infer(kernel, infer.Signs(read_at, kernel), guest, monitor, os.uname().machine)


def _is_there(rootfs: int, path: str) -> bool:
    """A folder or a link that leads in a circle is a broken kernel, which is an error, and not an absent one."""
    try:
        os.close(fsops.open_in_root(rootfs, path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def open_image_file(rootfs: int, path: str, what: str) -> int:
    """Return an O_PATH descriptor of a regular file beneath the rootfs. Raises ImageError, naming `what` it is."""
    try:
        fd = fsops.open_in_root(rootfs, path)
    except OSError as error:
        raise ImageError(f"{what} `{path}`: {reason(error)} in the container's rootfs") from None
    if not fsops.is_regular(fd):
        os.close(fd)
        raise ImageError(f"{what} `{path}` is not a regular file")
    return fd


def read_kernel_info(rootfs: int, path: str) -> KernelInfo:
    """Return what the kernel's headers say. Raises ImageError where there is no such kernel."""
    with _open_kernel(rootfs, path) as file:
        kernel = elf.inspect(_reader(file.fileno()), path)
        size = os.fstat(file.fileno()).st_size
    return kernel if kernel.format.startswith("elf") else kernel.replace(load_bytes=size)


def _open_kernel(rootfs: int, path: str) -> BinaryIO:
    fd = open_image_file(rootfs, path, "kernel")
    try:
        return open(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC), "rb")
    finally:
        os.close(fd)


def _reader(fd: int) -> Callable[[int, int], bytes]:
    """Return what reads (offset, length) of an open file, less or nothing at its end."""
    size = os.fstat(fd).st_size

    def read_at(offset: int, length: int) -> bytes:
        return os.pread(fd, length, offset) if offset < size else b""  # pread takes 63 bits

    return read_at


def file_bytes(rootfs: int, path: str | None, what: str) -> int:
    """Return the size of an image's file in bytes, 0 where `path` is None. Raises ImageError for an empty one."""
    if path is None:
        return 0
    fd = open_image_file(rootfs, path, what)
    try:
        size = os.fstat(fd).st_size
    finally:
        os.close(fd)
    if size == 0:
        raise ImageError(f"{what} `{path}` is empty")
    return size


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
    rootfs = open_rootfs(path)
    try:
        app = find_app(spec, rootfs)
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
    can, settings_of_monitor = monitors.load(app.monitor).CAPABILITIES, config.monitor(app.monitor)
    kernel = read_kernel_info(rootfs, app.kernel)
    arch = choose.architecture(can, kernel, os.uname().machine)
    found = host.probe_monitor(app.monitor, settings_of_monitor, arch, cache)
    emulates, own_init = can.kvm == "optional", guests.load(app.guest).OWN_INIT
    block: BlockImage | None = None
    device: Device | None = None
    modules: tuple[GuestFile, ...] = ()
    lacks: tuple[str, ...] = ()
    has: tuple[str, ...] = ()
    if app.block or app.mount_rootfs or (own_init and not app.initrd):
        block, device, modules, has, lacks = _look_at_storage(
            spec, app, rootfs, kernel, balloon=settings_of_monitor.balloon
        )
    return Facts(
        arch=arch,
        cpus=host.cpu_count(),
        kvm=_kvm(cache, arch, wanted=can.kvm != "no" and settings_of_monitor.accel != "tcg"),
        cgroup_version=layout.version,
        own_network=_own_network(spec),
        kernel=kernel,
        binary=found.binary,
        version=found.version,
        binds=found.binds,
        data_path=settings_of_monitor.data_path or can.data_path,
        initrd_bytes=file_bytes(rootfs, app.initrd, "initrd"),
        block=block,
        device=device,
        modules=modules,
        has=has,
        lacks=lacks,
        stdin=streams.look(spec),
        guest_init=read_guest_init(arch) if own_init else None,
        tsc_khz=host.tsc_khz(cache) if emulates and arch == "x86_64" else 0,
    )


def _kvm(cache: str, arch: str, *, wanted: bool) -> str:
    """Return `Facts.kvm` for a machine of that architecture. Where KVM is not wanted it is not looked for."""
    if arch != os.uname().machine:
        return "foreign"
    return host.kvm_state(cache) if wanted else "none"


def _look_at_storage(
    spec: Spec, app: App, rootfs: int, kernel: KernelInfo, *, balloon: bool
) -> tuple[BlockImage | None, Device | None, tuple[GuestFile, ...], tuple[str, ...], tuple[str, ...]]:
    """Return what the image's block image is, what backs its rootfs, and what `storage.read_modules` does."""
    from ..vm.machine import driver
    from ..vm.modules import DRIVERS, SHARE_DRIVERS
    from . import storage

    block = device = None
    if app.block:
        image = open_image_file(rootfs, app.block, "block image")
        try:
            uid, gids = plans.monitor_user(spec)
            block = storage.look_at_block(image, readonly=spec.root_readonly, uid=uid, gids=gids)
        finally:
            os.close(image)
    if app.mount_rootfs:
        device = storage.find_device(os.path.realpath(f"/proc/self/fd/{rootfs}"))
    if app.initrd or not guests.load(app.guest).OWN_INIT:
        return block, device, (), (), ()
    filesystems = [driver(found.filesystem) for found in (block, device) if found and found.filesystem]
    names = (*DRIVERS, *SHARE_DRIVERS, *filesystems, *(("virtio_balloon",) if balloon else ()))
    return block, device, *storage.read_modules(rootfs, app.kernel, kernel, names)


def read_guest_init(arch: str) -> bytes:
    """Return urunc's own init for Linux guests of that architecture: it is installed beside the library.

    Raises HostError.
    """
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    foreign = arch != os.uname().machine
    name = f"urunc-init-{arch}" if foreign else "urunc-init"
    for path in (f"{here}/../guest/{name}", f"{here}/../../guest/build/{name}"):
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            continue
    how = "run `make install`, or `make guest` in a checkout"
    if foreign:
        raise HostError(
            f"urunc's init for Linux guests of {arch} is not installed",
            hint=f"install a compiler for it, {arch}-linux-gnu-gcc with its C library's headers, and {how}",
        )
    raise HostError("urunc's init for Linux guests is not installed", hint=how)


def _own_network(spec: Spec) -> bool:
    namespace = spec.namespace("network")
    if namespace is None or namespace.path is None:
        return namespace is not None
    from . import net

    return net.is_own_namespace(namespace.path)
