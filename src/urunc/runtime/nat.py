"""Network mode `nat`: the namespace keeps its interfaces, and the guest stands behind it.

::

    engine's veth  --to its address, where no socket waits-->  tap 172.16.1.1/24  -->  guest 172.16.1.2
    engine's veth  <--masqueraded--                            tap                <--  guest

So the pod's other containers have the network, reach the guest at 172.16.1.2, and are reached at the ports that they
listen on; every other TCP and UDP port of the pod is the guest's. The addresses are those that Knative's proxy is
told. IPv6 is the same where the namespace has it, beside IPv4 or alone.

What lasts is a table of NAT rules, named as the tap, and that the engine's interfaces forward. The table's note holds
which of them did not before: whoever finds the table can undo both, and nobody else needs to remember anything.
"""

from __future__ import annotations

import _socket
import os
from errno import EOPNOTSUPP, EPROTONOSUPPORT

from ..errors import HostError
from ..linux import nftables
from ..linux.nftables import Chain, Nftables
from ..linux.rtnl import ARPHRD_ETHER, FORWARDING
from ..oci import network as networks
from ..vm.machine import Address, Network, Nic, Route
from . import net

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ..errors import KernelError
    from ..linux.rtnl import Link, LinkAddress, Rtnl

_OUR_TABLES = "urunc"  # how the names of taps begin, and those of their tables

_ENDS = {
    4: (networks.GATEWAY, networks.GUEST, networks.PREFIX),
    6: (networks.GATEWAY6, networks.GUEST6, networks.PREFIX6),
}

_LINK_LOCAL = "fe80::7275:6e63", 64
"""The tap's: who forwards to a neighbour asks for it from such an address, or not at all."""

_KNOBS = "/proc/sys/net/ipv6/conf"
_OF_ONE, _OF_ALL = "force_forwarding", "forwarding"
"""What makes IPv6 forward what comes in by an interface: a knob of its own since Linux 6.17, before that all's."""


def look(rtnl: Rtnl, tap_names: Sequence[str]) -> Network:
    """Return the guest's one NIC, without one where the namespace has no interface.

    It stands for the interface with the default route, whose MTU and MAC it has: the segment is its own. It has an
    address of each family that the namespace has. Raises HostError where one of those is in the guest's network;
    KernelError.
    """
    try:
        link, addresses = _find_primary(rtnl), _global(rtnl.addresses())
    except OSError as error:
        raise net.kernel_error("cannot look at the container's network", error) from None
    if link is None:
        return Network()
    _check_addresses(addresses)
    families = sorted({address.family for address in addresses})
    ends = [(family, *_ENDS[family]) for family in families]
    nic = Nic(
        ifname=link.name,
        tap=tap_names[0],
        mac=link.mac,
        mtu=link.mtu,
        addresses=tuple(Address(ip=guest, prefix=prefix, family=family) for family, _gateway, guest, prefix in ends),
        routes=tuple(Route(gateway=gateway, family=family) for family, gateway, _guest, _prefix in ends),
    )
    return Network(nics=(nic,))


def _find_primary(rtnl: Rtnl) -> Link | None:
    """Return the Ethernet interface with the default route, IPv4's before IPv6's; the first without one.

    Others may be there beside, of any kind.
    """
    links = [link for link in rtnl.links() if link.type == ARPHRD_ETHER]
    found = net.eligible(links, rtnl.addresses())
    routes = sorted(rtnl.routes(), key=lambda route: route.family)
    defaults = [route.index for route in routes if route.destination is None]
    by_default = [link for index in defaults for link in found if link.index == index]
    return next(iter((*by_default, *found)), None)


def _global(addresses: Sequence[LinkAddress]) -> list[LinkAddress]:
    return [address for address in addresses if address.scope == "global"]


def _check_addresses(addresses: Sequence[LinkAddress]) -> None:
    for address in addresses:
        gateway, guest, prefix = _ENDS[address.family]
        if address.ip == gateway:
            raise HostError(
                "the network namespace has a guest behind NAT already", hint="a network namespace serves one guest"
            )
        width = min(address.prefix, prefix)
        if _leading(address.ip, width) == _leading(guest, width):
            raise HostError(
                f"network mode `nat` uses {gateway}/{prefix}, and the namespace has {address.ip}/{address.prefix}",
                hint="give the container's network other addresses, or use the mode redirect",
            )


def _leading(ip: str, bits: int) -> int:
    """Return the leading bits of an address, as a number."""
    packed = _socket.inet_pton(_socket.AF_INET6 if ":" in ip else _socket.AF_INET, ip)
    return int.from_bytes(packed, "big") >> (8 * len(packed) - bits)


def attach(rtnl: Rtnl, network: Network, uid: int, gid: int, *, persistent: bool, vnet_hdr: bool) -> dict[str, int]:
    """Make the tap and the rules; return the tap's descriptor as `net.attach` does, and raise as it does.

    Runs in the namespace that `rtnl` belongs to. Whatever a failing call has made is undone.
    """
    if not network.nics:
        return {}
    (nic,) = network.nics
    with _open() as tables:
        fds: dict[str, int] = {}
        try:
            _free_from_leftovers(rtnl, tables)
            fds[nic.tap] = net.open_tap(nic.tap, uid, gid, persistent=persistent, vnet_hdr=vnet_hdr)
            _connect(rtnl, tables, nic)
        except BaseException as error:
            net.undo(lambda: _remove(rtnl, tables, nic.tap), lambda: net.remove(rtnl, (nic.tap,)))
            net.close(fds)
            if isinstance(error, OSError):
                raise _kernel_error(error) from None
            raise
    if persistent:
        net.close(fds)
    return fds


