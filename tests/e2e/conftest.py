"""Engines shared by the whole run, their logs beside a failure, and the check that a test left nothing behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

import images
from engines import Containerd, Docker, Podman

from world import World, wait_for, which

LOG_LINES = 40

Engine = TypeVar("Engine", Docker, Containerd, Podman)


def _want(*programs: str) -> None:
    for program in programs:
        if which(program) is None:
            pytest.skip(f"{program} is not installed")


@contextmanager
def _started(make: Callable[[World], Engine], folder: Path) -> Iterator[Engine]:
    """Start an engine in a world of its own, with an ordinary container's image loaded as `test/busybox:1`."""
    with World(folder) as world:
        engine = make(world)
        engine.load(images.busybox(), folder)
        yield engine


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory, runtime: Path) -> Iterator[Docker]:
    """A dockerd for the whole run."""
    _want("dockerd", "docker", "containerd", "iptables")
    with _started(lambda world: Docker(world, runtime), tmp_path_factory.mktemp("docker")) as engine:
        yield engine


@pytest.fixture(scope="session")
def containerd(tmp_path_factory: pytest.TempPathFactory, runtime: Path) -> Iterator[Containerd]:
    """A containerd for the whole run."""
    _want("containerd", "ctr")
    with _started(lambda world: Containerd(world, runtime), tmp_path_factory.mktemp("containerd")) as engine:
        yield engine


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory, runtime: Path) -> Iterator[Podman]:
    """Podman's storage and network for the whole run."""
    _want("podman", "conmon")
    with _started(lambda world: Podman(world, runtime), tmp_path_factory.mktemp("podman")) as engine:
        yield engine


STATE = (
    "/run/urunc",
    "/run/runc",
    "/run/docker/runtime-urunc",
    "/run/docker/runtime-runc",
    "/run/containerd-test/runc",
)


def left_behind(engine: Docker | Containerd | Podman, was: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return what the engine's world holds more than it did, less what the engine keeps for its next container."""
    more = {
        kind: [item for item in now if item not in was[kind] and not engine.keeps(kind, item)]
        for kind, now in engine.world.snapshot(*STATE).items()
    }
    return {kind: items for kind, items in more.items() if items}


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compare each used engine's world before and after the test."""
    used = [
        request.getfixturevalue(name) for name in ("docker", "containerd", "podman") if name in request.fixturenames
    ]
    before = [engine.world.snapshot(*STATE) for engine in used]
    yield
    for engine, was in zip(used, before, strict=True):
        engine.remove_all()
        try:
            wait_for("nothing left", lambda engine=engine, was=was: not left_behind(engine, was), 10)
        except AssertionError:
            pytest.fail(f"left behind: {left_behind(engine, was)}")


@pytest.hookimpl(hookwrapper=True)  # the older form, for the pytest of Debian 12
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the end of every service's log beside a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for name in ("docker", "containerd", "podman"):
            engine = getattr(item, "funcargs", {}).get(name)
            for log in sorted(engine.world.logs.glob("*.log")) if engine else ():
                lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
                report.sections.append((log.name, "\n".join(lines)))
