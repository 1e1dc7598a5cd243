"""MirageOS, on Solo5 and on QEMU: `--ipv4=A/LEN --ipv4-gateway=G ARGUMENTS`.

A Solo5 tender joins its arguments by blanks, and MirageOS's parse-argv splits the result again, by quotes and
backslashes. A Solo5 kernel that is no MirageOS (Solo5's own tests) knows neither: it gets the arguments as they are.
"""

from __future__ import annotations

from .. import bootstring
from ..machine import Boot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...oci.app import App
    from ..machine import Capabilities, Context, KernelInfo, Network, Root

NAME = "mirage"
MONITORS = ("hvt", "spt", "qemu")
ROOTS = ("none", "block")
FILESYSTEMS: tuple[str, ...] = ()


def boot(app: App, network: Network, root: Root, monitor: Capabilities, context: Context) -> Boot:
    """Return the arguments (Solo5) or the boot string (QEMU). Raises SpecError for an argument that gets lost."""
    bootstring.check(app.args, "process.args", empty=not context.kernel.mirage)
    arguments = app.args
    messages: tuple[str, ...] = ()
    if context.kernel.mirage:
        options, messages = _options(network)
        arguments = (*options, *(quote(word) for word in app.args))
    return Boot(
        arguments=arguments if monitor.arguments else (),
        command_line="" if monitor.arguments else " ".join(arguments),
        nics=network_devices(context.kernel),
        net_device=app.net_device or "",
        block_device=app.block_device or "",
        messages=messages,
    )


def quote(word: str) -> str:
    """Return `word` so that parse-argv reads it whole."""
    if not any(letter in " \t\n\r\v\f'\"\\" for letter in word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def network_devices(kernel: KernelInfo) -> int | None:
    """Return how many NICs the kernel's manifest declares, None without a manifest."""
    if kernel.solo5_devices is None:
        return None
    return sum(1 for _, kind in kernel.solo5_devices if kind == "NET_BASIC")


def _options(network: Network) -> tuple[tuple[str, ...], tuple[str, ...]]:
    nic, messages = bootstring.one_nic(network)
    address = bootstring.ipv4(nic) if nic else None
    if nic is None or address is None:
        return (), messages
    gateway = bootstring.gateway(nic)
    return (f"--ipv4={address.ip}/{address.prefix}", *([f"--ipv4-gateway={gateway}"] if gateway else [])), messages
