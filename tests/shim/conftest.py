"""A loop, the children of the test's process, and the whole service over them, for the tests of the shim's parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shim.services import Serve, World
from urunc.linux import cgroup, libc
from urunc.shim import ordinary, work
from urunc.shim.children import Children
from urunc.shim.loop import Loop


@pytest.fixture
def errors() -> list[Exception]:
    """What callbacks let out; a test that expects something clears it."""
    return []


@pytest.fixture
def loop(errors: list[Exception]) -> Iterator[Loop]:
    loop = Loop(errors.append)
    yield loop
    loop.close()
    assert errors == []


@pytest.fixture
def children(loop: Loop) -> Iterator[Children]:
    children = Children(loop, lambda: None)
    yield children
    children.close()


@pytest.fixture
def serve_until(loop: Loop) -> Callable[[Callable[[], object]], None]:
    """Run the loop until something holds; fail when it does not within ten seconds."""

    def serve(holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < deadline, "this never came"
            loop.later(0.01, lambda: None)
            loop.once(loop._until_next_timer())

    return serve


@pytest.fixture
def world(
    loop: Loop, children: Children, serve_until: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    world = World(loop, children, serve_until, tmp_path)
    for name in ("create", "start", "kill", "pause", "resume", "update", "delete", "execute"):
        for module in (work, ordinary):
            monkeypatch.setattr(module, name, getattr(world.work, name), raising=False)
    monkeypatch.setattr(cgroup, "pids", lambda paths: [])
    yield world
    for container in world.service._pod.containers.values():
        for process in (container.init, *container.execs.values()):
            if process.pid and not process.ended:
                world.end(process.pid)
    serve_until(lambda: not children._expecting)
    world.server.close()
    world.peer.close()
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 0)
    assert world.errors == []
