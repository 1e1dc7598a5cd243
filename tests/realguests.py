"""Guests that nobody here wrote: where they are, and what a container of one needs.

The folder that URUNC_TEST_GUESTS names holds them, built from their repositories, each kind in a folder of its own. A
test whose guest is not there says so and is skipped. docs/real-guests.md says of what each of them is built.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from world import wait_for

if TYPE_CHECKING:
    from bundles import Bundle, Netns
    from driver import Cli
    from world import World

NGINX_CONFIG = """
daemon off; master_process off; user root root; error_log stderr; pid /tmp/nginx.pid;
events { worker_connections 32; }
http {
    access_log off; client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c;
    uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;
    server { listen 80; root /www; }
}
"""
"""Of this host's nginx as a program of the ELF loader: one process, and nothing written outside of /tmp."""


def find_guest(name: str) -> Path:
    """Return a guest's kernel or initrd; skip where it is not there."""
    path = Path(os.environ.get("URUNC_TEST_GUESTS") or "/nonexistent", name)
    if not path.exists():
        pytest.skip(f"URUNC_TEST_GUESTS has no {name}: see docs/real-guests.md")
    return path


def run_to_its_end(cli: Cli, bundle: Bundle, *options: str) -> tuple[int, str]:
    """Run a guest until it ends by itself; return exit status and console."""
    status = cli.to_file("guest", "run", f"--bundle={bundle.write()}", *options, "guest", check=False)
    return status, cli.console("guest")


def start(cli: Cli, bundle: Bundle) -> None:
    """Create and start the container `guest`."""
    cli.create("guest", bundle)
    cli("start", "guest")


def fetch(world: World, url: str, seconds: float = 60) -> str:
    """Return the page there, once it is served."""
    argv = ("curl", "-sf", "--max-time", "3", url)
    return wait_for(url, lambda: world.run(*argv, check=False).stdout, seconds)


def add_program(world: World, rootfs: Path, program: str) -> None:
    """Put one of the host's programs, its loader and its libraries into a root."""
    libraries = re.findall(r"(/\S+) \(0x", world.run("ldd", program).stdout)
    for path in (program, *libraries):
        copy = rootfs / path.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)


def add_interface(world: World, netns: Netns, name: str, address: str, gateway: str) -> None:
    """Put another veth into the namespace; its other end is called `to-NAME`."""
    world.run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", name, "netns", netns.name)
    world.run("ip", "address", "add", f"{gateway}/24", "dev", f"to-{name}")
    world.run("ip", "link", "set", f"to-{name}", "up")
    world.run("ip", "-n", netns.name, "link", "set", name, "addrgenmode", "none")
    world.run("ip", "-n", netns.name, "address", "add", f"{address}/24", "dev", name)
    world.run("ip", "-n", netns.name, "link", "set", name, "up")
    show = ("ip", "-n", netns.name, "-br", "link", "show", "dev", name)
    wait_for("the link is up", lambda: "UP" in world.run(*show).stdout.split())
    netns.remember()
