"""Solo5's own test kernels (`solo5/test_*.spt`, `.hvt`, `.virtio`) and Unikraft's (`unikraft/`): see `realguests`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import bundles
from bundles import Bundle, Netns
from driver import Cli
from realguests import add_interface, fetch, find_guest, run_to_its_end
from world import World, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(params=["spt", "hvt"])
def tender(request: pytest.FixtureRequest, is_runc: bool) -> str:
    """A Solo5 tender that is installed and can run here."""
    name = str(request.param)
    if is_runc:
        pytest.skip("runc has no unikernels")
    if shutil.which(f"solo5-{name}") is None:
        pytest.skip(f"solo5-{name} is not installed")
    if name == "hvt" and not os.path.exists("/dev/kvm"):
        pytest.skip("there is no /dev/kvm")
    return name


@pytest.fixture
def make_solo5(tender: str, tmp_path: Path, world: World) -> Callable[..., Bundle]:
    """Make a bundle with one of Solo5's test kernels."""

    def make(test: str, *args: str) -> Bundle:
        kernel = find_guest(f"solo5/{test}.{tender}")
        cgroup = f"/{world.cgroup}/{test}"
        return bundles.unikernel(tmp_path / test, kernel, *args, guest="mirage", monitor=tender, cgroup=cgroup)

    return make


def test_solo5_hello(cli: Cli, make_solo5: Callable[..., Bundle]) -> None:
    status, console = run_to_its_end(cli, make_solo5("test_hello", "Hello_Solo5"))
    assert "SUCCESS" in console
    assert status == 0


@pytest.mark.parametrize(("test", "expected"), [("test_globals", 0), ("test_time", 0), ("test_ssp", 255)])
def test_solo5_statuses_are_the_guests(cli: Cli, make_solo5: Callable[..., Bundle], test: str, expected: int) -> None:
    status, console = run_to_its_end(cli, make_solo5(test))
    assert status == expected, console


def test_solo5_with_little_memory(cli: Cli, make_solo5: Callable[..., Bundle]) -> None:
    bundle = make_solo5("test_hello", "Hello_Solo5")
    bundle.config["linux"]["resources"]["memory"] = {"limit": 16 << 20}
    status, console = run_to_its_end(cli, bundle)
    assert status == 0, console


def test_solo5_block(cli: Cli, make_solo5: Callable[..., Bundle]) -> None:
    bundle = make_solo5("test_blk")
    (bundle.rootfs / "disk.img").write_bytes(bytes(1 << 20))
    bundle.annotate(block="/disk.img", blkMntPoint="/data")
    status, console = run_to_its_end(cli, bundle)
    assert "SUCCESS" in console
    assert status == 0


@pytest.mark.parametrize(
    ("test", "named"), [("test_net", "service0"), ("test_blk", "storage")], ids=["no interface", "no disk"]
)
def test_solo5_manifest_and_container_disagree(
    cli: Cli, make_solo5: Callable[..., Bundle], test: str, named: str
) -> None:
    """The kernel wants a device that the container does not have: an error of create, with the device's name."""
    assert cli.create("guest", make_solo5(test), check=False) != 0
    assert named in cli.last_error()


def test_solo5_kernel_for_another_tender(cli: Cli, make_solo5: Callable[..., Bundle], tender: str) -> None:
    bundle = make_solo5("test_hello")
    bundle.annotate(hypervisor="hvt" if tender == "spt" else "spt")
    assert cli.create("guest", bundle, check=False) != 0
    assert "hvt" in cli.last_error()
    assert "spt" in cli.last_error()


def answers_ping(cli: Cli, bundle: Bundle, world: World) -> None:
    """See test_net answer: it is 10.0.0.2 whatever it is told."""
    with Netns(world, "solo5", subnet="10.0.0") as netns:
        bundle.namespace("network", netns.path)
        cli.create("guest", bundle)
        cli("start", "guest")
        cli.wait_console("guest", "Serving ping on 10.0.0.2")
        wait_for("an answer", lambda: world.run("ping", "-c1", "-W1", "10.0.0.2", check=False).returncode == 0)
        cli.end("guest")


def test_solo5_answers_ping(cli: Cli, make_solo5: Callable[..., Bundle], world: World) -> None:
    answers_ping(cli, make_solo5("test_net"), world)


def answers_at_both(cli: Cli, bundle: Bundle, world: World) -> None:
    """test_net_2if is 10.0.0.2 at its manifest's first device and 10.1.0.2 at its second."""
    with Netns(world, "two", subnet="10.0.0") as netns:
        add_interface(world, netns, "net1", "10.1.0.2", "10.1.0.1")
        bundle.namespace("network", netns.path)
        cli.create("guest", bundle)
        cli("start", "guest")
        cli.wait_console("guest", "Serving ping")
        for address in ("10.0.0.2", "10.1.0.2"):
            argv = ("ping", "-c1", "-W1", address)
            wait_for(f"an answer of {address}", lambda: world.run(*argv, check=False).returncode == 0)  # noqa: B023
        cli.end("guest")


