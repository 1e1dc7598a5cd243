"""Network mode `nat` in real namespaces: what the guest gets, where packets go, and the rules."""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING

import pytest

from inchild import EITHER, OUTSIDE, ip, run_in, shown
from pods import (
    MAC,
    POD,
    TAP,
    WORLD,
    Guest,
    answer_arp,
    ask,
    attached,
    make_pod,
    make_pod_with_ipv6,
    outside,
    traces,
    undo,
)
from urunc.errors import HostError
from urunc.linux.rtnl import Rtnl
from urunc.oci.network import GUEST, GUEST6
from urunc.runtime import nat
from urunc.vm.machine import Address, Network, Nic, Route

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.root


def test_the_record() -> None:
    def body() -> Network:
        make_pod()
        with Rtnl() as rtnl:
            return nat.look(rtnl, (TAP, "other"))

    assert run_in(OUTSIDE, body) == Network(
        nics=(
            Nic(
                ifname="eth0",
                tap=TAP,
                mac=MAC,
                mtu=1400,
                addresses=(Address(ip="172.16.1.2", prefix=24),),
                routes=(Route(gateway="172.16.1.1"),),
            ),
        )
    )


def test_the_interface_with_the_default_route_is_the_primary_and_others_may_be_of_any_kind() -> None:
    def body() -> None:
        make_pod(
            "link add name net1 type veth peer name peer1", "addr add 10.7.0.2/24 dev net1", "link set net1 mtu 1300 up"
        )
        ip("tuntap add tun0 mode tun", "addr add 10.9.0.1/24 dev tun0", "link set tun0 up")
        ip("route add default via 10.7.0.1")
        with Rtnl() as rtnl:
            (nic,) = nat.look(rtnl, (TAP,)).nics
            assert (nic.ifname, nic.mtu) == ("net1", 1300)

    run_in(OUTSIDE, body)


def test_a_namespace_without_an_interface() -> None:
    def body() -> None:
        before = traces()
        with Rtnl() as rtnl:
            assert nat.look(rtnl, (TAP,)) == Network()
            assert nat.attach(rtnl, Network(), 0, 0, persistent=False, vnet_hdr=False) == {}
        assert traces() == before

    run_in(OUTSIDE, body)


@EITHER
def test_the_pod_keeps_its_network_and_the_guest_has_it_too(kinds: tuple[str, ...]) -> None:
    """Each direction between world, pod and guest; what a socket of the pod waits for is not the guest's."""

    def world() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind((WORLD, 53))
            server.settimeout(30)
            assert ask(POD, 8080) == b"guest:hello"
            assert ask(POD, 9000) == b"pod:hello"
            data, address = server.recvfrom(2000)
            assert (data, address[0]) == (b"from the guest", POD)
            server.sendto(b"answer", address)
            more = [server.recvfrom(2000) for _ in range(2)]
            assert {data for data, _ in more} == {b"guest:answer", b"from the pod"}
            assert {address[0] for _, address in more} == {POD}

    def body() -> None:
        make_pod()
        with (
            attached() as (_network, fd),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sidecar,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            sidecar.bind(("0.0.0.0", 9000))
            sidecar.settimeout(30)
            child = outside(world)
            guest = Guest(fd)
            try:
                data, address = sidecar.recvfrom(2000)
                sidecar.sendto(b"pod:" + data, address)
                assert ask(GUEST, 8080) == b"guest:hello"  # as Knative's proxy does
                guest.send(WORLD, 53, b"from the guest")
                client.sendto(b"from the pod", (WORLD, 53))
                assert os.waitpid(child, 0)[1] == 0
                assert all(frame[26:30] != socket.inet_aton("127.0.0.1") for frame in guest.seen)
            finally:
                guest.close()

    run_in(kinds, body)


def test_a_guest_speaks_in_its_own_name_alone() -> None:
    def world() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind((WORLD, 53))
            server.settimeout(30)
            data, address = server.recvfrom(2000)
            assert (data, address[0]) == (b"its own", POD)

    def body() -> None:
        make_pod()
        with attached() as (_network, fd):
            child = outside(world)
            guest = Guest(fd)
            try:
                while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:  # nobody may listen yet
                    for source in ("10.0.0.77", "192.0.2.1", "172.16.1.3", POD, WORLD, "127.0.0.1"):
                        guest.send(WORLD, 53, b"another's", source)
                    guest.send(WORLD, 53, b"its own")
                    select.select([], [], [], 0.02)
                assert ended[1] == 0
            finally:
                guest.close()

    run_in(OUTSIDE, body)


def test_tcp_goes_where_a_socket_listens() -> None:
    """A connection to a port that the pod listens on is the pod's; any other reaches the guest's tap."""

    def world() -> None:
        with socket.create_connection((POD, 9000), 10) as connection:
            assert connection.recv(10) == b"pod"
        with socket.socket() as other:
            other.settimeout(3)
            try:
                other.connect((POD, 8080))
            except TimeoutError:
                return
        raise AssertionError("somebody answers who should not")

    def body() -> None:
        make_pod()
        with attached() as (_network, fd), socket.create_server(("0.0.0.0", 9000)) as server:
            child = outside(world)
            connection, _address = server.accept()
            connection.sendall(b"pod")
            connection.close()
            while True:
                assert select.select([fd], [], [], 10)[0], "nothing arrives at the tap"
                frame = os.read(fd, 2000)
                if frame[12:14] == b"\x08\x06":
                    os.write(fd, answer_arp(frame))
                if frame[12:14] == b"\x08\0" and frame[23] == 6:
                    break
            assert frame[30:34] == socket.inet_aton(GUEST)
            assert frame[36:38] == (8080).to_bytes(2, "big")
            assert os.waitpid(child, 0)[1] == 0

    run_in(OUTSIDE, body)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("172.16.1.9/32", "uses 172.16.1.1/24, and the namespace has 172.16.1.9/32"),
        ("172.16.7.9/16", "the namespace has 172.16.7.9/16"),
        ("fd75:7275:6e63::9/128 nodad", "uses fd75:7275:6e63::1/64, and the namespace has fd75:7275:6e63::9/128"),
    ],
)
def test_addresses_that_are_the_guests(address: str, message: str) -> None:
    def body() -> None:
        make_pod(f"addr add {address.split()[0]} dev eth0 {address.partition(' ')[2]}")
        with Rtnl() as rtnl, pytest.raises(HostError, match=message):
            nat.look(rtnl, (TAP,))

    run_in(OUTSIDE, body)


