"""Solo5's sandboxed process tender, `solo5-spt`: the kernel is a process under a seccomp filter of a dozen calls.

Checked with 0.12.1. No KVM. The tender installs its own filter, on top of the bundle's. It has no handler for TERM,
so as PID 1 of a namespace it ignores it.
"""

from __future__ import annotations

from .. import solo5
from ..machine import Capabilities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..machine import Host, KernelInfo, Launch, Machine

NAME = "spt"
CAPABILITIES = Capabilities(
    name=NAME,
    package="solo5-spt",
    binaries=(("x86_64", "solo5-spt"), ("aarch64", "solo5-spt")),
    kvm="no",
    tap_by="name",
    max_nics=63,
    max_disks=63,
    arguments=True,
    overhead_mib=2,  # test_hello: 0.5 MiB with 4 MiB of guest memory, 0.65 with 512; page tables grow
    min_memory_mib=2,
)


def check(machine: Machine) -> None:
    """Raise ImageError where kernel and tender, or the kernel's manifest and the container, disagree."""
    solo5.check(machine, NAME)


def check_kernel(kernel: KernelInfo, arch: str) -> None:
    """Raise ImageError where the tender does not start the kernel."""
    solo5.check_kernel(kernel, arch, NAME)


def launch(machine: Machine, host: Host) -> Launch:
    """Return the tender's command line."""
    return solo5.launch(machine, host, ())
