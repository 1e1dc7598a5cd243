from __future__ import annotations

import os
import select
import socket
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inchild import EITHER, OUTSIDE, ip, run_in, run_tc, shown
from urunc.errors import HostError, KernelError, SpecError
from urunc.linux import ns, proc, tap, tc
from urunc.linux.rtnl import IFF_LOOPBACK, IFF_NOARP, IFF_UP, Link, LinkAddress, Rtnl
from urunc.runtime import net
from urunc.vm.machine import Address, Neighbour, Network, Nic, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


MAC = "02:00:00:00:00:01"
PEER_MAC = "02:00:00:00:00:02"
GATEWAY_MAC = "02:00:00:00:00:fe"


def _veth(name: str = "eth0", *, mtu: int = 1500, address: str = "10.0.0.5/24") -> None:
    ip(
        f"link add name {name} address {MAC} type veth peer name peer address {PEER_MAC}",
        f"link set {name} mtu {mtu} up",
        f"link set peer mtu {mtu} up",
        f"addr add {address} dev {name}",
    )


@contextmanager
def _attached(taps: tuple[str, ...] = ("urunc-t0",), *, vnet_hdr: bool = False) -> Iterator[tuple[Network, list[int]]]:
    with Rtnl() as rtnl:
        network = net.look(rtnl, taps)
        fds = net.attach(rtnl, network, 0, 0, persistent=False, vnet_hdr=vnet_hdr)
    try:
        yield network, [fds[nic.tap] for nic in network.nics]
    finally:
        for fd in fds.values():
            os.close(fd)


def _traces() -> tuple[set[str], dict[int, int]]:
    """What `attach` may leave: links, and ingress qdiscs."""
    with Rtnl() as rtnl:
        return {link.name for link in rtnl.links()}, tc.ingresses(rtnl)


def _packets(name: str) -> socket.socket:
    """Return a packet socket that holds what the guest's neighbour sends and hears."""
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    found.bind((name, 0))
    found.settimeout(5)
    return found


def _frame(destination: str, source: str, kind: bytes, payload: bytes) -> bytes:
    return bytes.fromhex((destination + source).replace(":", "")) + kind + payload.ljust(46, b"\0")


def _await(read: object, wanted: bytes) -> None:
    for _attempt in range(50):
        if read() == wanted:  # type: ignore[operator]
            return
    raise AssertionError("the frame did not arrive")


def _tap_read(fd: int) -> bytes:
    assert select.select([fd], [], [], 5)[0], "nothing arrives at the tap"
    return os.read(fd, 70_000)


# Which interfaces.


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


def test_an_address_without_ethernet_is_an_error_that_names_the_device() -> None:
    with pytest.raises(HostError, match="`wg0` has an address but no Ethernet"):
        net.eligible([_link(2, "eth0"), _link(3, "wg0", kind=65534)], [_address(2), _address(3)])


@pytest.mark.root
def test_the_record_of_an_off_link_gateway() -> None:
    def body() -> Network:
        _veth(mtu=1400, address="10.1.2.3/32")
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
        assert _traces() == ({"lo"}, {})

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_more_interfaces_than_taps() -> None:
    def body() -> None:
        _veth()
        ip("addr add 10.9.0.1/24 dev peer")
        with Rtnl() as rtnl, pytest.raises(HostError, match=r"at most 1 interfaces, .* `peer`, `eth0`"):
            net.look(rtnl, ("one",))

    run_in(OUTSIDE, body)


# Frames.


@pytest.mark.root
@EITHER
@pytest.mark.parametrize("name", ["eth0", "e", "a.b-c@d", "αβγδ", "fifteen-bytes.x"])
def test_frames_pass_both_ways(kinds: tuple[str, ...], name: str) -> None:
    def body() -> None:
        _veth(name)
        with _attached() as (network, (fd,)), _packets("peer") as wire:
            assert network.nics[0].ifname == name
            inward = _frame(MAC, PEER_MAC, b"\x88\xb5", b"to the guest")
            wire.send(inward)
            _await(lambda: _tap_read(fd), inward)
            outward = _frame(PEER_MAC, MAC, b"\x88\xb5", b"from the guest")
            os.write(fd, outward)
            _await(lambda: wire.recv(2000), outward)

    run_in(kinds, body)


