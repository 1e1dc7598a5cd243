"""Network mode `nat` in real namespaces: a pod, the world outside it, and a guest at the tap that is a script."""

from __future__ import annotations

import os
import select
import socket
import threading
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from inchild import EITHER, OUTSIDE, ip, run_in, shown
from urunc.errors import HostError, KernelError
from urunc.linux import ns, tap
from urunc.linux.nftables import Nftables
from urunc.linux.rtnl import Rtnl
from urunc.oci.network import GUEST, GUEST6
from urunc.runtime import nat, net
from urunc.vm.machine import Address, Network, Nic, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.root

MAC = "02:00:00:00:00:01"
POD, WORLD = "10.0.0.5", "10.0.0.1"
TAP = "urunc0-t"


def _pod(*more: str) -> None:
    """Make this namespace a pod's. Its peer is a namespace of its own, called `world`."""
    ip(
        "link set lo up",
        f"link add name eth0 address {MAC} type veth peer name outside",
        "link set eth0 mtu 1400 up",
        f"addr add {POD}/24 dev eth0",
        *more,
    )


def _outside(body: Callable[[], None]) -> int:
    """Run `body` in the world outside, in a child, and return its pid; the veth's other end is there."""
    ready, ready_end = os.pipe()
    go_end, go = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            ns.unshare(("network",))
            os.write(ready_end, b"r")
            os.read(go_end, 1)
            ip("link set lo up", f"addr add {WORLD}/24 dev outside", "link set outside up")
            body()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.read(ready, 1)
    ip(f"link set outside netns {child}", f"route add default via {WORLD}")
    os.write(go, b"g")
    return child


class Guest:
    """A machine at the other end of the tap: it answers ARP, and echoes UDP and ping, and counts what it gets."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.seen: list[bytes] = []
        self.stop, self._stop_end = os.pipe()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while self.stop not in select.select([self.fd, self.stop], [], [])[0]:
            frame = os.read(self.fd, 2000)
            if frame[12:14] == b"\x08\x06":
                os.write(self.fd, _answer_arp(frame))
            elif frame[12:14] == b"\x08\x00" and frame[23] == 17:
                self.seen.append(frame)
                os.write(self.fd, _echo_udp(frame))

    def send(self, to: str, port: int, payload: bytes, source: str = GUEST) -> None:
        """Send a datagram from port 7 to the world."""
        gateway = self._gateway_mac()
        os.write(self.fd, _udp(gateway, MAC, source, to, 7, port, payload))

    def _gateway_mac(self) -> str:
        with Rtnl() as rtnl:
            return next(link.mac for link in rtnl.links() if link.name == TAP)

    def close(self) -> None:
        """End the thread."""
        os.write(self._stop_end, b"x")
        self.thread.join()


def _answer_arp(frame: bytes) -> bytes:
    own = bytes.fromhex(MAC.replace(":", ""))
    return frame[6:12] + own + frame[12:20] + b"\0\2" + own + frame[38:42] + frame[22:32] + bytes(18)


def _udp(to_mac: str, from_mac: str, source: str, to: str, from_port: int, port: int, payload: bytes) -> bytes:
    datagram = from_port.to_bytes(2, "big") + port.to_bytes(2, "big") + (8 + len(payload)).to_bytes(2, "big") + b"\0\0"
    head = b"\x45\0" + (28 + len(payload)).to_bytes(2, "big") + bytes(4) + b"\x40\x11\0\0"
    head += socket.inet_aton(source) + socket.inet_aton(to)
    total = sum(int.from_bytes(head[at : at + 2], "big") for at in range(0, 20, 2))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + (~total & 0xFFFF).to_bytes(2, "big") + head[12:]
    return bytes.fromhex((to_mac + from_mac).replace(":", "")) + b"\x08\0" + head + datagram + payload


def _echo_udp(frame: bytes) -> bytes:
    source, to = (socket.inet_ntoa(frame[at : at + 4]) for at in (26, 30))
    ports = (int.from_bytes(frame[at : at + 2], "big") for at in (34, 36))
    from_port, port = ports
    length = int.from_bytes(frame[38:40], "big") - 8
    return _udp(frame[6:12].hex(":"), MAC, to, source, port, from_port, b"guest:" + frame[42 : 42 + length])


@contextmanager
def _attached() -> Iterator[tuple[Network, int]]:
    with Rtnl() as rtnl:
        network = nat.look(rtnl, (TAP, "urunc1-t"))
        fds = nat.attach(rtnl, network, 0, 0, persistent=False, vnet_hdr=False)
    try:
        yield network, fds[TAP]
    finally:
        os.close(fds[TAP])


def _traces() -> tuple[set[str], dict[str, bytes], dict[str, bool]]:
    """What `attach` may leave: links, tables, and who forwards."""
    with Rtnl() as rtnl, Nftables() as tables:
        links = rtnl.links()
        return {link.name for link in links}, tables.tables(), {link.name: link.forwarding for link in links}


def _ask(ip: str, port: int, source: str = "0.0.0.0", *, attempts: int = 20) -> bytes:
    """Return what the port answers to a datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.bind((source, 0))
        asker.settimeout(0.3)
        for _attempt in range(attempts):
            asker.sendto(b"hello", (ip, port))
            try:
                return asker.recv(2000)
            except (TimeoutError, ConnectionRefusedError):
                continue
    raise AssertionError(f"no answer from {ip}:{port}")


