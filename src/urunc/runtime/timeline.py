"""Which step of a start took how long: (step, monotonic nanoseconds) pairs, kept in the container's record."""

from __future__ import annotations

import time


class Timeline:
    """The steps done so far. `done` stands between any two steps, which is where the tests let them fail."""

    def __init__(self, steps: tuple[tuple[str, int], ...] = ()) -> None:
        self.steps = [(str(name), int(at)) for name, at in steps]
        if not self.steps:
            self.done("begin")

    def done(self, step: str) -> None:
        """Note that `step` is done now."""
        self.steps.append((step, time.monotonic_ns()))

    def record(self) -> tuple[tuple[str, int], ...]:
        """Return the steps for the container's record."""
        return tuple(self.steps)
