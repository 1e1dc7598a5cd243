"""rtnetlink, spoken directly: what urunc asks of the kernel's network, and nothing more.

By hand since it costs 1 ms where `ip` and `tc` cost 10 and pyroute2 160 to import. A socket belongs for good to
the network namespace it was made in, so that another namespace can be worked on without staying in it.
Knows messages, not policy: which interface is taken, and what is redirected where, is `runtime.net`'s.

References: rtnetlink(7), netlink(7), and the kernel's include/uapi/linux/{rtnetlink,if_link,pkt_sched,pkt_cls}.h.
"""

from __future__ import annotations

import _socket
import os
from _struct import Struct, pack, unpack_from
from errno import EAFNOSUPPORT, EINTR, EINVAL, ENODEV, ENOENT, EOPNOTSUPP, EPROTO

from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

ARPHRD_ETHER = 1
IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFF_NOARP = 0x80

FORWARDING, RP_FILTER, ACCEPT_LOCAL = 1, 8, 23
"""IPV4_DEVCONF_*: what `inet_conf` of `Rtnl.set_link` can set."""

SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
"""RT_SCOPE_*, by the words of `vm.machine.Route`."""

_NETLINK_ROUTE = 0
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_RECEIVE_BYTES = 64 * 1024  # the kernel fills at most 32 KiB of a dump at a time

_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP_INTR = 0x1, 0x4, 0x10
_NLM_F_DUMP, _NLM_F_EXCL, _NLM_F_CREATE = 0x300, 0x200, 0x400
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NLMSG_NOOP, _NLMSG_ERROR, _NLMSG_DONE = 1, 2, 3
_NLMSGERR_ATTR_MSG = 1
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

_RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 17, 18, 19
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_RTM_GETROUTE, _RTM_GETNEIGH = 26, 30
_RTM_NEWQDISC, _RTM_DELQDISC, _RTM_GETQDISC = 36, 37, 38
_RTM_NEWTFILTER, _RTM_GETTFILTER = 44, 46

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_AF_SPEC = 1, 3, 4, 10, 18, 26
_IFLA_INFO_KIND = 1
_IFLA_INET_CONF = 1
_IFLA_INET6_ADDR_GEN_MODE = 8
_IN6_ADDR_GEN_MODE_NONE = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_TEMPORARY, _IFA_F_NODAD, _IFA_F_DADFAILED = 0x01, 0x02, 0x08
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 9, 15, 18
_RT_TABLE_MAIN = 254
_RTN_UNICAST = 1
_RTPROT_KERNEL = 2
_RTNH_F_ONLINK = 4
_RTM_F_CLONED = 0x200
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT = 0x80

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

_HEADER = Struct("IHHII")
_ATTRIBUTE = Struct("HH")
_IFINFO = Struct("BxHiII")
_IFADDR = Struct("BBBBI")
_RTMSG = Struct("BBBBBBBBI")
_NDMSG = Struct("BxxxiHBB")
_TCMSG = Struct("BxxxiIII")
_RTNEXTHOP = Struct("HBBi")
_MIRRED = Struct("IIiiiiI")  # index, capabilities, action, references, bindings, eaction, ifindex

Attributes = dict[int, bytes]


class Link(Record):
    """One network device. `type` is ARPHRD_*, `kind` the driver's word (veth, tun, bridge, ..) or empty."""

    index: int
    name: str
    type: int
    flags: int
    mtu: int = 0
    mac: str = ""
    kind: str = ""
    master: int = 0
    forwarding: bool = False  # IPv4 packets that come in here are forwarded

    @property
    def up(self) -> bool:
        """Whether the device is administratively up."""
        return bool(self.flags & IFF_UP)

    @property
    def loopback(self) -> bool:
        """Whether the device is the loopback device."""
        return bool(self.flags & IFF_LOOPBACK)


