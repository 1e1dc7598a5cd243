"""The machine as far as it is known before the network is: what boots, its memory, its vCPUs. Pure."""

from __future__ import annotations

from ..errors import ImageError
from ..vm import choose, guests, monitors
from ..vm.machine import Context, Machine, Network, Streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..oci.app import App
    from ..oci.config import Config
    from ..oci.spec import Spec
    from ..vm.machine import Boot, GuestFile, GuestMount
    from .options import Options
    from .plan import Facts
    from .plan_storage import Storage


def machine(
    options: Options, spec: Spec, app: App, config: Config, facts: Facts, accel: str, storage: Storage
) -> Machine:
    """Return the machine, without a network. Raises SpecError, ImageError, HostError or ConfigError."""
    can, settings = monitors.load(app.monitor).CAPABILITIES, config.monitor(app.monitor)
    model = choose.model(can, settings, facts.arch)
    balloon = settings.balloon and can.balloon
    context = guest_context(spec, facts, model, accel, mounts=storage.mounts, balloon=balloon)
    boot = guests.load(app.guest).boot(app, Network(), storage.root, can, context)
    limits, user = spec.resources, spec.process.user
    return Machine(
        name=options.id,
        arch=facts.arch,
        memory_mib=_memory(spec, app, config, boot, facts),
        vcpus=choose.vcpus(limits.cpu_quota, limits.cpu_period, settings, can, facts.cpus),
        accel=accel,
        model=model,
        kernel=facts.kernel,
        initrd=bool(app.initrd or boot.initrd_tail),
        disks=storage.disks,
        shares=storage.shares,
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
        streams=_streams(facts),
        rlimits=tuple((limit.kind, limit.soft, limit.hard) for limit in process.rlimits),
        terminal=process.terminal,
        console_size=process.console_size,
        files=files,
        modules=facts.modules,
        mounts=mounts,
        balloon=balloon,
    )


def _streams(facts: Facts) -> Streams:
    """Return the streams as the guest's kernel can take them."""
    streams = facts.streams
    if "virtio_console" not in facts.lacks or streams.stdout != "port":
        return streams
    return Streams(stdin="null" if streams.stdin == "null" else "console")


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
