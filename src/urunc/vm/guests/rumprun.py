"""Rumprun on Solo5: one JSON document on the command line (rumprun's doc/config.md).

What reads it splits JSON into tokens and decodes none of them: an escape reaches the application as it stands, and a
key can come several times. So the document is written by hand, with no escape but those that the reader of the string
knows.
NetBSD refuses a gateway outside the interface's network, so the mask is the narrowest that holds both.
"""

from __future__ import annotations

from .. import bootstring
from ..machine import Boot
from ..solo5 import MAX_ARGUMENT_BYTES
from .mirage import RUMPRUN, network_devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...oci.app import App
    from ..infer import Signs
    from ..machine import Address, Capabilities, Context, KernelInfo, Network, Root

NAME = "rumprun"
MONITORS = ("hvt", "spt")
X86_64_ONLY: tuple[str, ...] = ()
ROOTS = ("none", "block")
FILESYSTEMS = ("ext2",)
OWN_INIT = False
FULL_CPU = True


def boot(app: App, network: Network, root: Root, monitor: Capabilities, context: Context) -> Boot:
    """Return the document. Raises SpecError for an argument that rumprun's word splitting cannot carry."""
    bootstring.check(app.args, "process.args", single_quote=False)
    bootstring.check(app.env, "process.env")
    members = [_member("cmdline", " ".join(quote(word) for word in app.args))]
    nic = network.primary()
    messages = bootstring.without_ipv6(NAME, nic)
    address = bootstring.ipv4(nic) if nic else None
    if nic is not None and address is not None:
        gateway = bootstring.gateway(nic)
        prefix, first_hop = _reach(address, gateway)
        members.append(_object("net", _net(address.ip, prefix, first_hop)))
        messages += _what_changed(address.prefix, gateway, prefix, first_hop)
    if root.kind == "block" or app.block:
        mount = app.block_mount or "/data"
        bootstring.check((mount,), "the annotation blkMntPoint", quote=False, backslash=False)
        members.append(_object("blk", {"source": "etfs", "path": "/dev/ld0a", "fstype": "blk", "mountpoint": mount}))
    devices = network_devices(context.kernel)
    if nic is not None and devices is not None and len(network.nics) > 1 and devices > 1:
        others = ", ".join(other.ifname for other in network.nics if other is not nic)
        messages += (f"rumprun sets up {nic.ifname} alone; attached too, as the kernel's manifest has more: {others}",)
    members, left_out = _with_environment(members, app.env)
    return Boot(
        arguments=("{" + ",".join(members) + "}",),
        nics=1 if devices is None else devices,
        net_device=app.net_device or "",
        block_device=app.block_device or "",
        messages=messages + left_out,
    )


def quote(word: str) -> str:
    """Return `word` so that lib/librumprun_base/parseargs.c reads it whole, as it stands in a JSON string.

    The splitting knows a backslash before anything, but the tokenizer lets only JSON's own escapes through: so blanks
    are within single quotes, which cannot hold one.
    """
    text = word.replace("\\", "\\\\").replace('"', '\\"')
    return text if word and not any(letter in " \t\n" for letter in word) else f"'{text}'"


def _member(key: str, text: str) -> str:
    return f'"{key}":"{text}"'


def _object(key: str, values: dict[str, str]) -> str:
    return f'"{key}":{{' + ",".join(_member(name, value) for name, value in values.items()) + "}"


def _net(ip: str, prefix: int, gateway: str) -> dict[str, str]:
    values = {"if": "ukvmif0", "cloner": "True", "type": "inet", "method": "static", "addr": ip, "mask": str(prefix)}
    return {**values, "gw": gateway} if gateway else values


def _reach(address: Address, gateway: str) -> tuple[int, str]:
    """Return a prefix and a gateway within it. No network holds both 10.1.2.3 and 169.254.1.1: another stands in.

    NetBSD takes a mask of /0 for none, and gives the one of the address's class.
    """
    prefix = bootstring.covering_prefix(address, gateway)
    if prefix or not gateway:
        return prefix, gateway
    own = bootstring.number(address.ip)
    prefix = 30
    while own % (1 << (32 - prefix)) in (0, (1 << (32 - prefix)) - 1):  # the network's or its broadcasts' own
        prefix -= 1
    first = (own >> (32 - prefix) << (32 - prefix)) + 1
    return prefix, bootstring.dotted(first if first != own else first + 1)


def _what_changed(own: int, gateway: str, prefix: int, first_hop: str) -> tuple[str, ...]:
    if first_hop != gateway:
        return (
            f"no network holds the guest and its gateway {gateway}: it gets {first_hop} instead, for which the host "
            "has to answer (proxy ARP)",
        )
    if prefix != own:
        return (f"the guest cannot use a gateway outside its network: it gets the prefix /{prefix}",)
    return ()


def _with_environment(members: list[str], env: tuple[str, ...]) -> tuple[list[str], tuple[str, ...]]:
    """Return the members and one `env` for each variable, or without them where they are too long; and what to say."""
    odd = [entry for entry in env if '"' in entry or "\\" in entry]
    messages = tuple(
        f"the environment's `{entry.partition('=')[0]}` is left out: rumprun takes no double quote and no backslash"
        for entry in odd
    )
    more = [*members, *(_member("env", entry) for entry in env if entry not in odd)]
    if len(",".join(more).encode("utf-8", "surrogateescape")) + 2 > MAX_ARGUMENT_BYTES:
        return members, ("the environment is left out: it is longer than what Solo5 passes on",)
    return more, messages


def may_be(kernel: KernelInfo, signs: Signs) -> bool:
    """Return whether it may be rumprun: for Solo5 and NetBSD's code, or at least not OCaml's."""
    return kernel.solo5_abi is not None and (not kernel.mirage or signs.contains(RUMPRUN))
