"""Rumprun on Solo5: one JSON document on the command line (rumprun's doc/config.md).

NetBSD refuses a gateway outside the interface's network, so the mask is the narrowest that holds both.
"""

from __future__ import annotations

from ... import jsonio
from .. import bootstring
from ..machine import Boot
from .mirage import RUMPRUN, network_devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...oci.app import App
    from ..infer import Signs
    from ..machine import Capabilities, Context, KernelInfo, Network, Root

NAME = "rumprun"
MONITORS = ("hvt", "spt")
X86_64_ONLY: tuple[str, ...] = ()
ROOTS = ("none", "block")
FILESYSTEMS = ("ext2",)
OWN_INIT = False
FULL_CPU = False


def boot(app: App, network: Network, root: Root, monitor: Capabilities, context: Context) -> Boot:
    """Return the document. Raises SpecError for an argument that rumprun's word splitting cannot carry."""
    bootstring.check(app.args, "process.args", empty=False)
    document: dict[str, Any] = {"cmdline": " ".join(quote(word) for word in app.args)}
    if app.env:
        bootstring.check(app.env, "process.env")
    nic = network.primary()
    messages = bootstring.without_ipv6(NAME, nic)
    address = bootstring.ipv4(nic) if nic else None
    if nic is not None and address is not None:
        gateway = bootstring.gateway(nic)
        prefix = bootstring.covering_prefix(address, gateway)
        document["net"] = {
            "if": "ukvmif0",
            "cloner": "True",
            "type": "inet",
            "method": "static",
            "addr": address.ip,
            "mask": str(prefix),
            **({"gw": gateway} if gateway else {}),
        }
        if prefix != address.prefix:
            messages += (f"the guest cannot use a gateway outside its network: it gets the prefix /{prefix}",)
    if root.kind == "block" or app.block:
        mount = app.block_mount or "/data"
        document["blk"] = {"source": "etfs", "path": "/dev/ld0a", "fstype": "blk", "mountpoint": mount}
    return Boot(
        arguments=(jsonio.dumps(document).decode("ascii"),),
        nics=network_devices(context.kernel),
        net_device=app.net_device or "",
        block_device=app.block_device or "",
        messages=messages,
    )


def may_be(kernel: KernelInfo, signs: Signs) -> bool:
    """Say whether it may be rumprun: for Solo5 and NetBSD's code, or at least not OCaml's."""
    return kernel.solo5_abi is not None and (not kernel.mirage or signs.contains(RUMPRUN))


def quote(word: str) -> str:
    """Return `word` with a backslash before what rumprun's splitting (lib/libbmk_core, parsing of `cmdline`) reads."""
    return "".join("\\" + letter if letter in " \t\n\"'\\" else letter for letter in word)
