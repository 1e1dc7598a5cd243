"""The D-Bus codec against bytes worked out by hand, round trips, and bytes that are no D-Bus."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc.linux import dbus
from urunc.linux.dbus import MalformedError, Message


@pytest.mark.parametrize(
    ("signature", "values", "expected"),
    [
        ("y", [7], "07"),
        ("yu", [1, 2], "01000000 02000000"),
        ("b", [True], "01000000"),
        ("s", ["foo"], "03000000 666f6f00"),
        ("g", ["a{sv}"], "05 617b73767d 00"),
        ("as", [["a", "bc"]], "0f000000 01000000 61000000 02000000 626300"),
        ("at", [[]], "00000000 00000000"),
        ("at", [[5]], "08000000 00000000 0500000000000000"),
        ("v", [("u", 1)], "017500 00 01000000"),
        ("(yt)", [(1, 2)], "0100000000000000 0200000000000000"),
        ("ay", [b"\1\2"], "02000000 0102"),
        ("a{yu}", [{1: 2}], "08000000 00000000 01000000 02000000"),
        ("x", [-1], "ffffffffffffffff"),
    ],
)
def test_values_by_hand(signature: str, values: list[Any], expected: str) -> None:
    data = bytes.fromhex(expected)
    assert dbus.encode(signature, values) == data
    assert dbus.decode(signature, data) == values


def test_big_endian_is_read() -> None:
    assert dbus.decode("us", bytes.fromhex("00000005 00000001 6100"), ">") == [5, "a"]


@pytest.mark.parametrize(
    "signature",
    ["a", "(", "()", "(s", "a{s}", "a{sss}", "{su}", "a{vs}", "a{(s)s}", "z", ")", "a" * 70 + "s", "s" * 256],
)
def test_bad_signatures(signature: str) -> None:
    with pytest.raises(MalformedError):
        dbus.split_signature(signature)


@pytest.mark.parametrize(
    ("signature", "value"),
    [("u", -1), ("u", 2**32), ("s", 5), ("s", "a\0b"), ("y", "a"), ("v", ("uu", 1)), ("(su)", ("a",)), ("as", 5)],
)
def test_values_that_do_not_fit(signature: str, value: object) -> None:
    with pytest.raises(MalformedError):
        dbus.encode(signature, [value])


@pytest.mark.parametrize(
    ("signature", "data"),
    [
        ("s", "ffffffff 6100"),  # longer than what is there
        ("s", "01000000 6161"),  # not ended
        ("s", "01000000 ff00"),  # not UTF-8
        ("s", "02000000 610000"),  # NUL inside
        ("as", "f0ffffff"),  # an array over the end
        ("at", "04000000 00000000 00000000"),  # an item over the array's end
        ("b", "02000000"),
        ("yu", "01 ff 00 00 01000000"),  # padding that is not zero
        ("v", "0275 7500 00000000"),  # a variant of two types
        ("u", "0100"),
        ("u", "01000000 00"),  # a byte too many
    ],
)
def test_hostile_bytes(signature: str, data: str) -> None:
    with pytest.raises(MalformedError):
        dbus.decode(signature, bytes.fromhex(data))


def test_nested_variants_have_a_bottom() -> None:
    with pytest.raises(MalformedError, match="deep"):
        dbus.decode("v", b"\x01v\x00" * 500 + b"\x01y\x00\x00")


text = st.text(alphabet="ab /.\u00e9\u20ac\U0001f600", max_size=8)
leaves: dict[str, st.SearchStrategy[Any]] = {
    "y": st.integers(0, 255),
    "b": st.booleans(),
    "n": st.integers(-(2**15), 2**15 - 1),
    "q": st.integers(0, 2**16 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "u": st.integers(0, 2**32 - 1),
    "x": st.integers(-(2**63), 2**63 - 1),
    "t": st.integers(0, 2**64 - 1),
    "d": st.floats(allow_nan=False),
    "s": text,
    "o": text,
    "g": st.sampled_from(["", "s", "a{sv}", "(ii)"]),
    "ay": st.binary(max_size=9),
}


@st.composite
def typed_values(draw: st.DrawFn, depth: int = 3) -> tuple[str, Any]:
    """Draw a complete type and a value of it."""
    shape = draw(st.sampled_from(["leaf", "array", "struct", "dict", "variant"])) if depth else "leaf"
    if shape == "leaf":
        kind = draw(st.sampled_from(sorted(leaves)))
        return kind, draw(leaves[kind])
    if shape == "variant":
        return "v", draw(typed_values(depth - 1))
    if shape == "struct":
        parts = draw(st.lists(typed_values(depth - 1), min_size=1, max_size=3))
        return "(" + "".join(kind for kind, _ in parts) + ")", tuple(value for _, value in parts)
    kind, value = draw(typed_values(depth - 1).filter(lambda pair: pair[0] != "y"))
    if shape == "array":
        return "a" + kind, draw(st.sampled_from([[], [value], [value, value]]))
    return f"a{{s{kind}}}", dict.fromkeys(draw(st.lists(text, max_size=2, unique=True)), value)


@given(st.lists(typed_values(), max_size=3), st.integers(0, 9))
def test_round_trips(pairs: list[tuple[str, Any]], start: int) -> None:
    signature, values = "".join(kind for kind, _ in pairs), [value for _, value in pairs]
    if len(signature) > 255:
        return
    data = dbus.encode(signature, values, start)
    assert dbus.decode(signature, bytes(start) + data, start=start) == values


@given(st.binary(max_size=200), st.sampled_from(["a(yv)", "v", "a{sv}", "ssa(sv)a(sa(sv))", "aas"]))
def test_any_bytes_are_a_value_or_malformed(data: bytes, signature: str) -> None:
    try:
        dbus.decode(signature, data)
    except MalformedError:
        pass


@given(st.binary(max_size=120))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    for head in (b"", b"l\x02\x00\x01"):
        try:
            dbus.from_bytes(head + data)
        except MalformedError:
            pass


@given(st.data())
def test_a_broken_message_is_a_message_or_malformed(data: st.DataObject) -> None:
    good = bytearray(
        dbus.to_bytes(Message(kind=1, serial=9, path="/a", member="M", signature="sa(sv)", body=("x", [])))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        dbus.from_bytes(bytes(good))
    except MalformedError:
        pass


def test_a_message_round_trips() -> None:
    message = Message(
        kind=dbus.METHOD_CALL,
        serial=3,
        path="/org/x",
        interface="org.x.Y",
        member="Do",
        destination="org.x",
        signature="su",
        body=("hello", 7),
    )
    data = dbus.to_bytes(message)
    assert dbus.frame_length(data[:16]) == len(data)
    assert dbus.from_bytes(data) == message


def test_a_length_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(MalformedError):
        dbus.frame_length(bytes.fromhex("6c020001 ffffffff 01000000 00000000"))
    with pytest.raises(MalformedError):
        dbus.frame_length(bytes.fromhex("6c020002 00000000 01000000 00000000"))
    with pytest.raises(MalformedError):
        dbus.frame_length(bytes.fromhex("41020001 00000000 01000000 00000000"))