@pytest.mark.root
def test_full_frames_pass_at_an_mtu_of_1400_and_no_larger_ones() -> None:
    def body() -> None:
        _veth(mtu=1400)
        with _attached() as (network, (fd,)), _packets("peer") as wire:
            assert network.nics[0].mtu == 1400
            full = _frame(PEER_MAC, MAC, b"\x88\xb5", b"x" * 1400)
            os.write(fd, full + b"x")
            os.write(fd, full)
            _await(lambda: wire.recv(2000), full)
            wire.send(full)

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_the_namespace_itself_hears_nothing_and_the_tap_says_nothing() -> None:
    def body() -> None:
        _veth(address="10.0.0.5/24")
        with _attached() as (_network, (fd,)), _packets("peer") as wire:
            who_has = "0001080006040001" + PEER_MAC.replace(":", "") + "0a000063" + "000000000000" + "0a000005"
            wire.send(_frame("ff:ff:ff:ff:ff:ff", PEER_MAC, b"\x08\x06", bytes.fromhex(who_has)))
            while _tap_read(fd)[12:14] != b"\x08\x06":
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
        _veth(address="10.1.2.3/32")
        ip(
            "route add 169.254.1.1 dev eth0 scope link",
            "route add default via 169.254.1.1 dev eth0 onlink",
            f"neigh add 169.254.1.1 lladdr {GATEWAY_MAC} dev eth0 nud permanent",
        )
        Path("/proc/sys/net/ipv4/conf/all/rp_filter").write_text("1")  # as distributions set it
        with _attached() as (_network, (fd,)), _packets("peer") as wire:
            own = MAC.replace(":", "")
            ask = f"0001080006040001{own}0a010203000000000000"
            question = _frame("ff:ff:ff:ff:ff:ff", MAC, b"\x08\x06", bytes.fromhex(ask + "a9fe0101"))
            answer = _asked(fd, question, lambda frame: frame if frame[12:14] == b"\x08\x06" else None)
            assert isinstance(answer, bytes)
            assert answer[:14] == bytes.fromhex(own + GATEWAY_MAC.replace(":", "") + "0806")
            assert answer[20:32] == bytes.fromhex("0002" + GATEWAY_MAC.replace(":", "") + "a9fe0101")
            for frame in (
                _frame("ff:ff:ff:ff:ff:ff", MAC, b"\x08\x06", bytes.fromhex(ask + "a9fe0102")),  # another's address
                _frame(GATEWAY_MAC, MAC, b"\x08\x00", b"what the guest sends to its gateway"),
            ):
                os.write(fd, frame)
                _await(lambda: wire.recv(2000), frame)

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
        with _attached() as (_network, (fd,)), _packets("peer") as wire:
            answer = _asked(fd, _solicitation("fe80::1", source, MAC), _advertisement)
            assert answer == ("fe80::1", GATEWAY_MAC)
            for frame in (
                _solicitation("fe80::2", source, MAC),  # for another's address
                _frame(GATEWAY_MAC, MAC, b"\x86\xdd", b"what the guest sends to its gateway"),
            ):
                os.write(fd, frame)
                _await(lambda: wire.recv(2000), frame)

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
        with _attached() as (_network, (fd,)):
            answer = _asked(fd, _solicitation("fe80::1", "2001:db8::5", MAC), _advertisement)
            assert answer == ("fe80::1", GATEWAY_MAC)
            ask = f"0001080006040001{MAC.replace(':', '')}0a010203000000000000a9fe0101"
            arp = _frame("ff:ff:ff:ff:ff:ff", MAC, b"\x08\x06", bytes.fromhex(ask))
            assert _asked(fd, arp, lambda frame: frame[12:14] == b"\x08\x06")

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_the_same_ipv6_address_in_guest_and_namespace_disturbs_neither() -> None:
    """While the namespace still checks its address (DAD): what is asked and told about it concerns the guest alone."""

    def body() -> None:
        _veth_with_ipv6(dad=True)
        with _attached() as (_network, (fd,)), _packets("peer") as wire:
            check = _solicitation("2001:db8::5", "::", MAC)
            os.write(fd, check)  # the guest's own check passes to the wire ..
            _await(lambda: wire.recv(2000), check)
            wire.settimeout(0.2)
            with pytest.raises(TimeoutError):  # .. and the namespace does not object, neither there nor to the guest
                while _advertisement(wire.recv(2000)) is None:
                    pass
            ask = _solicitation("2001:db8::5", "fe80::1", PEER_MAC)
            wire.send(ask)
            _await(lambda: _tap_read(fd), ask)  # the guest is asked, the namespace does not answer
            target = bytes(4) + socket.inet_pton(socket.AF_INET6, "2001:db8::5")
            told = _icmpv6("33:33:00:00:00:01", PEER_MAC, "ff02::1", "fe80::1", ADVERTISEMENT, target)
            wire.send(told)  # somebody claims the address: the guest hears it, the namespace keeps its own
            _await(lambda: _tap_read(fd), told)
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
        _veth()
        ip(
            "link add name eth1 type veth peer name peer1",
            "link set eth1 up",
            "link set peer1 up",
            "addr add 10.7.0.1/24 dev eth1",
        )
        before = _traces()
        with _attached(("urunc-a", "urunc-b", "urunc-c")) as (network, fds):
            assert [(nic.ifname, nic.tap) for nic in network.nics] == [("eth0", "urunc-a"), ("eth1", "urunc-b")]
            for peer, fd in (("peer", fds[0]), ("peer1", fds[1])):
                with _packets(peer) as wire:
                    frame = _frame(MAC, PEER_MAC, b"\x88\xb5", peer.encode())
                    wire.send(frame)
                    _await(lambda: _tap_read(fd), frame)  # noqa: B023
        net.detach(_bound_namespace(), ("urunc-a", "urunc-b", "urunc-c"))
        _back()
        assert _traces() == before

    run_in(OUTSIDE, body)


