"""A loop, and the children of the test's process, for every test of the shim's parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

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
