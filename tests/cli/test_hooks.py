"""Hooks of all six kinds (runtime-spec, config.md, "POSIX-platform Hooks"; runtime.md, "Lifecycle"). Proved on runc."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundles import Bundle
from driver import Cli

pytestmark = pytest.mark.root

BEFORE_START = ("prestart", "createRuntime", "createContainer")

RECORD = """#!/bin/sh
# Called as: record FILE NAME; the state is on standard input.
{
  echo "name=$2"
  echo "state=$(cat)"
  echo "args=$*"
  echo "env=$(env | grep -c .) $HOOK_VALUE"
  for kind in mnt net uts ipc pid; do echo "$kind=$(readlink /proc/self/ns/$kind)"; done
} >> "$1"
"""


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A hook that appends what it sees to a file."""
    script = tmp_path / "record"
    script.write_text(RECORD)
    script.chmod(0o755)
    return script


def seen(file: Path) -> list[dict[str, str]]:
    """Return what each call of the recording hook saw, in the order of the calls."""
    calls: list[dict[str, str]] = []
    for line in file.read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "name":
            calls.append({})
        calls[-1][key] = value
    return calls


def own_namespaces(cli: Cli) -> dict[str, str]:
    """Return the namespaces in which the runtime is called."""
    kinds = ("mnt", "net", "uts", "ipc", "pid")
    return {kind: cli.world.run("readlink", f"/proc/self/ns/{kind}").stdout.strip() for kind in kinds}


@pytest.mark.runc_differs("it runs poststart hooks at create")
def test_every_kind_runs_at_its_place_in_order(
    cli: Cli, make_bundle: Callable[[], Bundle], record: Path, tmp_path: Path
) -> None:
    file = tmp_path / "calls"
    bundle = make_bundle()
    for kind in (*BEFORE_START, "poststart", "poststop"):
        for number in (1, 2):
            bundle.hook(kind, str(record), str(file), f"{kind}{number}")
    cli.create("hooked", bundle)
    expected = [f"{kind}{number}" for kind in BEFORE_START for number in (1, 2)]
    assert [call["name"] for call in seen(file)] == expected
    cli("start", "hooked")
    expected += ["poststart1", "poststart2"]
    assert [call["name"] for call in seen(file)] == expected
    cli.end("hooked")
    assert [call["name"] for call in seen(file)] == [*expected, "poststop1", "poststop2"]


@pytest.mark.runc_differs("it runs poststart hooks at create, with another status")
def test_state_on_standard_input(cli: Cli, make_bundle: Callable[[], Bundle], record: Path, tmp_path: Path) -> None:
    file = tmp_path / "calls"
    bundle = make_bundle()
    bundle.config["annotations"]["org.example.key"] = "value"
    for kind in (*BEFORE_START, "poststart", "poststop"):
        bundle.hook(kind, str(record), str(file), kind)
    cli.create("hooked", bundle)
    cli("start", "hooked")
    pid = cli.state("hooked")["pid"]
    cli.end("hooked")
    states: dict[str, dict[str, Any]] = {call["name"]: json.loads(call["state"]) for call in seen(file)}
    for state in states.values():
        assert state["id"] == "hooked"
        assert state["bundle"] == str(bundle.folder)
        assert state["annotations"]["org.example.key"] == "value"
        assert state["ociVersion"]
    statuses = {name: state["status"] for name, state in states.items()}
    assert statuses == {
        "prestart": "creating",
        "createRuntime": "creating",
        "createContainer": "creating",
        "poststart": "running",
        "poststop": "stopped",
    }
    assert states["prestart"]["pid"] == states["createRuntime"]["pid"] == states["poststart"]["pid"] == pid


