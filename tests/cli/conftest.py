"""The runtime driven by its command line, as an engine does it, in a world of its own.

The same tests pass on runc where they test what runc has: `URUNC_TEST_RUNTIME=runc pytest tests/cli`. What a
container *is* there differs (an ordinary one for runc, the test guest for urunc), and is the fixture `make_bundle`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bundles
import linuxes
from bundles import Bundle, Netns
from driver import ROOT, Cli
from guest import linux_guest
from world import World, wait_for


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Namespaces for the whole run."""
    with World(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(scope="session")
def is_runc(runtime: Path) -> bool:
    """Whether the runtime under test is runc, which has neither unikernels nor urunc's own verbs."""
    return runtime.name == "runc"


@pytest.fixture(autouse=True)
def expect_known_failures(request: pytest.FixtureRequest, is_runc: bool) -> None:
    """Where runc 1.1 is known to leave the specification, its test must fail: the ledger stays true."""
    marker = request.node.get_closest_marker("runc_differs")
    if marker and is_runc:
        request.applymarker(pytest.mark.xfail(reason=f"runc: {marker.args[0]}", strict=True))


@pytest.fixture
def cli(world: World, runtime: Path, tmp_path: Path) -> Iterator[Cli]:
    """The runtime. After the test nothing may be left, once containers that the test still has are deleted."""
    calls = Cli(world, runtime, tmp_path)
    before = world.snapshot(ROOT)
    yield calls
    for name in calls("list", "--quiet").stdout.split():
        calls("delete", "--force", name)

    def left() -> dict[str, list[str]]:
        now = world.snapshot(ROOT)
        more = {kind: [item for item in items if item not in before[kind]] for kind, items in now.items()}
        more["cgroups"] = [item for item in more["cgroups"] if not item.endswith(world.cgroup)]
        return {kind: items for kind, items in more.items() if items}

    try:
        wait_for("nothing left", lambda: not left(), 10)
    except AssertionError:
        pytest.fail(f"left behind: {left()}")


@pytest.fixture
def make_unikernel(is_runc: bool, request: pytest.FixtureRequest) -> Callable[..., Bundle]:
    """Make a bundle with the test guest; skips for runc, which cannot boot one."""
    if is_runc:
        pytest.skip("runc has no unikernels")
    kernel = request.getfixturevalue("testguest")
    folder, world = request.getfixturevalue("tmp_path"), request.getfixturevalue("world")
    count = itertools.count()

    def make(*args: str, **options: str) -> Bundle:
        number = next(count)
        return bundles.unikernel(
            folder / f"bundle{number}", kernel, *args, cgroup=f"/{world.cgroup}/c{number}", **options
        )

    return make


@pytest.fixture
def make_ordinary(tmp_path: Path, world: World) -> Callable[..., Bundle]:
    """Make a bundle of an ordinary container."""
    count = itertools.count()

    def make(*args: str) -> Bundle:
        number = next(count)
        return bundles.ordinary(tmp_path / f"ordinary{number}", *args, cgroup=f"/{world.cgroup}/o{number}")

    return make


@pytest.fixture
def make_bundle(is_runc: bool, request: pytest.FixtureRequest) -> Callable[[], Bundle]:
    """Make a bundle of a container that runs until it is stopped: runc's kind for runc, ours for urunc."""
    name = "make_ordinary" if is_runc else "make_unikernel"
    made: Callable[[], Bundle] = request.getfixturevalue(name)
    return made


@pytest.fixture(scope="session")
def small_initrd() -> bytes:
    """An initrd of busybox and drivers."""
    return linux_guest.base_initrd(linux_guest.find_kernel())


@pytest.fixture
def make_small_linux(
    is_runc: bool, small_initrd: bytes, tmp_path_factory: pytest.TempPathFactory, world: World
) -> Callable[..., Bundle]:
    """Make a bundle of a Linux guest of 240 MiB, in an initrd of busybox and drivers, that runs a line of shell."""
    if is_runc:
        pytest.skip("runc has no unikernels")

    def make(script: str) -> Bundle:
        folder = tmp_path_factory.mktemp("linux") / "bundle"
        bundle = Bundle(folder, ("/bin/sh", "-c", script), cgroup=f"/{world.cgroup}/linux")
        return linuxes.add_initrd(bundle, small_initrd)

    return make


@pytest.fixture
def netns(world: World) -> Iterator[Netns]:
    """A namespace with eth0 in it; after the test it must hold exactly what it held before."""
    with Netns(world, "test") as made:
        yield made
