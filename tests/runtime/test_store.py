"""The records on disk: claiming an id, saving, finding, locking."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

import containers
from urunc.errors import StateError
from urunc.runtime import store
from urunc.runtime.store import Container, Lock, NetDevice

NAME = "web"


def container(name: str = NAME) -> Container:
    return containers.container(
        id=name,
        boot_id="",
        creator=(os.getpid(), 1),
        cgroup={"memory": "/sys/fs/cgroup/memory/web"},
        timeline=(("begin", 1), ("fork", 2)),
        network_id=(4, 2),
        net_devices=(NetDevice(name="nic0", inside="net%d", index=2, up=True, addresses=("10.0.0.1/24",)),),
    )


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "state")


def test_a_claimed_id_has_its_record_at_once(root: str) -> None:
    with store.claim(root, container()):
        assert store.want(root, NAME).bundle == "/b"
    assert os.stat(f"{root}/{NAME}").st_mode & 0o777 == 0o700
    assert os.listdir(root) == [NAME]


def test_a_record_comes_back_as_it_was(root: str) -> None:
    store.claim(root, container()).release()
    found = store.want(root, NAME)
    assert found == container()


def test_an_id_is_claimed_once(root: str) -> None:
    store.claim(root, container()).release()
    with pytest.raises(StateError, match="container with id `web` exists"):
        store.claim(root, container())
    assert sorted(os.listdir(root)) == [NAME]


def test_what_a_killed_claim_left_is_taken_over(root: str) -> None:
    passing = Path(root) / store.unclaimed(NAME)
    passing.mkdir(parents=True)
    (passing / ".record.1").write_bytes(b"torn")
    store.claim(root, container()).release()
    assert os.listdir(root) == [NAME]


def test_of_many_claims_at_once_one_wins(root: str) -> None:
    won: list[Lock] = []
    lost: list[StateError] = []

    def claim() -> None:
        try:
            won.append(store.claim(root, container()))
        except StateError as error:
            lost.append(error)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(lost) == 7
    won[0].release()
    assert os.listdir(root) == [NAME]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "a\n", "a" * 1025, "a\0"])
def test_an_impossible_id_is_refused(root: str, name: str) -> None:
    with pytest.raises(StateError, match="invalid container id"):
        store.find(root, name)


def test_an_unknown_id_is_none_or_an_error(root: str) -> None:
    assert store.find(root, NAME) is None
    assert store.names(root) == []
    with pytest.raises(StateError, match="container `web` does not exist"):
        store.want(root, NAME)
    with pytest.raises(StateError, match="does not exist"), Lock(root, NAME):
        pass


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version":99}',
        b'{"version":1}',
        b'{"version":1,"id":"web","odd":1}',
        b'{"version":1,"net_devices":[{}]}',
    ],
)
def test_a_damaged_record_is_an_error(root: str, content: bytes) -> None:
    store.claim(root, container()).release()
    (Path(root) / NAME / "record.json").write_bytes(content)
    with pytest.raises(StateError, match="the record of `web`"):
        store.find(root, NAME)


def test_a_newer_record(root: str) -> None:
    store.claim(root, container()).release()
    file = Path(root) / NAME / "record.json"
    newer = {**json.loads(file.read_text()), "later": ["a", "field"]}
    file.write_text(json.dumps(newer))
    assert store.find(root, NAME) == container()
    file.write_text(json.dumps({**newer, "version": 99}))
    with pytest.raises(StateError, match="by another version"):
        store.find(root, NAME)
    found = store.find(root, NAME, any_version=True)
    assert found is not None
    assert found.replace(version=container().version) == container()


def test_a_record_is_replaced_whole(root: str) -> None:
    store.claim(root, container()).release()
    store.save(root, container().replace(pid=7))
    assert store.want(root, NAME).pid == 7
    assert sorted(os.listdir(f"{root}/{NAME}")) == ["lock", "record.json"]


def test_a_held_lock_is_waited_for_and_then_an_error(root: str) -> None:
    with store.claim(root, container()), pytest.raises(StateError, match="is busy"), Lock(root, NAME, seconds=0.05):
        pass


def test_a_folder_without_a_lock_stays_as_it_is(root: str) -> None:
    """It is being removed: a new file in it would keep it there for good."""
    (Path(root) / NAME).mkdir(parents=True)
    with pytest.raises(StateError, match="does not exist"):
        Lock(root, NAME).take()
    assert os.listdir(f"{root}/{NAME}") == []
    store.claim(root, container()).release()


def test_a_container_that_vanished_meanwhile_is_gone(root: str) -> None:
    held = store.claim(root, container())
    gone: list[str] = []

    def wait() -> None:
        try:
            Lock(root, NAME).take()
        except StateError as error:
            gone.append(str(error))

    waiter = threading.Thread(target=wait)
    waiter.start()
    for name in os.listdir(f"{root}/{NAME}"):
        os.unlink(f"{root}/{NAME}/{name}")
    os.rmdir(f"{root}/{NAME}")
    held.release()
    waiter.join()
    assert gone == ["container `web` does not exist"]


def test_files_that_are_no_containers_are_not_listed(root: str) -> None:
    store.claim(root, container()).release()
    os.mkdir(f"{root}/.cache")
    os.mkdir(f"{root}/{store.unclaimed('other')}")
    assert store.names(root) == [NAME]