def test_namespaces_of_the_runtime_and_of_the_container(
    cli: Cli, make_bundle: Callable[[], Bundle], record: Path, tmp_path: Path
) -> None:
    file = tmp_path / "calls"
    bundle = make_bundle()
    for kind in (*BEFORE_START, "poststart", "poststop"):
        bundle.hook(kind, str(record), str(file), kind)
    cli.create("hooked", bundle)
    pid = cli.state("hooked")["pid"]
    container = {
        kind: cli.world.run("readlink", f"/proc/{pid}/ns/{kind}").stdout.strip()
        for kind in ("mnt", "net", "uts", "ipc")
    }
    cli("start", "hooked")
    cli.end("hooked")
    runtime = own_namespaces(cli)
    calls = {call["name"]: call for call in seen(file)}
    for name in ("prestart", "createRuntime", "poststart", "poststop"):
        assert {kind: calls[name][kind] for kind in runtime} == runtime, name
    for kind, namespace in container.items():
        assert calls["createContainer"][kind] == namespace != runtime[kind]


def test_arguments_and_environment_are_the_hooks_own(
    cli: Cli, make_bundle: Callable[[], Bundle], record: Path, tmp_path: Path
) -> None:
    file = tmp_path / "calls"
    bundle = make_bundle()
    bundle.hook("createRuntime", str(record), str(file), "a b", "c'd\"", env=["HOOK_VALUE=x y", "PATH=/bin:/usr/bin"])
    cli.create("hooked", bundle)
    call = seen(file)[0]
    assert call["args"] == f"{file} a b c'd\""
    assert call["env"].endswith(" x y")


@pytest.mark.parametrize("kind", BEFORE_START)
def test_a_failing_hook_before_start_undoes_the_create(
    cli: Cli, make_bundle: Callable[[], Bundle], kind: str, record: Path, tmp_path: Path
) -> None:
    after = tmp_path / "after"
    bundle = make_bundle()
    bundle.hook(kind, "/bin/sh", "-c", "echo the hook says why >&2; exit 3")
    bundle.hook(kind, str(record), str(after), "next")
    assert cli.create("hooked", bundle, check=False) != 0
    assert "the hook says why" in cli.last_error()
    assert not after.exists()
    assert cli("state", "hooked", check=False).returncode != 0


@pytest.mark.parametrize("kind", BEFORE_START)
def test_a_hanging_hook_is_ended_at_its_timeout(cli: Cli, make_bundle: Callable[[], Bundle], kind: str) -> None:
    bundle = make_bundle()
    bundle.hook(kind, "/bin/sleep", "1000", timeout=1)
    assert cli.create("hooked", bundle, check=False, timeout=20) != 0
    assert cli("state", "hooked", check=False).returncode != 0


@pytest.mark.runc_differs("it runs poststart hooks at create")
def test_a_failing_poststart_hook_stops_the_container(
    cli: Cli, make_bundle: Callable[[], Bundle], record: Path, tmp_path: Path
) -> None:
    """Since version 1.3 of the specification; before, it was a warning."""
    file = tmp_path / "calls"
    bundle = make_bundle()
    bundle.hook("poststart", "/bin/sh", "-c", "exit 3")
    bundle.hook("poststart", str(record), str(file), "next")
    bundle.hook("poststop", str(record), str(file), "after")
    cli.create("hooked", bundle)
    assert cli("start", "hooked", check=False).returncode != 0
    assert cli.status("hooked") == "stopped"
    assert "poststart hook `/bin/sh`" in cli.last_error()
    cli("delete", "hooked")
    assert [call["name"] for call in seen(file)] == ["after"]


def test_run_leaves_nothing_of_a_container_whose_poststart_hook_fails(
    cli: Cli, make_bundle: Callable[[], Bundle]
) -> None:
    bundle = make_bundle()
    bundle.hook("poststart", "/bin/sh", "-c", "exit 3")
    assert cli.run("hooked", bundle)[0] == 1
    assert cli("state", "hooked", check=False).returncode != 0


