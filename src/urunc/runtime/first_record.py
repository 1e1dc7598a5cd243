"""The record that a container has from its first moment: it holds the undo of every later step of `create`."""

from __future__ import annotations

import os
import time

from ..linux import cgroup_layout, proc
from ..oci import network as networks
from .store import Container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .load import Request
    from .options import Options

_LATE_HOOKS = ("poststart", "poststop")


def make(request: Request, options: Options) -> Container:
    """Return the record of a container that this process begins to make. Raises HostError, KernelError."""
    spec, plan = request.spec, request.plan
    paths = cgroup_layout.paths(request.cgroups, plan.cgroup)
    network = spec.namespace("network")
    now = time.time_ns()
    return Container(
        id=options.id,
        oci_version=spec.version,
        bundle=request.bundle,
        rootfs=request.rootfs,
        created=time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z",
        owner=os.getuid(),
        annotations=spec.annotations,
        guest=plan.guest,
        monitor=plan.monitor,
        accel=plan.machine.accel,
        memory_mib=plan.machine.memory_mib,
        overhead_mib=plan.overhead_mib,
        balloon=plan.machine.balloon,
        boot_id=proc.boot_id(),
        creator=(os.getpid(), proc.start_time(os.getpid()) or 0),
        cgroup=paths,
        scope=plan.cgroup.unit if plan.cgroup.driver == "systemd" else "",
        network_path=(network.path or "") if network else "",
        taps=plan.taps,
        behind_nat=plan.network == networks.NAT,
        rootfs_mount=(plan.device.source, plan.device.mounted_as, *plan.device.options) if plan.device else (),
        stop=plan.stop,
        hooks={kind: [hook.to_data() for hook in getattr(spec.hooks, kind)] for kind in _LATE_HOOKS},
    )
