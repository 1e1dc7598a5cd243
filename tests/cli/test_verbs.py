"""`pause`, `resume`, `update`, `events`, `timeline` on a real guest."""

from __future__ import annotations

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
