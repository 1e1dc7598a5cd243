"""The monitors, by the name that an image gives them. Adding one is one file here and one line below.

A monitor module has `NAME`, `CAPABILITIES`, and three pure functions::

    check(machine: Machine) -> None                         raises ImageError, SpecError or HostError
    check_kernel(kernel: KernelInfo, arch: str) -> None     raises ImageError; `check` does the same
    launch(machine: Machine, host: Host) -> Launch
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from ..machine import Capabilities, Host, KernelInfo, Launch, Machine

    class Monitor(Protocol):
        """What a monitor module has."""

        NAME: str
        CAPABILITIES: Capabilities

        @staticmethod
        def check(machine: Machine) -> None:
            """Raise ImageError, SpecError or HostError where this monitor cannot run the machine."""

        @staticmethod
        def check_kernel(kernel: KernelInfo, arch: str) -> None:
            """Raise ImageError where no version of this monitor boots the kernel on that architecture."""

        @staticmethod
        def launch(machine: Machine, host: Host) -> Launch:
            """Return the command line and all that the sandbox must give it."""


MONITORS = {
    "qemu": "qemu",
    "firecracker": "firecracker",
    "hvt": "hvt",
    "spt": "spt",
}


def load(name: str) -> Monitor:
    """Import and return the monitor module of that name. Raises KeyError where there is none."""
    found: Any = __import__(f"{__name__}.{MONITORS[name]}", fromlist=("NAME",))
    module: Monitor = found
    return module
