"""The words for true and false."""

from __future__ import annotations

import pytest

from urunc import booleans


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("T", True), ("1", True), ("False", False), ("f", False), ("0", False)],
)
def test_what_go_takes(text: str, value: bool) -> None:
    assert booleans.parse(text) is value


@pytest.mark.parametrize("text", ["", "yes", "tRUE", "2", " true", "on"])
def test_what_it_does_not(text: str) -> None:
    assert booleans.parse(text) is None
