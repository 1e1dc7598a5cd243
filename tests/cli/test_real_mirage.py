"""MirageOS on spt and QEMU, as `mirage configure` makes it: TCP, a disk, and what it makes of its arguments.

`mirage/` holds four kernels, whose sources docs/real-guests.md has. `hello` prints the options and words that it is
given and its stack's addresses, and with `--port=N` serves a page there; `plain` has no network; `disk` serves the text
at the start of its disk; `block` is MirageOS's own test of a disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import bundles
from bundles import Bundle, Netns
from driver import Cli
from realguests import fetch, find_guest, run_to_its_end, start
from world import World, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]

PAGE = "a page of MirageOS\n"
WORDS = ("two words", "q\"uo'te", "back\\slash", "new\nline", "é")


@pytest.fixture(params=["spt", "virtio"])
def make(request: pytest.FixtureRequest, is_runc: bool, tmp_path: Path, world: World) -> Callable[..., Bundle]:
    """Make a bundle that names the kernel alone: it tells guest and monitor."""
    if is_runc:
        pytest.skip("runc has no unikernels")
    if request.param == "spt" and shutil.which("solo5-spt") is None:
        pytest.skip("solo5-spt is not installed")

    def made(name: str, *args: str) -> Bundle:
        kernel = find_guest(f"mirage/{name}.{request.param}")
        bundle = bundles.unikernel(tmp_path / name, kernel, *args, cgroup=f"/{world.cgroup}/{name}")
        for key in ("unikernelType", "hypervisor"):
            del bundle.config["annotations"][bundles.PREFIX + key]
        return bundle

    return made


def test_arguments_arrive_as_they_are(cli: Cli, make: Callable[..., Bundle], world: World) -> None:
    with Netns(world, "mirage") as netns:
        bundle = make("hello", "--hello=a b", *WORDS)
        bundle.namespace("network", netns.path)
        status, console = run_to_its_end(cli, bundle)
    console = console.replace("\r\n", "\n")
    assert status == 0, console
    assert "guest `mirage` and monitor" in cli.log.read_text()
    assert f"ipv4={netns.address}/24 gateway={netns.gateway}\n" in console
    assert f"address {netns.address}/24\n" in console, "what its stack took of it"
    assert "hello <a b>\n" in console
    for word in WORDS:
        assert f"word <{word}>\n" in console


def test_without_a_network_in_it(cli: Cli, make: Callable[..., Bundle], world: World) -> None:
    """It has no such options, and would end at one; its arguments are quoted all the same."""
    with Netns(world, "mirage") as netns:
        bundle = make("plain", "--hello=a b", *WORDS)
        bundle.namespace("network", netns.path)
        status, console = run_to_its_end(cli, bundle)
    console = console.replace("\r\n", "\n")
    assert status == 0, console
    assert "hello <a b>\n" in console
    for word in WORDS:
        assert f"word <{word}>\n" in console


def serves(netns: Netns, host: str) -> str:
    return fetch(netns.world, f"http://{host}:8080/")


def test_it_serves_a_page(cli: Cli, make: Callable[..., Bundle], world: World) -> None:
    with Netns(world, "mirage") as netns:
        bundle = make("hello", "--port=8080")
        bundle.namespace("network", netns.path)
        start(cli, bundle)
        assert serves(netns, netns.address) == PAGE
        assert world.run("ping", "-c1", "-W5", netns.address, check=False).returncode == 0
        cli.end("guest")


def test_it_serves_who_comes_by_its_gateway(cli: Cli, make: Callable[..., Bundle], world: World) -> None:
    """From an address outside its network, which it answers by the gateway alone."""
    with Netns(world, "mirage") as netns:
        world.run("ip", "address", "add", "192.0.2.9/32", "dev", netns.peer)
        bundle = make("hello", "--port=8080")
        bundle.namespace("network", netns.path)
        start(cli, bundle)
        argv = ("curl", "-sf", "--max-time", "3", "--interface", "192.0.2.9", f"http://{netns.address}:8080/")
        wait_for("the page", lambda: world.run(*argv, check=False).stdout == PAGE, 60)
        cli.end("guest")


def test_ipv6_beside_ipv4_and_alone(cli: Cli, make: Callable[..., Bundle], world: World) -> None:
    with Netns(world, "mirage") as netns:
        for command in (
            f"ip address add 2001:db8::1/64 dev {netns.peer} nodad",
            "ip -n mirage address add 2001:db8::5/64 dev eth0 nodad",
            "ip -n mirage -6 route add default via 2001:db8::1 dev eth0",
        ):
            world.run(*command.split())
        netns.remember()
        bundle = make("hello", "--port=8080")
        bundle.namespace("network", netns.path)
        start(cli, bundle)
        assert serves(netns, "[2001:db8::5]") == PAGE
        assert serves(netns, netns.address) == PAGE
        assert "ipv6=2001:db8::5/64 gateway6=2001:db8::1 accept=false only6=false" in cli.console("guest")
        cli.end("guest")
        world.run("ip", "-n", netns.name, "-4", "address", "flush", "dev", "eth0")
        netns.remember()
        start(cli, bundle)
        assert serves(netns, "[2001:db8::5]") == PAGE
        assert "ipv4=- gateway=-" in cli.console("guest")
        assert "accept=false only6=true" in cli.console("guest")
        cli.end("guest")


def test_a_network_and_a_disk(cli: Cli, make: Callable[..., Bundle], world: World) -> None:
    """On virtio the kernel pairs what it finds on the bus with its manifest, and stops where the kinds differ."""
    with Netns(world, "mirage") as netns:
        bundle = make("disk")
        bundle.namespace("network", netns.path)
        (bundle.rootfs / "disk.img").write_bytes(b"read from a disk\n".ljust(1 << 20, b"\0"))
        assert cli.create("guest", bundle, check=False) != 0
        assert "declares the block device `data`, the image gives 0" in cli.last_error()
        bundle.annotate(block="/disk.img", blkMntPoint="/data")
        start(cli, bundle)
        assert serves(netns, netns.address) == "read from a disk\n"
        assert "disk of 2048 sectors: read from a disk" in cli.console("guest")
        cli.end("guest")


def test_mirages_own_test_of_a_disk(cli: Cli, make: Callable[..., Bundle]) -> None:
    bundle = make("block")
    disk = bundle.rootfs / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    bundle.annotate(block="/disk.img", blkMntPoint="/data")
    status, console = run_to_its_end(cli, bundle)
    assert status == 0, console
    assert "Total tests passed:  10" in console
    assert "Total tests failed:  0" in console
    assert disk.read_bytes().startswith(b"0: All work and no play")
