"""A Linux guest's network, for real: IPv6 alone and beside IPv4, several interfaces, behind NAT."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import linuxes
from bundles import Bundle, Netns
from driver import Cli
from guest import linux_guest
from world import World, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]

SERVE = "ip address; ip route; ip -6 route; ip neigh; echo serving; exec httpd -f -h /www"


@pytest.fixture(scope="session")
def initrd() -> bytes:
    """An initrd with busybox, its web server and a page."""
    links = {f"/bin/{name}": (0o120777, b"busybox") for name in ("httpd", "ping6", "wc", "wget")}
    page = {"/www/index.html": (0o100644, b"a page from the guest\n")}
    entries = {**links, **page}
    return linux_guest.base_initrd(linux_guest.find_kernel()) + linux_guest.cpio(
        (path, mode, content) for path, (mode, content) in entries.items()
    )


@pytest.fixture
def make_linux(
    is_runc: bool, initrd: bytes, tmp_path_factory: pytest.TempPathFactory, world: World
) -> Callable[..., Bundle]:
    """Make a bundle of a Linux guest that runs a line of shell."""
    if is_runc:
        pytest.skip("runc has no unikernels")

    def make(script: str, netns: Netns) -> Bundle:
        folder = tmp_path_factory.mktemp("linux") / "bundle"
        bundle = Bundle(folder, ("/bin/sh", "-c", script), cgroup=f"/{world.cgroup}/{netns.name}")
        bundle.namespace("network", netns.path)
        return linuxes.add_initrd(bundle, initrd)

    return make


@pytest.fixture
def netns(world: World) -> Iterator[Netns]:
    """A namespace with eth0, IPv4 and IPv6: a /128 and a gateway off the link, which the other end is."""
    with Netns(world, "ipv6") as made:
        ip = ("ip", "-n", made.name)
        world.run(*ip, "address", "add", "fd77::2/128", "dev", "eth0", "nodad")
        world.run(*ip, "route", "add", "fe80::1", "dev", "eth0")
        world.run(*ip, "route", "add", "default", "via", "fe80::1", "dev", "eth0")
        world.run("ip", "address", "add", "fe80::1/64", "dev", made.peer, "nodad")
        world.run("ip", "address", "add", "fd00::1/128", "dev", made.peer, "nodad")
        world.run("ip", "route", "add", "fd77::2", "dev", made.peer)
        made.remember()
        yield made


def fetch(world: World, host: str, page: str = "") -> str:
    """Return the guest's page, once it is there."""
    argv = ("curl", "-gsf", "--max-time", "10", f"http://{host}/{page}")
    return str(wait_for(f"a page from {host}", lambda: world.run(*argv, check=False).stdout, 60))


def test_ipv6_alone(cli: Cli, make_linux: Callable[..., Bundle], netns: Netns, world: World) -> None:
    world.run("ip", "-n", netns.name, "address", "del", f"{netns.address}/24", "dev", "eth0")
    netns.remember()
    cli.create("guest", make_linux(SERVE, netns))
    cli("start", "guest")
    console = cli.wait_console("guest", "serving")
    assert "fd77::2/128" in console
    assert "default via fe80::1 dev eth0" in console
    assert netns.address not in console
    assert fetch(world, "[fd77::2]") == "a page from the guest\n"
    assert world.run("ping", "-6", "-c1", "-W3", "-I", "fd00::1", "fd77::2").returncode == 0
    cli.end("guest")


def test_both_families(cli: Cli, make_linux: Callable[..., Bundle], netns: Netns, world: World) -> None:
    mac = world.run("ip", "-br", "link", "show", "dev", netns.peer).stdout.split()[2]
    neighbour = ("neigh", "add", "fe80::1", "lladdr", mac, "dev", "eth0", "nud", "permanent")
    world.run("ip", "-n", netns.name, *neighbour)
    cli.create("guest", make_linux(SERVE, netns))
    cli("start", "guest")
    console = cli.wait_console("guest", "serving")
    assert f"{netns.address}/24" in console
    assert f"fe80::1 dev eth0 lladdr {mac}" in console
    for host in (netns.address, "[fd77::2]"):
        assert fetch(world, host) == "a page from the guest\n"
    cli.end("guest")


def test_a_router_that_nobody_asked_for_is_not_heard(cli: Cli, make_linux: Callable[..., Bundle], netns: Netns) -> None:
    cli.create("guest", make_linux("echo heard=$(cat /proc/sys/net/ipv6/conf/eth0/accept_ra); sleep 1000", netns))
    cli("start", "guest")
    cli.wait_console("guest", "heard=0")
    cli.end("guest")


