"""The guest's network: which interfaces it takes over, and the tap and redirect that make it do so.

For every eligible interface of the container's network namespace a tap is made beside it, and each of the two
is told to send what comes in out of the other::

    engine's veth  --ingress: redirect-->  tap  -->  guest's NIC
    engine's veth  <--ingress: redirect--  tap  <--  guest's NIC

The guest takes the interface's MAC, MTU, addresses and routes. Nothing here ever runs in the runtime's own network
namespace: redirecting the host's interface would cut the host off. Which names the taps get is the plan's affair;
what a guest makes of the record is `vm`'s.
"""

from __future__ import annotations

import _socket
import os
from errno import ENODEV

from .. import log
from ..errors import HostError, KernelError, SpecError, reason
from ..linux import ns, tap, tc
from ..linux.rtnl import ACCEPT_LOCAL, ARPHRD_ETHER, RP_FILTER, Rtnl
from ..vm.machine import Address, Neighbour, Network, Nic, Route

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..linux.rtnl import Link, LinkAddress, LinkNeighbour, LinkRoute

_OUR_BLOCKS = 0x75 << 24
"""How urunc's ingress qdisc on an engine's interface is known: its filter block's number begins with this byte."""

_LOOSE = 2  # of rp_filter


def is_own_namespace(path: str) -> bool:
    """Return whether the network namespace at `path` is another than the runtime's own (the host's).

    To be asked before any other function here, by a process that has joined nothing yet. Raises SpecError where
    there is nothing at the path.
    """
    try:
        return not ns.is_hosts(path, "network")
    except OSError as error:
        raise SpecError(f"linux.namespaces: cannot use the network namespace `{path}`: {reason(error)}") from None


def look(rtnl: Rtnl, tap_names: Sequence[str]) -> Network:
    """Return a NIC for each interface that the guest is to take the place of, in the order of `eligible`.

    Those are Ethernet devices, up, with a global address. Raises HostError for a global address on a device
    without Ethernet, and where there are more interfaces than `tap_names`; KernelError.
    """
    try:
        links, addresses = rtnl.links(), rtnl.addresses()
        routes, neighbours = rtnl.routes(), rtnl.neighbours()
    except OSError as error:
        raise kernel_error("cannot look at the container's network", error) from None
    chosen = eligible(links, addresses)
    if len(chosen) > len(tap_names):
        names = ", ".join(f"`{link.name}`" for link in chosen)
        raise HostError(f"a guest takes at most {len(tap_names)} interfaces, and the network namespace has {names}")
    return Network(
        nics=tuple(
            _nic(link, name, addresses, routes, neighbours) for link, name in zip(chosen, tap_names, strict=False)
        )
    )


def eligible(links: Sequence[Link], addresses: Sequence[LinkAddress]) -> list[Link]:
    """Return the interfaces that a guest can take the place of, in its order; pure. Raises HostError as `look` does."""
    addressed = {address.index for address in addresses if address.scope == "global"}
    found = []
    for link in sorted(links, key=lambda link: link.index):
        if link.loopback or not link.up or link.index not in addressed:
            continue
        if link.type != ARPHRD_ETHER:
            raise HostError(
                f"interface `{link.name}` has an address but no Ethernet, and a guest cannot take its place",
                hint="give the container an Ethernet interface, such as a veth",
            )
        if link.mtu > tap.MAX_MTU:
            raise HostError(f"interface `{link.name}` has an MTU of {link.mtu}, and a tap {tap.MAX_MTU} at most")
        found.append(link)
    return _in_order(found)


def _in_order(links: Sequence[Link]) -> list[Link]:
    """Return them as they were made, but `eth0` before `eth1`: Podman and nerdctl make these at once."""
    series: dict[str, int] = {}
    for link in links:
        series.setdefault(_numbered(link.name)[0], link.index)

    def place(link: Link) -> tuple[int, int]:
        stem, number = _numbered(link.name)
        return series[stem], number

    return sorted(links, key=place)


def _numbered(name: str) -> tuple[str, int]:
    """Return a name's stem and its number, -1 without one: `eth10` is (`eth`, 10)."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or -1)


def _nic(
    link: Link,
    tap_name: str,
    addresses: Sequence[LinkAddress],
    routes: Sequence[LinkRoute],
    neighbours: Sequence[LinkNeighbour],
) -> Nic:
    """Return the guest's NIC: IPv4 before IPv6. A route that comes with an address will come with it in the guest."""
    return Nic(
        ifname=link.name,
        tap=tap_name,
        mac=link.mac,
        mtu=link.mtu,
        addresses=tuple(
            Address(ip=address.ip, prefix=address.prefix, family=address.family)
            for address in sorted(addresses, key=lambda address: address.family)
            if address.index == link.index and address.scope == "global"
        ),
        routes=tuple(_route(route) for route in routes if route.index == link.index and not route.by_kernel),
        neighbours=tuple(
            Neighbour(ip=neighbour.ip, mac=neighbour.mac) for neighbour in neighbours if neighbour.index == link.index
        ),
    )


