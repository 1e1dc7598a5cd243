"""MirageOS, on Solo5 and on QEMU: `--ipv4=A/LEN --ipv4-gateway=G --ipv6=A/LEN --ipv6-gateway=G ARGUMENTS`.

The options are mirage-runtime's (Mirage_runtime_network), which ends a unikernel at one that it does not know or that
comes twice. So IPv6's are there only with an address of the kind: a stack of before 4.9 may know IPv4 alone. Router
advertisements are not heard: all is configured, and who sends them in a container's network is not to be trusted.

A Solo5 tender joins its arguments by blanks, and MirageOS's parse-argv splits the result again, by quotes and
backslashes. A MirageOS without a network in it knows no such option, and a Solo5 kernel that is no MirageOS (Solo5's
own tests) no quotes either: it gets the arguments as they are.
"""

from __future__ import annotations

from .. import bootstring
from ..machine import Boot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...oci.app import App
    from ..infer import Signs
    from ..machine import Address, Capabilities, Context, KernelInfo, Network, Root

NAME = "mirage"
MONITORS = ("hvt", "spt", "qemu")
X86_64_ONLY = ("qemu",)  # Solo5's docs/building.md: the target virtio is x86_64 alone
ROOTS = ("none", "block")
FILESYSTEMS: tuple[str, ...] = ()
OWN_INIT = False
FULL_CPU = True

RUMPRUN = b"rump kernel bare metal bootstrap"
"""What Solo5's other guest prints first (platform/solo5/boot.c)."""


def boot(app: App, network: Network, root: Root, monitor: Capabilities, context: Context) -> Boot:
    """Return the arguments (Solo5) or the boot string (QEMU). Raises SpecError for an argument that gets lost."""
    bootstring.check(app.args, "process.args", empty=not context.kernel.mirage)
    options: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    if context.kernel.mirage_network:
        options, messages = _options(network, app.args)
    words = (quote(word) for word in app.args) if context.kernel.mirage else app.args
    arguments = (*options, *words)
    return Boot(
        arguments=arguments if monitor.arguments else (),
        command_line="" if monitor.arguments else " ".join(arguments),
        nics=network_devices(context.kernel),
        net_device=app.net_device or "",
        block_device=app.block_device or "",
        pci_only=True,
        messages=messages,
    )


def may_be(kernel: KernelInfo, signs: Signs) -> bool:
    """Return whether it may be MirageOS: for Solo5 and in OCaml, or at least not NetBSD's code."""
    return kernel.solo5_abi is not None and (kernel.mirage or not signs.contains(RUMPRUN))


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


def _options(network: Network, args: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the network's options, without those that the image's own arguments give, and messages."""
    nic = network.primary()
    if nic is None:
        return (), ()
    ipv4, ipv6 = bootstring.ipv4(nic), bootstring.ipv6(nic)
    options = _family("ipv4", ipv4, bootstring.gateway(nic)) + _family("ipv6", ipv6, bootstring.gateway_ipv6(nic))
    if ipv6:
        options.append("--accept-router-advertisements=false")
        if not ipv4:
            options.append("--ipv6-only=true")  # else it takes the IPv4 address that it was built with
    given = {word.partition("=")[0] for word in args}
    others = ", ".join(other.ifname for other in network.nics if other is not nic)
    messages = (f"the options for {others} are the image's own to give, by its names for them",) if others else ()
    return tuple(option for option in options if option.partition("=")[0] not in given), messages


def _family(name: str, address: Address | None, gateway: str) -> list[str]:
    if address is None:
        return []
    return [f"--{name}={address.ip}/{address.prefix}", *([f"--{name}-gateway={gateway}"] if gateway else [])]
