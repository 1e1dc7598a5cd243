"""Network mode `nat` with the test guest: the pod keeps its network, and nothing is left in its namespace."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bundles
from bundles import Bundle, Netns
from driver import Cli
from realguests import find_guest
from world import World, wait_for

pytestmark = pytest.mark.root

MODE = "com.urunc.network"
NAME = "io.kubernetes.cri.container-name"
GUEST = "172.16.1.2"


@pytest.fixture
def netns(world: World) -> Iterator[Netns]:
    """A pod's namespace; after the test it must hold exactly what it held before, and forward no more."""
    with Netns(world, "pod") as made:
        yield made
        assert forwarding(world, made) == "0"
        assert not rules(world, made)


def forwarding(world: World, netns: Netns) -> str:
    """Whether the namespace's eth0 forwards: 0 or 1."""
    return inside(world, netns, "cat", "/proc/sys/net/ipv4/conf/eth0/forwarding")


def rules(world: World, netns: Netns) -> str:
    """The namespace's NAT rules."""
    return inside(world, netns, "nft", "list", "ruleset") if shutil.which("nft") else ""


def inside(world: World, netns: Netns, *argv: str) -> str:
    """Run a command in the namespace, as a container of the pod's would."""
    return world.run("ip", "netns", "exec", netns.name, *argv).stdout.strip()


def behind_nat(bundle: Bundle, netns: Netns) -> None:
    """Put the bundle into the namespace, in that mode."""
    bundle.namespace("network", netns.path)
    bundle.config["annotations"][MODE] = "nat"


def fetch(world: World, address: str, *, prefix: tuple[str, ...] = ()) -> str:
    """Return the test guest's page, once it is there."""
    argv = (*prefix, "curl", "-sf", "--max-time", "3", f"http://{address}/")
    return str(wait_for(f"a page from {address}", lambda: world.run(*argv, check=False).stdout))


@pytest.mark.parametrize("annotation", [(MODE, "nat"), (NAME, "user-container")], ids=["asked for", "Knative"])
def test_the_pod_and_the_guest_share_the_address(
    cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns, world: World, annotation: tuple[str, str]
) -> None:
    bundle = make_unikernel()
    bundle.namespace("network", netns.path)
    bundle.config["annotations"][annotation[0]] = annotation[1]
    cli.create("guest", bundle)
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    assert f"netdev.ip={GUEST}/24:172.16.1.1" in console
    assert "testguest" in fetch(world, netns.address)  # from outside, at the pod's address
    assert "testguest" in fetch(world, GUEST, prefix=("ip", "netns", "exec", netns.name))  # from a sidecar
    assert inside(world, netns, "ping", "-c1", "-W3", netns.gateway)  # which has the network
    assert inside(world, netns, "ping", "-c1", "-W3", GUEST)
    cli.end("guest")


def test_a_sidecars_port_is_the_sidecars(
    cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns, world: World
) -> None:
    bundle = make_unikernel()
    behind_nat(bundle, netns)
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    assert "testguest" in fetch(world, netns.address)
    server = ("ip", "netns", "exec", netns.name, "busybox", "httpd", "-f", "-p", "80", "-h", "/run")
    sidecar = world.start("sidecar", *server)
    code = ("curl", "-s", "--max-time", "3", "-o", "/dev/null", "-w", "%{http_code}", f"http://{netns.address}/")
    wait_for("the sidecar's answer", lambda: world.run(*code, check=False).stdout == "404")
    world.run("kill", *(str(pid) for pid, command in world.processes() if "httpd" in command))
    sidecar.wait()
    del world.services["sidecar"]
    cli.end("guest")


def test_knatives_proxy_is_told_of_the_guest(
    cli: Cli,
    make_unikernel: Callable[..., Bundle],
    make_ordinary: Callable[..., Bundle],
    netns: Netns,
) -> None:
    """The proxy goes to runc, in the guest's namespace, and reaches the guest by its environment."""
    guest = make_unikernel()
    proxy = make_ordinary("sh", "-c", 'echo "$SERVING_READINESS_PROBE"; wget -q -O - "http://$REDIRECT_IP/"')
    (proxy.rootfs / "bin/wget").symlink_to("busybox")
    proxy.config["process"]["env"].append('SERVING_READINESS_PROBE={"tcpSocket":{"port":80,"host":"127.0.0.1"}}')
    for bundle, name in ((guest, "user-container"), (proxy, "queue-proxy")):
        bundle.namespace("network", netns.path)
        bundle.config["annotations"][NAME] = name
    cli.create("guest", guest)
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    assert cli.to_file("proxy", "run", f"--bundle={proxy.write()}", "proxy", check=False) == 0
    assert f'{{"port":80,"host":"{GUEST}"}}' in cli.console("proxy").replace(" ", "")
    assert "testguest" in cli.console("proxy")
    cli.end("guest")


def test_redirect_may_be_asked_for(cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns) -> None:
    bundle = make_unikernel()
    bundle.namespace("network", netns.path)
    bundle.config["annotations"].update({MODE: "redirect", NAME: "user-container"})
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", f"ip: {netns.address}")
    cli.end("guest")


def test_an_unknown_mode(cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns) -> None:
    bundle = make_unikernel()
    bundle.namespace("network", netns.path)
    bundle.config["annotations"][MODE] = "bridge"
    assert cli.create("guest", bundle, check=False) != 0
    assert f"`{MODE}` is redirect or nat, not `bridge`" in cli.last_error()


def test_a_failed_create_leaves_the_namespace_alone(
    cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns
) -> None:
    bundle = make_unikernel()
    behind_nat(bundle, netns)
    bundle.hook("createContainer", "/bin/false")
    assert cli.create("guest", bundle, check=False) != 0


