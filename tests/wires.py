"""A veth pair as an engine makes one, a guest's tap beside it, and the frames on both, for the network's tests."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from inchild import ip
from urunc.linux import ns, tc
from urunc.linux.rtnl import Rtnl
from urunc.runtime import net
from urunc.vm.machine import Network

MAC = "02:00:00:00:00:01"
PEER_MAC = "02:00:00:00:00:02"
GATEWAY_MAC = "02:00:00:00:00:fe"

TUNSETIFF = 0x400454CA
TAP_WITHOUT_INFO, VNET_HDR = 0x1002, 0x4000  # IFF_TAP with IFF_NO_PI, and IFF_VNET_HDR


def make_veth(name: str = "eth0", *, mtu: int = 1500, address: str = "10.0.0.5/24") -> None:
    """Make the engine's interface, up and with an address, and `peer`, its other end."""
    ip(
        f"link add name {name} address {MAC} type veth peer name peer address {PEER_MAC}",
        f"link set {name} mtu {mtu} up",
        f"link set peer mtu {mtu} up",
        f"addr add {address} dev {name}",
    )


@contextmanager
def attached(taps: tuple[str, ...] = ("urunc-t0",), *, vnet_hdr: bool = False) -> Iterator[tuple[Network, list[int]]]:
    """Take the namespace's interfaces over; give the record and the taps' descriptors, which are closed at the end."""
    with Rtnl() as rtnl:
        network = net.look(rtnl, taps)
        fds = net.attach(rtnl, network, 0, 0, persistent=False, vnet_hdr=vnet_hdr)
    try:
        yield network, [fds[nic.tap] for nic in network.nics]
    finally:
        for fd in fds.values():
            os.close(fd)


def attach_tap(name: str, *, vnet_hdr: bool) -> int:
    """Attach to a tap that is there, as a monitor does, and return its descriptor. Raises OSError."""
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    flags = TAP_WITHOUT_INFO | (VNET_HDR if vnet_hdr else 0)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except OSError:
        os.close(fd)
        raise
    return fd


def traces() -> tuple[set[str], dict[int, int]]:
    """What `attach` may leave: links, and ingress qdiscs."""
    with Rtnl() as rtnl:
        return {link.name for link in rtnl.links()}, tc.ingresses(rtnl)


def packets(name: str) -> socket.socket:
    """Return a packet socket that holds what the guest's neighbour sends and hears."""
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    found.bind((name, 0))
    found.settimeout(5)
    return found


def frame_of(destination: str, source: str, kind: bytes, payload: bytes) -> bytes:
    """Return an Ethernet frame of that type, of the least length."""
    return bytes.fromhex((destination + source).replace(":", "")) + kind + payload.ljust(46, b"\0")


def wait_read(read: Callable[[], bytes], wanted: bytes) -> None:
    """Read until the wanted frame comes, past others."""
    for _attempt in range(50):
        if read() == wanted:
            return
    raise AssertionError("the frame did not arrive")


def tap_read(fd: int) -> bytes:
    """Return the next frame at a tap."""
    assert select.select([fd], [], [], 5)[0], "nothing arrives at the tap"
    return os.read(fd, 70_000)


def bound_namespace() -> str:
    """Return a path of this network namespace for `detach`, which does nothing in the runtime's own: step out of it."""
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    _HELD.append(fd)
    ns.unshare(("network",))
    return f"/proc/self/fd/{fd}"


_HELD: list[int] = []


def back() -> None:
    """Return to the namespace that `bound_namespace` stepped out of."""
    ns.join(f"/proc/self/fd/{_HELD[-1]}", "network")
