"""Traffic control: ingress qdiscs, and the filters that redirect or let through. By rtnetlink.

Knows messages, not policy: what is redirected where, and what is not, is `runtime.net`'s. Every function takes a
socket of the namespace that it works on, and raises OSError with the kernel's reason.

References: the kernel's include/uapi/linux/{pkt_sched,pkt_cls}.h and tc_act/tc_mirred.h; tc-u32(8), tc-mirred(8).
"""

from __future__ import annotations

import _socket
from _struct import Struct, pack, unpack_from
from errno import EINVAL, ENODEV, ENOENT

from .netlink import NLM_F_CREATE, NLM_F_EXCL, attribute, attributes, nest, number, string, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .netlink import Netlink

_RTM_NEWQDISC, _RTM_DELQDISC, _RTM_GETQDISC = 36, 37, 38
_RTM_NEWTFILTER, _RTM_GETTFILTER = 44, 46

_TCA_KIND, _TCA_OPTIONS, _TCA_INGRESS_BLOCK = 1, 2, 13
_TCA_U32_CLASSID, _TCA_U32_SEL, _TCA_U32_ACT = 1, 5, 7
_TC_U32_TERMINAL = 1
_TCA_ACT_KIND, _TCA_ACT_OPTIONS = 1, 2
_TCA_MIRRED_PARMS = 2
_TCA_EGRESS_REDIR = 1
_TC_ACT_STOLEN = 4
_TC_H_INGRESS = 0xFFFFFFF1
_INGRESS_HANDLE = 0xFFFF0000
_IFINDEX_MAGIC_BLOCK = -1  # then the parent is a block's number
_ETH_P_ALL, _ETH_P_ARP, _ETH_P_IPV6 = 0x0003, 0x0806, 0x86DD
_ARP_PRIORITY, _SOLICITATION_PRIORITY = 1, 2  # one for each protocol: the kernel wants it so
_REDIRECT_PRIORITY = 3  # behind what is let through to the namespace itself
_ICMPV6, _NEIGHBOUR_SOLICITATION = 58, 135
_ALL_BITS = 0xFFFFFFFF

_TCMSG = Struct("BxxxiIII")
_MIRRED = Struct("IIiiiiI")  # index, capabilities, action, references, bindings, eaction, ifindex


def ingresses(rtnl: Netlink) -> dict[int, int]:
    """Return the devices with an ingress (or clsact) qdisc: index -> the number of its filter block, 0 for none."""
    found = {}
    for body in rtnl.dump("list the qdiscs", _RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0)):
        _, index, handle, _, _ = _TCMSG.unpack_from(body)
        if handle == _INGRESS_HANDLE:
            found[index] = number(attributes(body, _TCMSG.size).get(_TCA_INGRESS_BLOCK))
    return found


def add_ingress(rtnl: Netlink, index: int, block: int = 0) -> None:
    """Add an ingress qdisc, with its filters in a block of that number; EEXIST where there is one, or a clsact.

    A number is all that a qdisc can be marked with; it must be unlike that of every other one in the namespace.
    """
    body = _TCMSG.pack(0, index, _INGRESS_HANDLE, _TC_H_INGRESS, 0) + text(_TCA_KIND, "ingress")
    if block:
        body += attribute(_TCA_INGRESS_BLOCK, pack("I", block))
    rtnl.do("add the ingress qdisc", _RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, body)


def delete_ingress(rtnl: Netlink, index: int) -> None:
    """Delete the ingress qdisc with its filters. Gone already, with the device or without it, is no error."""
    body = _TCMSG.pack(0, index, _INGRESS_HANDLE, _TC_H_INGRESS, 0) + text(_TCA_KIND, "ingress")
    try:
        rtnl.do("delete the ingress qdisc", _RTM_DELQDISC, 0, body)
    except OSError as error:
        if error.errno not in (ENOENT, ENODEV, EINVAL):  # EINVAL: one was there once
            raise


def add_redirect(rtnl: Netlink, index: int, to_index: int, block: int = 0) -> None:
    """Send every frame that comes in at one device out of another: u32 match-all, mirred egress redirect.

    `block` is the number that its ingress qdisc was added with.
    """
    mirred = _MIRRED.pack(0, 0, _TC_ACT_STOLEN, 0, 0, _TCA_EGRESS_REDIR, to_index)
    action = nest(
        1,
        text(_TCA_ACT_KIND, "mirred"),
        nest(_TCA_ACT_OPTIONS, attribute(_TCA_MIRRED_PARMS, mirred)),
    )
    options = _u32_selector((0, 0, 0)) + nest(_TCA_U32_ACT, action)
    _add_filter(rtnl, index, _REDIRECT_PRIORITY, _ETH_P_ALL, options, block)


