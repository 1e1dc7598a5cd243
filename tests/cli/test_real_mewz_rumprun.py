"""Mewz on QEMU and rumprun on Solo5's spt, built from their repositories: see `realguests`.

`mewz/` holds Mewz with Wasker's `helloworld` and with its own example `hello_server`. `rumprun/` holds a program that
prints its arguments, what of its environment is called GREETING, its addresses and the file /data/hello, and with the
argument `serve` serves a page on port 8080; and the `solo5-spt` of the Solo5 that its rumprun was built with.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import bundles
import linuxes
from bundles import Bundle, Netns
from driver import CONFIG, Cli
from realguests import fetch, find_guest, run_to_its_end, start
from world import World

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture
def make_mewz(is_runc: bool, tmp_path: Path, world: World) -> Callable[[str], Bundle]:
    """Make a bundle with a Mewz kernel."""
    if is_runc:
        pytest.skip("runc has no unikernels")

    def make(name: str) -> Bundle:
        kernel = find_guest(f"mewz/{name}-qemu-x86_64")
        bundle = bundles.unikernel(tmp_path / "bundle", kernel, guest="mewz", cgroup=f"/{world.cgroup}/mewz")
        bundle.config["linux"]["resources"]["memory"] = {"limit": 1000 << 20}
        return bundle

    return make


def test_mewz_hello(cli: Cli, make_mewz: Callable[[str], Bundle], world: World) -> None:
    """It needs a NIC, or its timer's interrupt stops it. Status 0 of the program is 1 of QEMU's isa-debug-exit."""
    with Netns(world, "mewz") as netns:
        bundle = make_mewz("hello")
        bundle.namespace("network", netns.path)
        status, console = run_to_its_end(cli, bundle)
    assert "Hello, wasker" in console
    assert status == 1


def test_mewz_serves_a_page(cli: Cli, make_mewz: Callable[[str], Bundle], world: World) -> None:
    with Netns(world, "mewz") as netns:
        bundle = make_mewz("hello-server")
        bundle.namespace("network", netns.path)
        start(cli, bundle)
        assert "Hello World!" in fetch(world, f"http://{netns.address}:1234/")
        cli.end("guest")


def test_mewz_without_a_gateway(cli: Cli, make_mewz: Callable[[str], Bundle], world: World) -> None:
    """Its network starts only where it is given one, and without a network its timer stops it."""
    with Netns(world, "mewz") as netns:
        world.run("ip", "-n", netns.name, "route", "del", "default")
        netns.remember()
        bundle = make_mewz("hello")
        bundle.namespace("network", netns.path)
        status, console = run_to_its_end(cli, bundle)
    assert "Hello, wasker" in console
    assert status == 1


def test_mewz_with_too_little_memory(cli: Cli, make_mewz: Callable[[str], Bundle]) -> None:
    bundle = make_mewz("hello")
    bundle.config["linux"]["resources"]["memory"] = {"limit": 900 << 20}
    assert cli.create("guest", bundle, check=False) != 0
    assert "the guest at least 512 MiB" in cli.last_error()


def test_mewz_on_microvm(cli: Cli, make_unikernel: Callable[..., Bundle], world: World) -> None:
    """It would not find its NIC there. Any kernel does: it is not started."""
    cli.config.write_text(CONFIG + 'machine = "microvm"\n')
    with Netns(world, "mewz") as netns:
        bundle = make_unikernel(guest="mewz")
        bundle.namespace("network", netns.path)
        assert cli.create("guest", bundle, check=False) != 0
    assert "monitors.qemu.machine is `microvm`, which has no PCI bus" in cli.last_error()


@pytest.fixture
def make_rumprun(is_runc: bool, cli: Cli, tmp_path: Path, world: World) -> Callable[..., Bundle]:
    """Make a bundle with a rumprun kernel and an ext2 disk for it."""
    if is_runc:
        pytest.skip("runc has no unikernels")

    def make(netns: Netns, *args: str) -> Bundle:
        kernel, tender = find_guest("rumprun/app.spt"), find_guest("rumprun/solo5-spt")
        cli.config.write_text(f'{CONFIG}[monitors.spt]\npath = "{tender}"\n')
        bundle = bundles.unikernel(
            tmp_path / "bundle", kernel, "app", *args, guest="rumprun", monitor="spt", cgroup=f"/{world.cgroup}/rump"
        )
        tree = tmp_path / "tree"
        tree.mkdir()
        (tree / "hello").write_text("read from a disk\n")
        linuxes.make_disk(tree, bundle.rootfs / "disk.img", "4M", "ext2")
        bundle.annotate(block="/disk.img", blkMntPoint="/data")
        bundle.namespace("network", netns.path)
        return bundle

    return make


def test_rumprun_hello(cli: Cli, make_rumprun: Callable[..., Bundle], world: World) -> None:
    """Arguments and environment arrive as they are; the disk is mounted where the image says."""
    with Netns(world, "rump") as netns:
        bundle = make_rumprun(netns, "two words", 'a "quote"', "back\\slash", "", "é", "new\nline")
        bundle.config["process"]["env"].append("GREETING=hello, 'world'")
        for key in ("unikernelType", "hypervisor"):  # the kernel tells
            del bundle.config["annotations"][bundles.PREFIX + key]
        status, console = run_to_its_end(cli, bundle)
    assert status == 0, console
    for index, word in enumerate(("app", *bundle.config["process"]["args"][1:])):
        assert f"argv[{index}]=<{word}>\n" in console
    assert "argv[7]" not in console
    assert "env G=hello, 'world'\n" in console
    assert f"if ukvmif0 {netns.address} 255.255.255.0\n" in console
    assert "file: read from a disk\n" in console
    assert "guest `rumprun` and monitor `spt`" in cli.log.read_text()


def test_rumprun_serves_a_page(cli: Cli, make_rumprun: Callable[..., Bundle], world: World) -> None:
    with Netns(world, "rump") as netns:
        start(cli, make_rumprun(netns, "serve"))
        assert fetch(world, f"http://{netns.address}:8080/") == "rumprun\n"
        cli.end("guest")


def test_rumprun_with_a_gateway_outside_of_every_network(
    cli: Cli, make_rumprun: Callable[..., Bundle], world: World
) -> None:
    """A /32 of 10.0.0.0/8 behind 169.254.1.1, whose host answers ARP for every address, as Calico has it."""
    with Netns(world, "rump") as netns:
        for command in (
            f"ip address flush dev {netns.peer}",
            f"ip address add 169.254.1.1/32 dev {netns.peer}",
            f"ip route add {netns.address}/32 dev {netns.peer}",
            "ip link add elsewhere type veth peer name nowhere",
            "ip link set elsewhere up",
            "ip route add 10.77.1.0/24 dev elsewhere",
            f"sysctl -q net.ipv4.conf.{netns.peer}.proxy_arp=1 net.ipv4.conf.{netns.peer}.forwarding=1",
            f"sysctl -q net.ipv4.neigh.{netns.peer}.proxy_delay=0",
            f"ip -n {netns.name} address flush dev eth0",
            f"ip -n {netns.name} address add {netns.address}/32 dev eth0",
            f"ip -n {netns.name} route add 169.254.1.1 dev eth0 scope link",
            f"ip -n {netns.name} route add default via 169.254.1.1",
        ):
            world.run(*command.split())
        try:
            netns.remember()
            start(cli, make_rumprun(netns, "serve"))
            assert "it gets 10.77.1.1 instead" in cli.log.read_text()
            assert fetch(world, f"http://{netns.address}:8080/") == "rumprun\n"
            cli.end("guest")
        finally:
            world.run("ip", "link", "del", "elsewhere")
