"""Which step of a start took how long: (step, monotonic nanoseconds) pairs, kept in the container's record.

A step is named after what was done when the clock was read, behind a slash after who did it: `init/root`,
`start/executed`. `create`'s own have no slash. What a person is shown of it is made by `steps`.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Timeline:
    """The steps done so far. `done` stands between any two steps, which is where the tests let them fail."""

    def __init__(self, first: str, at: int = 0) -> None:
        """Begin, now or at a moment that is past."""
        self.steps = [(first, at or time.monotonic_ns())]

    def done(self, step: str) -> None:
        """Note that `step` is done now."""
        self.steps.append((step, time.monotonic_ns()))

    def ages(self) -> list[tuple[str, int]]:
        """Return how many nanoseconds ago each step was done: in a time namespace the clock itself may be another."""
        now = time.monotonic_ns()
        return [(step, now - at) for step, at in self.steps]

    def take(self, ages: list[Any]) -> None:
        """Add the steps of another process, which has just sent their `ages`."""
        now = time.monotonic_ns()
        self.steps += [(str(step), now - int(age)) for step, age in ages]

    def record(self) -> tuple[tuple[str, int], ...]:
        """Return the steps for the container's record."""
        return tuple(self.steps)