def _open() -> Nftables:
    try:
        return Nftables()
    except OSError as error:
        raise _kernel_error(error) from None


def _kernel_error(error: OSError) -> HostError | KernelError:
    if error.errno in (EOPNOTSUPP, EPROTONOSUPPORT):
        return HostError("the kernel has no nftables, which the network mode `nat` needs", hint="load nf_tables")
    return net.kernel_error("cannot put the guest behind NAT", error)


def _connect(rtnl: Rtnl, tables: Nftables, nic: Nic) -> None:
    """The interfaces forward last: until then nothing has changed for the pod's other containers."""
    made = _socket.if_nametoindex(nic.tap)
    outside = _global(rtnl.addresses())
    families = {address.family for address in nic.addresses}
    rtnl.set_link(made, mtu=nic.mtu, addrgen_none=True, inet_conf={FORWARDING: 1})
    if 6 in families:
        net.have_ipv6(nic.tap)
        rtnl.add_address(made, *_LINK_LOCAL)
    for family in sorted(families):
        gateway, _guest, prefix = _ENDS[family]
        rtnl.add_address(made, gateway, prefix)
    rtnl.set_link(made, up=True)
    indexes = {family: {address.index for address in outside if address.family == family} for family in (4, 6)}
    links = rtnl.links()
    silent = [link for link in links if link.index in indexes[4] and not link.forwarding]
    knobs = _closed_knobs([link.name for link in links if link.index in indexes[6]]) if 6 in families else []
    note = _note((*(link.name for link in silent), *knobs))
    tables.add_table(nic.tap, note, rules(nic.tap, [address.ip for address in outside], families))
    for link in silent:
        rtnl.set_link(link.index, inet_conf={FORWARDING: 1})
    if 6 in families:
        for knob in (*knobs, *_closed_knobs([nic.tap])):
            _turn(knob, b"1")


def _closed_knobs(names: Sequence[str]) -> list[str]:
    """Return the knobs, each `interface:knob`, that must be turned for IPv6 to forward what comes in by these."""
    own = {f"{name}:{_OF_ONE}" if os.path.exists(_path(f"{name}:{_OF_ONE}")) else f"all:{_OF_ALL}" for name in names}
    return [knob for knob in sorted(own) if not _is_turned(knob)]


def _path(knob: str) -> str:
    name, _, key = knob.partition(":")  # no interface has a colon in its name, nor a slash
    return f"{_KNOBS}/{name}/{key}"


def _is_turned(knob: str) -> bool:
    with open(_path(knob), "rb") as file:
        return file.read().strip() != b"0"


def _turn(knob: str, value: bytes) -> None:
    with open(_path(knob), "wb", buffering=0) as file:
        file.write(value)


def rules(tap: str, addresses: Sequence[str], families: Collection[int]) -> tuple[Chain, ...]:
    """Return the chains: to `addresses`, the pod's own, where no socket of the pod waits; and out, masqueraded.

    What the guest sends in another's name goes nowhere: it would not be masqueraded.
    """
    arriving = [(nftables.comes_in_by(tap), nftables.accept())]
    for ip in addresses:
        for protocol in (nftables.TCP, nftables.UDP):
            match = nftables.destination_is(ip) + nftables.protocol_is(protocol)
            arriving.append((match, nftables.jump("guest")))
    guests = [_ENDS[family][1] for family in sorted(families)]
    leaving = [(nftables.source_is(guest), nftables.leaves_not_by(tap), nftables.masquerade()) for guest in guests]
    passing = [(nftables.comes_in_by(tap), nftables.source_is(guest), nftables.accept()) for guest in guests]
    to_guest = [(nftables.has_socket(), nftables.accept()), *((nftables.redirect_to(guest),) for guest in guests)]
    return (
        Chain(name="guest", rules=tuple(to_guest)),
        Chain(name="arriving", rules=tuple(arriving), hook=nftables.PREROUTING),
        Chain(name="passing", rules=(*passing, (nftables.comes_in_by(tap), nftables.drop())), hook=nftables.FORWARD),
        Chain(name="leaving", rules=tuple(leaving), hook=nftables.POSTROUTING),
    )


def _note(turned: Sequence[str]) -> bytes:
    """Return the table's note: the interfaces, and IPv6's knobs, that did not forward before. None holds a `/`."""
    return "/".join(("urunc", *turned)).encode()


def _free_from_leftovers(rtnl: Rtnl, tables: Nftables) -> None:
    """Remove tables of ours whose tap is gone: a guest died, and its container is not deleted yet."""
    there = {link.name for link in rtnl.links()}
    for name in tables.tables():
        if name.startswith(_OUR_TABLES) and name not in there:
            _remove(rtnl, tables, name)


def _remove(rtnl: Rtnl, tables: Nftables, name: str) -> None:
    """Remove a table and what its note says. Once it is gone, others may have changed what it spoke of."""
    note = tables.tables().get(name)
    if note is None:
        return
    turned = note.decode(errors="replace").split("/")[1:]
    for link in rtnl.links():
        if link.name in turned:
            rtnl.set_link(link.index, inet_conf={FORWARDING: 0})
    for knob in turned:
        if ":" in knob and os.path.exists(_path(knob)):
            _turn(knob, b"0")
    tables.delete_table(name)


def detach(rtnl: Rtnl, taps: Sequence[str]) -> None:
    """Undo `attach` in the namespace of `rtnl`, which the process stands in. May be called again. Raises OSError."""
    with Nftables() as tables:
        for name in taps:
            _remove(rtnl, tables, name)