def test_a_guest_that_dies_may_be_followed_by_another(
    cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns, world: World
) -> None:
    """As a kubelet restarts a container in its pod; here the first is deleted late."""
    bundles = [make_unikernel(), make_unikernel()]
    for number, bundle in enumerate(bundles):
        behind_nat(bundle, netns)
        cli.create(f"guest{number}", bundle)
        cli("start", f"guest{number}")
        cli.wait_console(f"guest{number}", "ready")
        if number == 0:
            cli("kill", "guest0", "KILL")
            cli.wait_status("guest0", "stopped", 10)
    cli("delete", "guest0")
    assert "testguest" in fetch(world, netns.address)
    cli.end("guest1")


# Monitors that take the tap by its name.


@pytest.fixture
def make_firecracker(
    make_unikernel: Callable[..., Bundle], testguest: Path, tmp_path: Path, world: World
) -> Callable[..., Bundle]:
    """Make a bundle with the test guest on Firecracker."""
    kernel = testguest.with_name("testguest64.elf")
    if shutil.which("firecracker") is None or not os.path.exists("/dev/kvm") or not kernel.exists():
        pytest.skip("firecracker cannot run here")

    def make() -> Bundle:
        cgroup = f"/{world.cgroup}/firecracker"
        return bundles.unikernel(tmp_path / "fc", kernel, "app", monitor="firecracker", cgroup=cgroup)

    return make


def echo(world: World, address: str, port: int) -> bytes:
    """Return what the guest's UDP echo port answers, asked from outside of the pod."""
    code = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3); "
        f"s.sendto(b'hello', ({address!r}, {port})); print(s.recv(100).decode())"
    )
    return (
        str(wait_for("an echo", lambda: world.run("python3", "-IS", "-c", code, check=False).stdout)).strip().encode()
    )


@pytest.mark.parametrize("monitor", ["qemu", "firecracker"])
@pytest.mark.parametrize("user", [0, 1234])
def test_every_port_on_every_monitor(
    cli: Cli,
    make_unikernel: Callable[..., Bundle],
    netns: Netns,
    world: World,
    request: pytest.FixtureRequest,
    monitor: str,
    user: int,
) -> None:
    """TCP's 80 and UDP's 7 of the pod's address, which no list names; the tap is the user's own."""
    bundle = request.getfixturevalue("make_firecracker")() if monitor == "firecracker" else make_unikernel("app")
    bundle.config["process"]["user"] = {"uid": user, "gid": user}
    behind_nat(bundle, netns)
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    assert "testguest" in fetch(world, netns.address)
    assert echo(world, netns.address, 7) == b"hello"
    assert inside(world, netns, "ping", "-c1", "-W3", netns.gateway)
    cli.end("guest")


@pytest.mark.slow
@pytest.mark.parametrize("tender", ["spt", "hvt"])
def test_solo5(
    cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns, world: World, tmp_path: Path, tender: str
) -> None:
    """Its test kernel is 10.0.0.2 whatever it is told, so the tap gets an address in its network as well."""
    if shutil.which(f"solo5-{tender}") is None or (tender == "hvt" and not os.path.exists("/dev/kvm")):
        pytest.skip(f"solo5-{tender} cannot run here")
    kernel = find_guest(f"solo5/test_net.{tender}")
    cgroup = f"/{world.cgroup}/solo5"
    bundle = bundles.unikernel(tmp_path / "solo5", kernel, guest="mirage", monitor=tender, cgroup=cgroup)
    behind_nat(bundle, netns)
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "Serving ping on 10.0.0.2")
    (tap,) = [name for name in inside(world, netns, "ls", "/sys/class/net").split() if name.startswith("urunc")]
    world.run("ip", "-n", netns.name, "address", "add", "10.0.0.1/24", "dev", tap)
    wait_for(
        "an answer",
        lambda: (
            world.run(*("ip", "netns", "exec", netns.name), "ping", "-c1", "-W1", "10.0.0.2", check=False).returncode
            == 0
        ),
    )
    assert inside(world, netns, "ping", "-c1", "-W3", netns.gateway)
    cli.end("guest")


def test_a_published_port_reaches_the_guest(
    cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns, world: World
) -> None:
    """As Docker and the portmap plugin publish one: a rule that sends a port of the host to the pod's address."""
    publish = (
        "add table ip publish",
        "add chain ip publish out { type nat hook output priority -100; }",
        f"add rule ip publish out ip daddr 10.200.0.1 tcp dport 8080 dnat to {netns.address}:80",
    )
    if shutil.which("nft") is None:
        pytest.skip("nft is not installed")
    bundle = make_unikernel("app")
    behind_nat(bundle, netns)
    world.run("ip", "address", "add", "10.200.0.1/32", "dev", "lo")
    world.run("nft", "; ".join(publish))
    try:
        cli.create("guest", bundle)
        cli("start", "guest")
        cli.wait_console("guest", "ready")
        assert "testguest" in fetch(world, "10.200.0.1:8080")
        cli.end("guest")
    finally:
        world.run("nft", "delete table ip publish")
        world.run("ip", "address", "del", "10.200.0.1/32", "dev", "lo")


def test_ipv6_alone_for_a_guest_that_has_none(
    cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns, world: World
) -> None:
    ip = ("ip", "-n", netns.name)
    world.run(*ip, "address", "add", "fd77::2/64", "dev", "eth0", "nodad")
    world.run(*ip, "address", "del", f"{netns.address}/24", "dev", "eth0")
    netns.remember()
    bundle = make_unikernel("app")
    behind_nat(bundle, netns)
    assert cli.create("guest", bundle, check=False) != 0
    assert "IPv6" in cli.last_error()
