"""The guests that an engine is asked to run: for each its image, how it is started, and how it shows that it serves."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import guestimages
import images

from world import World, wait_for

UDP = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.sendto(b"over UDP", (sys.argv[1], int(sys.argv[2])))
print(s.recv(100).decode())
"""
PORT_ECHO = 7


VOLUME = "/site"
"""Where a guest's volume is; it holds the file `page`."""
VOLUME_PAGE = "a page of a volume\n"


class Net(NamedTuple):
    """A network that a test makes for a container; its gateway is each subnet's first address."""

    name: str
    subnets: tuple[str, ...]
    fixed: str = ""
    """The one address that it gives."""
    default: bool = True
    """Whether it has a default route, where that is the test's to say."""


PLAIN = Net("plain", ())
"""The engine's own."""
FIRST = Net("first", ("10.0.0.0/24",), "10.0.0.2")
"""Solo5's network tests have these two networks' addresses, whatever they are told."""
SECOND = Net("second", ("10.1.0.0/24",), "10.1.0.2", default=False)
IPV6 = Net("ipv6", ("fd00:7::/64",))
DUAL = Net("dual", ("10.2.0.0/24", "fd00:8::/64"))


class Guest(NamedTuple):
    """A guest, as an engine's user has it."""

    name: str
    image: Callable[[Path, Path], images.Image]
    """Takes the test guest's kernel and a folder. Skips the test where the guest is not there."""
    command: tuple[str, ...]
    ready: tuple[str, ...]
    """What its console shows once it is up."""
    answers: Callable[[World, str], bool] | None
    """Asks it, at one of its addresses as a URL has it, from inside the world. None is a guest that ends by itself."""
    pod: dict[str, str] = {}
    """Annotations of its pod: pause and sidecar get them too, and stay ordinary."""
    memory: int = 256 << 20
    networks: tuple[Net, ...] = (PLAIN,)
    """The first has the default route."""
    nics: int | None = None
    """How many it takes, where there may be more: those with the default route first."""
    port: int = 0
    """The TCP port of its page."""
    tender: str = ""
    """A monitor of its own, among the built guests."""
    volume: str = ""
    """How a folder of the host's is at VOLUME: `ro` or `rw`. The guest serves the page in it, of a copy."""

    def has_answered(self, world: World, host: str) -> bool:
        """Return whether it answers there."""
        return self.answers is not None and self.answers(world, host)


def udp_echo(world: World, host: str, port: int = PORT_ECHO) -> str:
    """Return what the echo port answers."""
    return world.ask("/usr/bin/python3", "-IS", "-c", UDP, host, str(port)).strip()


def page(world: World, host: str) -> str:
    """Return the page that it serves, "" where it does not."""
    return world.ask("curl", "-gsf", "--max-time", "3", f"http://{host}/")


def ping(world: World, host: str) -> bool:
    """Return whether it answers a ping."""
    return bool(world.ask("ping", "-c1", "-W2", host))


def echoes(world: World, host: str) -> bool:
    """Return whether the test guest echoes."""
    return udp_echo(world, host) == "over UDP"


def serves(expected: str, port: int = 80) -> Callable[[World, str], bool]:
    """Return what asks for a page that begins so, in whatever case."""
    return lambda world, host: page(world, f"{host}:{port}").lower().startswith(expected.lower())