@pytest.mark.runc_differs("it leaves out the hooks after one that failed")
def test_a_failing_poststop_hook_is_a_warning(
    cli: Cli, make_bundle: Callable[[], Bundle], record: Path, tmp_path: Path
) -> None:
    file = tmp_path / "calls"
    bundle = make_bundle()
    bundle.hook("poststop", "/bin/sh", "-c", "exit 3")
    bundle.hook("poststop", str(record), str(file), "next")
    cli.create("hooked", bundle)
    cli.end("hooked")
    assert [call["name"] for call in seen(file)] == ["next"]
    assert any(line["level"] == "warning" for line in cli.log_lines())


def test_start_container_hook_resolves_in_the_containers_root(
    cli: Cli, make_bundle: Callable[[], Bundle], tmp_path: Path
) -> None:
    """It sees the container's files, not the host's, and the container's host name; it must not run before start."""
    bundle = make_bundle()
    bundle.add_busybox("hooktools")
    condition = f'test -x /hooktools/busybox && test ! -e {tmp_path} && test "$(/hooktools/busybox hostname)" = test'
    bundle.hook("startContainer", "/hooktools/busybox", "sh", "-c", condition)
    cli.create("hooked", bundle)
    cli("start", "hooked")
    assert cli.status("hooked") == "running"


@pytest.mark.runc_differs("its start does not wait for the hook")
def test_a_failing_start_container_hook_stops_the_container(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    bundle = make_bundle()
    bundle.add_busybox()
    bundle.hook("startContainer", "/busybox", "sh", "-c", "exit 3")
    cli.create("hooked", bundle)
    assert cli("start", "hooked", check=False).returncode != 0
    cli("delete", "--force", "hooked")


def test_start_container_hook_has_no_more_rights_than_the_containers_process(
    cli: Cli, make_bundle: Callable[[], Bundle]
) -> None:
    """It is a program of the image: with root's capabilities it could read the host's files by their handles."""
    bundle = make_bundle()
    bundle.add_busybox()
    bundle.config["process"]["user"] = {"uid": 1234, "gid": 1235}
    bundle.config["process"]["capabilities"] = {"bounding": ["CAP_KILL"]}
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 42}],
    }
    script = """
        test "$(/busybox id -u):$(/busybox id -g)" = 1234:1235 || exit 3
        /busybox nice -n -5 /busybox true && exit 4
        /busybox hostname x 2>&1 | /busybox grep -q "No message" || exit 5
    """
    bundle.hook("startContainer", "/busybox", "sh", "-c", script)
    cli.create("hooked", bundle)
    cli("start", "hooked")


def test_a_profile_that_refuses_close_range_does_not_hold_up_a_start_container_hook(
    cli: Cli, make_bundle: Callable[[], Bundle]
) -> None:
    bundle = make_bundle()
    bundle.add_busybox()
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["close_range"], "action": "SCMP_ACT_ERRNO"}],
    }
    bundle.hook("startContainer", "/busybox", "true")
    cli.create("hooked", bundle)
    cli("start", "hooked", timeout=20)
    assert cli.status("hooked") == "running"


KEYRING = """
import ctypes, os, sys
number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
with open(sys.argv[1], "a") as file:
    file.write(f"{ctypes.CDLL(None).syscall(number, 0, -3, 0)} ")
"""


@pytest.mark.parametrize("options", [(), ("--no-new-keyring",)], ids=["new", "kept"])
def test_the_session_keys_of_the_caller_stay_outside(
    cli: Cli, make_bundle: Callable[[], Bundle], tmp_path: Path, options: tuple[str, ...]
) -> None:
    file = tmp_path / "keyrings"
    bundle = make_bundle()
    for kind in ("createRuntime", "createContainer"):
        bundle.hook(kind, "/usr/bin/python3", "-IS", "-c", KEYRING, str(file))
    cli.create("hooked", bundle, *options)
    outside, inside = file.read_text().split()
    assert (outside == inside) == bool(options)


def test_a_hook_that_is_not_there_is_named(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    bundle = make_bundle()
    bundle.hook("createRuntime", "/no/such/hook")
    assert cli.create("hooked", bundle, check=False) != 0
    assert "/no/such/hook" in cli.last_error()