def _route(route: LinkRoute) -> Route:
    return Route(
        destination=route.destination,
        prefix=route.prefix,
        gateway=route.gateway,
        onlink=route.onlink,
        scope=route.scope,
        metric=route.metric,
        source=route.source,
        family=route.family,
    )


def attach(
    rtnl: Rtnl, network: Network, uid: int, gid: int, *, persistent: bool, vnet_hdr: bool, device: str = tap.DEVICE
) -> dict[str, int]:
    """Make the taps of `network` and redirect; return each tap's name and descriptor, nothing for persistent ones.

    Runs in the namespace that `rtnl` belongs to. A persistent tap is `uid`'s and `gid`'s to open by name, any
    other lives as long as its descriptor. `vnet_hdr` is for monitors that speak virtio's header on the tap.
    Raises HostError where an interface already has a redirect or another ingress qdisc, and where taps cannot be
    made; KernelError. Whatever a failing call has made is undone.
    """
    fds: dict[str, int] = {}
    try:
        indexes = {link.name: link.index for link in rtnl.links()}
        _free_from_leftovers(rtnl, network.nics, indexes)
        try:
            for nic in network.nics:
                fds[nic.tap] = open_tap(nic.tap, uid, gid, persistent=persistent, vnet_hdr=vnet_hdr, device=device)
                _connect(rtnl, nic, indexes[nic.ifname], _socket.if_nametoindex(nic.tap))
        except BaseException:
            undo(lambda: remove(rtnl, tuple(fds)))
            close(fds)
            raise
    except OSError as error:
        raise kernel_error("cannot connect the guest to the container's network", error) from None
    if persistent:
        close(fds)
    return fds


def _free_from_leftovers(rtnl: Rtnl, nics: Sequence[Nic], indexes: dict[str, int]) -> None:
    """Remove redirects of ours to taps that are gone. Raises HostError for any other ingress qdisc, or no interface."""
    blocks = tc.ingresses(rtnl)
    for nic in nics:
        if nic.ifname not in indexes:
            raise HostError(f"interface `{nic.ifname}` has vanished from the container's network namespace")
        index = indexes[nic.ifname]
        if index not in blocks:
            continue
        targets = tc.redirects(rtnl, index)
        if blocks[index] != _block(index):
            raise HostError(f"interface `{nic.ifname}` already has an ingress qdisc, which is not urunc's to replace")
        if any(targets):
            raise HostError(
                f"interface `{nic.ifname}` is already redirected to another guest",
                hint="a network namespace serves one guest",
            )
        tc.delete_ingress(rtnl, index)


def _block(index: int) -> int:
    return _OUR_BLOCKS | index & 0xFFFFFF


def open_tap(name: str, uid: int, gid: int, *, persistent: bool, vnet_hdr: bool, device: str = tap.DEVICE) -> int:
    """Make a tap and return its descriptor. Raises HostError, KernelError."""
    try:
        return tap.open_tap(name, persistent=persistent, uid=uid, gid=gid, vnet_hdr=vnet_hdr, device=device)
    except FileNotFoundError:
        raise HostError(f"cannot make a tap: `{device}` is not there", hint="load the kernel module tun") from None
    except OSError as error:
        raise kernel_error(f"cannot make the tap `{name}`", error) from None


def _connect(rtnl: Rtnl, nic: Nic, interface: int, made: int) -> None:
    """Join the interface and the tap, by index. The interface is taken last: until then its traffic flows."""
    silent = _silent_gateways(nic)
    rtnl.set_link(made, mtu=nic.mtu, arp=bool(silent), addrgen_none=True)
    tc.add_ingress(rtnl, made)
    if silent:
        _answer_for(rtnl, made, nic.tap, silent)
    tc.add_redirect(rtnl, made, interface)
    rtnl.set_link(made, up=True)
    tc.add_ingress(rtnl, interface, _block(interface))
    tc.add_redirect(rtnl, interface, made, _block(interface))