# Undoing.


def _bound_namespace() -> str:
    """Return a path of this network namespace for `detach`, which does nothing in the runtime's own: step out of it."""
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    _HELD.append(fd)
    ns.unshare(("network",))
    return f"/proc/self/fd/{fd}"


_HELD: list[int] = []


def _back() -> None:
    ns.join(f"/proc/self/fd/{_HELD[-1]}", "network")


@pytest.mark.root
@EITHER
@pytest.mark.parametrize("persistent", [False, True])
def test_undo_leaves_nothing_and_may_be_repeated(kinds: tuple[str, ...], persistent: bool) -> None:
    def body() -> None:
        _veth()
        before = _traces()
        with Rtnl() as rtnl:
            network = net.look(rtnl, ("urunc-t0",))
            fds = net.attach(rtnl, network, 1000, 1000, persistent=persistent, vnet_hdr=not persistent)
        assert list(fds) == ([] if persistent else ["urunc-t0"])
        for fd in fds.values():
            os.close(fd)  # as the monitor's end does
        assert ("urunc-t0" in _traces()[0]) == persistent
        assert _traces()[1]
        path = _bound_namespace()
        net.detach(path, ("urunc-t0",))
        net.detach(path, ("urunc-t0",))
        _back()
        assert _traces() == before

    run_in(kinds, body)


@pytest.mark.root
def test_undo_of_what_is_not_there() -> None:
    def body() -> None:
        _veth()
        before = _traces()
        net.detach("/nowhere", ("urunc-t0",))
        net.detach("/proc/self/ns/uts", ("urunc-t0",))
        net.detach("/etc/hostname", ("urunc-t0",))
        net.detach(_bound_namespace(), ("urunc-t0", "eth0"))  # eth0 is no tap
        _back()
        assert _traces() == before

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_the_runtimes_own_namespace_is_not_touched() -> None:
    def body() -> None:
        os.close(tap.open_tap("urunc-t0", persistent=True, uid=0, gid=0, vnet_hdr=False))
        net.detach("/proc/self/ns/net", ("urunc-t0",))
        assert "urunc-t0" in _traces()[0]

    run_in(OUTSIDE, body)


