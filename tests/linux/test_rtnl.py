"""Devices, addresses, routes and neighbours that `ip` has made, and what is changed in them."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from inchild import EITHER, OUTSIDE, ip, run_in, veth
from urunc.linux.rtnl import ARPHRD_ETHER, IFF_NOARP, LinkAddress, LinkNeighbour, LinkRoute, Rtnl


@pytest.mark.root
@EITHER
def test_links(kinds: tuple[str, ...]) -> None:
    def body() -> None:
        eth0, _peer = veth()
        with Rtnl() as rtnl:
            links = {link.name: link for link in rtnl.links()}
        link = links["eth0"]
        assert (link.index, link.type, link.mtu) == (eth0, ARPHRD_ETHER, 1400)
        assert (link.mac, link.kind, link.up, link.loopback) == ("02:00:00:00:00:01", "veth", True, False)
        assert links["lo"].loopback
        assert not links["lo"].up

    run_in(kinds, body)


@pytest.mark.root
def test_addresses() -> None:
    def body() -> None:
        eth0, _peer = veth()
        ip(
            "addr add 10.0.0.5/24 dev eth0",
            "addr add 10.0.0.6/24 dev eth0",
            "addr add 192.0.2.1 peer 192.0.2.2/32 dev eth0",
            "addr add 10.9.0.1/24 dev eth0 scope link",
            "addr add 2001:db8::5/64 dev eth0 nodad",
        )
        with Rtnl() as rtnl:
            found = [a for a in rtnl.addresses() if a.index == eth0 and not a.ip.startswith("fe80")]
        common = {"index": eth0, "family": 4}
        assert set(found) == {
            LinkAddress(ip="10.0.0.5", prefix=24, scope="global", **common),
            LinkAddress(ip="10.0.0.6", prefix=24, scope="global", **common),
            LinkAddress(ip="192.0.2.1", prefix=32, scope="global", **common),
            LinkAddress(ip="10.9.0.1", prefix=24, scope="link", **common),
            LinkAddress(index=eth0, family=6, ip="2001:db8::5", prefix=64, scope="global"),
        }

    run_in(OUTSIDE, body)


def _route(index: int, **fields: Any) -> LinkRoute:
    plain: dict[str, Any] = {
        "family": 4,
        "destination": None,
        "prefix": 0,
        "gateway": None,
        "onlink": False,
        "scope": "global",
        "metric": 0,
        "source": None,
        "by_kernel": False,
    }
    return LinkRoute(index=index, **{**plain, **fields})


@pytest.mark.root
def test_routes() -> None:
    def body() -> None:
        eth0, peer = veth()
        ip(
            "addr add 10.0.0.5/32 dev eth0",
            "addr add 10.1.0.1/24 dev peer",
            "addr add 2001:db8::5/128 dev eth0 nodad",
            "route add 169.254.1.1 dev eth0 scope link",
            "route add default via 169.254.1.1 dev eth0 onlink src 10.0.0.5 metric 7",
            "route add 10.2.0.0/16 nexthop via 169.254.1.1 dev eth0 onlink nexthop via 10.1.0.2 dev peer",
            "route add blackhole 10.3.0.0/16",
            "route add 10.4.0.0/16 dev eth0 table 99",
            "route add 10.5.0.0/16 via inet6 fe80::1 dev eth0 onlink",
            "route add default via fe80::1 dev eth0",
        )
        with Rtnl() as rtnl:
            found = rtnl.routes()
        expected = [
            _route(eth0, gateway="169.254.1.1", onlink=True, source="10.0.0.5", metric=7),
            _route(eth0, destination="169.254.1.1", prefix=32, scope="link"),
            _route(eth0, destination="10.2.0.0", prefix=16, gateway="169.254.1.1", onlink=True),
            _route(peer, destination="10.2.0.0", prefix=16, gateway="10.1.0.2"),
            _route(eth0, destination="10.5.0.0", prefix=16, gateway="fe80::1", onlink=True),
            _route(eth0, family=6, gateway="fe80::1", metric=1024),
            _route(peer, destination="10.1.0.0", prefix=24, scope="link", source="10.1.0.1", by_kernel=True),
        ]
        for route in expected:
            assert route in found
        assert not any(route.destination in ("10.3.0.0", "10.4.0.0") for route in found)

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_only_permanent_neighbours() -> None:
    def body() -> None:
        eth0, _peer = veth()
        ip(
            "neigh add 169.254.1.1 lladdr 02:11:22:33:44:55 dev eth0 nud permanent",
            "neigh add 10.0.0.9 lladdr 02:11:22:33:44:66 dev eth0 nud reachable",
            "neigh add fe80::1 lladdr 02:11:22:33:44:55 dev eth0 nud permanent",
        )
        with Rtnl() as rtnl:
            found = rtnl.neighbours()
        assert sorted(found, key=lambda item: item.family) == [
            LinkNeighbour(index=eth0, family=4, ip="169.254.1.1", mac="02:11:22:33:44:55"),
            LinkNeighbour(index=eth0, family=6, ip="fe80::1", mac="02:11:22:33:44:55"),
        ]

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_dumps_of_many_datagrams() -> None:
    def body() -> None:
        veth()
        ip(*(f"route add 10.{n >> 8}.{n & 255}.0/24 dev eth0" for n in range(2000)))
        ip(*(f"link add link peer name mv{n} type macvlan" for n in range(60)))
        with Rtnl() as rtnl:
            assert len(rtnl.routes()) >= 2000
            assert len(rtnl.links()) == 63

    run_in(OUTSIDE, body)


@pytest.mark.root
@EITHER
def test_set_link(kinds: tuple[str, ...]) -> None:
    def body() -> None:
        eth0, peer = veth()
        ip("link set eth0 down", "link set peer down")
        with Rtnl() as rtnl:
            rtnl.set_link(eth0, mtu=1300, arp=False, mac="02:00:00:00:00:99", addrgen_none=True)
            rtnl.set_link(eth0, up=True)
            rtnl.set_link(peer, inet_conf={23: 1}, up=True)
            link = next(link for link in rtnl.links() if link.index == eth0)
            assert (link.mtu, link.mac, link.up) == (1300, "02:00:00:00:00:99", True)
            assert link.flags & IFF_NOARP
            rtnl.set_link(eth0, arp=True)
            link = next(link for link in rtnl.links() if link.index == eth0)
            assert link.up
            assert not link.flags & IFF_NOARP
            assert not any(address.index == eth0 for address in rtnl.addresses())
            with open("/proc/sys/net/ipv4/conf/peer/accept_local") as file:
                assert file.read() == "1\n"

    run_in(kinds, body)


@pytest.mark.root
def test_the_kernels_own_words_are_in_the_error() -> None:
    def body() -> None:
        eth0, _peer = veth()
        with Rtnl() as rtnl:
            with pytest.raises(OSError, match=r"cannot change the link: Invalid argument \(mtu greater than device"):
                rtnl.set_link(eth0, mtu=1 << 24)
            with pytest.raises(OSError, match="cannot delete the link: No such device") as caught:
                rtnl.delete_link(9999)
            assert caught.value.errno == errno.ENODEV
            assert rtnl.links()  # and the socket goes on

    run_in(OUTSIDE, body)