def test_solo5_two_interfaces(cli: Cli, make_solo5: Callable[..., Bundle], world: World) -> None:
    answers_at_both(cli, make_solo5("test_net_2if"), world)


def test_solo5_that_takes_one_interface_of_two(cli: Cli, make_solo5: Callable[..., Bundle], world: World) -> None:
    """It gets the one with the default route, though that is the second; the other is left alone."""
    with Netns(world, "one", ifname="net0", subnet="10.5.0") as netns:
        world.run("ip", "-n", netns.name, "route", "del", "default")
        add_interface(world, netns, "eth0", "10.0.0.2", "10.0.0.1")
        world.run("ip", "-n", netns.name, "route", "add", "default", "via", "10.0.0.1")
        netns.remember()
        bundle = make_solo5("test_net")
        bundle.namespace("network", netns.path)
        cli.create("guest", bundle)
        assert "it gets eth0; left out: net0" in cli.log.read_text()
        cli("start", "guest")
        cli.wait_console("guest", "Serving ping on 10.0.0.2")
        for address in ("10.0.0.2", netns.address):
            argv = ("ping", "-c1", "-W1", address)
            wait_for(f"an answer of {address}", lambda: world.run(*argv, check=False).returncode == 0)  # noqa: B023
        cli.end("guest")


def test_solo5_stop(cli: Cli, make_solo5: Callable[..., Bundle], world: World, tender: str) -> None:
    """A guest that waits is ended by TERM, though spt has no handler for it."""
    bundle = make_solo5("test_time")
    cli.create("guest", bundle)
    cli("start", "guest")
    cli("kill", "guest", "TERM", check=False)
    cli.wait_status("guest", "stopped", 10)


@pytest.fixture
def make_virtio(is_runc: bool, tmp_path: Path, world: World) -> Callable[..., Bundle]:
    """Make a bundle with one of Solo5's test kernels for QEMU."""
    if is_runc:
        pytest.skip("runc has no unikernels")

    def make(test: str, *args: str) -> Bundle:
        kernel = find_guest(f"solo5/{test}.virtio")
        return bundles.unikernel(tmp_path / test, kernel, *args, guest="mirage", cgroup=f"/{world.cgroup}/{test}")

    return make


def test_solo5_on_qemu(cli: Cli, make_virtio: Callable[..., Bundle]) -> None:
    """It powers off, whatever its status is: that is lost, and an abort is no failure."""
    status, console = run_to_its_end(cli, make_virtio("test_hello", "Hello_Solo5"))
    assert "SUCCESS" in console
    assert status == 0
    status, console = run_to_its_end(cli, make_virtio("test_ssp"))
    assert "ABORT" in console
    assert status == 0


def test_solo5_block_on_qemu(cli: Cli, make_virtio: Callable[..., Bundle]) -> None:
    bundle = make_virtio("test_blk")
    (bundle.rootfs / "disk.img").write_bytes(bytes(1 << 20))
    bundle.annotate(block="/disk.img", blkMntPoint="/data")
    status, console = run_to_its_end(cli, bundle)
    assert "SUCCESS" in console
    assert status == 0


def test_solo5_answers_ping_on_qemu(cli: Cli, make_virtio: Callable[..., Bundle], world: World) -> None:
    answers_ping(cli, make_virtio("test_net"), world)


def test_solo5_two_interfaces_on_qemu(cli: Cli, make_virtio: Callable[..., Bundle], world: World) -> None:
    answers_at_both(cli, make_virtio("test_net_2if"), world)


@pytest.fixture
def make_unikraft(is_runc: bool, tmp_path: Path, world: World) -> Callable[..., Bundle]:
    """Make a bundle with a Unikraft kernel."""
    if is_runc:
        pytest.skip("runc has no unikernels")

    def make(name: str, *args: str) -> Bundle:
        return bundles.unikernel(
            tmp_path / name, find_guest(f"unikraft/{name}"), *args, cgroup=f"/{world.cgroup}/{name}"
        )

    return make


def test_unikraft_hello(cli: Cli, make_unikraft: Callable[..., Bundle]) -> None:
    status, console = run_to_its_end(cli, make_unikraft("hello-qemu-x86_64", "hello", "one two", "three"))
    assert status == 0
    assert "Powered by" in console or "Hello" in console


