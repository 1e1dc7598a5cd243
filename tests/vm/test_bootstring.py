"""Words and addresses of boot strings."""

from __future__ import annotations

import pytest

from urunc.errors import SpecError
from urunc.vm import bootstring
from urunc.vm.machine import Address, Network, Nic, Route
from vmcases import DUAL_NIC, IPV6_NIC, NETWORKS, OFF_LINK_NIC, PLAIN_NIC, SECOND_NIC


@pytest.mark.parametrize(
    ("prefix", "mask"), [(0, "0.0.0.0"), (1, "128.0.0.0"), (24, "255.255.255.0"), (32, "255.255.255.255")]
)
def test_netmask(prefix: int, mask: str) -> None:
    assert bootstring.netmask(prefix) == mask


@pytest.mark.parametrize(
    ("ip", "prefix", "gateway", "expected"),
    [
        ("172.17.0.2", 16, "172.17.0.1", 16),
        ("10.0.0.2", 32, "10.0.0.1", 30),
        ("10.0.0.2", 24, "10.0.1.1", 23),
        ("10.1.2.3", 32, "169.254.1.1", 0),
        ("10.1.2.3", 32, "", 32),
        ("10.1.2.3", 24, "10.1.2.3", 24),
    ],
)
def test_covering_prefix(ip: str, prefix: int, gateway: str, expected: int) -> None:
    assert bootstring.covering_prefix(Address(ip=ip, prefix=prefix), gateway) == expected


def test_gateway() -> None:
    assert bootstring.gateway(PLAIN_NIC) == "172.17.0.1"
    assert bootstring.gateway(OFF_LINK_NIC) == "169.254.1.1"
    assert bootstring.gateway(SECOND_NIC) == ""


def test_ipv4_only() -> None:
    both = Nic(
        ifname="e",
        tap="t",
        mac="m",
        addresses=(Address(ip="fd00::1", prefix=64, family=6), Address(ip="1.2.3.4", prefix=8)),
    )
    address = bootstring.ipv4(both)
    assert address is not None and address.ip == "1.2.3.4"
    assert bootstring.ipv4(Nic(ifname="e", tap="t", mac="m")) is None
    assert bootstring.resolvers(NETWORKS["plain"]) == ("10.0.0.53", "10.0.0.54")


def test_an_ipv6_gateway_is_no_ipv4_gateway() -> None:
    nic = PLAIN_NIC.replace(routes=(Route(gateway="fe80::1"), Route(gateway="10.0.0.1", family=6)))
    assert bootstring.gateway(nic) == bootstring.gateway_ipv6(nic) == ""
    assert bootstring.gateway_ipv6(DUAL_NIC) == "fe80::1"


def test_without_ipv6() -> None:
    assert bootstring.without_ipv6("mewz", None) == ()
    assert bootstring.without_ipv6("mewz", PLAIN_NIC, SECOND_NIC) == ()
    assert bootstring.without_ipv6("mewz", PLAIN_NIC.replace(addresses=())) == ()
    (message,) = bootstring.without_ipv6("mewz", DUAL_NIC, SECOND_NIC)
    assert "`mewz`" in message
    assert "eth0" in message
    assert "net1" not in message
    assert bootstring.without_ipv6("mewz", IPV6_NIC, SECOND_NIC)
    with pytest.raises(SpecError, match="eth0 has IPv6 addresses alone, and the guest `mewz`"):
        bootstring.without_ipv6("mewz", IPV6_NIC)


def test_the_primary_nic() -> None:
    assert Network().primary() is None
    assert Network(nics=(SECOND_NIC,)).primary() is SECOND_NIC
    assert NETWORKS["two"].primary() is PLAIN_NIC
    assert Network(nics=(SECOND_NIC, IPV6_NIC)).primary() is IPV6_NIC
    assert Network(nics=(IPV6_NIC, PLAIN_NIC)).primary() is PLAIN_NIC


def test_the_primary_nic_of_several_default_routes() -> None:
    def nic(name: str, metric: int) -> Nic:
        return Nic(ifname=name, tap=name, mac="02:00:00:00:00:01", routes=(Route(gateway="10.0.0.1", metric=metric),))

    wifi, wire, same = nic("wifi", 600), nic("wire", 100), nic("same", 100)
    assert Network(nics=(wifi, wire, same)).primary() is wire
    assert Network(nics=(wifi, same, wire)).primary() is same


def test_a_guest_that_takes_fewer_nics() -> None:
    two = NETWORKS["two"]
    assert two.limited(None) is two.limited(2) is two
    assert two.limited(1).nics == (PLAIN_NIC,)
    assert two.limited(0).nics == ()
    three = two.replace(nics=(SECOND_NIC, IPV6_NIC, PLAIN_NIC))
    assert three.limited(2).nics == (PLAIN_NIC, SECOND_NIC)
