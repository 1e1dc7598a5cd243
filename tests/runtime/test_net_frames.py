"""Frames between an engine's interface and the guest's tap, and what the namespace answers in the guest's place."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from inchild import EITHER, OUTSIDE, ip, run_in, shown
from urunc.linux.rtnl import IFF_NOARP, Rtnl
from urunc.runtime import net
from wires import (
    GATEWAY_MAC,
    MAC,
    PEER_MAC,
    attached,
    back,
    bound_namespace,
    frame_of,
    make_veth,
    packets,
    tap_read,
    traces,
    wait_read,
)


@pytest.mark.root
@EITHER
@pytest.mark.parametrize("name", ["eth0", "e", "a.b-c@d", "αβγδ", "fifteen-bytes.x"])
def test_frames_pass_both_ways(kinds: tuple[str, ...], name: str) -> None:
    def body() -> None:
        make_veth(name)
        with attached() as (network, (fd,)), packets("peer") as wire:
            assert network.nics[0].ifname == name
            inward = frame_of(MAC, PEER_MAC, b"\x88\xb5", b"to the guest")
            wire.send(inward)
            wait_read(lambda: tap_read(fd), inward)
            outward = frame_of(PEER_MAC, MAC, b"\x88\xb5", b"from the guest")
            os.write(fd, outward)
            wait_read(lambda: wire.recv(2000), outward)

    run_in(kinds, body)


@pytest.mark.root
def test_full_frames_pass_at_an_mtu_of_1400_and_no_larger_ones() -> None:
    def body() -> None:
        make_veth(mtu=1400)
        with attached() as (network, (fd,)), packets("peer") as wire:
            assert network.nics[0].mtu == 1400
            full = frame_of(PEER_MAC, MAC, b"\x88\xb5", b"x" * 1400)
            os.write(fd, full + b"x")
            os.write(fd, full)
            wait_read(lambda: wire.recv(2000), full)
            wire.send(full)

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_the_namespace_itself_hears_nothing_and_the_tap_says_nothing() -> None:
    def body() -> None:
        make_veth(address="10.0.0.5/24")
        with attached() as (_network, (fd,)), packets("peer") as wire:
            who_has = "0001080006040001" + PEER_MAC.replace(":", "") + "0a000063" + "000000000000" + "0a000005"
            wire.send(frame_of("ff:ff:ff:ff:ff:ff", PEER_MAC, b"\x08\x06", bytes.fromhex(who_has)))
            while tap_read(fd)[12:14] != b"\x08\x06":
                pass  # the guest is asked
            wire.settimeout(0.1)
            with pytest.raises(TimeoutError):  # and the namespace does not answer
                while wire.recv(2000)[6:14] != bytes.fromhex(MAC.replace(":", "") + "0806"):
                    pass
            with Rtnl() as rtnl:
                made = next(link for link in rtnl.links() if link.name == "urunc-t0")
                assert made.flags & IFF_NOARP
                assert not [address for address in rtnl.addresses() if address.index == made.index]

    run_in(OUTSIDE, body)


@pytest.mark.root
@EITHER
def test_the_namespace_answers_for_a_permanent_neighbour(kinds: tuple[str, ...]) -> None:
    """AWS's gateway answers no ARP; a guest that can not be told its MAC has to ask."""

    def body() -> None:
        make_veth(address="10.1.2.3/32")
        ip(
            "route add 169.254.1.1 dev eth0 scope link",
            "route add default via 169.254.1.1 dev eth0 onlink",
            f"neigh add 169.254.1.1 lladdr {GATEWAY_MAC} dev eth0 nud permanent",
        )
        Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("1")  # as distributions set it
        with attached() as (_network, (fd,)), packets("peer") as wire:
            own = MAC.replace(":", "")
            ask = f"0001080006040001{own}0a010203000000000000"
            question = frame_of("ff:ff:ff:ff:ff:ff", MAC, b"\x08\x06", bytes.fromhex(ask + "a9fe0101"))
            answer = _asked(fd, question, lambda frame: frame if frame[12:14] == b"\x08\x06" else None)
            assert isinstance(answer, bytes)
            assert answer[:14] == bytes.fromhex(own + GATEWAY_MAC.replace(":", "") + "0806")
            assert answer[20:32] == bytes.fromhex("0002" + GATEWAY_MAC.replace(":", "") + "a9fe0101")
            for frame in (
                frame_of("ff:ff:ff:ff:ff:ff", MAC, b"\x08\x06", bytes.fromhex(ask + "a9fe0102")),  # another's address
                frame_of(GATEWAY_MAC, MAC, b"\x08\x00", b"what the guest sends to its gateway"),
            ):
                os.write(fd, frame)
                wait_read(lambda: wire.recv(2000), frame)

    run_in(kinds, body)