def test_unikraft_nginx_serves_a_page(cli: Cli, make_unikraft: Callable[..., Bundle], world: World) -> None:
    with Netns(world, "unikraft") as netns:
        bundle = make_unikraft("nginx-qemu-x86_64", "nginx", "-c", "/nginx/conf/nginx.conf")
        shutil.copy(find_guest("unikraft/nginx-initrd.cpio"), bundle.rootfs / "unikernel/initrd")
        bundle.annotate(initrd="/unikernel/initrd")
        bundle.namespace("network", netns.path)
        cli.create("guest", bundle)
        cli("start", "guest")
        url = f"http://{netns.address}/"
        page = wait_for(url, lambda: world.run("curl", "-sf", "--max-time", "3", url, check=False).stdout, 60)
        assert "<html" in page.lower()
        cli.end("guest")


def test_an_older_unikraft_serves_a_page(cli: Cli, make_unikraft: Callable[..., Bundle], world: World) -> None:
    """0.15's nginx, whose network has other parameters, and whose root is the initrd as it was built."""
    with Netns(world, "unikraft") as netns:
        bundle = make_unikraft("nginx-0.15-qemu-x86_64", "nginx", "-c", "/nginx/conf/nginx.conf")
        shutil.copy(find_guest("unikraft/nginx-initrd.cpio"), bundle.rootfs / "unikernel/initrd")
        bundle.annotate(initrd="/unikernel/initrd", unikernelVersion="0.15.0")
        bundle.namespace("network", netns.path)
        cli.create("guest", bundle)
        cli("start", "guest")
        assert "<html" in fetch(world, f"http://{netns.address}/").lower()
        cli.end("guest")


def test_unikraft_on_firecracker(cli: Cli, make_unikraft: Callable[..., Bundle]) -> None:
    """A hello without vector instructions, and the Firecracker that its release boots on: 0.17's stops on newer ones.

    It prints its arguments, and what of its environment is called GREETING.
    """
    monitor = find_guest("unikraft/firecracker")
    if not os.path.exists("/dev/kvm"):
        pytest.skip("there is no /dev/kvm")
    cli.config.write_text(f'[monitors.firecracker]\npath = "{monitor}"\n')
    bundle = make_unikraft("hello-fc-x86_64", "hello", "one", "two words")
    bundle.annotate(hypervisor="firecracker")
    bundle.config["process"]["env"].append("GREETING=hi there")
    status, console = run_to_its_end(cli, bundle)
    assert status == 0, console
    for line in ("argv[1] = <one>", "argv[2] = <two words>", "GREETING = <hi there>"):
        assert line in console


TAKEN = "taken from the kernel, as neither image nor annotations say: "


def untold(bundle: Bundle, *keys: str) -> Bundle:
    """Leave out what the image says, by the keys' short names."""
    for key in keys or ("unikernelType", "hypervisor"):
        del bundle.config["annotations"][bundles.PREFIX + key]
    return bundle


def test_unikrafts_kernel_tells_all(cli: Cli, make_unikraft: Callable[..., Bundle]) -> None:
    status, console = run_to_its_end(cli, untold(make_unikraft("hello-qemu-x86_64", "hello", "one")))
    assert status == 0
    assert "Powered by" in console or "Hello" in console
    assert TAKEN + "guest `unikraft` and monitor `qemu`" in [line["msg"] for line in cli.log_lines()]


def test_a_solo5_kernel_for_qemu_tells_all(cli: Cli, make_virtio: Callable[..., Bundle]) -> None:
    status, console = run_to_its_end(cli, untold(make_virtio("test_hello", "Hello_Solo5")))
    assert status == 0, console
    assert TAKEN + "guest `mirage` and monitor `qemu`" in [line["msg"] for line in cli.log_lines()]


def test_a_solo5_kernel_tells_its_tender(cli: Cli, make_solo5: Callable[..., Bundle], tender: str) -> None:
    status, console = run_to_its_end(cli, untold(make_solo5("test_hello", "Hello_Solo5"), "hypervisor"))
    assert status == 0, console
    assert TAKEN + f"monitor `{tender}`" in [line["msg"] for line in cli.log_lines()]


def test_a_solo5_kernel_that_could_be_two_guests(cli: Cli, make_solo5: Callable[..., Bundle]) -> None:
    assert cli.create("guest", untold(make_solo5("test_hello")), check=False) != 0
    assert "may be any of `mirage`, `rumprun` (set the annotation unikernelType)" in cli.last_error()


def test_a_linux_kernel_that_could_have_two_monitors(cli: Cli, is_runc: bool, tmp_path: Path, world: World) -> None:
    if is_runc:
        pytest.skip("runc has no unikernels")
    kernel = max(Path("/boot").glob("vmlinuz-*"), default=None)
    if kernel is None:
        pytest.skip("no kernel in /boot")
    bundle = bundles.unikernel(tmp_path / "linux", kernel, "/bin/true", cgroup=f"/{world.cgroup}/linux")
    assert cli.create("guest", untold(bundle), check=False) != 0
    assert "may be any of `qemu`, `firecracker` (set the annotation hypervisor)" in cli.last_error()
