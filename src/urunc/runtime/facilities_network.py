"""What a guest's network is made of: taps, redirects and NAT, tried in a namespace that ends with the attempt."""

from __future__ import annotations

import os

from ..linux import ns
from .facility import Facility, tried, try_in_child, try_to_open


def find_network() -> Facility:
    """Taps and redirects between them, made in a network namespace that ends with the child."""
    return tried(
        "network",
        "a guest's network",
        try_in_child(_try_network),
        works="taps and redirects work",
        hint="load the modules tun, sch_ingress, cls_u32 and act_mirred",
    )


def _try_network() -> None:
    import _socket

    from ..linux import tap, tc
    from ..linux.rtnl import Rtnl

    ns.unshare(("network",))
    names = ("check0", "check1")
    for name in names:
        tap.open_tap(name, persistent=False, uid=0, gid=0, vnet_hdr=True)
    with Rtnl() as rtnl:
        one, other = map(_socket.if_nametoindex, names)
        tc.add_ingress(rtnl, one)
        tc.add_redirect(rtnl, one, other)


def find_ipv6() -> Facility:
    """Whether the kernel has IPv6 at all."""
    ok = _has_ipv6()
    what = "the kernel has it" if ok else "the kernel has none, or was started with ipv6.disable=1"
    return Facility(name="ipv6", used="networks with IPv6", ok=ok, what=what)


def _has_ipv6() -> bool:
    return os.path.exists("/proc/sys/net/ipv6")


def find_nat() -> Facility:
    """The rules of network mode `nat`, made in a network namespace that ends with the child."""
    return tried(
        "nat",
        "com.urunc.network = nat, and Knative",
        try_in_child(_try_nat),
        works="nftables takes the rules",
        hint="load the modules nf_tables, nft_chain_nat, nft_masq, nft_redir and nft_socket",
    )


def _try_nat() -> None:
    from ..linux.nftables import Nftables
    from . import nat

    ns.unshare(("network",))
    families = {4, 6} if _has_ipv6() else {4}
    addresses = ["192.0.2.1", "2001:db8::1"][: len(families)]
    with Nftables() as tables:
        tables.add_table("check0", b"", nat.rules("check0", addresses, families))


def find_vhost() -> Facility:
    """The kernel's own half of a NIC, which the configuration has to ask for."""
    return tried(
        "vhost-net",
        "vhost = true",
        try_to_open("/dev/vhost-net"),
        works="/dev/vhost-net can be opened",
        hint="load the module vhost_net, for vhost = true",
    )
