"""A pod whose guest stands behind NAT, the world outside of it, and the guest at the tap that is a script."""

from __future__ import annotations

import os
import select
import socket
import threading
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inchild import ip
from urunc.linux import ns
from urunc.linux.nftables import Nftables
from urunc.linux.rtnl import Rtnl
from urunc.oci.network import GUEST
from urunc.runtime import nat, net
from urunc.vm.machine import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAC = "02:00:00:00:00:01"
POD, WORLD = "10.0.0.5", "10.0.0.1"
TAP = "urunc0-t"


def make_pod(*more: str) -> None:
    """Make this namespace a pod's. Its peer is a namespace of its own, called `world`."""
    ip(
        "link set lo up",
        f"link add name eth0 address {MAC} type veth peer name outside",
        "link set eth0 mtu 1400 up",
        f"addr add {POD}/24 dev eth0",
        *more,
    )


def outside(body: Callable[[], None]) -> int:
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
                os.write(self.fd, answer_arp(frame))
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


def answer_arp(frame: bytes) -> bytes:
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
def attached() -> Iterator[tuple[Network, int]]:
    with Rtnl() as rtnl:
        network = nat.look(rtnl, (TAP, "urunc1-t"))
        fds = nat.attach(rtnl, network, 0, 0, persistent=False, vnet_hdr=False)
    try:
        yield network, fds[TAP]
    finally:
        os.close(fds[TAP])


def traces() -> tuple[set[str], dict[str, bytes], dict[str, bool]]:
    """What `attach` may leave: links, tables, and who forwards."""
    with Rtnl() as rtnl, Nftables() as tables:
        links = rtnl.links()
        return {link.name for link in links}, tables.tables(), {link.name: link.forwarding for link in links}


def ask(ip: str, port: int, source: str = "0.0.0.0", *, attempts: int = 20) -> bytes:
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


def undo(*taps: str) -> None:
    """Undo from outside, as `delete` does it."""
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    ns.unshare(("network",))
    try:
        net.detach(f"/proc/self/fd/{fd}", taps, behind_nat=True)
    finally:
        ns.join(f"/proc/self/fd/{fd}", "network")
        os.close(fd)


def make_pod_with_ipv6(*, alone: bool = False) -> None:
    """Make this namespace a pod's with IPv6 beside IPv4, or without it."""
    more = (f"addr del {POD}/24 dev eth0",) if alone else ()
    make_pod(*more, "addr add fd00::5/64 dev eth0 nodad", "route add default via fd00::1 dev eth0")
