"""Two interfaces in the container's namespace, the second with the default route: a NIC each, or that one alone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bundles
from bundles import Bundle, Netns
from driver import Cli
from realguests import add_interface
from world import World

pytestmark = pytest.mark.root


@pytest.fixture
def netns(world: World) -> Iterator[Netns]:
    """A namespace with net0, and eth0 of MTU 1300 that has the default route."""
    with Netns(world, "two", ifname="net0", subnet="10.5.0") as made:
        ip = ("ip", "-n", made.name)
        world.run(*ip, "route", "del", "default")
        add_interface(world, made, "eth0", "10.6.0.2", "10.6.0.1")
        world.run(*ip, "link", "set", "eth0", "mtu", "1300")
        world.run("ip", "link", "set", "to-eth0", "mtu", "1300")
        world.run(*ip, "route", "add", "default", "via", "10.6.0.1")
        made.remember()
        yield made


def macs(netns: Netns) -> list[str]:
    """Return the interfaces' MACs, net0's first."""
    show = ("ip", "-n", netns.name, "-br", "link", "show", "dev")
    return [netns.world.run(*show, name).stdout.split()[2] for name in ("net0", "eth0")]


@pytest.mark.parametrize("monitor", ["qemu", "firecracker"])
def test_each_is_a_nic_in_order(
    cli: Cli,
    make_unikernel: Callable[..., Bundle],
    testguest: Path,
    netns: Netns,
    world: World,
    tmp_path: Path,
    monitor: str,
) -> None:
    """With its own MAC, MTU and address; the gateway stands with the interface whose route it is."""
    bundle = make_unikernel("app")
    if monitor == "firecracker":
        kernel = testguest.with_name("testguest64.elf")
        if shutil.which("firecracker") is None or not Path("/dev/kvm").exists() or not kernel.exists():
            pytest.skip("firecracker cannot run here")
        cgroup = f"/{world.cgroup}/two"
        bundle = bundles.unikernel(tmp_path / "two", kernel, "app", monitor=monitor, cgroup=cgroup)
    bundle.namespace("network", netns.path)
    cli.create("guest", bundle)
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    first, second = macs(netns)
    assert "netdev.ip=[ 10.5.0.2/24::::test 10.6.0.2/24:10.6.0.1:::test ]" in console
    assert f"nic0: mac {first}\n" in console
    assert f"nic1: mac {second}, mtu 1300\n" in console
    cli.end("guest")


def test_a_guest_that_takes_one_gets_the_one_with_the_default_route(
    cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns, world: World
) -> None:
    """And the other is the namespace's own, as it was."""
    bundle = make_unikernel("app")
    bundle.annotate(unikernelVersion="0.15.0")
    bundle.namespace("network", netns.path)
    cli.create("guest", bundle)
    assert "it gets eth0; left out: net0" in cli.log.read_text()
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    assert f"nic0: mac {macs(netns)[1]}, mtu 1300\n" in console
    assert "nic1" not in console
    assert world.run("ping", "-c1", "-W2", "-s1272", "-Mdo", "10.6.0.2").returncode == 0
    assert world.run("ping", "-c1", "-W2", "10.5.0.2").returncode == 0
    cli.end("guest")