class LinkAddress(Record):
    """One address of a device; `scope` is a word of SCOPES."""

    index: int
    family: int  # 4 or 6
    ip: str
    prefix: int
    scope: str


class LinkRoute(Record):
    """One unicast route of the main table, or one next hop of it. `destination` is None for the default route."""

    index: int
    family: int
    destination: str | None
    prefix: int
    gateway: str | None
    onlink: bool
    scope: str
    metric: int
    source: str | None
    by_kernel: bool  # it came with an address, and will come again with it


class LinkNeighbour(Record):
    """One permanent neighbour entry."""

    index: int
    family: int
    ip: str
    mac: str


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute of a message."""
    padding = b"\0" * (-len(payload) % 4)
    return _ATTRIBUTE.pack(len(payload) + 4, kind) + payload + padding


def nest(kind: int, *inner: bytes) -> bytes:
    """Return an attribute that holds others."""
    return attribute(kind | _NLA_F_NESTED, b"".join(inner))


def text(kind: int, value: str) -> bytes:
    """Return an attribute of text with a NUL at its end."""
    return attribute(kind, os.fsencode(value) + b"\0")


def attributes(data: bytes, offset: int = 0) -> Attributes:
    """Split a message's attributes; raise OSError EPROTO where a length does not fit."""
    found: Attributes = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            raise OSError(EPROTO, "netlink: an attribute of an impossible length")
        found[kind & _NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def string(value: bytes | None) -> str:
    """Return the text of an attribute, "" where there is none."""
    return "" if value is None else os.fsdecode(value.partition(b"\0")[0])


def _number(value: bytes | None) -> int:
    return 0 if value is None else int(unpack_from("I", value)[0])


def _ip(value: bytes) -> str:
    return _socket.inet_ntop(_socket.AF_INET if len(value) == 4 else _socket.AF_INET6, value)


def _mac(value: bytes | None) -> str:
    return "" if value is None else value.hex(":")


def _family(number: int) -> int | None:
    return {int(_socket.AF_INET): 4, int(_socket.AF_INET6): 6}.get(number)


class Netlink:
    """A netlink socket of the current network namespace: requests, their acknowledgements, dumps. All raise OSError."""

    def __init__(self, protocol: int) -> None:
        kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
        self._socket = _socket.socket(_socket.AF_NETLINK, kind, protocol)
        try:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
            self._socket.bind((0, 0))
            self._port = self._socket.getsockname()[0]
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._send_all([(kind, flags, body)])

    def _send_all(self, messages: Sequence[tuple[int, int, bytes]]) -> None:
        """Send messages as one datagram, and under one number: all answers are to them."""
        self._sequence += 1
        data = b""
        for kind, flags, body in messages:
            size = _HEADER.size + len(body)
            data += _HEADER.pack(size, kind, flags | _NLM_F_REQUEST, self._sequence, self._port) + body
            data += b"\0" * (-size % 4)
        self._socket.sendto(data, (0, 0))

    def _receive(self) -> list[tuple[int, int, bytes]]:
        """Return (kind, flags, body) of the messages of one datagram that answer the last request."""
        data, _ancillary, flags, sender = self._socket.recvmsg(_RECEIVE_BYTES)
        if sender[0] != 0:
            return []  # only the kernel answers; anybody may send
        if flags & _socket.MSG_TRUNC:
            raise OSError(EPROTO, "netlink: an answer larger than the buffer")
        messages = []
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, port = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size or offset + length > len(data):
                raise OSError(EPROTO, "netlink: a message of an impossible length")
            if sequence == self._sequence and port == self._port and kind != _NLMSG_NOOP:
                messages.append((kind, flags, data[offset + _HEADER.size : offset + length]))
            offset += (length + 3) & ~3
        return messages

    def _do(self, what: str, kind: int, flags: int, body: bytes) -> None:
        """Have the kernel do one thing and wait for its acknowledgement; `what` stands in the error."""
        self._send(kind, flags | _NLM_F_ACK, body)
        while True:
            for answer, answer_flags, payload in self._receive():
                if answer == _NLMSG_ERROR:
                    raise_error(what, answer_flags, payload)
                    return

    def _dump(self, what: str, kind: int, body: bytes) -> list[bytes]:
        """Return the bodies of a whole dump; begin again where the kernel says that it changed under way."""
        while True:
            try:
                return self._dump_once(what, kind, body)
            except InterruptedError:
                continue

    def _dump_once(self, what: str, kind: int, body: bytes) -> list[bytes]:
        self._send(kind, _NLM_F_DUMP, body)
        found = []
        interrupted = False
        while True:
            for answer, flags, payload in self._receive():
                interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
                if answer == _NLMSG_ERROR:
                    raise_error(what, flags, payload)
                elif answer != _NLMSG_DONE:
                    found.append(payload)
                    continue
                elif len(payload) >= 4:
                    raise_error(what, flags | _NLM_F_CAPPED, payload, header=0)
                if interrupted:
                    raise InterruptedError(EINTR, what)
                return found


class Rtnl(Netlink):
    """A route netlink socket of the current network namespace. Every method raises OSError with the kernel's reason."""

    def __init__(self) -> None:
        super().__init__(_NETLINK_ROUTE)

    # What is there.

    def links(self) -> list[Link]:
        """Return every device of the namespace."""
        return [_link(body) for body in self._dump("list the links", _RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0))]

    def addresses(self) -> list[LinkAddress]:
        """Return every usable address of both families: not the temporary ones, nor those that someone else has."""
        bodies = self._dump("list the addresses", _RTM_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0))
        return [address for address in map(_address, bodies) if address is not None]

    def routes(self) -> list[LinkRoute]:
        """Return the unicast routes of the main table of both families, one for each next hop."""
        found: list[LinkRoute] = []
        for family in (_socket.AF_INET, _socket.AF_INET6):
            request = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
            for body in self._dump_family("list the routes", _RTM_GETROUTE, request):
                found += _routes(body)
        return found

    def neighbours(self) -> list[LinkNeighbour]:
        """Return the permanent neighbour entries of both families."""
        bodies = self._dump("list the neighbours", _RTM_GETNEIGH, _NDMSG.pack(0, 0, 0, 0, 0))
        return [neighbour for neighbour in map(_neighbour, bodies) if neighbour is not None]

    def _dump_family(self, what: str, kind: int, body: bytes) -> list[bytes]:
        try:
            return self._dump(what, kind, body)
        except OSError as error:
            if error.errno in (EAFNOSUPPORT, EOPNOTSUPP):  # a kernel without IPv6
                return []
            raise

    # Devices.

    def set_link(
        self,
        index: int,
        *,
        up: bool | None = None,
        arp: bool | None = None,
        mtu: int | None = None,
        mac: str | None = None,
        master: int | None = None,
        name: str | None = None,
        addrgen_none: bool = False,
        inet_conf: dict[int, int] | None = None,
    ) -> None:
        """Change what is given, in one message. The kernel sets up before `addrgen_none`: use two calls for both.

        `addrgen_none`: no IPv6 link-local address when it comes up; a kernel without IPv6 is no error.
        `inet_conf`: IPV4_DEVCONF_* and their values. `master` 0 takes the device out of its bridge.
        """
        flags = (IFF_UP if up else 0) | (IFF_NOARP if arp is False else 0)
        change = (0 if up is None else IFF_UP) | (0 if arp is None else IFF_NOARP)
        body = _IFINFO.pack(0, 0, index, flags, change)
        if mtu is not None:
            body += attribute(_IFLA_MTU, pack("I", mtu))
        if mac is not None:
            body += attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
        if master is not None:
            body += attribute(_IFLA_MASTER, pack("I", master))
        if name is not None:
            body += text(_IFLA_IFNAME, name)
        if inet_conf:
            values = [attribute(key, pack("I", value)) for key, value in inet_conf.items()]
            body += nest(_IFLA_AF_SPEC, nest(int(_socket.AF_INET), nest(_IFLA_INET_CONF, *values)))
        self._do("change the link", _RTM_SETLINK, 0, body)
        if addrgen_none:
            self._set_addrgen_none(index)

    def _set_addrgen_none(self, index: int) -> None:
        mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, pack("B", _IN6_ADDR_GEN_MODE_NONE))
        spec = nest(_IFLA_AF_SPEC, nest(int(_socket.AF_INET6), mode))
        try:
            self._do("turn IPv6 off on the link", _RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + spec)
        except OSError as error:
            if error.errno not in (EAFNOSUPPORT, EOPNOTSUPP):
                raise

    def delete_link(self, index: int) -> None:
        """Delete a device. One that is gone already is an error: ENODEV."""
        self._do("delete the link", _RTM_DELLINK, 0, _IFINFO.pack(0, 0, index, 0, 0))

    def add_address(self, index: int, ip: str, prefix: int) -> None:
        """Give a device an address of either family; IPv6's works at once, without asking whether someone has it."""
        family = _socket.AF_INET6 if ":" in ip else _socket.AF_INET
        address = _socket.inet_pton(family, ip)
        flags = _IFA_F_NODAD if family == _socket.AF_INET6 else 0
        body = _IFADDR.pack(int(family), prefix, flags, 0, index)
        body += attribute(_IFA_LOCAL, address) + attribute(_IFA_ADDRESS, address)
        self._do("add the address", _RTM_NEWADDR, _NLM_F_CREATE | _NLM_F_EXCL, body)

    # Traffic control.

    def ingresses(self) -> dict[int, int]:
        """Return the devices with an ingress (or clsact) qdisc: index -> the number of its filter block, 0 for none."""
        found = {}
        for body in self._dump("list the qdiscs", _RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0)):
            _, index, handle, _, _ = _TCMSG.unpack_from(body)
            if handle == _INGRESS_HANDLE:
                found[index] = _number(attributes(body, _TCMSG.size).get(_TCA_INGRESS_BLOCK))
        return found

    def add_ingress(self, index: int, block: int = 0) -> None:
        """Add an ingress qdisc, with its filters in a block of that number; EEXIST where there is one, or a clsact.

        A number is all that a qdisc can be marked with; it must be unlike that of every other one in the namespace.
        """
        body = _TCMSG.pack(0, index, _INGRESS_HANDLE, _TC_H_INGRESS, 0) + text(_TCA_KIND, "ingress")
        if block:
            body += attribute(_TCA_INGRESS_BLOCK, pack("I", block))
        self._do("add the ingress qdisc", _RTM_NEWQDISC, _NLM_F_CREATE | _NLM_F_EXCL, body)

    def delete_ingress(self, index: int) -> None:
        """Delete the ingress qdisc with its filters. Gone already, with the device or without it, is no error."""
        body = _TCMSG.pack(0, index, _INGRESS_HANDLE, _TC_H_INGRESS, 0) + text(_TCA_KIND, "ingress")
        try:
            self._do("delete the ingress qdisc", _RTM_DELQDISC, 0, body)
        except OSError as error:
            if error.errno not in (ENOENT, ENODEV, EINVAL):  # EINVAL: one was there once
                raise

    def add_redirect(self, index: int, to_index: int, block: int = 0) -> None:
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
        self._add_filter(index, _REDIRECT_PRIORITY, _ETH_P_ALL, options, block)

    def let_arp_through(self, index: int, ip: str) -> None:
        """Leave ARP packets that ask for an IPv4 address to the namespace itself, before any redirect."""
        (asked,) = unpack_from("!I", _socket.inet_pton(_socket.AF_INET, ip))
        self._let_through(index, _ARP_PRIORITY, _ETH_P_ARP, (24, _ALL_BITS, asked))  # the target protocol address

    def let_solicitations_through(self, index: int, ip: str) -> None:
        """Leave neighbour solicitations (RFC 4861) for an IPv6 address to the namespace itself, before any redirect."""
        words = unpack_from("!4I", _socket.inet_pton(_socket.AF_INET6, ip))
        target = [(48 + 4 * place, _ALL_BITS, word) for place, word in enumerate(words)]
        kinds = (4, 0xFF00, _ICMPV6 << 8), (40, 0xFF000000, _NEIGHBOUR_SOLICITATION << 24)
        self._let_through(index, _SOLICITATION_PRIORITY, _ETH_P_IPV6, *kinds, *target)

    def _let_through(self, index: int, priority: int, protocol: int, *keys: tuple[int, int, int]) -> None:
        self._add_filter(index, priority, protocol, _u32_selector(*keys) + attribute(_TCA_U32_CLASSID, pack("I", 1)))

    def _add_filter(self, index: int, priority: int, protocol: int, options: bytes, block: int = 0) -> None:
        info = priority << 16 | _socket.htons(protocol)
        device, parent = (_IFINDEX_MAGIC_BLOCK, block) if block else (index, _INGRESS_HANDLE)
        body = _TCMSG.pack(0, device, 0, parent, info)
        body += text(_TCA_KIND, "u32") + nest(_TCA_OPTIONS, options)
        self._do("add the filter", _RTM_NEWTFILTER, _NLM_F_CREATE | _NLM_F_EXCL, body)

    def redirects(self, index: int) -> list[int]:
        """Return where the device's ingress filters redirect to: device indexes, 0 for a device that is gone.

        None where there is no qdisc or no device.
        """
        request = _TCMSG.pack(0, index, 0, _INGRESS_HANDLE, 0)
        try:
            bodies = self._dump("list the filters", _RTM_GETTFILTER, request)
        except OSError as error:
            if error.errno in (ENOENT, ENODEV, EINVAL):
                return []
            raise
        return [target for body in bodies for target in _redirect_targets(body)]


