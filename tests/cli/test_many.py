"""Many lives one after the other, and many at once. Proved on runc."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from bundles import Bundle
from driver import ROOT, Cli

pytestmark = [pytest.mark.root, pytest.mark.slow]

CYCLES = 200
AT_ONCE = 20


@pytest.mark.timeout(600)
def test_two_hundred_lives_leave_the_machine_as_it_was(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    bundle = make_bundle()
    cli.create("first", bundle)
    cli.end("first")
    before = cli.world.snapshot(ROOT)
    for number in range(CYCLES):
        name = f"life{number}"
        cli.create(name, bundle)
        cli("start", name)
        cli.end(name)
    assert cli.world.snapshot(ROOT) == before


@pytest.mark.timeout(300)
def test_twenty_at_once(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    ready = [make_bundle() for _ in range(AT_ONCE)]

    def live(number: int) -> str:
        name = f"one{number}"
        cli.create(name, ready[number])
        cli("start", name)
        return name

    with ThreadPoolExecutor(AT_ONCE) as pool:
        names = list(pool.map(live, range(AT_ONCE)))
        assert {cli.status(name) for name in names} == {"running"}
        list(pool.map(cli.end, names))
    assert cli("list", "--quiet").stdout == ""
