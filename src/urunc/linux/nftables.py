"""nftables, spoken directly: tables of NAT rules, made whole or not at all. For network mode `nat` alone.

By hand so that this mode needs no program of the host's, and so that a table can be found, read and removed again
where only its name is known. Knows messages, not policy: what is translated, and why, is `runtime.nat`'s.

References: the kernel's include/uapi/linux/netfilter/{nfnetlink,nf_tables,nf_nat}.h.
"""

from __future__ import annotations

import _socket
from _struct import Struct, pack
from errno import ENOENT

from ..record import Record
from .netlink import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLMSG_ERROR,
    Netlink,
    attribute,
    attributes,
    nest,
    raise_error,
    string,
    text,
)

PREROUTING, FORWARD, POSTROUTING = 0, 2, 4
"""NF_INET_*: where a base chain can stand: of NAT, or in the middle a filter."""

TCP, UDP = 6, 17

_NETLINK_NETFILTER = 12
_NFNL_SUBSYS_NFTABLES = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = (_NFNL_SUBSYS_NFTABLES << 8 | kind for kind in (0, 1, 2, 3, 6))
_NFPROTO_INET, _NFPROTO_IPV4, _NFPROTO_IPV6 = 1, 2, 10

_TYPES = {PREROUTING: ("nat", -100), FORWARD: ("filter", 0), POSTROUTING: ("nat", 100)}
"""A chain's type at its place, and its priority: NF_IP_PRI_NAT_DST, _FILTER and _NAT_SRC."""
_NFTA_TABLE_NAME, _NFTA_TABLE_USERDATA = 1, 6
_NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME, _NFTA_CHAIN_HOOK, _NFTA_CHAIN_TYPE = 1, 3, 4, 7
_NFTA_HOOK_HOOKNUM, _NFTA_HOOK_PRIORITY = 1, 2
_NFTA_RULE_TABLE, _NFTA_RULE_CHAIN, _NFTA_RULE_EXPRESSIONS = 1, 2, 4
_NFTA_LIST_ELEM = 1
_NFTA_EXPR_NAME, _NFTA_EXPR_DATA = 1, 2
_NFTA_DATA_VALUE, _NFTA_DATA_VERDICT = 1, 2
_NFTA_VERDICT_CODE, _NFTA_VERDICT_CHAIN = 1, 2
_DROP, _ACCEPT, _JUMP = 0, 1, -3
_REGISTER_VERDICT, _REGISTER = 0, 1
_META_IIFNAME, _META_OIFNAME, _META_NFPROTO, _META_L4PROTO = 6, 7, 15, 16
_CMP_EQ, _CMP_NEQ = 0, 1
_NETWORK_HEADER = 1
_SOURCE, _DESTINATION = {4: 12, 16: 8}, {4: 16, 16: 24}  # address bytes -> offset in the network header
_SOCKET_TRANSPARENT = 0
_NAT_DNAT = 1

_GENMSG = Struct("!BBH")


class Chain(Record):
    """A chain and its rules, each a tuple of the expressions below. With a `hook` it is a base chain."""

    name: str
    rules: tuple[tuple[bytes, ...], ...]
    hook: int | None = None


# Expressions. One that does not hold ends its rule; a verdict ends the chain.


def comes_in_by(name: str) -> bytes:
    """Hold for packets that came in by the device."""
    return _load_meta(_META_IIFNAME) + _compare(_device(name))


def leaves_not_by(name: str) -> bytes:
    """Hold for packets that leave by another device."""
    return _load_meta(_META_OIFNAME) + _compare(_device(name), _CMP_NEQ)


def protocol_is(number: int) -> bytes:
    """Hold for packets of that transport protocol, such as TCP."""
    return _load_meta(_META_L4PROTO) + _compare(bytes([number]))


def source_is(ip: str) -> bytes:
    """Hold for packets from the address, of either family."""
    return _address_is(ip, _SOURCE)


def destination_is(ip: str) -> bytes:
    """Hold for packets to the address, of either family."""
    return _address_is(ip, _DESTINATION)


def has_socket() -> bytes:
    """Hold for packets that a TCP or UDP socket of the namespace waits for, be it one that listens."""
    # Which of the socket's properties is loaded does not matter: without a socket, none can be. This one is there
    # for sockets that only wait for late packets as well.
    data = _word(1, _SOCKET_TRANSPARENT) + _word(2, _REGISTER)
    return _expression("socket", data)


def accept() -> bytes:
    """Let the packet pass unchanged."""
    return _verdict(_ACCEPT)


def drop() -> bytes:
    """Drop the packet."""
    return _verdict(_DROP)


def jump(chain: str) -> bytes:
    """Go on in another chain, and come back at its end."""
    return _verdict(_JUMP, text(_NFTA_VERDICT_CHAIN, chain))


def redirect_to(ip: str) -> bytes:
    """Change the destination of a packet of the address's family to the address; the port stays."""
    family, address = _parse(ip)
    data = _word(1, _NAT_DNAT) + _word(2, family) + _word(3, _REGISTER) + _word(4, _REGISTER)
    return _immediate(_REGISTER, attribute(_NFTA_DATA_VALUE, address)) + _expression("nat", data)


