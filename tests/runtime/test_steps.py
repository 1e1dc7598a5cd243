"""`timeline`: from marks to steps, and to a trace that a viewer opens."""

from __future__ import annotations

from pathlib import Path

import pytest

from urunc import tables
from urunc.errors import StateError
from urunc.runtime import steps, store
from urunc.runtime.steps import Step
from urunc.runtime.store import Container
from urunc.runtime.timeline import Timeline

MS = 1_000_000
MARKS = (
    ("begin", 100 * MS),
    ("plan", 105 * MS),
    ("fork", 106 * MS),
    ("init/begin", 106 * MS),
    ("init/namespaces", 108 * MS),
    ("root", 110 * MS),
    ("init/root", 109 * MS),
    ("start/begin", 200 * MS),
    ("start/executed", 203 * MS),
)
STEPS = (
    Step(track="create", name="plan", at=0, took=5 * MS),
    Step(track="create", name="fork", at=5 * MS, took=MS),
    Step(track="init", name="namespaces", at=6 * MS, took=2 * MS),
    Step(track="create", name="root", at=6 * MS, took=4 * MS),
    Step(track="init", name="root", at=8 * MS, took=MS),
    Step(track="start", name="executed", at=100 * MS, took=3 * MS),
)


def test_each_track_is_measured_by_itself() -> None:
    assert steps.measure(MARKS) == STEPS
    assert steps.totals(STEPS) == {"create": 10 * MS, "init": 3 * MS, "start": 3 * MS}
    assert steps.measure(()) == ()


def test_the_table() -> None:
    lines = [line.split() for line in tables.steps(steps.to_data("web", STEPS)).splitlines()]
    assert lines[0] == ["WHO", "STEP", "FROM", "TOOK"]
    assert ["init", "namespaces", "6.00", "ms", "2.00", "ms"] in lines
    assert [(line[0], line[-2]) for line in lines[-3:]] == [("create", "10.00"), ("init", "3.00"), ("start", "3.00")]


def test_the_trace_is_in_the_trace_event_format() -> None:
    trace = steps.to_trace("web", STEPS)
    names = {event["args"]["name"]: event["tid"] for event in trace["traceEvents"] if event["ph"] == "M"}
    assert names == {"urunc web": 0, "create": 1, "init": 2, "start": 3}
    complete = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert len(complete) == len(STEPS)
    assert complete[2] == {
        "ph": "X",
        "name": "namespaces",
        "cat": "init",
        "pid": 1,
        "tid": 2,
        "ts": 6000.0,
        "dur": 2000.0,
    }


def test_a_container_that_is_not_created_yet_has_none(tmp_path: Path) -> None:
    base = Container(
        id="web", oci_version="1.0.2", bundle="/b", rootfs="/r", created="", guest="unikraft", monitor="qemu"
    )
    store.claim(str(tmp_path), base).release()
    with pytest.raises(StateError, match="`web` has no timeline: its creation is not over"):
        steps.of(str(tmp_path), "web")
    store.save(str(tmp_path), base.replace(timeline=MARKS))
    assert steps.of(str(tmp_path), "web") == STEPS


def test_steps_of_another_clock_are_taken_by_their_age(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [5000]
    monkeypatch.setattr("time.monotonic_ns", lambda: now[0])
    inside = Timeline("init/begin")
    now[0] += 30
    inside.done("init/root")
    now[0] += 10
    ages = inside.ages()
    assert ages == [("init/begin", 40), ("init/root", 10)]
    now[0] = 900_000
    outside = Timeline("begin", 800_000)
    outside.take([list(age) for age in ages])
    assert outside.record() == (("begin", 800_000), ("init/begin", 899_960), ("init/root", 899_990))