def raise_error(what: str, flags: int, payload: bytes, header: int = 16) -> None:
    """Raise the error of an NLMSG_ERROR (or NLMSG_DONE) body, nothing where it holds none."""
    (code,) = unpack_from("i", payload)
    if code == 0:
        return
    message = f"cannot {what}: {os.strerror(-code)}"
    if flags & _NLM_F_ACK_TLVS:
        skipped = header if flags & _NLM_F_CAPPED else (unpack_from("I", payload, 4)[0] + 3) & ~3
        reason = string(attributes(payload, 4 + skipped).get(_NLMSGERR_ATTR_MSG))
        if reason:
            message = f"{message} ({reason})"
    raise OSError(-code, message)


def _u32_selector(*keys: tuple[int, int, int]) -> bytes:
    """Return a selector of (offset, mask, value): the word at each offset under its mask is the value."""
    head = pack("BBBxHHhhI", _TC_U32_TERMINAL, 0, len(keys), 0, 0, 0, 0, 0)
    return attribute(
        _TCA_U32_SEL, head + b"".join(pack("!II", mask, value) + pack("ii", offset, 0) for offset, mask, value in keys)
    )


def _link(body: bytes) -> Link:
    _, kind, index, flags, _ = _IFINFO.unpack_from(body)
    found = attributes(body, _IFINFO.size)
    return Link(
        index=index,
        name=string(found.get(_IFLA_IFNAME)),
        type=kind,
        flags=flags,
        mtu=_number(found.get(_IFLA_MTU)),
        mac=_mac(found.get(_IFLA_ADDRESS)),
        kind=string(attributes(found.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND)),
        master=_number(found.get(_IFLA_MASTER)),
        forwarding=_forwarding(found.get(_IFLA_AF_SPEC, b"")),
    )


