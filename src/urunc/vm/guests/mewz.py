"""Mewz, a WebAssembly unikernel, on QEMU: `ip=A/LEN gateway=G`.

The program is part of the kernel, which takes no arguments for it.
"""

from __future__ import annotations

from .. import bootstring
from ..machine import Boot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...oci.app import App
    from ..machine import Capabilities, Context, Network, Root

NAME = "mewz"
MONITORS = ("qemu",)
X86_64_ONLY = ("qemu",)
ROOTS = ("none",)
FILESYSTEMS: tuple[str, ...] = ()
OWN_INIT = False
FULL_CPU = False

_MIN_MEMORY_MIB = 512  # its memory layout is fixed


def boot(app: App, network: Network, root: Root, monitor: Capabilities, context: Context) -> Boot:
    """Return the boot string."""
    nic = network.primary()
    address = bootstring.ipv4(nic) if nic else None
    words = []
    if nic is not None and address is not None:
        gateway = bootstring.gateway(nic)
        words = [f"ip={address.ip}/{address.prefix}", *([f"gateway={gateway}"] if gateway else [])]
    messages = bootstring.without_ipv6(NAME, nic)
    return Boot(
        command_line=" ".join(words),
        exit_device=monitor.exit_device,
        modern_virtio_only=True,
        nics=1,
        min_memory_mib=_MIN_MEMORY_MIB,
        messages=messages,
    )
