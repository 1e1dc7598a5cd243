"""The devices, addresses, routes and neighbours of a network namespace, by rtnetlink.

Knows messages, not policy: which interface is taken is `runtime.net`'s; traffic control is `tc`'s.

References: rtnetlink(7), and the kernel's include/uapi/linux/{rtnetlink,if_link,if_addr,neighbour}.h.
"""

from __future__ import annotations

import _socket
from _struct import Struct, pack, unpack_from
from errno import EAFNOSUPPORT, EOPNOTSUPP, EPROTO

from ..record import Record
from .netlink import NLM_F_CREATE, NLM_F_EXCL, Netlink, attribute, attributes, nest, number, string, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .netlink import Attributes

ARPHRD_ETHER = 1
IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFF_NOARP = 0x80

FORWARDING, RP_FILTER, ACCEPT_LOCAL = 1, 8, 23
"""IPV4_DEVCONF_*: what `inet_conf` of `Rtnl.set_link` can set."""

SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
"""RT_SCOPE_*, by the words of `vm.machine.Route`."""

_NETLINK_ROUTE = 0

_RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 17, 18, 19
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_RTM_GETROUTE, _RTM_GETNEIGH = 26, 30

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_AF_SPEC = 1, 3, 4, 18, 26
_IFLA_NET_NS_FD = 28
_IFLA_INFO_KIND = 1
_IFLA_INET_CONF = 1
_IFLA_INET6_ADDR_GEN_MODE = 8
_IN6_ADDR_GEN_MODE_NONE = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_TEMPORARY, _IFA_F_NODAD, _IFA_F_DADFAILED, _IFA_F_PERMANENT = 0x01, 0x02, 0x08, 0x80
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 9, 15, 18
_RT_TABLE_MAIN = 254
_RTN_UNICAST = 1
_RTPROT_KERNEL = 2
_RTNH_F_ONLINK = 4
_RTM_F_CLONED = 0x200
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT = 0x80

_IFINFO = Struct("BxHiII")
_IFADDR = Struct("BBBBI")
_RTMSG = Struct("BBBBBBBBI")
_NDMSG = Struct("BxxxiHBB")
_RTNEXTHOP = Struct("HBBi")


class Link(Record):
    """One network device. `type` is ARPHRD_*, `kind` the driver's word (veth, tun, bridge, ..) or empty."""

    index: int
    name: str
    type: int
    flags: int
    mtu: int = 0
    mac: str = ""
    kind: str = ""
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
    permanent: bool = True  # it has no lifetime


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


class Rtnl(Netlink):
    """A route netlink socket of the current network namespace. Every method raises OSError with the kernel's reason."""

    def __init__(self) -> None:
        super().__init__(_NETLINK_ROUTE)

    # What is there.

    def links(self) -> list[Link]:
        """Return every device of the namespace."""
        return [_link(body) for body in self.dump("list the links", _RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0))]

    def addresses(self) -> list[LinkAddress]:
        """Return every usable address of both families: not the temporary ones, nor those that someone else has."""
        bodies = self.dump("list the addresses", _RTM_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0))
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
        bodies = self.dump("list the neighbours", _RTM_GETNEIGH, _NDMSG.pack(0, 0, 0, 0, 0))
        return [neighbour for neighbour in map(_neighbour, bodies) if neighbour is not None]

    def _dump_family(self, what: str, kind: int, body: bytes) -> list[bytes]:
        try:
            return self.dump(what, kind, body)
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
        addrgen_none: bool = False,
        inet_conf: dict[int, int] | None = None,
    ) -> None:
        """Change what is given, in one message. The kernel sets up before `addrgen_none`: use two calls for both.

        `addrgen_none`: no IPv6 link-local address when it comes up; a kernel without IPv6 is no error.
        `inet_conf`: IPV4_DEVCONF_* and their values.
        """
        flags = (IFF_UP if up else 0) | (IFF_NOARP if arp is False else 0)
        change = (0 if up is None else IFF_UP) | (0 if arp is None else IFF_NOARP)
        body = _IFINFO.pack(0, 0, index, flags, change)
        if mtu is not None:
            body += attribute(_IFLA_MTU, pack("I", mtu))
        if mac is not None:
            body += attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
        if inet_conf:
            values = [attribute(key, pack("I", value)) for key, value in inet_conf.items()]
            body += nest(_IFLA_AF_SPEC, nest(int(_socket.AF_INET), nest(_IFLA_INET_CONF, *values)))
        self.do("change the link", _RTM_SETLINK, 0, body)
        if addrgen_none:
            self._set_addrgen_none(index)

    def move_link(self, index: int, namespace: int, name: str) -> None:
        """Move a device into the network namespace that is open as `namespace`, and call it so there.

        It is down then, without its addresses and routes. `%d` in the name is a number that is free. EEXIST where the
        name is taken: it may be there then, under the name that it had. EINVAL for what cannot be moved, such as `lo`.
        """
        body = _IFINFO.pack(0, 0, index, 0, 0) + text(_IFLA_IFNAME, name)
        self.do("move the link", _RTM_SETLINK, 0, body + attribute(_IFLA_NET_NS_FD, pack("I", namespace)))

    def _set_addrgen_none(self, index: int) -> None:
        mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, pack("B", _IN6_ADDR_GEN_MODE_NONE))
        spec = nest(_IFLA_AF_SPEC, nest(int(_socket.AF_INET6), mode))
        try:
            self.do("turn IPv6 off on the link", _RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + spec)
        except OSError as error:
            if error.errno not in (EAFNOSUPPORT, EOPNOTSUPP):
                raise

    def delete_link(self, index: int) -> None:
        """Delete a device. One that is gone already is an error: ENODEV."""
        self.do("delete the link", _RTM_DELLINK, 0, _IFINFO.pack(0, 0, index, 0, 0))

    def add_address(self, index: int, ip: str, prefix: int) -> None:
        """Give a device an address of either family; IPv6's works at once, without asking whether someone has it."""
        family = _socket.AF_INET6 if ":" in ip else _socket.AF_INET
        address = _socket.inet_pton(family, ip)
        flags = _IFA_F_NODAD if family == _socket.AF_INET6 else 0
        body = _IFADDR.pack(int(family), prefix, flags, 0, index)
        body += attribute(_IFA_LOCAL, address) + attribute(_IFA_ADDRESS, address)
        self.do("add the address", _RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body)


