"""The guests that an engine is asked to run: for each its image, how it is started, and how it shows that it serves.

The test guest and Linux are made of what Debian has. The others are built from their repositories: URUNC_TEST_GUESTS
names their folder, and a test says so where one is not there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import images
import pytest
from test_linux import image as linux_image

from world import World, wait_for

NGINX = b"""
daemon off; master_process off; user root root; error_log stderr; pid /tmp/nginx.pid;
events { worker_connections 32; }
http {
    access_log off; client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c;
    uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;
    server { listen 80; root /www; }
}
"""
UDP = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.sendto(b"over UDP", (sys.argv[1], int(sys.argv[2])))
print(s.recv(100).decode())
"""
PORT_ECHO = 7
FIXED_ADDRESS = "10.0.0.2"
"""Solo5's network tests have this address, whatever they are told."""


class Guest(NamedTuple):
    """A guest, as an engine's user has it."""

    name: str
    image: Callable[[Path], images.Image]
    """Takes the test guest's kernel. Skips the test where the guest is not there."""
    command: tuple[str, ...]
    ready: str
    """What its console shows once it is up."""
    answers: Callable[[World, str], bool]
    """Asks it, at its address, from inside the world."""
    pod: dict[str, str]
    """Annotations of its pod: pause and sidecar get them too, and stay ordinary."""
    memory: int = 256 << 20
    fixed: bool = False
    """Whether its address is FIXED_ADDRESS."""


def udp_echo(world: World, host: str, port: int = PORT_ECHO) -> str:
    """Return what the echo port answers."""
    return world.run("/usr/bin/python3", "-IS", "-c", UDP, host, str(port), check=False).stdout.strip()


def page(world: World, host: str) -> str:
    """Return the page that it serves, "" where it does not."""
    return world.run("curl", "-sf", "--max-time", "3", f"http://{host}/", check=False).stdout


def ping(world: World, host: str) -> bool:
    """Return whether it answers a ping."""
    return world.run("ping", "-c1", "-W2", host, check=False).returncode == 0


def find_guest(name: str) -> Path:
    """Return a built guest's kernel or initrd; skip where it is not there."""
    path = Path(os.environ.get("URUNC_TEST_GUESTS") or "/nonexistent", name)
    if not path.exists():
        pytest.skip(f"URUNC_TEST_GUESTS has no {name}")
    return path


def testguest(kernel: Path) -> images.Image:
    """Return the test guest's image."""
    keys = {"unikernelType": "unikraft", "hypervisor": "qemu", "cmdline": "app"}
    return images.unikernel("test/guest:1", kernel, keys)


def _linux(_testguest: Path) -> images.Image:
    return linux_image("test/linux:1", {"/www/index.html": (0o100644, b"a page from a microVM\n")})


def _unikraft(_testguest: Path) -> images.Image:
    keys = {"unikernelType": "unikraft", "hypervisor": "qemu", "initrd": "/unikernel/initrd"}
    initrd = {"unikernel/initrd": find_guest("unikraft/nginx-initrd.cpio")}
    return images.unikernel("test/unikraft:1", find_guest("unikraft/nginx-qemu-x86_64"), keys, initrd)


def solo5(tender: str, test: str, name: str) -> images.Image:
    """Return the image `name` of one of Solo5's own tests; skip where it or its tender is not there."""
    if shutil.which(f"solo5-{tender}") is None:
        pytest.skip(f"solo5-{tender} is not installed")
    if tender == "hvt" and not os.path.exists("/dev/kvm"):
        pytest.skip("there is no /dev/kvm")
    kernel = find_guest(f"solo5/{test}.{tender}")
    return images.unikernel(name, kernel, {"unikernelType": "mirage", "hypervisor": tender})


def _mewz(_testguest: Path) -> images.Image:
    """The image says where the kernel is, and the kernel the rest."""
    return images.unikernel("test/mewz:1", find_guest("mewz/hello-server-qemu-x86_64"), {})


def _elfloader(_testguest: Path) -> images.Image:
    """Debian's nginx on Unikraft's ELF loader; the snapshot is shared by 9p."""
    program = "/usr/sbin/nginx"
    if not os.path.exists(program):
        pytest.skip(f"this host has no {program}")
    listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    libraries = re.findall(r"(/\S+) \(0x", listed)
    files = {path.lstrip("/"): Path(path) for path in (program, *libraries)}
    keys = {"unikernelType": "unikraft", "hypervisor": "qemu", "mountRootfs": "true"}
    image = images.unikernel("test/elfloader:1", find_guest("elfloader/elfloader_qemu-x86_64"), keys, files)
    for path in files:
        image.files[path] = (image.files[path][0], 0o755)
    image.file("/etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
    image.file("/etc/group", b"root:x:0:\n")
    image.file("/etc/nginx.conf", NGINX)
    image.file("/var/log/nginx/error.log", b"")
    image.file("/www/index.html", b"a page of the rootfs\n")
    return image


def _solo5_net(tender: str) -> Callable[[Path], images.Image]:
    return lambda _testguest: solo5(tender, "test_net", f"test/{tender}:1")


GUESTS = (
    Guest(
        "guest",
        testguest,
        ("app", "one"),
        ready="ready",
        answers=lambda world, host: udp_echo(world, host) == "over UDP",
        pod={"hypervisor": "qemu"},
    ),
    Guest(
        "linux",
        _linux,
        ("/bin/httpd", "-f", "-h", "/www"),
        ready="",
        answers=lambda world, host: page(world, host) == "a page from a microVM\n",
        pod={"hypervisor": "qemu"},
        memory=320 << 20,
    ),
    Guest(
        "unikraft",
        _unikraft,
        ("nginx", "-c", "/nginx/conf/nginx.conf"),
        ready="Powered by",
        answers=lambda world, host: "<html" in page(world, host).lower(),
        pod={"unikernelVersion": "0.17.0"},
    ),
    Guest(
        "elfloader",
        _elfloader,
        ("elfloader", "/usr/sbin/nginx", "-c", "/etc/nginx.conf"),
        ready="Powered by",
        answers=lambda world, host: page(world, host) == "a page of the rootfs\n",
        pod={"unikernelVersion": "0.16.3"},
    ),
    Guest(
        "mewz",
        _mewz,
        (),
        ready="Listening on",
        answers=lambda world, host: page(world, f"{host}:1234") == "Hello World!",
        pod={},
        memory=1000 << 20,
    ),
    *(
        Guest(
            tender,
            _solo5_net(tender),
            ("verbose",),
            ready=f"Serving ping on {FIXED_ADDRESS}",
            answers=ping,
            pod={"unikernelType": "mirage"},
            fixed=True,
        )
        for tender in ("hvt", "spt")
    ),
)


def wait_answer(guest: Guest, world: World, host: str) -> None:
    """Wait until the guest answers."""
    wait_for(f"{guest.name} answers at {host}", lambda: guest.answers(world, host), 60)
