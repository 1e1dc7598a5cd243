"""What of this host is no monitor: each facility of the kernel, and each program, that something in urunc uses.

It decides nothing; `check` does.
"""

from __future__ import annotations

import os

from . import delegate
from . import facilities_machine as machine
from . import facilities_network as network
from . import facilities_sandbox as sandbox
from .facility import Facility

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..oci.config import Config

_SHIM = "containerd-shim-urunc-v2"


def look(config: Config, arch: str, kvm: str, cache: str) -> tuple[Facility, ...]:
    """Return all of them, in the order of a report. `kvm` is what `host.kvm_state` found."""
    return (
        sandbox.find_root(),
        sandbox.find_kernel(),
        machine.find_kvm(kvm),
        *machine.find_emulation(config, arch),
        machine.find_clock(arch, cache),
        sandbox.find_cgroup(),
        sandbox.find_device_filter(),
        sandbox.find_systemd(),
        sandbox.find_namespaces(),
        sandbox.find_user_namespaces(),
        sandbox.find_resource_limits(),
        sandbox.find_seccomp(),
        network.find_network(),
        network.find_ipv6(),
        network.find_nat(),
        network.find_vhost(),
        machine.find_loop(),
        machine.find_guest_init(arch),
        find_shim(),
        find_delegate(config.delegate),
    )


def find_shim() -> Facility:
    """Containerd finds it on its own PATH, which may be another than this one."""
    path = _on_path(_SHIM)
    return Facility(
        name="shim",
        used="containerd, by --runtime io.containerd.urunc.v2",
        ok=path is not None,
        what=path or f"there is no `{_SHIM}` on PATH",
        hint=None if path else "run `make install`, for containerd's shim",
    )


def _on_path(program: str) -> str | None:
    paths = (os.path.join(folder, program) for folder in os.environ.get("PATH", "").split(":") if folder)
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def find_delegate(program: str) -> Facility:
    """The runtime of ordinary containers."""
    path = delegate.find(program)
    return Facility(
        name="delegate",
        used="containers that are no unikernels",
        ok=path is not None,
        what=path or f"there is no `{program}`",
        hint=None if path else delegate.what_to_do(program),
    )
