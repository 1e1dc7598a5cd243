"""`pause`, `resume`, `update`, `events`, `timeline` on a real guest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from bundles import Bundle, Netns
from driver import Cli
from world import World, wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def netns(world: World) -> Iterator[Netns]:
    made = Netns(world, "verbs")
    yield made
    made.close()


@pytest.fixture
def guest(cli: Cli, make_unikernel: Callable[..., Bundle]) -> str:
    """A guest that runs, without a network and without a memory limit."""
    cli.create("guest", make_unikernel())
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    return "guest"


def answers(netns: Netns) -> bool:
    return netns.world.run("ping", "-c1", "-W1", netns.address, check=False).returncode == 0


def test_a_paused_guest_is_silent_and_comes_back(cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns) -> None:
    bundle = make_unikernel()
    bundle.namespace("network", netns.path)
    cli.create("ice", bundle)
    cli("start", "ice")
    wait_for("an answer", lambda: answers(netns))
    cli("pause", "ice")
    assert not answers(netns)
    assert cli.state("ice")["pid"] in cli.ps("ice")
    cli("resume", "ice")
    wait_for("an answer", lambda: answers(netns))


def test_a_stop_signal_ends_a_paused_container_that_was_never_started(
    cli: Cli, make_unikernel: Callable[..., Bundle]
) -> None:
    cli.create("early", make_unikernel())
    cli("pause", "early")
    cli("kill", "early", "TERM")
    cli.wait_status("early", "stopped")


def test_update_changes_the_limits_of_a_running_guest(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel()
    bundle.config["linux"]["resources"]["memory"] = {"limit": 128 << 20}
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    cli("update", "--memory", "192m", "--pids-limit", "123", "--cpu-quota", "60000", "guest")
    assert cli.limit(bundle, "memory", "memory.limit_in_bytes", "memory.max") == str(192 << 20)
    assert cli.limit(bundle, "pids", "pids.max", "pids.max") == "123"
    assert cli.limit(bundle, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "60000"

    document = cli.consoles / "resources.json"
    document.write_text('{"pids": {"limit": 150}, "cpu": {"period": 50000}}')
    with document.open() as stdin:
        done = cli("update", "--resources", "-", "guest", stdin=stdin)
    assert (done.stdout, done.stderr) == ("", "")
    assert cli.limit(bundle, "pids", "pids.max", "pids.max") == "150"
    assert cli.limit(bundle, "cpu", "cpu.cfs_period_us", "cpu.max").split()[-1] == "50000"
    assert cli.limit(bundle, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0] == "60000"


def test_update_takes_no_memory_from_a_guest(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel()
    bundle.config["linux"]["resources"]["memory"] = {"limit": 128 << 20}
    cli.create("guest", bundle)
    assert cli("update", "--memory", "100m", "guest", check=False).returncode == 1
    assert "100 MiB are too few: the guest has 46 MiB" in cli.last_error()
    assert "the monitor needs 82 MiB" in cli.last_error()
    assert cli.limit(bundle, "memory", "memory.limit_in_bytes", "memory.max") == str(128 << 20)
    cli("kill", "guest", "KILL")
    cli.wait_status("guest", "stopped")
    assert cli("update", "--memory", "1g", "guest", check=False).returncode == 1
    assert cli.last_error() == "cannot update `guest`: container is stopped"


def test_the_monitor_tells_of_itself(cli: Cli, guest: str) -> None:
    data = json.loads(cli("events", "--stats", guest).stdout)["data"]
    assert data["monitor"]["name"] == "qemu"
    assert data["monitor"]["guestMemory"] == 256 << 20
    assert (data["monitor"]["status"], data["monitor"]["disks"]) == ("running", [])
    threads = {thread["name"]: thread for thread in data["process"]["threads"]}
    assert threads["CPU 0/TCG"]["count"] == 1
    assert threads["CPU 0/TCG"]["cpuTime"] > 0
    cli("pause", guest)
    data = json.loads(cli("events", "--stats", guest).stdout)["data"]
    assert "status" not in data["monitor"]  # it cannot answer
    assert data["memory"]["usage"]["usage"] > 0


def test_the_guests_traffic_is_counted(cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns) -> None:
    bundle = make_unikernel()
    bundle.namespace("network", netns.path)
    cli.create("net", bundle)
    cli("start", "net")
    wait_for("an answer", lambda: answers(netns))
    (entry,) = json.loads(cli("events", "--stats", "net").stdout)["data"]["network_interfaces"]
    assert entry["Name"] == netns.ifname
    assert entry["RxPackets"] > 0
    assert entry["TxPackets"] > 0


def test_the_timeline_of_a_start(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    cli.create("timed", make_unikernel())
    found = json.loads(cli("timeline", "--format=json", "timed").stdout)
    assert {step["track"] for step in found["steps"]} == {"create", "init"}
    cli("start", "timed")
    found = json.loads(cli("timeline", "--format=json", "timed").stdout)
    assert found["id"] == "timed"
    assert all(step["took"] >= 0 and step["at"] >= 0 for step in found["steps"])
    names = [f"{step['track']} {step['name']}" for step in found["steps"]]
    for name in ("create plan", "create join", "create network", "init root", "init pivot", "start executed"):
        assert name in names
    # What init does lies within what create waits for.
    (waited,) = (step for step in found["steps"] if (step["track"], step["name"]) == ("create", "root"))
    (pivot,) = (step for step in found["steps"] if (step["track"], step["name"]) == ("init", "pivot"))
    assert pivot["at"] + pivot["took"] <= waited["at"] + waited["took"]

    assert cli("timeline", "timed").stdout.splitlines()[0].split() == ["WHO", "STEP", "FROM", "TOOK"]
    trace = json.loads(cli("timeline", "--format=trace", "timed").stdout)
    assert len([event for event in trace["traceEvents"] if event["ph"] == "X"]) == len(names)
    assert cli("timeline", "--format=xml", "timed", check=False).returncode == 1


def test_the_timeline_of_what_is_not_there(cli: Cli) -> None:
    assert cli("timeline", "nobody", check=False).returncode == 1
    assert cli.last_error() == "container `nobody` does not exist"