def masquerade() -> bytes:
    """Change the source to the address of the device that the packet leaves by."""
    return _expression("masq", b"")


def _word(kind: int, value: int) -> bytes:
    return attribute(kind, pack("!i", value))


def _expression(name: str, data: bytes) -> bytes:
    return nest(_NFTA_LIST_ELEM, text(_NFTA_EXPR_NAME, name), nest(_NFTA_EXPR_DATA, data))


def _load_meta(key: int) -> bytes:
    return _expression("meta", _word(1, _REGISTER) + _word(2, key))


def _address_is(ip: str, offsets: dict[int, int]) -> bytes:
    """Compare a field of the header, after the family whose header it is."""
    family, address = _parse(ip)
    place = _word(2, _NETWORK_HEADER) + _word(3, offsets[len(address)]) + _word(4, len(address))
    is_family = _load_meta(_META_NFPROTO) + _compare(bytes([family]))
    return is_family + _expression("payload", _word(1, _REGISTER) + place) + _compare(address)


def _parse(ip: str) -> tuple[int, bytes]:
    """Return NFPROTO_* and the bytes of an address."""
    if ":" in ip:
        return _NFPROTO_IPV6, _socket.inet_pton(_socket.AF_INET6, ip)
    return _NFPROTO_IPV4, _socket.inet_pton(_socket.AF_INET, ip)


def _compare(value: bytes, operator: int = _CMP_EQ) -> bytes:
    return _expression("cmp", _word(1, _REGISTER) + _word(2, operator) + nest(3, attribute(_NFTA_DATA_VALUE, value)))


def _device(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")  # IFNAMSIZ


def _immediate(register: int, data: bytes) -> bytes:
    return _expression("immediate", _word(1, register) + nest(2, data))


def _verdict(code: int, more: bytes = b"") -> bytes:
    return _immediate(_REGISTER_VERDICT, nest(_NFTA_DATA_VERDICT, _word(_NFTA_VERDICT_CODE, code), more))


class Nftables(Netlink):
    """An nftables socket of the current network namespace, for tables of both families. Methods raise OSError."""

    def __init__(self) -> None:
        super().__init__(_NETLINK_NETFILTER)

    def tables(self) -> dict[str, bytes]:
        """Return the tables by name, with the note that each was made with."""
        bodies = self.dump("list the tables", _GETTABLE, _GENMSG.pack(_NFPROTO_INET, 0, 0))
        found = [attributes(body, _GENMSG.size) for body in bodies]
        return {string(table.get(_NFTA_TABLE_NAME)): table.get(_NFTA_TABLE_USERDATA, b"") for table in found}

    def add_table(self, name: str, note: bytes, chains: tuple[Chain, ...]) -> None:
        """Make a table with its chains, each before those that jump to it; EEXIST where there is one of the name."""
        messages = [(_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, _table(name) + attribute(_NFTA_TABLE_USERDATA, note))]
        for chain in chains:
            messages.append((_NEWCHAIN, NLM_F_CREATE, _chain(name, chain)))
            messages += [(_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, _rule(name, chain, rule)) for rule in chain.rules]
        self._transact("add the table", messages)

    def delete_table(self, name: str) -> None:
        """Delete a table with all that is in it. Gone already is no error."""
        try:
            self._transact("delete the table", [(_DELTABLE, 0, _table(name))])
        except OSError as error:
            if error.errno != ENOENT:
                raise

    def _transact(self, what: str, messages: list[tuple[int, int, bytes]]) -> None:
        """Do all of the messages or none. The kernel answers each."""
        header = _GENMSG.pack(_NFPROTO_INET, 0, 0)
        border = _GENMSG.pack(0, 0, _NFNL_SUBSYS_NFTABLES)
        batch = [(_BATCH_BEGIN, 0, border)]
        batch += [(kind, flags | NLM_F_ACK, header + body) for kind, flags, body in messages]
        self.send_all([*batch, (_BATCH_END, 0, border)])
        left = len(messages)
        while left > 0:
            for answer, flags, payload in self.receive():
                if answer == NLMSG_ERROR:
                    raise_error(what, flags, payload)
                    left -= 1


def _table(name: str) -> bytes:
    return text(_NFTA_TABLE_NAME, name)


def _chain(table: str, chain: Chain) -> bytes:
    body = text(_NFTA_CHAIN_TABLE, table) + text(_NFTA_CHAIN_NAME, chain.name)
    if chain.hook is None:
        return body
    kind, priority = _TYPES[chain.hook]
    place = _word(_NFTA_HOOK_HOOKNUM, chain.hook) + _word(_NFTA_HOOK_PRIORITY, priority)
    return body + nest(_NFTA_CHAIN_HOOK, place) + text(_NFTA_CHAIN_TYPE, kind)


def _rule(table: str, chain: Chain, expressions: tuple[bytes, ...]) -> bytes:
    names = text(_NFTA_RULE_TABLE, table) + text(_NFTA_RULE_CHAIN, chain.name)
    return names + nest(_NFTA_RULE_EXPRESSIONS, *expressions)
