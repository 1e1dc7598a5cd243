"""The life of a container through the command line (runtime-spec, runtime.md). Proved on runc."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bundles import Bundle
from driver import Cli

pytestmark = pytest.mark.root


def test_the_statuses_in_their_order(cli: Cli, make_bundle: Callable[[], Bundle], tmp_path: Path) -> None:
    bundle = make_bundle()
    pid_file = tmp_path / "pid"
    cli.create("life", bundle, f"--pid-file={pid_file}")
    created = cli.state("life")
    assert created["id"] == "life"
    assert created["status"] == "created"
    assert created["bundle"] == str(bundle.folder)
    assert created["pid"] == int(pid_file.read_text())
    assert created["rootfs"] == str(bundle.folder / "rootfs")
    assert datetime.fromisoformat(created["created"]).tzinfo == UTC
    assert cli.world.path(f"/proc/{created['pid']}").exists()

    cli("start", "life")
    running = cli.state("life")
    assert (running["status"], running["pid"]) == ("running", created["pid"])

    cli("kill", "life", "KILL")
    cli.wait_status("life", "stopped")
    assert cli.state("life")["pid"] == 0
    cli("delete", "life")
    assert cli("state", "life", check=False).returncode != 0


def test_annotations_and_version_stand_in_the_state(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    bundle = make_bundle()
    bundle.config["annotations"]["org.example.key"] = "value"
    cli.create("noted", bundle)
    state = cli.state("noted")
    assert state["annotations"]["org.example.key"] == "value"
    assert state["ociVersion"]


def test_list_shows_what_there_is(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    assert cli("list", "--quiet").stdout == ""
    cli.create("one", make_bundle())
    cli.create("two", make_bundle())
    cli("start", "two")
    assert cli("list", "--quiet").stdout.split() == ["one", "two"]
    rows = json.loads(cli("list", "--format=json").stdout)
    assert {row["id"]: row["status"] for row in rows} == {"one": "created", "two": "running"}
    table = cli("list").stdout.splitlines()
    assert table[0].split()[:3] == ["ID", "PID", "STATUS"]
    assert [line.split()[0] for line in table[1:]] == ["one", "two"]


def test_ps_lists_the_processes(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    cli.create("busy", make_bundle())
    cli("start", "busy")
    pids = json.loads(cli("ps", "--format=json", "busy").stdout)
    assert cli.state("busy")["pid"] in pids
    cli("kill", "busy", "KILL")
    cli.wait_status("busy", "stopped")
    assert not json.loads(cli("ps", "--format=json", "busy").stdout)


def test_pause_and_resume(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    cli.create("ice", make_bundle())
    cli("start", "ice")
    cli("pause", "ice")
    assert cli.status("ice") == "paused"
    cli("resume", "ice")
    assert cli.status("ice") == "running"


def test_kill_takes_a_frozen_container(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    cli.create("ice", make_bundle())
    cli("start", "ice")
    cli("pause", "ice")
    cli("kill", "ice", "KILL")
    cli.wait_status("ice", "stopped")
    cli("delete", "ice")


def test_events_once(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    cli.create("busy", make_bundle())
    cli("start", "busy")
    event = json.loads(cli("events", "--stats", "busy").stdout)
    assert (event["type"], event["id"]) == ("stats", "busy")
    parts = {"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"}
    assert parts <= event["data"].keys()
    assert event["data"]["cpu"]["usage"]["total"] > 0
    assert event["data"]["memory"]["usage"]["usage"] > 0
    assert event["data"]["pids"]["current"] >= 1
    v1 = not Path("/sys/fs/cgroup/cgroup.controllers").exists()  # v2's cpuset has no such switch
    assert event["data"]["cpuset"]["sched_load_balance"] == int(v1)


def test_events_go_on_until_the_container_ends(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    cli.create("busy", make_bundle())
    cli("start", "busy")
    argv = cli.argv("events", "--interval=50ms", "busy")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=cli.env) as process:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["type"] for _ in range(2)] == ["stats", "stats"]
        cli.end("busy")
        assert process.wait(20) == 0


def test_events_of_what_does_not_run(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    cli.create("c", make_bundle())
    cli("kill", "c", "KILL")
    cli.wait_status("c", "stopped")
    assert cli("events", "--stats", "c", check=False).returncode == 1
    assert cli("events", "--interval=soon", "c", check=False).returncode == 1


def test_a_created_container_can_be_paused(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    cli.create("early", make_bundle())
    cli("pause", "early")
    assert cli.status("early") == "paused"
    assert cli("start", "early", check=False).returncode != 0
    cli("resume", "early")
    cli("start", "early")
    assert cli.status("early") == "running"


def test_a_paused_container_is_deleted_by_force(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    cli.create("ice", make_bundle())
    cli("start", "ice")
    cli("pause", "ice")
    assert cli("delete", "ice", check=False).returncode != 0
    cli("delete", "--force", "ice")
    assert cli("state", "ice", check=False).returncode != 0


@pytest.mark.parametrize("signal", ["KILL", "SIGKILL", "9"])
def test_kill_takes_names_and_numbers(cli: Cli, make_bundle: Callable[[], Bundle], signal: str) -> None:
    cli.create("target", make_bundle())
    cli("start", "target")
    cli("kill", "--all", "target", signal)
    cli.wait_status("target", "stopped")


def test_a_created_container_can_be_killed(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    cli.create("early", make_bundle())
    cli("kill", "early", "KILL")
    cli.wait_status("early", "stopped")
    assert cli("start", "early", check=False).returncode != 0
    cli("delete", "early")


def test_delete_force_ends_it_at_once_and_twice_is_no_error(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    cli.create("gone", make_bundle())
    cli("start", "gone")
    cli("delete", "--force", "gone")
    assert cli("state", "gone", check=False).returncode != 0
    cli("delete", "--force", "gone")


@pytest.mark.parametrize(
    ("prepare", "verb"),
    [
        ("create", ("create-again",)),
        ("start", ("start",)),
        ("start", ("delete",)),
        ("kill", ("start",)),
        ("kill", ("pause",)),
        ("none", ("start",)),
        ("none", ("state",)),
        ("none", ("delete",)),
        ("none", ("pause",)),
    ],
)
def test_a_verb_in_the_wrong_status_is_one_error(
    cli: Cli, make_bundle: Callable[[], Bundle], prepare: str, verb: tuple[str]
) -> None:
    if prepare != "none":
        cli.create("c", make_bundle())
    if prepare in ("start", "kill"):
        cli("start", "c")
    if prepare == "kill":
        cli("kill", "c", "KILL")
        cli.wait_status("c", "stopped")
    if verb == ("create-again",):
        assert cli.create("c", make_bundle(), check=False) != 0
        assert cli.status("c") == "created"
    else:
        assert cli(*verb, "c", check=False).returncode != 0
    last = cli.log_lines()[-1]
    assert last["level"] == "error"
    assert last["msg"]


def test_kill_of_a_stopped_container_is_an_error(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    cli.create("c", make_bundle())
    cli("kill", "c", "KILL")
    cli.wait_status("c", "stopped")
    assert cli("kill", "c", "TERM", check=False).returncode != 0


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".", "a b", "a\nb", "é"])
def test_an_id_that_is_no_id(cli: Cli, make_bundle: Callable[[], Bundle], name: str) -> None:
    bundle = make_bundle()
    done = cli("create", f"--bundle={bundle.write()}", name, check=False)
    assert done.returncode != 0


def test_run_detached(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    bundle = make_bundle()
    cli.to_file("quick", "run", "--detach", f"--bundle={bundle.write()}", "quick")
    assert cli.status("quick") == "running"


def test_calls_at_the_same_time(cli: Cli, make_bundle: Callable[[], Bundle], is_runc: bool) -> None:
    """Eight creates of one id: one wins. Then starts, kills and deletes at once: no crash, nothing left."""
    if is_runc:
        pytest.skip("runc 1.1 has no lock: now and then two of them win")
    ready = [make_bundle() for _ in range(8)]
    results: list[int] = []
    callers = [
        threading.Thread(target=lambda bundle=bundle: results.append(cli.create("same", bundle, check=False)))
        for bundle in ready
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sorted(code == 0 for code in results) == [False] * 7 + [True]

    started: list[int] = []
    callers = [
        threading.Thread(target=lambda: started.append(cli("start", "same", check=False).returncode)) for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sorted(code == 0 for code in started) == [False] * 3 + [True]

    callers = [threading.Thread(target=lambda: cli("delete", "--force", "same", check=False)) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert cli("list", "--quiet").stdout == ""
