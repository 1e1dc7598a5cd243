"""Statuses, derived from what is: processes, the boot, who holds the file `waiting`, the freezer."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from containers import container
from urunc.errors import StateError
from urunc.linux import proc
from urunc.runtime import status

NAME = "web"


@pytest.fixture
def root(tmp_path: Path) -> str:
    (tmp_path / NAME).mkdir()
    return str(tmp_path)


def me() -> tuple[int, int]:
    return os.getpid(), proc.start_time(os.getpid()) or 0


def test_before_init_it_is_creating_while_its_creator_lives(root: str) -> None:
    assert status.of(root, container(creator=me())) == "creating"
    assert status.of(root, container(creator=(me()[0], me()[1] + 1))) == "stopped"


def test_with_an_init_that_waits_it_is_created(root: str) -> None:
    pid, started = me()
    with open(f"{root}/{NAME}/waiting", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert status.of(root, container(pid=pid, start_time=started)) == "created"
        assert status.of(root, container(pid=pid, start_time=started, creator=me())) == "creating"
    assert status.of(root, container(pid=pid, start_time=started)) == "running"


def test_a_reused_pid_is_stopped(root: str) -> None:
    pid, started = me()
    assert status.of(root, container(pid=pid, start_time=started + 1)) == "stopped"


def test_after_another_boot_everything_is_stopped(root: str) -> None:
    pid, started = me()
    assert status.of(root, container(pid=pid, start_time=started, boot_id="another")) == "stopped"


def test_a_zombie_is_stopped(root: str) -> None:
    child = os.fork()
    if child == 0:
        os.read(0, 0)
        os._exit(0)
    started = proc.start_time(child) or 0
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert status.of(root, container(pid=child, start_time=started)) == "stopped"
    os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("key", "name", "value", "frozen"),
    [
        ("freezer", "freezer.state", "FROZEN\n", True),
        ("freezer", "freezer.state", "FREEZING\n", True),
        ("freezer", "freezer.state", "THAWED\n", False),
        ("", "cgroup.freeze", "1\n", True),
        ("", "cgroup.freeze", "0\n", False),
    ],
)
def test_a_frozen_cgroup_is_paused(root: str, key: str, name: str, value: str, frozen: bool) -> None:
    (Path(root) / name).write_text(value)
    pid, started = me()
    expected = "paused" if frozen else "running"
    assert status.of(root, container(pid=pid, start_time=started, cgroup={key: root})) == expected


@pytest.mark.parametrize("verb", sorted(status.ALLOWED))
@pytest.mark.parametrize("now", ["creating", "created", "running", "stopped", "paused"])
def test_a_verb_is_allowed_where_the_table_says_so(verb: str, now: str) -> None:
    if now in status.ALLOWED[verb]:
        status.require(verb, container(), now)
        return
    with pytest.raises(StateError, match=f"cannot .*`{NAME}`"):
        status.require(verb, container(), now)


def test_the_state_document_has_no_pid_of_a_stopped_container() -> None:
    stopped = status.document(container(pid=5, annotations={"a": "b"}), "stopped")
    assert stopped == {
        "ociVersion": "1.0.2",
        "id": NAME,
        "status": "stopped",
        "pid": 0,
        "bundle": "/b",
        "annotations": {"a": "b"},
    }
    assert status.document(container(pid=5), "running")["pid"] == 5