def test_the_record() -> None:
    def body() -> Network:
        _pod()
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
        _pod(
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
        before = _traces()
        with Rtnl() as rtnl:
            assert nat.look(rtnl, (TAP,)) == Network()
            assert nat.attach(rtnl, Network(), 0, 0, persistent=False, vnet_hdr=False) == {}
        assert _traces() == before

    run_in(OUTSIDE, body)


@EITHER
def test_the_pod_keeps_its_network_and_the_guest_has_it_too(kinds: tuple[str, ...]) -> None:
    """Each direction between world, pod and guest; what a socket of the pod waits for is not the guest's."""

    def world() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind((WORLD, 53))
            server.settimeout(30)
            assert _ask(POD, 8080) == b"guest:hello"
            assert _ask(POD, 9000) == b"pod:hello"
            data, address = server.recvfrom(2000)
            assert (data, address[0]) == (b"from the guest", POD)
            server.sendto(b"answer", address)
            more = [server.recvfrom(2000) for _ in range(2)]
            assert {data for data, _ in more} == {b"guest:answer", b"from the pod"}
            assert {address[0] for _, address in more} == {POD}

    def body() -> None:
        _pod()
        with (
            _attached() as (_network, fd),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sidecar,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        ):
            sidecar.bind(("0.0.0.0", 9000))
            sidecar.settimeout(30)
            child = _outside(world)
            guest = Guest(fd)
            try:
                data, address = sidecar.recvfrom(2000)
                sidecar.sendto(b"pod:" + data, address)
                assert _ask(GUEST, 8080) == b"guest:hello"  # as Knative's proxy does
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
        _pod()
        with _attached() as (_network, fd):
            child = _outside(world)
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
        _pod()
        with _attached() as (_network, fd), socket.create_server(("0.0.0.0", 9000)) as server:
            child = _outside(world)
            connection, _address = server.accept()
            connection.sendall(b"pod")
            connection.close()
            while True:
                assert select.select([fd], [], [], 10)[0], "nothing arrives at the tap"
                frame = os.read(fd, 2000)
                if frame[12:14] == b"\x08\x06":
                    os.write(fd, _answer_arp(frame))
                if frame[12:14] == b"\x08\0" and frame[23] == 6:
                    break
            assert frame[30:34] == socket.inet_aton(GUEST)
            assert frame[36:38] == (8080).to_bytes(2, "big")
            assert os.waitpid(child, 0)[1] == 0

    run_in(OUTSIDE, body)


# Undoing.


def _undo(*taps: str) -> None:
    """Undo from outside, as `delete` does it."""
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    ns.unshare(("network",))
    try:
        net.detach(f"/proc/self/fd/{fd}", taps, behind_nat=True)
    finally:
        ns.join(f"/proc/self/fd/{fd}", "network")
        os.close(fd)


@EITHER
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("forwarded", [False, True])
def test_undo_leaves_nothing_and_may_be_repeated(kinds: tuple[str, ...], persistent: bool, forwarded: bool) -> None:
    def body() -> None:
        _pod()
        if forwarded:
            with open("/proc/sys/net/ipv4/conf/eth0/forwarding", "w") as file:
                file.write("1")
        before = _traces()
        with Rtnl() as rtnl:
            network = nat.look(rtnl, (TAP,))
            fds = nat.attach(rtnl, network, 1000, 1000, persistent=persistent, vnet_hdr=not persistent)
        assert _traces()[2]["eth0"]
        assert list(_traces()[1]) == [TAP]
        net.close(fds)  # as the monitor's end does
        _undo("urunc9-other")
        assert list(_traces()[1]) == [TAP]
        _undo(TAP, "urunc1-t")
        _undo(TAP, "urunc1-t")
        assert _traces() == before

    run_in(kinds, body)


def test_somebody_elses_rules_survive() -> None:
    def body() -> None:
        _pod()
        with Nftables() as tables:
            tables.add_table("filter", b"", ())
        before = _traces()
        with _attached():
            pass
        _undo(TAP)
        assert _traces() == before

    run_in(OUTSIDE, body)


def test_a_second_guest_is_refused_and_does_the_first_no_harm() -> None:
    def body() -> None:
        _pod()
        with _attached():
            before = _traces()
            with Rtnl() as rtnl, pytest.raises(HostError, match="has a guest behind NAT already"):
                nat.look(rtnl, ("urunc0-u",))
            _undo("urunc0-u")
            assert _traces() == before

    run_in(OUTSIDE, body)


def test_a_dead_guests_rules_are_replaced_and_its_late_undo_does_the_next_no_harm() -> None:
    def body() -> None:
        _pod()
        before = _traces()
        with Rtnl() as rtnl:
            first = nat.look(rtnl, ("urunc0-t0",))
            net.close(nat.attach(rtnl, first, 0, 0, persistent=False, vnet_hdr=False))
        with _attached():
            during = _traces()
            assert list(during[1]) == [TAP]
            _undo("urunc0-t0")
            assert _traces() == during
        _undo(TAP)
        assert _traces() == before

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
        _pod(f"addr add {address.split()[0]} dev eth0 {address.partition(' ')[2]}")
        with Rtnl() as rtnl, pytest.raises(HostError, match=message):
            nat.look(rtnl, (TAP,))

    run_in(OUTSIDE, body)


def _ipv6(*, alone: bool = False) -> None:
    """Make this namespace a pod's with IPv6 beside IPv4, or without it."""
    more = (f"addr del {POD}/24 dev eth0",) if alone else ()
    _pod(*more, "addr add fd00::5/64 dev eth0 nodad", "route add default via fd00::1 dev eth0")


@pytest.mark.parametrize("alone", [False, True])
def test_an_address_of_each_family_that_the_pod_has(alone: bool) -> None:
    def body() -> Nic:
        _ipv6(alone=alone)
        with Rtnl() as rtnl:
            return nat.look(rtnl, (TAP,)).nics[0]

    nic = run_in(OUTSIDE, body)
    four = () if alone else ((GUEST, 24, 4),)
    assert tuple((each.ip, each.prefix, each.family) for each in nic.addresses) == (*four, (GUEST6, 64, 6))
    gateways = ["172.16.1.1"] * (not alone) + ["fd75:7275:6e63::1"]
    assert [route.gateway for route in nic.routes] == gateways


@EITHER
@pytest.mark.parametrize("own_knob", [True, False], ids=["an interface's own", "all"])
@pytest.mark.parametrize("forwarded", [False, True])
def test_ipv6_forwarding_and_its_undo(
    kinds: tuple[str, ...], own_knob: bool, forwarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the knob that each interface has since Linux 6.17, and before that by the one for all."""
    if not own_knob:
        monkeypatch.setattr(nat, "_OF_ONE", "no_such_knob")
    elif not os.path.exists("/proc/sys/net/ipv6/conf/lo/force_forwarding"):
        pytest.skip("this kernel has no force_forwarding")
    knob = "eth0/force_forwarding" if own_knob else "all/forwarding"

    def value() -> str:
        with open(f"/proc/sys/net/ipv6/conf/{knob}") as file:
            return file.read().strip()

    def body() -> None:
        _ipv6()
        if forwarded:
            with open(f"/proc/sys/net/ipv6/conf/{knob}", "w") as file:
                file.write("1")
        before = _traces(), value()
        with _attached():
            assert value() == "1"
            assert "inet6 fd75:7275:6e63::1/64" in shown("ip", "address", "show", "dev", TAP)
        _undo(TAP)
        _undo(TAP)
        assert (_traces(), value()) == before

    run_in(kinds, body)


def test_ipv6_is_switched_on_for_the_tap_alone() -> None:
    """Engines switch it off for every interface but their own."""

    def body() -> None:
        with open("/proc/sys/net/ipv6/conf/default/disable_ipv6", "w") as file:
            file.write("1")
        _pod()
        with open("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "w") as file:
            file.write("0")
        ip("addr add fd00::5/64 dev eth0 nodad")
        with _attached():
            assert "fd75:7275:6e63::1/64" in shown("ip", "address", "show", "dev", TAP)
        _undo(TAP)

    run_in(OUTSIDE, body)


def _failing(steps: list[str], limit: int) -> Callable[..., object]:
    """Return a wrapper of changes that lets `limit` of them happen and the next one fail."""

    def wrap(name: str, change: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **options: object) -> object:
            steps.append(name)
            if len(steps) == limit + 1:
                raise OSError(28, "No space left on device")
            return change(*arguments, **options)

        return counted

    return wrap


@pytest.mark.parametrize("killed", [False, True], ids=["failed", "killed"])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_failure_at_any_step_leaves_nothing(killed: bool, persistent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed: nobody undoes at once, and `delete --force` must."""

    def attempt(limit: int) -> bool:
        steps: list[str] = []
        wrap = _failing(steps, limit)
        with Rtnl() as rtnl:
            network = nat.look(rtnl, (TAP,))
            real, Nftables.add_table = Nftables.add_table, wrap("table", Nftables.add_table)  # type: ignore[method-assign,assignment]
            for name in ("set_link", "add_address"):
                setattr(rtnl, name, wrap(name, getattr(rtnl, name)))
            turn, nat._turn = nat._turn, wrap("turn", nat._turn)  # type: ignore[assignment]
            try:
                if killed:
                    nat._remove = net.remove = lambda *_: os._exit(1)  # type: ignore[assignment]
                net.close(nat.attach(rtnl, network, 0, 0, persistent=persistent, vnet_hdr=False))
            except KernelError as error:
                assert "no space left" in error.message
                return False
            finally:
                Nftables.add_table = real  # type: ignore[method-assign]
                nat._turn = turn
        return True

    def traces() -> tuple[object, ...]:
        return _traces(), [nat._is_turned(f"{name}:{nat._OF_ONE}") for name in names]

    names = ("all", "eth0")

    def body() -> int:
        _ipv6()
        before = traces()
        for limit in range(20):
            if killed:
                child = os.fork()
                if child == 0:
                    os._exit(0 if attempt(limit) else 1)
                done = os.waitpid(child, 0)[1] == 0
                _undo(TAP)
            else:
                done = attempt(limit)
                if done:
                    _undo(TAP)
            assert traces() == before
            if done:
                return limit
        return 20

    monkeypatch.setattr(nat, "_OF_ONE", nat._OF_ALL)  # which every kernel has for every interface
    assert run_in(OUTSIDE, body) == 9


def test_an_undo_that_fails_does_not_hide_the_failure(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    def body() -> None:
        _pod()
        with Rtnl() as rtnl:
            network = nat.look(rtnl, (TAP,))
            Nftables.add_table = fail  # type: ignore[method-assign,assignment]
            nat._remove = refuse  # type: ignore[assignment]
            with pytest.raises(KernelError, match="cannot put the guest behind NAT: no space left on device"):
                nat.attach(rtnl, network, 0, 0, persistent=True, vnet_hdr=False)
        assert TAP not in shown("ip", "link")

    run_in(OUTSIDE, body)
    assert "cannot undo what was done of the guest's network: operation not permitted" in capfd.readouterr().err


def test_the_rules_read_as_they_should() -> None:
    def body() -> str:
        _pod("addr add 10.0.0.6/32 dev eth0", "addr add fd00::5/64 dev eth0 nodad")
        with _attached():
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


def test_a_tap_name_that_is_taken() -> None:
    def body() -> None:
        _pod()
        os.close(tap.open_tap(TAP, persistent=True, uid=0, gid=0, vnet_hdr=False))
        with Rtnl() as rtnl:
            network = nat.look(rtnl, (TAP,))
            with pytest.raises(KernelError, match=f"cannot make the tap `{TAP}`"):
                nat.attach(rtnl, network, 0, 0, persistent=False, vnet_hdr=False)
        assert not _traces()[1]

    run_in(OUTSIDE, body)