def _silent_gateways(nic: Nic) -> list[Neighbour]:
    """Return the gateways that nobody answers for: the interface has a permanent neighbour entry for them.

    A Linux guest gets the entry itself and never asks; others must ask, and the namespace must answer. It answers
    with one MAC, the first one's: engines that do this have the same for both families.
    """
    gateways = {route.gateway for route in nic.routes}
    found = [neighbour for neighbour in nic.neighbours if neighbour.ip in gateways]
    return [neighbour for neighbour in found if neighbour.mac == found[0].mac]


def _answer_for(rtnl: Rtnl, made: int, name: str, gateways: list[Neighbour]) -> None:
    """Have the namespace answer the guest's ARP and neighbour solicitations: the tap gets the gateways' addresses.

    The question comes from the guest's address, which is also the namespace's own on the engine's interface: so the
    tap must accept local sources, and look for no route back through itself (rp_filter, loose). IPv6 knows neither.
    """
    rtnl.set_link(made, mac=gateways[0].mac, inet_conf={ACCEPT_LOCAL: 1, RP_FILTER: _LOOSE})
    for gateway in gateways:
        if ":" in gateway.ip:
            have_ipv6(name)
            rtnl.add_address(made, gateway.ip, 128)
            tc.let_solicitations_through(rtnl, made, gateway.ip)
        else:
            rtnl.add_address(made, gateway.ip, 32)
            tc.let_arp_through(rtnl, made, gateway.ip)


def have_ipv6(name: str) -> None:
    """Switch IPv6 on for a device: engines switch it off for every one but their own. rtnetlink cannot.

    Raises OSError. As every /proc/sys/net, it is that of the namespace which the process stands in.
    """
    with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "wb", buffering=0) as file:
        file.write(b"0")


def detach(path: str, taps: Sequence[str], *, behind_nat: bool = False) -> None:
    """Undo `attach` in the namespace at `path`: remove these taps, and the redirects to them or to vanished taps.

    With `behind_nat`, undo `nat.attach`. Does nothing where the namespace is gone, or is the runtime's own; may be
    called again. Raises KernelError.
    """
    try:
        if ns.is_hosts(path, "network"):
            return
        with ns.inside(path, "network"), Rtnl() as rtnl:
            if behind_nat:
                from . import nat

                nat.detach(rtnl, taps)
            remove(rtnl, taps)
    except (FileNotFoundError, SpecError):
        return
    except OSError as error:
        raise kernel_error(f"cannot disconnect the guest from the network namespace `{path}`", error) from None


def remove(rtnl: Rtnl, taps: Sequence[str]) -> None:
    """Undo `attach` in the namespace of `rtnl`. An ingress qdisc of somebody else's stays. Raises OSError."""
    ours = {link.index for link in rtnl.links() if link.name in taps and link.kind == "tun"}
    for index, block in tc.ingresses(rtnl).items():
        if block == _block(index) and ours.issuperset(target for target in tc.redirects(rtnl, index) if target):
            tc.delete_ingress(rtnl, index)
    for index in ours:
        try:
            rtnl.delete_link(index)
        except OSError as error:
            if error.errno != ENODEV:
                raise


def undo(*steps: Callable[[], None]) -> None:
    """Do every step. What cannot be undone is logged, and is `detach`'s: the failure behind this is the one to show."""
    for step in steps:
        try:
            step()
        except OSError as error:
            log.warn(str(kernel_error("cannot undo what was done of the guest's network", error)))


def close(fds: dict[str, int]) -> None:
    """Close the descriptors of taps, and forget them."""
    while fds:
        os.close(fds.popitem()[1])


def kernel_error(message: str, error: OSError) -> KernelError:
    """Return the KernelError for what `message` says could not be done."""
    why = error.strerror or reason(error)  # netlink says more than the number does
    return KernelError(f"{message}: {why[:1].lower()}{why[1:]}", errno=error.errno or 0)


def parse_resolv_conf(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return (name servers, search domains) of a resolv.conf(5), without the servers that a guest cannot reach.

    A loopback server (127.0.0.0/8, ::1, the unspecified address) is one of the host's or of the namespace's own,
    and a link-local one with a zone (fe80::1%eth0) names a device that the guest does not have.
    """
    servers: list[str] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.partition("#")[0].partition(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and _is_reachable(words[1]) and words[1] not in servers:
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])  # the last such line counts
    return tuple(servers), search


def _is_reachable(ip: str) -> bool:
    try:
        packed = _socket.inet_pton(_socket.AF_INET6 if ":" in ip else _socket.AF_INET, ip)
    except OSError:
        return False
    if len(packed) == 16 and packed.startswith(bytes(10) + b"\xff\xff"):
        packed = packed[12:]
    if len(packed) == 4:
        return packed[0] not in (0, 127)
    return packed[:15] != bytes(15) or packed[15] > 1
