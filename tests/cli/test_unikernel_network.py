"""The test guest's network, as engines leave it in the container's namespace."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bundles import Bundle, Netns, ping
from driver import Cli
from world import World

pytestmark = pytest.mark.root

UDP = """
import socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.sendto(b"x" * count, (host, port))
print(len(s.recv(65535)))
"""


def udp_echo(world: World, address: str, size: int = 10) -> int:
    """Send a datagram to the echo port; return the size of the answer."""
    return int(world.run("/usr/bin/python3", "-IS", "-c", UDP, address, "7", str(size)).stdout)


def test_the_guest_takes_the_interfaces_place(cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns) -> None:
    bundle = make_unikernel()
    bundle.namespace("network", netns.path)
    cli.create("guest", bundle)
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    assert f"ip: {netns.address}" in console
    assert ping(cli.world, netns.address)
    assert udp_echo(cli.world, netns.address) == 10
    page = cli.world.run("curl", "-sf", "--max-time", "5", f"http://{netns.address}/").stdout
    assert page
    cli.end("guest")


def test_a_killed_create_and_a_failed_one_leave_the_namespace_alone(
    cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns
) -> None:
    bundle = make_unikernel()
    bundle.namespace("network", netns.path)
    bundle.hook("createContainer", "/bin/false")
    assert cli.create("guest", bundle, check=False) != 0


@pytest.mark.parametrize("name", ["net1", "ens3", "a.b-c", "eth0@", "tunl0"])
def test_odd_interface_names(cli: Cli, make_unikernel: Callable[..., Bundle], world: World, name: str) -> None:
    with Netns(world, "odd", ifname=name) as netns:
        bundle = make_unikernel()
        bundle.namespace("network", netns.path)
        cli.create("guest", bundle)
        cli("start", "guest")
        cli.wait_console("guest", f"ip: {netns.address}")
        assert ping(world, netns.address)
        cli.end("guest")


def test_mtu_1400_is_told_and_kept(cli: Cli, make_unikernel: Callable[..., Bundle], world: World) -> None:
    with Netns(world, "mtu", mtu=1400) as netns:
        bundle = make_unikernel()
        bundle.namespace("network", netns.path)
        cli.create("guest", bundle)
        cli("start", "guest")
        assert "mtu 1400" in cli.wait_console("guest", "ready")
        assert udp_echo(world, netns.address, 1372) == 1372
        cli.end("guest")


def test_a_slash_32_with_a_gateway_off_the_link(cli: Cli, make_unikernel: Callable[..., Bundle], world: World) -> None:
    """As Calico leaves it: the address alone, the route to 169.254.1.1, proxy ARP on the other end."""
    with Netns(world, "calico") as netns:
        ip = ("ip", "-n", netns.name)
        world.run(*ip, "address", "flush", "dev", "eth0")
        world.run(*ip, "address", "add", f"{netns.address}/32", "dev", "eth0")
        world.run(*ip, "route", "add", "169.254.1.1", "dev", "eth0", "scope", "link")
        world.run(*ip, "route", "add", "default", "via", "169.254.1.1", "dev", "eth0")
        world.run("ip", "address", "add", "169.254.1.1/32", "dev", netns.peer)
        netns.remember()
        bundle = make_unikernel()
        bundle.namespace("network", netns.path)
        cli.create("guest", bundle)
        cli("start", "guest")
        console = cli.wait_console("guest", "ready")
        assert f"netdev.ip={netns.address}/32:169.254.1.1" in console
        assert ping(world, netns.address)
        cli.end("guest")


@pytest.mark.parametrize("both", [False, True], ids=["IPv6 alone", "both families"])
def test_ipv6_for_a_guest_that_has_none(
    cli: Cli, make_unikernel: Callable[..., Bundle], world: World, both: bool
) -> None:
    with Netns(world, "six") as netns:
        ip = ("ip", "-n", netns.name)
        world.run(*ip, "address", "add", "fd77::2/64", "dev", "eth0", "nodad")
        if not both:
            world.run(*ip, "address", "del", f"{netns.address}/24", "dev", "eth0")
        netns.remember()
        bundle = make_unikernel()
        bundle.namespace("network", netns.path)
        assert (cli.create("guest", bundle, check=False) == 0) == both
        if both:
            assert "IPv6 addresses: those of eth0 are left out" in cli.log.read_text()
            cli("start", "guest")
            cli.wait_console("guest", f"ip: {netns.address}")
            cli.end("guest")
        else:
            assert "eth0 has IPv6 addresses alone, and the guest `unikraft`" in cli.last_error()


def test_an_empty_namespace_gives_no_nic(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    cli.create("guest", make_unikernel())
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    assert "nic0" not in console
    assert "netdev.ip" not in console


def test_without_a_namespace_of_its_own_the_host_is_left_alone(
    cli: Cli, make_unikernel: Callable[..., Bundle], world: World
) -> None:
    """`--network host`: a guest cannot share the host's interfaces, and taking them would cut the host off."""
    before = world.links()
    for path in (None, "/proc/1/ns/net"):
        bundle = make_unikernel()
        bundle.namespace("network", path)
        assert cli.create("guest", bundle, check=False) != 0
        assert "network" in cli.last_error()
        assert world.links() == before
