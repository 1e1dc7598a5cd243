"""`timeline`: what each step of a start took, from the marks in the record; also as a trace for Perfetto and Chrome."""

from __future__ import annotations

from ..errors import StateError
from ..record import Record
from . import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

CREATE = "create"
"""Who did the steps whose name in the record has no slash."""


class Step(Record):
    """A step that `track` (create, init or start) did, `at` nanoseconds after the first mark, and what it `took`."""

    track: str
    name: str
    at: int
    took: int


def of(root: str, name: str) -> tuple[Step, ...]:
    """Return the container's steps, in the order of their beginnings. Raises StateError where there are none."""
    container = store.want(root, name)
    if not container.timeline:
        raise StateError(f"`{name}` has no timeline: its creation is not over")
    return measure(container.timeline)


def measure(marks: Iterable[tuple[str, int]]) -> tuple[Step, ...]:
    """Return the steps between the marks of each track. The first mark of a track begins it and is no step."""
    ordered = sorted(marks, key=lambda mark: mark[1])
    first = ordered[0][1] if ordered else 0
    last: dict[str, int] = {}
    found = []
    for mark, at in ordered:
        track, slash, name = mark.rpartition("/")
        track = track if slash else CREATE
        if track in last:
            found.append(Step(track=track, name=name, at=last[track] - first, took=at - last[track]))
        last[track] = at
    return tuple(sorted(found, key=lambda step: (step.at, step.at + step.took)))


def to_data(name: str, steps: tuple[Step, ...]) -> dict[str, Any]:
    """Return the steps as JSON data; times are nanoseconds, `at` counts from the first mark."""
    return {"id": name, "steps": [step.to_data() for step in steps], "took": totals(steps)}


def totals(steps: tuple[Step, ...]) -> dict[str, int]:
    """Return what each track took from its beginning to its end, in nanoseconds."""
    tracks = dict.fromkeys(step.track for step in steps)
    return {track: sum(step.took for step in steps if step.track == track) for track in tracks}


def to_trace(name: str, steps: tuple[Step, ...]) -> dict[str, Any]:
    """Return the steps in the Trace Event Format, as a JSON object: ui.perfetto.dev and chrome://tracing open it."""
    tracks = list(dict.fromkeys(step.track for step in steps))
    events: list[dict[str, Any]] = [_label("process_name", 0, f"urunc {name}")]
    events += [_label("thread_name", number, track) for number, track in enumerate(tracks, 1)]
    events += [
        {
            "ph": "X",
            "name": step.name,
            "cat": step.track,
            "pid": 1,
            "tid": tracks.index(step.track) + 1,
            "ts": step.at / 1000,
            "dur": step.took / 1000,
        }
        for step in steps
    ]
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _label(kind: str, thread: int, text: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": 1, "tid": thread, "args": {"name": text}}
