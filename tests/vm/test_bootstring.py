"""Words and addresses of boot strings."""

from __future__ import annotations

import pytest

from urunc.vm import bootstring
from urunc.vm.machine import Address, Network, Nic
from vmcases import NETWORKS, OFF_LINK_NIC, PLAIN_NIC, SECOND_NIC


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


def test_one_nic() -> None:
    assert bootstring.one_nic(Network()) == (None, ())
    assert bootstring.one_nic(NETWORKS["plain"]) == (PLAIN_NIC, ())
    nic, messages = bootstring.one_nic(NETWORKS["two"])
    assert nic == PLAIN_NIC
    assert "net1" in messages[0]
