"""`update` of memory by a guest's balloon: given back before the limit sinks, had again once it has risen."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from bundles import Bundle
from driver import CONFIG, Cli
from world import wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]

MIB = 1 << 20


def actual(cli: Cli) -> int | None:
    """Return the guest's memory as it says, in MiB; None where nothing is known of it."""
    data = json.loads(cli("events", "--stats", "guest").stdout)["data"]["monitor"]
    found = data.get("guestMemoryActual")
    return None if found is None else int(found) // MIB


@pytest.mark.parametrize("machine", ["q35", "microvm"])
def test_memory_is_taken_and_given_back(cli: Cli, make_small_linux: Callable[..., Bundle], machine: str) -> None:
    cli.config.write_text(CONFIG + f'balloon = true\nmachine = "{machine}"\n')
    bundle = make_small_linux("while grep MemFree /proc/meminfo; do sleep 1; done")
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "MemFree")
    assert actual(cli) == 240
    before = free(cli)
    cli("update", "--memory", "200m", "guest")
    assert cli.limit(bundle, "memory", "memory.limit_in_bytes", "memory.max") == str(200 * MIB)
    assert actual(cli) in (120, 121)
    wait_for("less free memory", lambda: free(cli) < before - 100 * 1024)
    assert cli("update", "--memory", "100m", "guest", check=False).returncode == 1
    assert "a guest 48 MiB at least" in cli.last_error()
    cli("update", "--memory", "320m", "guest")
    assert cli.limit(bundle, "memory", "memory.limit_in_bytes", "memory.max") == str(320 * MIB)
    wait_for("the guest's whole memory", lambda: actual(cli) == 240)
    wait_for("what the guest says of its memory", lambda: usage(cli), 60)
    assert 100 * MIB < usage(cli)["total"] <= 240 * MIB
    assert 0 < usage(cli)["free"] < usage(cli)["total"]
    wait_for("more free memory", lambda: free(cli) > before - 20 * 1024)
    cli.end("guest")


def usage(cli: Cli) -> dict[str, int]:
    """Return how the guest says it uses its memory, in bytes; empty before it has said anything."""
    found = json.loads(cli("events", "--stats", "guest").stdout)["data"]["monitor"].get("guestMemoryUsage", {})
    return dict(found)


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
    assert "200 MiB are too few: the guest has" in cli.last_error()
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    before = actual(cli)
    assert cli("update", "--memory", "200m", "guest", check=False).returncode == 1
    assert f"does not give its memory back: it has {before} MiB" in cli.last_error()
    assert cli.limit(bundle, "memory", "memory.limit_in_bytes", "memory.max") == str(320 * MIB)
    assert actual(cli) == before
    cli.end("guest")


def test_without_a_balloon_nothing_is_said_of_it(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    cli.config.write_text(CONFIG + "balloon = true\n")
    cli.create("guest", make_unikernel("app"))  # Unikraft drives none
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    assert actual(cli) is None
    cli.end("guest")
