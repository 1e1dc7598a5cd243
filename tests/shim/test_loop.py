"""The loop: order, timers, and what a callback may do to the others."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from urunc.shim.loop import IN, Loop


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def test_a_descriptor_is_served_when_there_is_something(loop: Loop, pipe: tuple[int, int]) -> None:
    seen: list[int] = []
    loop.watch(pipe[0], IN, seen.append)
    loop.once(0)
    assert seen == []
    os.write(pipe[1], b"x")
    loop.once(0)
    assert seen == [IN]
    loop.forget(pipe[0])
    loop.once(0)
    assert seen == [IN]


def test_timers_come_in_order_and_once(loop: Loop) -> None:
    seen: list[str] = []
    loop.later(0.002, lambda: seen.append("second"))
    loop.later(0.001, lambda: seen.append("first"))
    cancelled = loop.later(0.0, lambda: seen.append("never"))
    cancelled.cancel()
    loop.later(0.003, loop.stop)
    loop.run()
    assert seen == ["first", "second"]


def test_a_timer_may_be_farther_than_epoll_can_count(loop: Loop) -> None:
    loop.later(9.2e9, lambda: None)
    loop.later(0, loop.stop)
    loop.run()
    assert 0 < loop._until_next_timer() <= 3600


def test_an_exception_is_reported_and_the_loop_goes_on(
    loop: Loop, errors: list[Exception], pipe: tuple[int, int]
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("x")

    os.write(pipe[1], b"x")
    loop.watch(pipe[0], IN, fail)
    loop.later(0, fail)
    loop.once(0)
    loop.once(0)
    assert [type(error) for error in errors] == [KeyError, KeyError]
    errors.clear()


def test_a_descriptor_reused_within_a_batch_does_not_get_the_old_ones_event(loop: Loop) -> None:
    first, second = os.pipe(), os.pipe()
    seen: list[str] = []

    def reuse(own: int, other: int) -> None:
        """Close the other pipe's reading end and put a pipe with nothing to read in its place."""
        loop.forget(own)
        loop.forget(other)
        quiet = os.pipe()
        os.dup2(quiet[0], other)
        os.close(quiet[0])
        loop.watch(other, IN, lambda _: seen.append("stale"))
        opened.append(quiet[1])

    opened: list[int] = []
    for own, other in ((first, second), (second, first)):
        os.write(own[1], b"x")
        loop.watch(own[0], IN, lambda _, own=own[0], other=other[0]: reuse(own, other))  # type: ignore[misc]
    loop.once(0)
    assert len(opened) == 1
    assert seen == []
    for fd in (*first, *second, *opened):
        os.close(fd)
