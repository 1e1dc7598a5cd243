"""`pause` and `resume` on a process of our own and a freezer made of plain files."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

import containers
from urunc.errors import StateError
from urunc.runtime import pause, status, store

NAME = "ice"


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A state root with one container, whose process is this one."""
    freezer = tmp_path / "freezer"
    freezer.mkdir()
    (freezer / "freezer.state").write_text("THAWED")
    record = containers.container(id=NAME, cgroup={"freezer": str(freezer)}, **containers.process())
    store.claim(str(tmp_path / "state"), record).release()
    return str(tmp_path / "state")


def status_of(root: str) -> str:
    return status.of(root, store.want(root, NAME))


def test_there_and_back(root: str) -> None:
    pause.pause(root, NAME)
    assert status_of(root) == "paused"
    pause.resume(root, NAME)
    assert status_of(root) == "running"


def test_an_init_that_waits_for_start_can_be_paused(root: str) -> None:
    with open(f"{root}/{NAME}/waiting", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert status_of(root) == "created"
        pause.pause(root, NAME)
        assert status_of(root) == "paused"
        pause.resume(root, NAME)
        assert status_of(root) == "created"


def test_only_a_paused_one_resumes_and_only_once_is_paused(root: str) -> None:
    with pytest.raises(StateError, match=f"cannot resume `{NAME}`: container is running"):
        pause.resume(root, NAME)
    pause.pause(root, NAME)
    with pytest.raises(StateError, match=f"cannot pause `{NAME}`: container is paused"):
        pause.pause(root, NAME)


def test_a_container_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="does not exist"):
        pause.pause(str(tmp_path), NAME)
