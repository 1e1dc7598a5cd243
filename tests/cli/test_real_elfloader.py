"""Unikraft with the container's rootfs by 9p: Linux programs of this host on its ELF loader, and its own nginx.

`elfloader/` holds Unikraft's app-elfloader, built with 9pfs and lwIP, the loader's own arguments (CUSTOMAPPNAME), and
without its generated files of /etc (AUTOGEN): those it opens for writing after it made them read-only. See
`realguests`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import bundles
from bundles import Bundle, Netns
from driver import Cli
from realguests import NGINX_CONFIG, add_interface, add_program, fetch, find_guest, start
from world import World, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]

NGINX = "/usr/sbin/nginx"


@pytest.fixture
def make_shared(is_runc: bool, tmp_path: Path, world: World) -> Callable[..., Bundle]:
    """Make a bundle whose rootfs a Unikraft kernel shares."""
    if is_runc:
        pytest.skip("runc has no unikernels")

    def make(kernel: str, *args: str) -> Bundle:
        path = find_guest(kernel)
        bundle = bundles.unikernel(tmp_path / "bundle", path, *args, cgroup=f"/{world.cgroup}/shared")
        bundle.annotate(mountRootfs="true")
        return bundle

    return make


@pytest.fixture
def make_elfloader(make_shared: Callable[..., Bundle], world: World) -> Callable[..., Bundle]:
    """Make a bundle with the ELF loader and a program of this host; the loader's own name comes first."""

    def make(program: str, *args: str) -> Bundle:
        if not os.path.exists(program):
            pytest.skip(f"this host has no {program}")
        bundle = make_shared("elfloader/elfloader_qemu-x86_64", "elfloader", program, *args)
        add_program(world, bundle.rootfs, program)
        return bundle

    return make


def test_a_linux_program_reads_the_rootfs(cli: Cli, make_elfloader: Callable[..., Bundle]) -> None:
    """The loader does not end when its program has: that is its own FIXME."""
    bundle = make_elfloader("/bin/cat", "/a b", "/etc/word")
    (bundle.rootfs / "a b").write_text("one\n")
    (bundle.rootfs / "etc").mkdir()
    (bundle.rootfs / "etc/word").write_text("two\n")
    start(cli, bundle)
    cli.wait_console("guest", "one\ntwo\n")
    cli.end("guest")


def test_a_linux_program_has_its_environment(cli: Cli, make_elfloader: Callable[..., Bundle]) -> None:
    bundle = make_elfloader("/usr/bin/env")
    bundle.config["process"]["env"].append("GREETING=hello, 'world' \"")
    start(cli, bundle)
    cli.wait_console("guest", "GREETING=hello, 'world' \"")
    cli.end("guest")


def test_a_linux_program_writes_the_rootfs(cli: Cli, make_elfloader: Callable[..., Bundle]) -> None:
    bundle = make_elfloader("/bin/cp", "/from", "/folder/to")
    (bundle.rootfs / "from").write_text("copied\n" * 10_000)
    (bundle.rootfs / "folder").mkdir()
    start(cli, bundle)
    copy = bundle.rootfs / "folder/to"
    wait_for("the copy", lambda: copy.exists() and copy.stat().st_size == 70_000)
    cli.end("guest")
    assert copy.read_text() == "copied\n" * 10_000


def test_debians_nginx_serves_a_page_of_the_rootfs(
    cli: Cli, make_elfloader: Callable[..., Bundle], world: World
) -> None:
    with Netns(world, "loader") as netns:
        bundle = make_elfloader(NGINX, "-c", "/etc/nginx.conf")
        for name in ("etc", "www", "tmp", "var/log/nginx"):
            (bundle.rootfs / name).mkdir(parents=True)
        (bundle.rootfs / "etc/nginx.conf").write_text(NGINX_CONFIG)
        (bundle.rootfs / "etc/passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
        (bundle.rootfs / "etc/group").write_text("root:x:0:\n")
        (bundle.rootfs / "www/index.html").write_text("a page of the rootfs\n" * 5_000)
        bundle.namespace("network", netns.path)
        start(cli, bundle)
        assert fetch(world, f"http://{netns.address}/") == "a page of the rootfs\n" * 5_000
        cli.end("guest")


@pytest.fixture
def make_nginx(make_shared: Callable[..., Bundle]) -> Callable[[], Bundle]:
    """Make a bundle with Unikraft's own nginx, and in its rootfs what it has in an initrd elsewhere."""

    def make() -> Bundle:
        bundle = make_shared("unikraft/nginx-qemu-x86_64", "nginx", "-c", "/nginx/conf/nginx.conf")
        with find_guest("unikraft/nginx-initrd.cpio").open() as archive:
            subprocess.run(["cpio", "-idm", "--quiet"], stdin=archive, cwd=bundle.rootfs, check=True)
        (bundle.rootfs / "nginx/html/index.html").write_text("a page of the rootfs\n")
        return bundle

    return make


def test_unikrafts_nginx_serves_a_page_of_the_rootfs(cli: Cli, make_nginx: Callable[[], Bundle], world: World) -> None:
    """The same kernel that has an initrd elsewhere: what its root is, is the image's to say."""
    with Netns(world, "nginx") as netns:
        bundle = make_nginx()
        bundle.namespace("network", netns.path)
        start(cli, bundle)
        assert fetch(world, f"http://{netns.address}/") == "a page of the rootfs\n"
        cli.end("guest")


def test_unikrafts_nginx_at_two_interfaces(cli: Cli, make_nginx: Callable[[], Bundle], world: World) -> None:
    with Netns(world, "nginx") as netns:
        add_interface(world, netns, "net1", "10.1.0.2", "10.1.0.1")
        bundle = make_nginx()
        bundle.namespace("network", netns.path)
        start(cli, bundle)
        for address in (netns.address, "10.1.0.2"):
            assert fetch(world, f"http://{address}/") == "a page of the rootfs\n"
        cli.end("guest")
