"""MirageOS's own runtime on spt and QEMU: what it makes of the arguments that urunc gives it. See `realguests`.

`mirage/` holds three kernels of OCaml on Solo5, with mirage-solo5's main loop, parse-argv and mirage-runtime. All print
the option `--hello` and each argument; `hello` also has a network's options and prints them, `plain` has no network,
and `ordered` a disk and then a NIC in its manifest.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import bundles
from bundles import Bundle, Netns
from driver import Cli
from realguests import find_guest, run_to_its_end
from world import World

pytestmark = [pytest.mark.root, pytest.mark.slow]

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


def test_ipv6_beside_ipv4_and_alone(cli: Cli, make: Callable[..., Bundle], world: World) -> None:
    with Netns(world, "mirage") as netns:
        for command in (
            "ip -n mirage address add 2001:db8::5/64 dev eth0 nodad",
            "ip -n mirage -6 route add default via 2001:db8::1 dev eth0",
        ):
            world.run(*command.split())
        netns.remember()
        bundle = make("hello")
        bundle.namespace("network", netns.path)
        _, console = run_to_its_end(cli, bundle)
        assert f"ipv4={netns.address}/24" in console
        assert "ipv6=2001:db8::5/64 gateway6=2001:db8::1 accept=false only4=false only6=false" in console
        world.run("ip", "-n", netns.name, "-4", "address", "flush", "dev", "eth0")
        netns.remember()
        cli("delete", "--force", "guest")
        _, console = run_to_its_end(cli, bundle)
        assert "ipv6=2001:db8::5/64 gateway6=2001:db8::1 accept=false only4=false only6=true" in console


def test_devices_in_the_manifests_order(cli: Cli, make: Callable[..., Bundle], world: World) -> None:
    """On virtio the kernel pairs what it finds on the bus with its manifest, and stops where the kinds differ."""
    with Netns(world, "mirage") as netns:
        bundle = make("ordered", "--hello=all")
        bundle.namespace("network", netns.path)
        (bundle.rootfs / "disk.img").write_bytes(bytes(1 << 20))
        assert cli.create("guest", bundle, check=False) != 0
        assert "declares the block device `storage`, the image gives 0" in cli.last_error()
        bundle.annotate(block="/disk.img", blkMntPoint="/data")
        status, console = run_to_its_end(cli, bundle)
    assert status == 0, console
    assert "hello <all>" in console
