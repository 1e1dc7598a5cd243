"""The guests, by the name that an image gives them. Adding one is one file here and one line below.

A guest module has these, and nothing else of urunc asks for a guest by its name:

============= ===================================================================================================
`NAME`        its name in the registry
`MONITORS`    the monitors that it runs on
`X86_64_ONLY` those of them for which its kernels are made for x86_64 alone
`ROOTS`       the kinds of `Root` that it can take
`FILESYSTEMS` those that it mounts from a disk; empty where the application sees to its disks
`OWN_INIT`    urunc's own init runs in it: so it takes files, volumes and further disks
`FULL_CPU`    its kernels use vector instructions, which a KVM without hardware behind it does not know
============= ===================================================================================================

and two functions, of which `boot` is pure::

    boot(app: App, network: Network, root: Root, monitor: Capabilities, context: Context) -> Boot
    may_be(kernel: KernelInfo, signs: Signs) -> bool
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from ...oci.app import App
    from ..infer import Signs
    from ..machine import Boot, Capabilities, Context, KernelInfo, Network, Root

    class Guest(Protocol):
        """What a guest module has."""

        NAME: str
        MONITORS: tuple[str, ...]
        X86_64_ONLY: tuple[str, ...]
        ROOTS: tuple[str, ...]
        FILESYSTEMS: tuple[str, ...]
        OWN_INIT: bool
        FULL_CPU: bool

        @staticmethod
        def boot(app: App, network: Network, root: Root, monitor: Capabilities, context: Context) -> Boot:
            """Return the boot string and what the machine must have for it. Raises ImageError or SpecError."""

        @staticmethod
        def may_be(kernel: KernelInfo, signs: Signs) -> bool:
            """Return whether the kernel may be one of this guest's, for an image that names none.

            True for what only this guest's kernels hold, and for what could be another's as well: then nobody guesses.
            """


GUESTS = {
    "linux": "linux",
    "unikraft": "unikraft",
    "mirage": "mirage",
    "rumprun": "rumprun",
    "mewz": "mewz",
}


def load(name: str) -> Guest:
    """Import and return the guest module of that name. Raises KeyError where there is none."""
    found: Any = __import__(f"{__name__}.{GUESTS[name]}", fromlist=("NAME",))
    module: Guest = found
    return module
