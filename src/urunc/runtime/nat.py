"""Network mode `nat`: the namespace keeps its interfaces, and the guest stands behind it.

::

    engine's veth  --to its address, where no socket waits-->  tap 172.16.1.1/24  -->  guest 172.16.1.2
    engine's veth  <--masqueraded--                            tap                <--  guest

So the pod's other containers have the network, reach the guest at 172.16.1.2, and are reached at the ports that they
listen on; every other TCP and UDP port of the pod is the guest's. The addresses are those that Knative's proxy is
told. IPv4 alone.

What lasts is a table of NAT rules, named as the tap, and that the engine's interfaces forward. The table's note holds
which of them did not before: whoever finds the table can undo both, and nobody else needs to remember anything.
"""

from __future__ import annotations

import _socket
from _struct import unpack
from errno import EOPNOTSUPP, EPROTONOSUPPORT

from ..errors import HostError
from ..linux import nftables
from ..linux.nftables import Chain, Nftables
from ..linux.rtnl import ARPHRD_ETHER, FORWARDING
from ..oci.network import GATEWAY, GUEST, PREFIX
from ..vm.machine import Address, Network, Nic, Route
from . import net

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..errors import KernelError
    from ..linux.rtnl import Link, LinkAddress, Rtnl

_OUR_TABLES = "urunc"  # how the names of taps begin, and those of their tables


def look(rtnl: Rtnl, tap_names: Sequence[str]) -> Network:
    """Return the guest's one NIC, without one where the namespace has no interface.

    It stands for the interface with the default route, whose MTU and MAC it has: the segment is its own. Raises
    HostError where the namespace has no IPv4 address, or one in the guest's network; KernelError.
    """
    try:
        link, addresses = _find_primary(rtnl), rtnl.addresses()
    except OSError as error:
        raise net.kernel_error("cannot look at the container's network", error) from error
    if link is None:
        return Network()
    _check_addresses(addresses)
    nic = Nic(
        ifname=link.name,
        tap=tap_names[0],
        mac=link.mac,
        mtu=link.mtu,
        addresses=(Address(ip=GUEST, prefix=PREFIX),),
        routes=(Route(gateway=GATEWAY),),
    )
    return Network(nics=(nic,))


def _find_primary(rtnl: Rtnl) -> Link | None:
    """Return the Ethernet interface with the default route, the first without one; others may be there beside."""
    links = [link for link in rtnl.links() if link.type == ARPHRD_ETHER]
    found = net.eligible(links, rtnl.addresses())
    defaults = {route.index for route in rtnl.routes() if route.destination is None and route.family == 4}
    with_default = [link for link in found if link.index in defaults]
    return next(iter((*with_default, *found)), None)


def _check_addresses(addresses: Sequence[LinkAddress]) -> None:
    inside = [address for address in addresses if address.family == 4 and address.scope == "global"]
    if not inside:
        raise HostError("network mode `nat` needs an interface with an IPv4 address")
    for address in inside:
        if address.ip == GATEWAY:
            raise HostError(
                "the network namespace has a guest behind NAT already", hint="a network namespace serves one guest"
            )
        width = min(address.prefix, PREFIX)
        if _number(address.ip) >> (32 - width) == _number(GUEST) >> (32 - width):
            raise HostError(
                f"network mode `nat` uses {GATEWAY}/{PREFIX}, and the namespace has {address.ip}/{address.prefix}",
                hint="give the container's network other addresses, or use the mode redirect",
            )


def _number(ip: str) -> int:
    return int(unpack("!I", _socket.inet_aton(ip))[0])


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
            _remove(rtnl, tables, nic.tap)
            net.remove(rtnl, (nic.tap,))
            net.close(fds)
            if isinstance(error, OSError):
                raise _kernel_error(error) from error
            raise
    if persistent:
        net.close(fds)
    return fds


def _open() -> Nftables:
    try:
        return Nftables()
    except OSError as error:
        raise _kernel_error(error) from error


def _kernel_error(error: OSError) -> HostError | KernelError:
    if error.errno in (EOPNOTSUPP, EPROTONOSUPPORT):
        return HostError("the kernel has no nftables, which the network mode `nat` needs", hint="load nf_tables")
    return net.kernel_error("cannot put the guest behind NAT", error)


def _connect(rtnl: Rtnl, tables: Nftables, nic: Nic) -> None:
    """The interfaces forward last: until then nothing has changed for the pod's other containers."""
    made = _socket.if_nametoindex(nic.tap)
    rtnl.set_link(made, mtu=nic.mtu, addrgen_none=True, inet_conf={FORWARDING: 1})
    rtnl.add_address(made, GATEWAY, PREFIX)
    rtnl.set_link(made, up=True)
    addresses = [address for address in rtnl.addresses() if address.family == 4 and address.scope == "global"]
    indexes = {address.index for address in addresses}
    silent = [link for link in rtnl.links() if link.index in indexes and link.index != made and not link.forwarding]
    inside = [address.ip for address in addresses if address.index != made]
    tables.add_table(nic.tap, _note(silent), rules(nic.tap, inside))
    for link in silent:
        rtnl.set_link(link.index, inet_conf={FORWARDING: 1})


def rules(tap: str, addresses: Sequence[str]) -> tuple[Chain, ...]:
    """Return the chains: to `addresses`, the pod's own, where no socket of the pod waits; and out, masqueraded."""
    arriving = [(nftables.comes_in_by(tap), nftables.accept())]
    for ip in addresses:
        for protocol in (nftables.TCP, nftables.UDP):
            match = nftables.destination_is(ip) + nftables.protocol_is(protocol)
            arriving.append((match, nftables.jump("guest")))
    leaving = (nftables.source_is(GUEST), nftables.leaves_not_by(tap), nftables.masquerade())
    to_guest = ((nftables.has_socket(), nftables.accept()), (nftables.redirect_to(GUEST),))
    return (
        Chain(name="guest", rules=to_guest),
        Chain(name="arriving", rules=tuple(arriving), hook=nftables.PREROUTING),
        Chain(name="leaving", rules=(leaving,), hook=nftables.POSTROUTING),
    )


def _note(silent: Sequence[Link]) -> bytes:
    """Return the table's note: the names of the interfaces that did not forward before. No name holds a `/`."""
    return "/".join(("urunc", *(link.name for link in silent))).encode()


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
    silent = note.decode(errors="replace").split("/")[1:]
    for link in rtnl.links():
        if link.name in silent:
            rtnl.set_link(link.index, inet_conf={FORWARDING: 0})
    tables.delete_table(name)


def detach(rtnl: Rtnl, taps: Sequence[str]) -> None:
    """Undo `attach` in the namespace of `rtnl`, which the process stands in. May be called again. Raises OSError."""
    with Nftables() as tables:
        for name in taps:
            _remove(rtnl, tables, name)
