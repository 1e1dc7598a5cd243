"""The annotations that become properties of the container's scope."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc.errors import SpecError
from urunc.oci import unit_properties
from urunc.oci.unit_properties import parse_variant


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("true", "b", True),
        ("boolean false", "b", False),
        ("15", "i", 15),
        ("-0x10", "i", -16),
        ("uint64 10000000", "t", 10000000),
        ("byte 255", "y", 255),
        ("1.5", "d", 1.5),
        ("'inactive-or-failed'", "s", "inactive-or-failed"),
        ('"it\'s"', "s", "it's"),
        ("'a\\'b\\\\'", "s", "a'b\\"),
        ("objectpath '/a'", "o", "/a"),
        (" ['a.service', 'b.service' ] ", "as", ["a.service", "b.service"]),
        ("[uint32 1, uint32 2]", "au", [1, 2]),
    ],
)
def test_values(text: str, kind: str, value: object) -> None:
    assert parse_variant(text) == (kind, value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "'a",
        "a",
        "[]",
        "['a'",
        "['a', 1]",
        "[['a']]",
        "uint32 -1",
        "byte 256",
        "uint64",
        "string 1",
        "1 2",
        "(1,)",
        "'\\x'",
    ],
)
def test_what_is_not_a_value(text: str) -> None:
    with pytest.raises(ValueError):  # each has its own words
        parse_variant(text)


@given(st.text(alphabet="[]'\",\\ truefalsint0163-.", max_size=30))
def test_any_text_is_a_value_or_an_error(text: str) -> None:
    try:
        parse_variant(text)
    except ValueError:
        pass


def test_only_the_prefix_counts() -> None:
    annotations = {
        "org.systemd.property.TimeoutStopUSec": "uint64 10000000",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "com.example": "uint64",
    }
    assert unit_properties.unit_properties(annotations) == (
        ("CollectMode", "s", "inactive-or-failed"),
        ("TimeoutStopUSec", "t", 10000000),
    )


def test_seconds_become_microseconds() -> None:
    for text in ("2", "uint64 2", "double 2.0"):
        found = unit_properties.unit_properties({"org.systemd.property.TimeoutStopSec": text})
        assert found == (("TimeoutStopUSec", "t", 2_000_000),)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Ab", "1"),
        ("A-b-c", "1"),
        ("After", "["),
        ("TimeoutStopSec", "'x'"),
        ("TimeoutStopSec", "-1"),
        ("TimeoutStopSec", "double inf"),
    ],
)
def test_errors_name_the_annotation(name: str, text: str) -> None:
    key = f"org.systemd.property.{name}"
    with pytest.raises(SpecError) as caught:
        unit_properties.unit_properties({key: text})
    assert caught.value.message.startswith(f"annotations.{key}: ")