def _forwarding(spec: bytes) -> bool:
    """Read IPV4_DEVCONF_FORWARDING from the numbers of a device's IPv4 configuration."""
    values = attributes(attributes(spec).get(int(_socket.AF_INET), b"")).get(_IFLA_INET_CONF, b"")
    return len(values) >= 4 * FORWARDING and unpack_from("I", values, 4 * (FORWARDING - 1))[0] != 0


def _address(body: bytes) -> LinkAddress | None:
    number, prefix, short_flags, scope, index = _IFADDR.unpack_from(body)
    found = attributes(body, _IFADDR.size)
    family = _family(number)
    flags = _number(found[_IFA_FLAGS]) if _IFA_FLAGS in found else short_flags
    value = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS))  # LOCAL is the own end of a point-to-point link
    if family is None or value is None or flags & _IFA_F_DADFAILED:
        return None
    if family == 6 and flags & _IFA_F_TEMPORARY:  # the same bit says "secondary" of an IPv4 address
        return None
    return LinkAddress(index=index, family=family, ip=_ip(value), prefix=prefix, scope=SCOPES.get(scope, str(scope)))


def _routes(body: bytes) -> list[LinkRoute]:
    number, prefix, _src, _tos, table, protocol, scope, kind, flags = _RTMSG.unpack_from(body)
    found = attributes(body, _RTMSG.size)
    family = _family(number)
    if _RTA_TABLE in found:
        table = _number(found[_RTA_TABLE])
    if family is None or table != _RT_TABLE_MAIN or kind != _RTN_UNICAST or flags & _RTM_F_CLONED:
        return []
    hops = _hops(found[_RTA_MULTIPATH]) if _RTA_MULTIPATH in found else [(_number(found.get(_RTA_OIF)), flags, found)]
    destination = found.get(_RTA_DST)
    source = found.get(_RTA_PREFSRC)
    return [
        LinkRoute(
            index=index,
            family=family,
            destination=None if destination is None else _ip(destination),
            prefix=prefix,
            gateway=_gateway(hop),
            onlink=bool(hop_flags & _RTNH_F_ONLINK),
            scope=SCOPES.get(scope, str(scope)),
            metric=_number(found.get(_RTA_PRIORITY)),
            source=None if source is None else _ip(source),
            by_kernel=protocol == _RTPROT_KERNEL,
        )
        for index, hop_flags, hop in hops
        if index
    ]