@pytest.mark.parametrize("alone", [False, True])
def test_an_address_of_each_family_that_the_pod_has(alone: bool) -> None:
    def body() -> Nic:
        make_pod_with_ipv6(alone=alone)
        with Rtnl() as rtnl:
            return nat.look(rtnl, (TAP,)).nics[0]

    nic = run_in(OUTSIDE, body)
    four = () if alone else ((GUEST, 24, 4),)
    assert tuple((each.ip, each.prefix, each.family) for each in nic.addresses) == (*four, (GUEST6, 64, 6))
    gateways = ["172.16.1.1"] * (not alone) + ["fd75:7275:6e63::1"]
    assert [route.gateway for route in nic.routes] == gateways


def test_ipv6_is_switched_on_for_the_tap_alone() -> None:
    """Engines switch it off for every interface but their own."""

    def body() -> None:
        with open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as file:
            file.write("1")
        make_pod()
        with open("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "w") as file:
            file.write("0")
        ip("addr add fd00::5/64 dev eth0 nodad")
        with attached():
            assert "fd75:7275:6e63::1/64" in shown("ip", "address", "show", "dev", TAP)
        undo(TAP)

    run_in(OUTSIDE, body)


def test_the_rules_read_as_they_should() -> None:
    def body() -> str:
        make_pod("addr add 10.0.0.6/32 dev eth0", "addr add fd00::5/64 dev eth0 nodad")
        with attached():
            return shown("nft", "list", "ruleset")

    if not any(os.access(f"{folder}/nft", os.X_OK) for folder in ("/usr/sbin", "/sbin")):
        pytest.skip("nft is not installed")
    text = " ".join(run_in(OUTSIDE, body).split())
    for rule in (
        "dnat ip to 172.16.1.2",
        "dnat ip6 to fd75:7275:6e63::2",
        "ip6 daddr fd00::5 meta l4proto tcp jump guest",
        f'ip6 saddr fd75:7275:6e63::2 oifname != "{TAP}" masquerade',
        f'iifname "{TAP}" accept',
        "type nat hook prerouting priority dstnat",
        "ip daddr 10.0.0.5 meta l4proto tcp jump guest",
        "type filter hook forward priority filter",
        f'iifname "{TAP}" ip saddr 172.16.1.2 accept iifname "{TAP}" ip6 saddr fd75:7275:6e63::2 accept '
        f'iifname "{TAP}" drop',
        "ip daddr 10.0.0.6 meta l4proto udp jump guest",
        f'ip saddr 172.16.1.2 oifname != "{TAP}" masquerade',
    ):
        assert rule in text