@pytest.mark.root
@pytest.mark.parametrize(
    "lines",
    [
        ("qdisc add dev eth0 ingress",),
        ("qdisc add dev eth0 clsact",),
        (
            "qdisc add dev eth0 ingress",
            "filter add dev eth0 ingress protocol all prio 2 u32 match u32 0 0 action mirred egress redirect dev peer",
        ),
        ("qdisc add dev eth0 ingress_block 22 ingress",),
    ],
)
def test_somebody_elses_ingress_qdisc_is_refused_and_survives(lines: tuple[str, ...]) -> None:
    def body() -> None:
        _veth()
        run_tc(*lines)
        before = _traces(), shown("tc", "filter", "show", "dev", "eth0", "ingress")
        with Rtnl() as rtnl:
            network = net.look(rtnl, ("urunc-t0",))
            with pytest.raises(HostError, match="`eth0` already has an ingress qdisc"):
                net.attach(rtnl, network, 0, 0, persistent=True, vnet_hdr=False)
        net.detach(_bound_namespace(), ("urunc-t0",))
        _back()
        assert (_traces(), shown("tc", "filter", "show", "dev", "eth0", "ingress")) == before

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_a_second_guest_is_refused_and_does_the_first_no_harm() -> None:
    def body() -> None:
        _veth()
        with _attached() as (network, (fd,)), _packets("peer") as wire:
            before = _traces()
            second = network.replace(nics=(network.nics[0].replace(tap="urunc-t1"),))
            with Rtnl() as rtnl, pytest.raises(HostError, match="`eth0` is already redirected to another guest"):
                net.attach(rtnl, second, 0, 0, persistent=True, vnet_hdr=False)
            net.detach(_bound_namespace(), ("urunc-t1",))
            _back()
            assert _traces() == before
            frame = _frame(MAC, PEER_MAC, b"\x88\xb5", b"still there")
            wire.send(frame)
            _await(lambda: _tap_read(fd), frame)

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_a_dead_guests_redirect_is_replaced() -> None:
    def body() -> None:
        _veth()
        with _attached(("urunc-t0",)):
            pass
        with _attached(("urunc-t1",)) as (_network, (fd,)), _packets("peer") as wire:
            frame = _frame(MAC, PEER_MAC, b"\x88\xb5", b"to the second")
            wire.send(frame)
            _await(lambda: _tap_read(fd), frame)

    run_in(OUTSIDE, body)


@pytest.mark.root
@pytest.mark.parametrize("persistent", [False, True])
def test_a_failure_at_any_step_leaves_nothing(persistent: bool) -> None:
    def body() -> int:
        _veth(address="10.1.2.3/32")
        ip(
            "route add default via 169.254.1.1 dev eth0 onlink",
            f"neigh add 169.254.1.1 lladdr {GATEWAY_MAC} dev eth0 nud permanent",
            "route add default via fe80::1 dev eth0",
            f"neigh add fe80::1 lladdr {GATEWAY_MAC} dev eth0 nud permanent",
        )
        before = _traces()
        descriptors = os.listdir("/proc/self/fd")
        for failing in range(100):
            with _Failing(failing) as rtnl:
                network = net.look(rtnl, ("urunc-t0",))
                try:
                    net.attach(rtnl, network, 0, 0, persistent=persistent, vnet_hdr=False)
                except KernelError as error:
                    assert "cannot connect the guest" in error.message
                else:
                    return failing
            assert _traces() == before
            assert os.listdir("/proc/self/fd") == descriptors
        return 100

    assert run_in(OUTSIDE, body) == 12


class _Failing(Rtnl):
    """Fails in its `failing`th change."""

    def __init__(self, failing: int) -> None:
        super().__init__()
        self.left = failing

    def do(self, what: str, kind: int, flags: int, body: bytes) -> None:
        if not what.startswith("delete"):
            self.left -= 1
            if self.left < 0:
                raise OSError(28, "No space left on device")
        super().do(what, kind, flags, body)


