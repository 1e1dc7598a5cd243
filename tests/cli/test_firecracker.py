"""The test guest on a real Firecracker: an ELF64 of integer code alone, which a KVM in software runs too.

Run with 1.16.1, which boots it by its PVH note, and 1.7.0, which boots it as Linux. Skipped where `firecracker` is not
on PATH, or there is no /dev/kvm.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bundles
from bundles import Bundle, Netns
from driver import Cli
from urunc.oci.config import MonitorConfig
from urunc.runtime import host
from world import World, wait_for

pytestmark = pytest.mark.root

TELLS_MTU_SINCE = (1, 16)


@pytest.fixture
def make(is_runc: bool, testguest: Path, tmp_path: Path, world: World) -> Callable[..., Bundle]:
    """Make a bundle with the test guest on Firecracker."""
    if is_runc:
        pytest.skip("runc has no unikernels")
    if shutil.which("firecracker") is None:
        pytest.skip("firecracker is not installed")
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/kvm")
    kernel = testguest.with_name("testguest64.elf")

    def make(*args: str) -> Bundle:
        return bundles.unikernel(
            tmp_path / "bundle", kernel, *args, monitor="firecracker", cgroup=f"/{world.cgroup}/firecracker"
        )

    return make


@pytest.fixture
def netns(world: World) -> Iterator[Netns]:
    """A namespace with eth0 of MTU 1400 in it; after the test it must hold exactly what it held before."""
    made = Netns(world, "firecracker", mtu=1400)
    before = made.contents()
    yield made
    after = made.contents()
    made.close()
    assert after == before


def test_its_console_is_the_containers(cli: Cli, make: Callable[..., Bundle]) -> None:
    bundle = make("app", "one", "two")
    bundle.config["linux"]["resources"]["memory"] = {"limit": 96 << 20}
    cli.create("guest", bundle)
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    assert console.startswith("cmdline: app"), "nothing of Firecracker's own stands before it"
    assert "-- one two\n" in console
    assert 48 <= int(console.split("memory: ")[1].split()[0]) < 96
    cli("kill", "guest", "TERM")
    cli.wait_status("guest", "stopped")


def test_a_reset_is_its_end(cli: Cli, make: Callable[..., Bundle]) -> None:
    bundle = make("app", "exit", "0")
    done = subprocess.run(
        cli.argv("run", f"--bundle={bundle.write()}", "guest"),
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
        env=cli.env,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "initrd: none" in done.stdout


def test_a_disk_an_initrd_and_another_user(cli: Cli, make: Callable[..., Bundle]) -> None:
    bundle = make("app")
    (bundle.rootfs / "initrd").write_bytes(b"an initrd" * 100)
    (bundle.rootfs / "disk.img").write_bytes(b"a disk".ljust(1 << 20, b"\0"))
    bundle.annotate(initrd="/initrd", block="/disk.img", blkMntPoint="/data")
    (bundle.rootfs / "disk.img").chmod(0o666)
    bundle.config["process"]["user"] = {"uid": 1234, "gid": 2345}
    cli.create("guest", bundle)
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    assert "initrd: 900 bytes" in console
    assert "disk0: 2048 sectors, first bytes 61 20 64 69 73 6b" in console
    status = cli.world.path(f"/proc/{cli.state('guest')['pid']}/status").read_text()
    assert "Uid:\t1234\t1234\t1234\t1234" in status
    assert "Seccomp:\t2" in status


def test_the_network(cli: Cli, make: Callable[..., Bundle], netns: Netns, tmp_path: Path) -> None:
    version = host.probe_monitor("firecracker", MonitorConfig(), "x86_64", str(tmp_path / "cache")).version
    bundle = make("app")
    bundle.namespace("network", netns.path)
    bundle.config["process"]["user"] = {"uid": 1234, "gid": 2345}
    cli.create("guest", bundle)
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    assert f"ip: {netns.address}" in console
    assert ("mtu 1400" in console) == (version >= TELLS_MTU_SINCE)
    assert cli.world.run("ping", "-c1", "-W2", "-s1372", "-Mdo", netns.address, check=False).returncode == 0
    page = cli.world.run("curl", "-sf", "--max-time", "5", f"http://{netns.address}/").stdout
    assert page.startswith("testguest: app")
    cli.end("guest")


@pytest.fixture
def linux(make: Callable[..., Bundle]) -> Bundle:
    """A bundle whose image says that the kernel is Linux, so that it is started and stopped as one."""
    bundle = make("/bin/app")
    bundle.annotate(unikernelType="linux")
    return bundle


def test_a_linux_guest_is_stopped_by_ctrl_alt_del(cli: Cli, linux: Bundle) -> None:
    linux.config["process"]["user"] = {"uid": 1234, "gid": 2345}
    cli.create("guest", linux)
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    assert "reboot=k" in console
    assert "rdinit=/.urunc/init" in console
    cli("kill", "guest", "TERM")
    assert "ctrl-alt-del" in cli.wait_console("guest", "ctrl-alt-del")
    cli.wait_status("guest", "stopped")
    cli("delete", "guest")


def test_a_monitor_that_is_not_listening_yet_is_ended(cli: Cli, linux: Bundle) -> None:
    cli.create("guest", linux)
    cli("start", "guest")
    cli("kill", "guest", "TERM")
    cli.wait_status("guest", "stopped")


def test_a_paused_one_is_not_ended_by_a_stop_signal(cli: Cli, linux: Bundle) -> None:
    cli.create("guest", linux)
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    cli("pause", "guest")
    cli("kill", "guest", "TERM")
    assert cli.status("guest") == "paused"
    cli("resume", "guest")
    cli("kill", "guest", "TERM")
    cli.wait_console("guest", "ctrl-alt-del")
    cli.wait_status("guest", "stopped")


def test_a_kernel_for_qemu_is_refused(cli: Cli, make: Callable[..., Bundle], testguest: Path) -> None:
    bundle = make("app")
    shutil.copy(testguest, bundle.rootfs / "unikernel/testguest64.elf")
    assert cli.create("guest", bundle, check=False) != 0
    assert "not a 64-bit ELF file" in cli.last_error()


def test_a_balloon_that_the_guest_does_not_drive(cli: Cli, linux: Bundle) -> None:
    """The monitor takes the device and says that nobody drives it: the limit stays."""
    cli.config.write_text("[monitors.firecracker]\nballoon = true\n")
    linux.config["linux"]["resources"]["memory"] = {"limit": 256 << 20}
    cli.create("guest", linux)
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    assert cli("update", "--memory", "128m", "guest", check=False).returncode == 1
    assert cli.last_error() == "the monitor refuses"
    data = json.loads(cli("events", "--stats", "guest").stdout)["data"]
    assert data["memory"]["usage"]["limit"] == 256 << 20
    assert data["monitor"]["status"] == "running"
    assert "fc_vcpu 0" in [thread["name"] for thread in data["process"]["threads"]]
    cli.end("guest")


def test_a_balloon_that_the_guest_drives(cli: Cli, linux: Bundle) -> None:
    """Memory is given back before the limit sinks, and had again once it has risen; statistics come from the guest."""
    cli.config.write_text("[monitors.firecracker]\nballoon = true\n")
    linux.config["linux"]["resources"]["memory"] = {"limit": 272 << 20}
    reader, writer = os.pipe()
    with cli.console_file("guest").open("ab") as console:
        argv = cli.argv("create", f"--bundle={linux.write()}", "guest")
        subprocess.run(argv, check=True, stdin=reader, stdout=console, stderr=console, env=cli.env, timeout=60)
    os.close(reader)
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    os.write(writer, b"balloon\n")
    cli.wait_console("guest", "balloon: driven")

    def monitor() -> Any:
        return json.loads(cli("events", "--stats", "guest").stdout)["data"]["monitor"]

    assert monitor()["guestMemoryActual"] == 256 << 20
    cli("update", "--memory", "144m", "guest")
    assert monitor()["guestMemoryActual"] == 128 << 20
    assert json.loads(cli("events", "--stats", "guest").stdout)["data"]["memory"]["usage"]["limit"] == 144 << 20
    cli("update", "--memory", "272m", "guest")
    wait_for("the guest's whole memory", lambda: monitor()["guestMemoryActual"] == 256 << 20)
    assert 250 << 20 < monitor()["guestMemoryUsage"]["total"] <= 256 << 20
    os.close(writer)
    cli.end("guest")
