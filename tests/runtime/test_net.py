"""Which interfaces a guest takes the place of, what is known of them, and what it is told of name servers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inchild import OUTSIDE, ip, run_in
from urunc.errors import HostError, SpecError
from urunc.linux import tap
from urunc.linux.rtnl import IFF_LOOPBACK, IFF_UP, Link, LinkAddress, Rtnl
from urunc.runtime import net
from urunc.vm.machine import Address, Neighbour, Network, Nic, Route
from wires import GATEWAY_MAC, MAC, PEER_MAC, back, bound_namespace, make_veth, traces


def _link(index: int, name: str, *, kind: int = 1, up: bool = True, loopback: bool = False) -> Link:
    flags = (IFF_UP if up else 0) | (IFF_LOOPBACK if loopback else 0)
    return Link(index=index, name=name, type=kind, flags=flags)


def _address(index: int, scope: str = "global", family: int = 4) -> LinkAddress:
    return LinkAddress(index=index, family=family, ip="10.0.0.1", prefix=24, scope=scope)


def test_eligible_interfaces_are_up_ethernet_and_addressed() -> None:
    links = [
        _link(7, "net1"),
        _link(1, "lo", kind=772, loopback=True),
        _link(2, "tunl0", kind=768),
        _link(3, "sit0", kind=776, up=False),
        _link(4, "gretap0", up=False),
        _link(5, "eth0"),
        _link(6, "down0", up=False),
        _link(8, "only-link-local"),
    ]
    addresses = [_address(1), _address(5), _address(6), _address(7, family=6), _address(8, "link")]
    assert [link.name for link in net.eligible(links, addresses)] == ["eth0", "net1"]


@pytest.mark.parametrize(
    ("made", "ordered"),
    [
        ("eth1 eth0", "eth0 eth1"),
        ("eth10 eth9 eth", "eth eth9 eth10"),
        ("eth0 data0", "eth0 data0"),
        ("net2 eth0 net1", "net1 net2 eth0"),
        ("b a", "b a"),
        ("eth00 eth0", "eth00 eth0"),
    ],
)
def test_the_order_is_that_of_the_numbers_and_else_that_in_which_they_were_made(made: str, ordered: str) -> None:
    links = [_link(index, name) for index, name in enumerate(made.split(), 2)]
    addresses = [_address(link.index) for link in links]
    assert [link.name for link in net.eligible(links[::-1], addresses)] == ordered.split()


def test_an_address_without_ethernet_is_an_error_that_names_the_device() -> None:
    with pytest.raises(HostError, match="`wg0` has an address but no Ethernet"):
        net.eligible([_link(2, "eth0"), _link(3, "wg0", kind=65534)], [_address(2), _address(3)])


def test_an_mtu_that_no_tap_has_is_an_error_that_names_the_device() -> None:
    links = [_link(2, "eth0"), _link(3, "eth1").replace(mtu=65535)]
    assert net.eligible([links[0], links[1].replace(mtu=tap.MAX_MTU)], [_address(2), _address(3)])
    with pytest.raises(HostError, match="`eth1` has an MTU of 65535, and a tap 65521 at most"):
        net.eligible(links, [_address(2), _address(3)])


@pytest.mark.root
def test_the_record_of_an_off_link_gateway() -> None:
    def body() -> Network:
        make_veth(mtu=1400, address="10.1.2.3/32")
        ip(
            "addr add 2001:db8::5/64 dev eth0 nodad",
            "route add 169.254.1.1 dev eth0 scope link",
            "route add default via 169.254.1.1 dev eth0 onlink",
            f"neigh add 169.254.1.1 lladdr {GATEWAY_MAC} dev eth0 nud permanent",
        )
        with Rtnl() as rtnl:
            return net.look(rtnl, ("tap-a", "tap-b"))

    assert run_in(OUTSIDE, body) == Network(
        nics=(
            Nic(
                ifname="eth0",
                tap="tap-a",
                mac=MAC,
                mtu=1400,
                addresses=(
                    Address(ip="10.1.2.3", prefix=32),
                    Address(ip="2001:db8::5", prefix=64, family=6),
                ),
                routes=(
                    Route(gateway="169.254.1.1", onlink=True),
                    Route(destination="169.254.1.1", prefix=32, scope="link"),
                ),
                neighbours=(Neighbour(ip="169.254.1.1", mac=GATEWAY_MAC),),
            ),
        )
    )


@pytest.mark.root
def test_the_record_of_ipv6_alone() -> None:
    def body() -> Network:
        ip(
            f"link add name eth0 address {MAC} type veth peer name peer address {PEER_MAC}",
            "link set eth0 up",
            "link set peer up",
            "addr add 2001:db8::5/128 dev eth0 nodad",
            "addr add fd00::5/64 dev eth0 nodad preferred_lft 0",
            "route add fe80::1 dev eth0",
            "route add default via fe80::1 dev eth0 src 2001:db8::5",
            "route add 2001:db8:1::/48 via fe80::2 dev eth0 metric 7",
            f"neigh add fe80::1 lladdr {GATEWAY_MAC} dev eth0 nud permanent",
        )
        with Rtnl() as rtnl:
            return net.look(rtnl, ("tap-a",))

    (nic,) = run_in(OUTSIDE, body).nics
    assert {address.ip: address.prefix for address in nic.addresses} == {"2001:db8::5": 128, "fd00::5": 64}
    assert {address.family for address in nic.addresses} == {6}
    assert sorted(nic.routes, key=lambda route: str(route.destination)) == [
        Route(destination="2001:db8:1::", prefix=48, gateway="fe80::2", metric=7, family=6),
        Route(gateway="fe80::1", metric=1024, source="2001:db8::5", family=6),
        Route(destination="fe80::1", prefix=128, metric=1024, family=6),
    ]
    assert nic.neighbours == (Neighbour(ip="fe80::1", mac=GATEWAY_MAC),)


@pytest.mark.root
def test_an_empty_namespace_has_no_nic_and_needs_no_tap() -> None:
    def body() -> None:
        with Rtnl() as rtnl:
            network = net.look(rtnl, ())
            assert network == Network()
            assert net.attach(rtnl, network, 0, 0, persistent=True, vnet_hdr=False) == {}
        assert traces() == ({"lo"}, {})

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_more_interfaces_than_taps() -> None:
    def body() -> None:
        make_veth()
        ip("addr add 10.9.0.1/24 dev peer")
        with Rtnl() as rtnl, pytest.raises(HostError, match=r"at most 1 interfaces, .* `peer`, `eth0`"):
            net.look(rtnl, ("one",))

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_own_namespace() -> None:
    def body() -> None:
        assert not net.is_own_namespace("/proc/self/ns/net")
        bound = bound_namespace()
        assert net.is_own_namespace(bound)
        back()
        assert not net.is_own_namespace(bound)
        with pytest.raises(SpecError, match="cannot use the network namespace `/nowhere`: no such file"):
            net.is_own_namespace("/nowhere")

    run_in(OUTSIDE, body)


@pytest.mark.parametrize(
    ("text", "servers", "search"),
    [
        ("", (), ()),
        ("nameserver 10.0.0.2\nnameserver 10.0.0.3\n", ("10.0.0.2", "10.0.0.3"), ()),
        ("nameserver 127.0.0.53\nnameserver 127.0.0.11\nnameserver ::1\nnameserver 1.1.1.1", ("1.1.1.1",), ()),
        ("nameserver ::ffff:127.0.0.1\nnameserver 0.0.0.0\nnameserver ::\nnameserver ::2", ("::2",), ()),
        ("nameserver fe80::1%eth0\nnameserver 2001:db8::1\n", ("2001:db8::1",), ()),
        ("nameserver\nnameserver nonsense\n nameserver\t10.1.1.1  \n", ("10.1.1.1",), ()),
        ("nameserver 10.0.0.2\nnameserver 10.0.0.2\n", ("10.0.0.2",), ()),
        ("search a.example b.example\nsearch c.example\noptions ndots:5\n", (), ("c.example",)),
        (
            "domain d.example\n# search x\n; nameserver 10.0.0.9\nnameserver 10.0.0.1 # mine\n",
            ("10.0.0.1",),
            ("d.example",),
        ),
    ],
)
def test_resolv_conf(text: str, servers: tuple[str, ...], search: tuple[str, ...]) -> None:
    assert net.parse_resolv_conf(text) == (servers, search)


@given(st.text())
def test_any_resolv_conf_is_parsed(text: str) -> None:
    net.parse_resolv_conf(text)
