"""Real cgroups: this host's own layout (v1, hybrid or v2), and a view of v2 alone in a mount namespace."""

from __future__ import annotations

import os
import signal

import pytest

from cgroups import CGROUPS, Paths, end_of, need, new_paths, on_v2, sleeper, text
from urunc.errors import KernelError, StateError
from urunc.linux import cgroup, cgroup_files, freezer

pytestmark = pytest.mark.root


def test_make_says_what_it_made_parents_first() -> None:
    paths = new_paths("/pod/web")
    made = cgroup.make(paths)
    try:
        assert len(made) == 3 * len(set(paths.values()))
        assert all(made.index(os.path.dirname(place)) < made.index(place) for place in paths.values())
        assert cgroup.make(paths) == []
    finally:
        cgroup.remove(paths)
    assert not any(os.path.exists(place) for place in made)
    cgroup.remove(paths)


def test_a_shared_parent_goes_with_its_last_container() -> None:
    first = new_paths("/a")
    second = {name: f"{os.path.dirname(place)}/b" for name, place in first.items()}
    cgroup.make(first)
    cgroup.make(second)
    cgroup.remove(first)
    assert all(os.path.isdir(place) for place in second.values())
    cgroup.remove(second)
    assert not any(os.path.exists(os.path.dirname(place)) for place in first.values())


def test_a_parent_that_was_there_stays(paths: Paths) -> None:
    for place in set(paths.values()):
        os.mkdir(place)
    below = {name: f"{place}/web" for name, place in paths.items()}
    cgroup.make(below)
    cgroup.remove(below)
    assert all(os.path.isdir(place) for place in paths.values())
    for place in set(paths.values()):
        os.rmdir(place)


def test_children_made_by_others_go_too(paths: Paths) -> None:
    cgroup.make(paths)
    for place in set(paths.values()):
        os.makedirs(f"{place}/inner/deep")
    cgroup.remove(paths)
    assert not any(os.path.exists(place) for place in paths.values())


def test_a_cgroup_with_a_process_in_it_is_not_taken(paths: Paths) -> None:
    for place in set(paths.values()):
        os.mkdir(place)
    with sleeper() as pid:
        place = next(iter(paths.values()))
        with open(f"{place}/cgroup.procs", "w", encoding="ascii") as stream:
            stream.write(str(pid))
        with pytest.raises(StateError, match="is not empty"):
            cgroup.make(paths)
        cgroup.kill_all(paths)  # what an undo would do: the process is not ours, and must live
        cgroup.remove(paths)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        assert os.path.isdir(place)
    for place in set(paths.values()):
        os.rmdir(place)


def test_what_another_container_holds_is_not_ended_nor_removed(paths: Paths) -> None:
    """The undo of one that was refused the cgroup of another, or of the parent of another's."""
    below = {name: f"{place}/below" for name, place in paths.items()}
    cgroup.make(below, "first 1")
    with sleeper() as pid:
        cgroup.join(below, pid)
        for taken in (below, paths):
            with pytest.raises(StateError, match="is not empty"):
                cgroup.make(taken, "second 2")
            cgroup.kill_all(taken, "second 2")
            cgroup.remove(taken, mark="second 2")
            assert os.waitpid(pid, os.WNOHANG) == (0, 0)
            assert cgroup.pids(taken) == [pid]
        cgroup.kill_all(below, "first 1")
        assert os.waitpid(pid, 0)[0] == pid
    cgroup.remove(below, mark="first 1")
    assert not any(os.path.exists(place) for place in paths.values())


def test_a_make_that_was_killed_before_its_mark_is_undone(paths: Paths) -> None:
    cgroup.make(paths)
    cgroup.remove(paths, mark="first 1")
    assert not any(os.path.exists(place) for place in paths.values())


def test_a_busy_cgroup_is_an_error_after_a_while(paths: Paths) -> None:
    cgroup.make(paths)
    with sleeper() as pid:
        cgroup.join(paths, pid)
        with pytest.raises(KernelError, match="cannot remove cgroup"):
            cgroup.remove(paths, seconds=0.01)


def test_join_puts_a_process_everywhere(paths: Paths) -> None:
    cgroup.make(paths)
    with sleeper() as pid:
        cgroup.join(paths, pid)
        assert cgroup.pids(paths) == [pid]
        assert all(text(f"{place}/cgroup.procs") == str(pid) for place in paths.values())


def test_joining_a_dead_process_says_so(paths: Paths) -> None:
    cgroup.make(paths)
    with sleeper() as pid:
        pass
    with pytest.raises(KernelError) as caught:
        cgroup.join(paths, pid)
    assert "no such process" in caught.value.message


def test_pids_are_found_below_too(paths: Paths) -> None:
    cgroup.make(paths)
    below = {name: f"{place}/inner" for name, place in paths.items()}
    for place in set(below.values()):
        os.mkdir(place)
    cpuset = below.get("cpuset")
    if cpuset:
        for file in ("cpuset.cpus", "cpuset.mems"):
            with open(f"{cpuset}/{file}", "w", encoding="ascii") as stream:
                stream.write(text(f"{os.path.dirname(cpuset)}/{file}"))
    with sleeper() as pid:
        cgroup.join(below, pid)
        assert cgroup.pids(paths) == [pid]


def test_pids_of_nothing(paths: Paths) -> None:
    assert cgroup.pids(paths) == []


def test_kill_all_reaches_a_frozen_process_and_its_children(paths: Paths) -> None:
    cgroup.make(paths)
    need(paths, "freezer")
    with sleeper(lambda: None) as pid:
        cgroup.join(paths, pid)
        freezer.freeze(paths)
        cgroup.kill_all(paths)
        assert end_of(pid) == -signal.SIGKILL
        assert not freezer.is_frozen(paths)
    cgroup.remove(paths)


def test_kill_all_without_a_freezer(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old v1 kernel: neither cgroup.kill nor a freezer hierarchy."""
    cgroup.make(paths)
    monkeypatch.setattr(cgroup, "_kill_tree", lambda _: False)
    few = {name: place for name, place in paths.items() if name != "freezer"}
    with sleeper() as pid:
        cgroup.join(paths, pid)
        cgroup.kill_all(few)
        assert end_of(pid) == -signal.SIGKILL


def test_what_is_gone_is_neither_frozen_nor_killed_nor_counted(paths: Paths) -> None:
    assert not freezer.is_frozen(paths)
    assert cgroup_files.oom_count(paths) == 0
    freezer.thaw(paths)
    cgroup.kill_all(paths)
    cgroup.remove(paths)


def test_v2_makes_joins_freezes_kills_and_removes() -> None:
    def check(paths: Paths) -> None:
        assert len(cgroup.make(paths)) == 2
        with sleeper() as pid:
            cgroup.join(paths, pid)
            assert cgroup.pids(paths) == [pid]
            freezer.freeze(paths)
            assert freezer.is_frozen(paths)
            cgroup.kill_all(paths)
            assert end_of(pid) == -signal.SIGKILL

    on_v2(check)


def test_v2_enables_every_controller_down_to_the_parent() -> None:
    def check(paths: Paths) -> None:
        cgroup.make(paths)
        have = set(text(f"{CGROUPS}/cgroup.controllers").split())
        assert set(text(f"{paths['']}/cgroup.controllers").split()) == have

    on_v2(check)