def _link(body: bytes) -> Link:
    _, kind, index, flags, _ = _IFINFO.unpack_from(body)
    found = attributes(body, _IFINFO.size)
    return Link(
        index=index,
        name=string(found.get(_IFLA_IFNAME)),
        type=kind,
        flags=flags,
        mtu=number(found.get(_IFLA_MTU)),
        mac=_mac(found.get(_IFLA_ADDRESS)),
        kind=string(attributes(found.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND)),
        forwarding=_forwarding(found.get(_IFLA_AF_SPEC, b"")),
    )


def _forwarding(spec: bytes) -> bool:
    """Read IPV4_DEVCONF_FORWARDING from the numbers of a device's IPv4 configuration."""
    values = attributes(attributes(spec).get(int(_socket.AF_INET), b"")).get(_IFLA_INET_CONF, b"")
    return len(values) >= 4 * FORWARDING and unpack_from("I", values, 4 * (FORWARDING - 1))[0] != 0


def _address(body: bytes) -> LinkAddress | None:
    af, prefix, short_flags, scope, index = _IFADDR.unpack_from(body)
    found = attributes(body, _IFADDR.size)
    family = _family(af)
    flags = number(found[_IFA_FLAGS]) if _IFA_FLAGS in found else short_flags
    value = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS))  # LOCAL is the own end of a point-to-point link
    if family is None or value is None or flags & _IFA_F_DADFAILED:
        return None
    if family == 6 and flags & _IFA_F_TEMPORARY:  # the same bit says "secondary" of an IPv4 address
        return None
    return LinkAddress(
        index=index,
        family=family,
        ip=_ip(value),
        prefix=prefix,
        scope=SCOPES.get(scope, str(scope)),
        permanent=bool(flags & _IFA_F_PERMANENT),
    )


def _routes(body: bytes) -> list[LinkRoute]:
    af, prefix, _src, _tos, table, protocol, scope, kind, flags = _RTMSG.unpack_from(body)
    found = attributes(body, _RTMSG.size)
    family = _family(af)
    if _RTA_TABLE in found:
        table = number(found[_RTA_TABLE])
    if family is None or table != _RT_TABLE_MAIN or kind != _RTN_UNICAST or flags & _RTM_F_CLONED:
        return []
    hops = _hops(found[_RTA_MULTIPATH]) if _RTA_MULTIPATH in found else [(number(found.get(_RTA_OIF)), flags, found)]
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
            metric=number(found.get(_RTA_PRIORITY)),
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
    af, index, state, _flags, _kind = _NDMSG.unpack_from(body)
    found = attributes(body, _NDMSG.size)
    family = _family(af)
    if family is None or not state & _NUD_PERMANENT or _NDA_DST not in found or _NDA_LLADDR not in found:
        return None
    return LinkNeighbour(index=index, family=family, ip=_ip(found[_NDA_DST]), mac=_mac(found[_NDA_LLADDR]))


def _ip(value: bytes) -> str:
    return _socket.inet_ntop(_socket.AF_INET if len(value) == 4 else _socket.AF_INET6, value)


def _mac(value: bytes | None) -> str:
    return "" if value is None else value.hex(":")


def _family(af: int) -> int | None:
    return {int(_socket.AF_INET): 4, int(_socket.AF_INET6): 6}.get(af)