def _hops(data: bytes) -> list[tuple[int, int, Attributes]]:
    """Return (device index, flags, attributes) of each next hop of a multipath route."""
    hops = []
    offset = 0
    while offset + _RTNEXTHOP.size <= len(data):
        length, flags, _weight, index = _RTNEXTHOP.unpack_from(data, offset)
        if length < _RTNEXTHOP.size:
            raise OSError(EPROTO, "netlink: a next hop of an impossible length")
        hops.append((index, flags, attributes(data[offset : offset + length], _RTNEXTHOP.size)))
        offset += (length + 3) & ~3
    return hops


def _gateway(hop: Attributes) -> str | None:
    if _RTA_GATEWAY in hop:
        return _ip(hop[_RTA_GATEWAY])
    if _RTA_VIA in hop:  # an IPv6 gateway of an IPv4 route: the family, then the address
        return _ip(hop[_RTA_VIA][2:])
    return None


def _neighbour(body: bytes) -> LinkNeighbour | None:
    number, index, state, _flags, _kind = _NDMSG.unpack_from(body)
    found = attributes(body, _NDMSG.size)
    family = _family(number)
    if family is None or not state & _NUD_PERMANENT or _NDA_DST not in found or _NDA_LLADDR not in found:
        return None
    return LinkNeighbour(index=index, family=family, ip=_ip(found[_NDA_DST]), mac=_mac(found[_NDA_LLADDR]))


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