TESTGUEST = Guest(
    "guest",
    lambda kernel, _folder: guestimages.testguest(kernel),
    ("app", "one"),
    ready=("-- one", "ready"),
    answers=echoes,
    pod={"hypervisor": "qemu"},
)
FIRECRACKER = TESTGUEST._replace(
    name="firecracker",
    image=lambda kernel, _folder: guestimages.firecracker(kernel),
    pod={"unikernelType": "unikraft"},
)
LINUX = Guest(
    "linux",
    lambda _kernel, _folder: guestimages.linux(),
    ("/bin/httpd", "-f", "-h", "/www"),
    ready=(),
    answers=serves("a page from a microVM\n"),
    pod={"hypervisor": "qemu"},
    memory=320 << 20,
    port=80,
)
LINUX_COPIED = LINUX._replace(
    name="linux-copied",
    command=("/bin/sh", "-c", f"cp {VOLUME}/page /tmp/index.html && exec httpd -f -h /tmp"),
    answers=serves(VOLUME_PAGE),
    volume="ro",
)
LINUX_9P = LINUX._replace(
    name="linux-9p",
    image=lambda _kernel, folder: guestimages.linux_9p(folder),
    command=("/bin/sh", "-c", f"cp {VOLUME}/page {VOLUME}/index.html && exec httpd -f -h {VOLUME}"),
    answers=serves(VOLUME_PAGE),
    volume="rw",
)
UNIKRAFT = Guest(
    "unikraft",
    lambda _kernel, _folder: guestimages.unikraft(),
    ("nginx", "-c", "/nginx/conf/nginx.conf"),
    ready=("Powered by",),
    answers=serves("<!doctype html>"),
    pod={"unikernelVersion": "0.17.0"},
    port=80,
)
ELFLOADER = Guest(
    "elfloader",
    lambda _kernel, _folder: guestimages.elfloader(),
    ("elfloader", "/usr/sbin/nginx", "-c", "/etc/nginx.conf"),
    ready=("Powered by",),
    answers=serves("a page of the rootfs\n"),
    pod={"unikernelVersion": "0.16.3"},
    port=80,
)
MEWZ = Guest(
    "mewz",
    lambda _kernel, _folder: guestimages.mewz(),
    (),
    ready=("Listening on",),
    answers=serves("Hello World!", 1234),
    memory=1000 << 20,
    nics=1,
    port=1234,
)
RUMPRUN = Guest(
    "rumprun",
    lambda _kernel, folder: guestimages.rumprun(folder),
    ("app", "serve"),
    ready=("file: read from a disk",),
    answers=serves("rumprun\n", 8080),
    pod={"unikernelType": "rumprun"},
    port=8080,
    tender="rumprun/solo5-spt",
)
MIRAGE = Guest(
    "mirage-spt",
    lambda _kernel, _folder: guestimages.mirage("spt"),
    ("--hello=all", "--port=8080", "a b"),
    ready=("hello <all>", "word <a b>", "ready"),
    answers=serves("a page of MirageOS\n", 8080),
    pod={"unikernelType": "mirage"},
    port=8080,
)
MIRAGE_QEMU = MIRAGE._replace(name="mirage-virtio", image=lambda _kernel, _folder: guestimages.mirage("virtio"))
SOLO5_PING = {
    tender: Guest(
        tender,
        lambda _kernel, _folder, tender=tender: guestimages.solo5(tender, "test_net", f"test/{tender}:1"),  # type: ignore[misc]
        ("verbose",),
        ready=(f"Serving ping on {FIRST.fixed}",),
        answers=ping,
        pod={"unikernelType": "mirage"},
        networks=(FIRST,),
    )
    for tender in ("hvt", "spt")
}
GUESTS = (TESTGUEST, FIRECRACKER, LINUX, UNIKRAFT, ELFLOADER, MEWZ, RUMPRUN, MIRAGE, MIRAGE_QEMU, *SOLO5_PING.values())
"""Each of them, as it is run in a pod."""


def _two_pings(tender: str, _kernel: Path, _folder: Path) -> images.Image:
    return guestimages.solo5(tender, "test_net_2if", f"test/{tender}-two:1")


def _block(tender: str, _kernel: Path, _folder: Path) -> images.Image:
    return guestimages.solo5_block(tender)


VARIANTS = (
    LINUX_COPIED,
    LINUX_9P,
    Guest(
        "unikraft-firecracker",
        lambda _kernel, _folder: guestimages.unikraft_hello(),
        ("hello", "one", "two words"),
        ready=("argv[1] = <one>", "argv[2] = <two words>"),
        answers=None,
        tender="unikraft/firecracker",
    ),
    LINUX._replace(name="linux-two", networks=(FIRST, SECOND)),
    UNIKRAFT._replace(name="unikraft-two", networks=(FIRST, SECOND)),
    MEWZ._replace(name="mewz-two", networks=(FIRST, SECOND)),
    LINUX._replace(name="linux-ipv6", networks=(IPV6,)),
    LINUX._replace(name="linux-dual", networks=(DUAL,)),
    MIRAGE._replace(name="mirage-ipv6", networks=(IPV6,), ready=("ipv6=fd00:7::", "only6=true")),
    MIRAGE._replace(name="mirage-dual", networks=(DUAL,), ready=("ipv4=10.2.0.", "ipv6=fd00:8::", "only6=false")),
    *(
        SOLO5_PING[tender]._replace(
            name=f"{tender}-two", image=functools.partial(_two_pings, tender), networks=(FIRST, SECOND),
            ready=("Serving ping",),
        )
        for tender in SOLO5_PING
    ),
    *(
        Guest(f"{tender}-blk", functools.partial(_block, tender), (), ready=("SUCCESS",), answers=None)
        for tender in SOLO5_PING
    ),
)  # fmt: skip
"""The same guests at other networks and with volumes, and what ends by itself: Solo5's own tests of a disk, a hello."""


def wait_answer(guest: Guest, world: World, host: str) -> None:
    """Wait until the guest answers."""
    wait_for(f"{guest.name} answers at {host}", lambda: guest.has_answered(world, host), 60)


def wait_ready(guest: Guest, console: Callable[[], str]) -> None:
    """Wait until the guest's console shows that it is up."""

    def look() -> bool:
        text = console().replace("\r\n", "\n")
        return all(words in text for words in guest.ready)

    try:
        wait_for("its console", look, 30)
    except AssertionError as failure:
        raise AssertionError(f"{failure}: {guest.ready} is not in\n{console()}") from None
