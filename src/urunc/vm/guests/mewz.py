"""Mewz, a WebAssembly unikernel, on QEMU: `ip=A/LEN gateway=G`.

The program is part of the kernel, which takes no arguments for it. The kernel starts its network only where it is given
both (src/param.zig), and its timer stops it with a fault where it has none. It reads the prefix in the wrong order
of bytes, so that all goes by the gateway.
"""

from __future__ import annotations

from .. import bootstring
from ..machine import Boot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...oci.app import App
    from ..infer import Signs
    from ..machine import Capabilities, Context, KernelInfo, Network, Root

NAME = "mewz"
MONITORS = ("qemu",)
X86_64_ONLY = ("qemu",)
ROOTS = ("none",)
FILESYSTEMS: tuple[str, ...] = ()
OWN_INIT = False
FULL_CPU = True

_NO_GATEWAY = "0.0.0.0"  # noqa: S104 - lwIP's own word for none, and no address to listen on
_MIN_MEMORY_MIB = 512  # its memory layout is fixed


def boot(app: App, network: Network, root: Root, monitor: Capabilities, context: Context) -> Boot:
    """Return the boot string."""
    nic = network.primary()
    address = bootstring.ipv4(nic) if nic else None
    words = []
    if nic is not None and address is not None:
        words = [f"ip={address.ip}/{address.prefix}", f"gateway={bootstring.gateway(nic) or _NO_GATEWAY}"]
    messages = bootstring.without_ipv6(NAME, nic)
    if nic is not None and words and not bootstring.gateway(nic):
        messages += ("Mewz sends everything to its gateway: without one it answers nobody",)
    return Boot(
        command_line=" ".join(words),
        exit_device=monitor.exit_device,
        modern_virtio_only=True,
        pci_only=True,
        nics=1,
        min_memory_mib=_MIN_MEMORY_MIB,
        messages=messages,
    )


def may_be(kernel: KernelInfo, signs: Signs) -> bool:
    """Return whether it is Mewz: its odd ELF header, and the name of the program's entry that Wasker gives."""
    return kernel.format == "elf64" and kernel.i386 and signs.contains(b"wasker_main")