@pytest.mark.root
def test_killed_at_any_step_detach_clears_it() -> None:
    """As above, but nobody undoes at once: the process is gone, and its descriptors with it."""

    def body() -> int:
        _veth(address="10.1.2.3/32")
        before = _traces()
        for failing in range(100):
            child = os.fork()
            if child == 0:
                net.remove = lambda *_: os._exit(1)  # type: ignore[assignment]
                with _Failing(failing) as rtnl:
                    network = net.look(rtnl, ("urunc-t0",))
                    net.attach(rtnl, network, 0, 0, persistent=True, vnet_hdr=False)
                os._exit(0)
            done = os.waitpid(child, 0)[1] == 0
            net.detach(_bound_namespace(), ("urunc-t0",))
            _back()
            assert _traces() == before
            if done:
                return failing
        return 100

    assert run_in(OUTSIDE, body) == 7


@pytest.mark.root
def test_an_interface_that_vanished() -> None:
    def body() -> None:
        _veth()
        with Rtnl() as rtnl:
            network = net.look(rtnl, ("urunc-t0",))
            ip("link delete eth0")
            with pytest.raises(HostError, match="`eth0` has vanished"):
                net.attach(rtnl, network, 0, 0, persistent=False, vnet_hdr=False)
        assert _traces() == ({"lo"}, {})

    run_in(OUTSIDE, body)


@pytest.mark.root
@pytest.mark.parametrize("vnet_hdr", [False, True])
def test_a_monitor_that_opens_its_tap_by_name(vnet_hdr: bool) -> None:
    """As Solo5 and Firecracker do, as the container's user and without a capability."""

    def body() -> None:
        _veth()
        with Rtnl() as rtnl:
            network = net.look(rtnl, ("urunc-t0",))
            net.attach(rtnl, network, 1234, 2345, persistent=True, vnet_hdr=vnet_hdr)
        with _packets("peer") as wire:
            proc.become(1234, 2345)
            header = bytes(10 if vnet_hdr else 0)
            fd = tap.open_tap("urunc-t0", persistent=False, uid=0, gid=0, vnet_hdr=vnet_hdr, new=False)
            inward = _frame(MAC, PEER_MAC, b"\x88\xb5", b"to the guest")
            wire.send(inward)
            _await(lambda: _tap_read(fd), header + inward)
            outward = _frame(PEER_MAC, MAC, b"\x88\xb5", b"from the guest")
            os.write(fd, header + outward)
            _await(lambda: wire.recv(2000), outward)

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_a_missing_tun_device_is_the_hosts_error() -> None:
    def body() -> None:
        _veth()
        before = _traces()
        with Rtnl() as rtnl:
            network = net.look(rtnl, ("urunc-t0",))
            with pytest.raises(HostError, match=r"`/dev/net/none` is not there \(load the kernel module tun\)"):
                net.attach(rtnl, network, 0, 0, persistent=False, vnet_hdr=False, device="/dev/net/none")
        assert _traces() == before

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_a_tap_name_that_is_taken() -> None:
    def body() -> None:
        _veth()
        os.close(tap.open_tap("urunc-t0", persistent=True, uid=0, gid=0, vnet_hdr=False))
        before = _traces()
        with Rtnl() as rtnl:
            network = net.look(rtnl, ("urunc-t0",))
            with pytest.raises(KernelError, match="cannot make the tap `urunc-t0`: device or resource busy"):
                net.attach(rtnl, network, 0, 0, persistent=False, vnet_hdr=False)
        assert _traces() == before

    run_in(OUTSIDE, body)


# Namespaces.


@pytest.mark.root
def test_own_namespace() -> None:
    def body() -> None:
        assert not net.is_own_namespace("/proc/self/ns/net")
        assert net.is_own_namespace(_bound_namespace())
        _back()
        assert not net.is_own_namespace(f"/proc/self/fd/{_HELD[-1]}")
        with pytest.raises(SpecError, match="cannot use the network namespace `/nowhere`: no such file"):
            net.is_own_namespace("/nowhere")

    run_in(OUTSIDE, body)


# resolv.conf.


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
