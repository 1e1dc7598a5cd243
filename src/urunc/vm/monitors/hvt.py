"""Solo5's hardware virtualized tender, `solo5-hvt`: one vCPU by KVM, a dozen hypercalls, nothing emulated.

Checked with 0.12.1. It also runs on a KVM without hardware behind it. It ends by status 1 on TERM.
"""

from __future__ import annotations

from .. import solo5
from ..machine import Capabilities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..machine import Host, KernelInfo, Launch, Machine

NAME = "hvt"
CAPABILITIES = Capabilities(
    name=NAME,
    package="solo5-hvt",
    binaries=(("x86_64", "solo5-hvt"), ("aarch64", "solo5-hvt")),
    kvm="required",
    tap_by="name",
    max_nics=63,
    max_disks=63,
    arguments=True,
    handles_term=True,
    overhead_mib=4,  # test_hello: 1.2 MiB with 4 MiB of guest memory, 2.5 with 512; page tables grow
    min_memory_mib=4,
)


def check(machine: Machine) -> None:
    """Raise ImageError where kernel and tender, or the kernel's manifest and the container, disagree."""
    solo5.check(machine, NAME)


def check_kernel(kernel: KernelInfo, arch: str) -> None:
    """Raise ImageError where the tender does not start the kernel."""
    solo5.check_kernel(kernel, arch, NAME)


def launch(machine: Machine, host: Host) -> Launch:
    """Return the tender's command line."""
    return solo5.launch(machine, host, ("kvm",))