def test_two_interfaces(cli: Cli, make_linux: Callable[..., Bundle], netns: Netns, world: World) -> None:
    """Each becomes a NIC, in order, with its own MAC, MTU and addresses."""
    ip = ("ip", "-n", netns.name)
    link = f"peer-two mtu 1300 type veth peer name net1 mtu 1300 netns {netns.name}"
    world.run("ip", "link", "add", *link.split())
    world.run("ip", "address", "add", "10.88.0.1/24", "dev", "peer-two")
    world.run("ip", "link", "set", "peer-two", "up")
    world.run(*ip, "link", "set", "net1", "address", "02:00:00:00:88:02", "addrgenmode", "none")
    world.run(*ip, "address", "add", "10.88.0.2/24", "dev", "net1")
    world.run(*ip, "link", "set", "net1", "up")
    wait_for("the link", lambda: "UP" in world.run(*ip, "-br", "link", "show", "dev", "net1").stdout.split())
    netns.remember()
    cli.create("guest", make_linux(SERVE, netns))
    cli("start", "guest")
    console = cli.wait_console("guest", "serving")
    first, second = console.index(f"{netns.address}/24"), console.index("10.88.0.2/24")
    assert first < second
    assert "mtu 1500" in console[:first]
    assert "mtu 1300" in console[first:second]
    assert "02:00:00:00:88:02" in console[first:second]
    for host in (netns.address, "10.88.0.2"):
        assert fetch(world, host) == "a page from the guest\n"
    cli.end("guest")
    world.run("ip", "link", "del", "peer-two")
    netns.remember()


def test_behind_nat_with_ipv6(cli: Cli, make_linux: Callable[..., Bundle], netns: Netns, world: World) -> None:
    """Both ways, both families, from outside and from a sidecar; IPv6 forwards only while the guest is there."""
    own = ("ip", "netns", "exec", netns.name)
    bundle = make_linux(f"ping6 -c1 -W9 fd00::1 >/dev/null && echo out; {SERVE}", netns)
    bundle.config["annotations"]["com.urunc.network"] = "nat"
    cli.create("guest", bundle)
    cli("start", "guest")
    console = cli.wait_console("guest", "serving")
    assert "out" in console.split()
    assert "172.16.1.2/24" in console
    assert "fd75:7275:6e63::2/64" in console
    assert "default via fd75:7275:6e63::1 dev eth0" in console
    for host in (netns.address, "[fd77::2]"):
        assert fetch(world, host) == "a page from the guest\n"
    sidecar = world.run(*own, "curl", "-gsf", "--max-time", "10", "http://[fd75:7275:6e63::2]/").stdout
    assert sidecar == "a page from the guest\n"
    assert world.run(*own, "ping", "-6", "-c1", "-W3", "-I", "fd77::2", "fd00::1").returncode == 0
    cli.end("guest")


def test_ipv6_alone_behind_nat(cli: Cli, make_linux: Callable[..., Bundle], netns: Netns, world: World) -> None:
    world.run("ip", "-n", netns.name, "address", "del", f"{netns.address}/24", "dev", "eth0")
    netns.remember()
    bundle = make_linux(SERVE, netns)
    bundle.config["annotations"]["com.urunc.network"] = "nat"
    cli.create("guest", bundle)
    cli("start", "guest")
    console = cli.wait_console("guest", "serving")
    assert "172.16.1.2" not in console
    assert fetch(world, "[fd77::2]") == "a page from the guest\n"
    cli.end("guest")


def test_behind_nat(cli: Cli, make_linux: Callable[..., Bundle], netns: Netns, world: World) -> None:
    """Large answers both ways, so that checksums and segments left to the devices are put right on the way."""
    size = 1_000_000
    server = world.start("pages", "busybox", "httpd", "-f", "-p", f"{netns.gateway}:8000", "-h", "/run/data")
    world.path("/run/data/large").write_bytes(b"x" * size)
    fetched = f"wget -q -O /www/large http://{netns.gateway}:8000/large; echo got $(wc -c </www/large)"
    bundle = make_linux(f"{fetched}; {SERVE}", netns)
    bundle.config["annotations"]["com.urunc.network"] = "nat"
    cli.create("guest", bundle)
    cli("start", "guest")
    console = cli.wait_console("guest", "serving")
    assert f"got {size}" in console
    assert "172.16.1.2/24" in console
    assert fetch(world, netns.address) == "a page from the guest\n"
    assert fetch(world, netns.address, "large") == "x" * size
    cli.end("guest")
    world.run("kill", *(str(pid) for pid, command in world.processes() if "httpd" in command))
    server.wait()
    del world.services["pages"]
    world.path("/run/data/large").unlink()