def let_arp_through(rtnl: Netlink, index: int, ip: str) -> None:
    """Leave ARP packets that ask for an IPv4 address to the namespace itself, before any redirect."""
    (asked,) = unpack_from("!I", _socket.inet_pton(_socket.AF_INET, ip))
    _let_through(rtnl, index, _ARP_PRIORITY, _ETH_P_ARP, (24, _ALL_BITS, asked))  # the target protocol address


def let_solicitations_through(rtnl: Netlink, index: int, ip: str) -> None:
    """Leave neighbour solicitations (RFC 4861) for an IPv6 address to the namespace itself, before any redirect."""
    words = unpack_from("!4I", _socket.inet_pton(_socket.AF_INET6, ip))
    target = [(48 + 4 * place, _ALL_BITS, word) for place, word in enumerate(words)]
    kinds = (4, 0xFF00, _ICMPV6 << 8), (40, 0xFF000000, _NEIGHBOUR_SOLICITATION << 24)
    _let_through(rtnl, index, _SOLICITATION_PRIORITY, _ETH_P_IPV6, *kinds, *target)


def _let_through(rtnl: Netlink, index: int, priority: int, protocol: int, *keys: tuple[int, int, int]) -> None:
    _add_filter(rtnl, index, priority, protocol, _u32_selector(*keys) + attribute(_TCA_U32_CLASSID, pack("I", 1)))


def _add_filter(rtnl: Netlink, index: int, priority: int, protocol: int, options: bytes, block: int = 0) -> None:
    info = priority << 16 | _socket.htons(protocol)
    device, parent = (_IFINDEX_MAGIC_BLOCK, block) if block else (index, _INGRESS_HANDLE)
    body = _TCMSG.pack(0, device, 0, parent, info)
    body += text(_TCA_KIND, "u32") + nest(_TCA_OPTIONS, options)
    rtnl.do("add the filter", _RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, body)


def redirects(rtnl: Netlink, index: int) -> list[int]:
    """Return where the device's ingress filters redirect to: device indexes, 0 for a device that is gone.

    Empty where there is no qdisc or no device.
    """
    request = _TCMSG.pack(0, index, 0, _INGRESS_HANDLE, 0)
    try:
        bodies = rtnl.dump("list the filters", _RTM_GETTFILTER, request)
    except OSError as error:
        if error.errno in (ENOENT, ENODEV, EINVAL):
            return []
        raise
    return [target for body in bodies for target in _redirect_targets(body)]


def _u32_selector(*keys: tuple[int, int, int]) -> bytes:
    """Return a selector of (offset, mask, value): the word at each offset under its mask is the value."""
    head = pack("BBBxHHhhI", _TC_U32_TERMINAL, 0, len(keys), 0, 0, 0, 0, 0)
    return attribute(
        _TCA_U32_SEL, head + b"".join(pack("!II", mask, value) + pack("ii", offset, 0) for offset, mask, value in keys)
    )


def _redirect_targets(body: bytes) -> list[int]:
    """Return the targets of one u32 filter of a dump; none for the hash table that u32 lists beside its filters."""
    found = attributes(body, _TCMSG.size)
    if string(found.get(_TCA_KIND)) != "u32":
        return []
    options = attributes(found.get(_TCA_OPTIONS, b""))
    targets = map(_redirect_target, attributes(options.get(_TCA_U32_ACT, b"")).values())
    return [target for target in targets if target is not None]


def _redirect_target(action: bytes) -> int | None:
    """Return the device index of a mirred egress redirect, None for any other action."""
    found = attributes(action)
    if string(found.get(_TCA_ACT_KIND)) != "mirred":
        return None
    parameters = attributes(found.get(_TCA_ACT_OPTIONS, b"")).get(_TCA_MIRRED_PARMS)
    if parameters is None:
        return None
    *_rest, eaction, target = _MIRRED.unpack_from(parameters)
    return int(target) if eaction == _TCA_EGRESS_REDIR else None