def _icmpv6(destination: str, source: str, to_ip: str, from_ip: str, kind: int, body: bytes) -> bytes:
    """Return a frame with an ICMPv6 message, its checksum in it."""
    message = bytes([kind, 0, 0, 0]) + body
    ends = socket.inet_pton(socket.AF_INET6, from_ip) + socket.inet_pton(socket.AF_INET6, to_ip)
    pseudo = ends + len(message).to_bytes(4, "big") + b"\0\0\0\x3a"
    total = sum(int.from_bytes((pseudo + message)[at : at + 2], "big") for at in range(0, len(pseudo + message), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    message = message[:2] + (~total & 0xFFFF).to_bytes(2, "big") + message[4:]
    header = b"\x60\0\0\0" + len(message).to_bytes(2, "big") + b"\x3a\xff" + ends
    return bytes.fromhex((destination + source).replace(":", "")) + b"\x86\xdd" + header + message


SOLICITATION, ADVERTISEMENT = 135, 136


def _solicitation(asked: str, source: str, mac: str) -> bytes:
    """Return a neighbour solicitation; one from `::` is a check whether anybody has the address (DAD)."""
    target = socket.inet_pton(socket.AF_INET6, asked)
    group = socket.inet_ntop(socket.AF_INET6, bytes.fromhex("ff0200000000000000000001ff") + target[13:])
    multicast = "33:33:ff:" + target[13:].hex(":")
    option = b"" if source == "::" else b"\x01\x01" + bytes.fromhex(mac.replace(":", ""))
    return _icmpv6(multicast, mac, group, source, SOLICITATION, bytes(4) + target + option)


def _advertisement(frame: bytes) -> tuple[str, str] | None:
    """Return (address, MAC) that a neighbour advertisement tells of, None for another frame."""
    if frame[12:14] != b"\x86\xdd" or frame[20] != 58 or frame[54] != ADVERTISEMENT:
        return None
    return socket.inet_ntop(socket.AF_INET6, frame[62:78]), frame[80:86].hex(":")


def _asked(fd: int, question: bytes, read: Callable[[bytes], object]) -> object:
    """Ask from the guest's side till there is an answer: a tap that just came up drops what the namespace sends."""
    for _attempt in range(20):
        os.write(fd, question)
        while select.select([fd], [], [], 0.2)[0]:
            if answer := read(os.read(fd, 70_000)):
                return answer
    raise AssertionError("nobody answers")


def _veth_with_ipv6(*more: str, dad: bool = False) -> None:
    ip(
        f"link add name eth0 address {MAC} type veth peer name peer address {PEER_MAC}",
        "link set eth0 up",
        "link set peer addrgenmode none up",
        f"addr add 2001:db8::5/128 dev eth0 {'' if dad else 'nodad'}",
        "route add fe80::1 dev eth0",
        "route add default via fe80::1 dev eth0",
        *more,
    )


@pytest.mark.root
@EITHER
@pytest.mark.parametrize("source", ["2001:db8::5", "fe80::ff:fe00:1", "::"])
def test_the_namespace_answers_solicitations_for_a_permanent_neighbour(kinds: tuple[str, ...], source: str) -> None:
    def body() -> None:
        _veth_with_ipv6(f"neigh add fe80::1 lladdr {GATEWAY_MAC} dev eth0 nud permanent")
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")  # as engines leave it
        with attached() as (_network, (fd,)), packets("peer") as wire:
            answer = _asked(fd, _solicitation("fe80::1", source, MAC), _advertisement)
            assert answer == ("fe80::1", GATEWAY_MAC)
            for frame in (
                _solicitation("fe80::2", source, MAC),  # for another's address
                frame_of(GATEWAY_MAC, MAC, b"\x86\xdd", b"what the guest sends to its gateway"),
            ):
                os.write(fd, frame)
                wait_read(lambda: wire.recv(2000), frame)

    run_in(kinds, body)


@pytest.mark.root
def test_both_families_gateways_are_answered_for() -> None:
    def body() -> None:
        _veth_with_ipv6(
            f"neigh add fe80::1 lladdr {GATEWAY_MAC} dev eth0 nud permanent",
            "addr add 10.1.2.3/32 dev eth0",
            "route add default via 169.254.1.1 dev eth0 onlink",
            f"neigh add 169.254.1.1 lladdr {GATEWAY_MAC} dev eth0 nud permanent",
        )
        with attached() as (_network, (fd,)):
            answer = _asked(fd, _solicitation("fe80::1", "2001:db8::5", MAC), _advertisement)
            assert answer == ("fe80::1", GATEWAY_MAC)
            ask = f"0001080006040001{MAC.replace(':', '')}0a010203000000000000a9fe0101"
            arp = frame_of("ff:ff:ff:ff:ff:ff", MAC, b"\x08\x06", bytes.fromhex(ask))
            assert _asked(fd, arp, lambda frame: frame[12:14] == b"\x08\x06")

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_the_same_ipv6_address_in_guest_and_namespace_disturbs_neither() -> None:
    """While the namespace still checks its address (DAD): what is asked and told about it concerns the guest alone."""

    def body() -> None:
        _veth_with_ipv6(dad=True)
        with attached() as (_network, (fd,)), packets("peer") as wire:
            check = _solicitation("2001:db8::5", "::", MAC)
            os.write(fd, check)  # the guest's own check passes to the wire ..
            wait_read(lambda: wire.recv(2000), check)
            wire.settimeout(0.2)
            with pytest.raises(TimeoutError):  # .. and the namespace does not object, neither there nor to the guest
                while _advertisement(wire.recv(2000)) is None:
                    pass
            ask = _solicitation("2001:db8::5", "fe80::1", PEER_MAC)
            wire.send(ask)
            wait_read(lambda: tap_read(fd), ask)  # the guest is asked, the namespace does not answer
            target = bytes(4) + socket.inet_pton(socket.AF_INET6, "2001:db8::5")
            told = _icmpv6("33:33:00:00:00:01", PEER_MAC, "ff02::1", "fe80::1", ADVERTISEMENT, target)
            wire.send(told)  # somebody claims the address: the guest hears it, the namespace keeps its own
            wait_read(lambda: tap_read(fd), told)
            with pytest.raises(TimeoutError):
                while _advertisement(wire.recv(2000)) is None:
                    pass
        for _attempt in range(100):  # a check takes a second
            found = shown("ip", "-6", "addr", "show", "dev", "eth0")
            if "tentative" not in found:
                break
            time.sleep(0.1)
        assert "2001:db8::5/128 scope global" in found
        assert "dadfailed" not in found

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_two_interfaces_two_taps() -> None:
    def body() -> None:
        make_veth()
        ip(
            "link add name eth1 type veth peer name peer1",
            "link set eth1 up",
            "link set peer1 up",
            "addr add 10.7.0.1/24 dev eth1",
        )
        before = traces()
        with attached(("urunc-a", "urunc-b", "urunc-c")) as (network, fds):
            assert [(nic.ifname, nic.tap) for nic in network.nics] == [("eth0", "urunc-a"), ("eth1", "urunc-b")]
            for peer, fd in (("peer", fds[0]), ("peer1", fds[1])):
                with packets(peer) as wire:
                    frame = frame_of(MAC, PEER_MAC, b"\x88\xb5", peer.encode())
                    wire.send(frame)
                    wait_read(lambda: tap_read(fd), frame)  # noqa: B023
        net.detach(bound_namespace(), ("urunc-a", "urunc-b", "urunc-c"))
        back()
        assert traces() == before

    run_in(OUTSIDE, body)
