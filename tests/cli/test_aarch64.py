"""Guests of another architecture than the host's: an aarch64 kernel boots in software on QEMU's `virt`.

The folder that URUNC_TEST_AARCH64 names holds Debian's kernel, its modules and busybox, put there by
scripts/aarch64-guest; `make guest` builds the init. What needs no boot runs without.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

import linuxes
from bundles import Bundle, Netns
from checkout import TESTGUEST
from driver import CONFIG, Cli
from guest import linux_guest
from world import World

pytestmark = pytest.mark.root

VARIABLE = "URUNC_TEST_AARCH64"
SERVE = 'echo "on $(busybox uname -m), $(hostname), $1"; ip address; cat /proc/cmdline; exec busybox sleep 1000'

if os.uname().machine != "x86_64":
    pytest.skip("aarch64 is not another architecture here", allow_module_level=True)


@pytest.fixture
def folder(is_runc: bool) -> Path:
    """What the guest is made of."""
    if is_runc:
        pytest.skip("runc has no unikernels")
    named = os.environ.get(VARIABLE)
    if not named:
        pytest.skip(f"{VARIABLE} does not name a folder made by scripts/aarch64-guest")
    if shutil.which("qemu-system-aarch64") is None:
        pytest.skip("qemu-system-aarch64 is not installed (package qemu-system-arm)")
    if not (TESTGUEST.parent / "urunc-init-aarch64").exists():
        pytest.skip("urunc's init is not built for aarch64: install gcc-aarch64-linux-gnu and libc6-dev-arm64-cross")
    return Path(named)


@pytest.fixture
def make_linux(folder: Path, tmp_path: Path, world: World) -> Callable[..., Bundle]:
    """Make a bundle of a Linux guest that runs a line of shell."""

    def make(script: str, *args: str) -> Bundle:
        bundle = Bundle(tmp_path / "bundle", ("/bin/sh", "-c", script, "sh", *args), cgroup=f"/{world.cgroup}/arm")
        kernel = next((folder / "boot").glob("vmlinuz-*"))
        (bundle.rootfs / "boot").mkdir()
        shutil.copy(kernel, bundle.rootfs / "boot/vmlinux")
        (bundle.rootfs / "boot/initrd").write_bytes(linux_guest.base_initrd(kernel, folder))
        return linuxes.annotate(bundle, initrd="/boot/initrd")

    return make


@pytest.mark.slow
def test_a_linux_guest(cli: Cli, make_linux: Callable[..., Bundle], world: World) -> None:
    """Its whole life; it has the interface's address, answers, and hears a stop signal. KVM is not tried."""
    cli.config.write_text("")
    with Netns(world, "arm") as netns:
        bundle = make_linux(SERVE, 'a "quoted" word')
        bundle.namespace("network", netns.path)
        cli.create("guest", bundle)
        said = [line["msg"] for line in cli.log_lines()]
        assert any("the kernel is for another architecture" in message for message in said), said
        cli("start", "guest")
        console = cli.wait_console("guest", "console=ttyAMA0", 90)
        assert 'on aarch64, test, a "quoted" word' in console
        assert f"{netns.address}/24" in console
        assert any("qemu-system-aarch64 " in command for _, command in world.processes())
        assert world.run("ping", "-c1", "-W9", netns.address).returncode == 0
        cli("kill", "guest", "TERM")
        cli.wait_status("guest", "stopped")
        cli("delete", "guest")


@pytest.mark.slow
def test_a_disk_as_its_root(cli: Cli, folder: Path, tmp_path: Path, world: World) -> None:
    """The image has no initrd: the kernel's modules come from its rootfs. The exit status is the program's."""
    bundle = Bundle(tmp_path / "bundle", ("/bin/sh", "-c", "busybox cat /proc/mounts; exit 7"))
    bundle.config["linux"]["cgroupsPath"] = f"/{world.cgroup}/arm"
    tree = linuxes.userland(tmp_path / "tree")
    shutil.copy(folder / "bin/busybox", tree / "bin/busybox")
    linuxes.make_disk(tree, bundle.rootfs / "disk.img")
    linuxes.add_kernel(bundle.rootfs, next((folder / "boot").glob("vmlinuz-*")))
    status, console = cli.run("guest", linuxes.annotate(bundle, block="/disk.img", blkMntPoint="/"))
    assert status == 7, console
    assert "/dev/vda / ext4 rw" in console


ARM64_IMAGE = struct.pack("<8xQQ32x4s", 0, 4 << 20, b"ARM\x64").ljust(4096, b"\0")


@pytest.fixture
def make_image(is_runc: bool, tmp_path: Path, world: World) -> Callable[[], Bundle]:
    """Make a bundle whose kernel is an arm64 `Image` in its header alone: no monitor is to see it."""
    if is_runc:
        pytest.skip("runc has no unikernels")

    def make() -> Bundle:
        bundle = Bundle(tmp_path / "bundle", ("app",), cgroup=f"/{world.cgroup}/arm")
        (bundle.rootfs / "Image").write_bytes(ARM64_IMAGE)
        bundle.annotate(unikernelType="unikraft", hypervisor="qemu", binary="/Image")
        return bundle

    return make


def test_kvm_alone_is_refused(cli: Cli, make_image: Callable[[], Bundle]) -> None:
    if shutil.which("qemu-system-aarch64") is None:
        pytest.skip("qemu-system-aarch64 is not installed (package qemu-system-arm)")
    cli.config.write_text(CONFIG.replace("tcg", "kvm"))
    assert cli.create("guest", make_image(), check=False) == 1
    assert "which cannot be had: the kernel is for another architecture than this machine's" in cli.last_error()


def test_without_an_emulator(cli: Cli, make_image: Callable[[], Bundle]) -> None:
    """The package is named, and nothing is left."""
    arguments = ("create", f"--bundle={make_image().write()}", "guest")
    assert cli.to_file("guest", *arguments, check=False, under=("/usr/bin/env", "PATH=/nonexistent")) == 1
    error = cli.last_error()
    assert "the kernel is for aarch64, and monitor `qemu` for that is not installed" in error
    assert "install qemu-system-arm" in error
