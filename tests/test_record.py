"""Records: what dataclasses would do, without their cost."""

from __future__ import annotations

from typing import Any

import pytest

from urunc.record import Record


class Point(Record):
    x: int
    y: int = 0
    _hidden: int = 5


class Line(Record):
    ends: tuple[Point, ...] = ()
    label: str | None = None
    extra: dict[str, Any] = {}


def test_fields_and_defaults() -> None:
    point = Point(x=1)
    assert (point.x, point.y) == (1, 0)
    assert Point._fields == ("x", "y")


@pytest.mark.parametrize("values", [{}, {"y": 1}, {"x": 1, "z": 2}, {"x": 1, "_hidden": 2}])
def test_missing_and_unknown_fields(values: dict[str, int]) -> None:
    with pytest.raises(TypeError, match="Point: missing or unknown fields: "):
        Point(**values)


def test_positional_values_are_refused() -> None:
    with pytest.raises(TypeError):
        Point(1)  # type: ignore[call-arg, misc]


def test_frozen() -> None:
    point = Point(x=1)
    with pytest.raises(AttributeError, match="Point is frozen"):
        point.x = 2  # type: ignore[misc]


def test_equal_by_value_and_type() -> None:
    class Other(Record):
        x: int
        y: int = 0

    assert Point(x=1) == Point(x=1, y=0)
    assert Point(x=1) != Point(x=2)
    assert Point(x=1) != Other(x=1)
    assert len({Point(x=1), Point(x=1), Point(x=2)}) == 2


def test_repr() -> None:
    assert repr(Point(x=1)) == "Point(x=1, y=0)"


def test_replace() -> None:
    point = Point(x=1, y=2)
    assert point.replace(y=3) == Point(x=1, y=3)
    assert point.y == 2
    with pytest.raises(TypeError):
        point.replace(z=1)


def test_to_data() -> None:
    line = Line(ends=(Point(x=1), Point(x=2)), extra={"a": (Point(x=3),)})
    assert line.to_data() == {
        "ends": [{"x": 1, "y": 0}, {"x": 2, "y": 0}],
        "label": None,
        "extra": {"a": [{"x": 3, "y": 0}]},
    }
