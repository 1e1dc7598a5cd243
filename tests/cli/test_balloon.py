"""`update` of memory by a guest's balloon: given back before the limit sinks, had again once it has risen."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

import linuxes
from bundles import Bundle
from cli.test_verbs import limit
from driver import CONFIG, Cli
from guest import linux_guest
from world import World, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]

MIB = 1 << 20


@pytest.fixture(scope="module")
def initrd() -> bytes:
    """An initrd of busybox and drivers."""
    return linux_guest.base_initrd(linux_guest.find_kernel())


@pytest.fixture
def make_linux(
    is_runc: bool, initrd: bytes, tmp_path_factory: pytest.TempPathFactory, world: World
) -> Callable[..., Bundle]:
    """Make a bundle of a Linux guest of 240 MiB that runs a line of shell."""
    if is_runc:
        pytest.skip("runc has no unikernels")
    kernel = linux_guest.find_kernel()

    def make(script: str) -> Bundle:
        folder = tmp_path_factory.mktemp("linux") / "bundle"
        bundle = Bundle(folder, ("/bin/sh", "-c", script), cgroup=f"/{world.cgroup}/balloon")
        (bundle.rootfs / "boot").mkdir()
        (bundle.rootfs / "boot/vmlinux").write_bytes(linux_guest.uncompressed(kernel))
        (bundle.rootfs / "boot/initrd").write_bytes(initrd)
        return linuxes.annotate(bundle, initrd="/boot/initrd")

    return make


def actual(cli: Cli) -> int | None:
    """Return the guest's memory as it says, in MiB; None where nothing is known of it."""
    data = json.loads(cli("events", "--stats", "guest").stdout)["data"]["monitor"]
    found = data.get("guestMemoryActual")
    return None if found is None else int(found) // MIB


@pytest.mark.parametrize("machine", ["q35", "microvm"])
def test_memory_is_taken_and_given_back(cli: Cli, make_linux: Callable[..., Bundle], machine: str) -> None:
    cli.config.write_text(CONFIG + f'balloon = true\nmachine = "{machine}"\n')
    bundle = make_linux("while grep MemFree /proc/meminfo; do sleep 1; done")
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "MemFree")
    assert actual(cli) == 240
    before = free(cli)
    cli("update", "--memory", "200m", "guest")
    assert limit(cli, bundle, "memory", "memory.limit_in_bytes", "memory.max") == str(200 * MIB)
    assert actual(cli) in (120, 121)
    wait_for("less free memory", lambda: free(cli) < before - 100 * 1024)
    assert cli("update", "--memory", "100m", "guest", check=False).returncode == 1
    assert "a guest 48 MiB at least" in cli.last_error()
    cli("update", "--memory", "320m", "guest")
    assert limit(cli, bundle, "memory", "memory.limit_in_bytes", "memory.max") == str(320 * MIB)
    wait_for("the guest's whole memory", lambda: actual(cli) == 240)
    wait_for("more free memory", lambda: free(cli) > before - 20 * 1024)
    cli.end("guest")


def free(cli: Cli) -> int:
    """Return the guest's free memory in KiB, as it printed it last."""
    lines = [line for line in cli.console("guest").splitlines() if line.startswith("MemFree:") and "kB" in line]
    return int(lines[-1].split()[1])


def test_a_guest_that_gives_nothing(
    cli: Cli, make_unikernel: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel without a driver, or a hostile one: the limit stays, after some seconds, and `kill` need not wait."""
    cli.config.write_text(CONFIG + "balloon = true\n")
    bundle = make_unikernel("app")
    bundle.annotate(unikernelType="linux")
    bundle.config["linux"]["resources"]["memory"] = {"limit": 320 * MIB}
    cli.create("guest", bundle)
    assert cli("update", "--memory", "200m", "guest", check=False).returncode == 1  # it does not run yet
    assert "are too few: the guest has 240 MiB" in cli.last_error()
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    assert cli("update", "--memory", "200m", "guest", check=False).returncode == 1
    assert "does not give its memory back: it has 240 MiB, not 120" in cli.last_error()
    assert limit(cli, bundle, "memory", "memory.limit_in_bytes", "memory.max") == str(320 * MIB)
    assert actual(cli) == 240
    cli.end("guest")


def test_without_a_balloon_nothing_is_said_of_it(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    cli.config.write_text(CONFIG + "balloon = true\n")
    cli.create("guest", make_unikernel("app"))  # Unikraft drives none
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    assert actual(cli) is None
    cli.end("guest")
