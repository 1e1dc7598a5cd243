"""The wire format against Google's protobuf, both ways, and against hostile bytes."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from shim.googles import Pool, fill, plain, values_of
from urunc.shim.wire import Table, WireError, decode, encode

INNER = Table("test.Inner", (1, "name", "string"), (2, "count", "int64"))
EVERY = Table(
    "test.Every",
    (1, "u32", "uint32"),
    (2, "u64", "uint64"),
    (3, "i32", "int32"),
    (4, "i64", "int64"),
    (5, "flag", "bool"),
    (6, "kind", "enum"),
    (7, "text", "string"),
    (8, "data", "bytes"),
    (9, "inner", "message", INNER),
    (10, "texts", "string", "repeated"),
    (11, "numbers", "uint64", "repeated"),
    (12, "inners", "message", "repeated", INNER),
    (13, "labels", "map"),
    (2000, "far", "uint32"),
)
NEWER = Table(
    "test.Newer", *((f.number, f.name, f.kind) for f in INNER.fields), (3, "added", "bytes"), (90, "n", "int32")
)
GOOGLE = Pool()
GoogleEvery = GOOGLE.message_class(EVERY)
GoogleInner = GOOGLE.message_class(INNER)


@given(values_of(EVERY))
def test_google_reads_what_we_write(values: dict[str, object]) -> None:
    message = GoogleEvery()
    message.ParseFromString(encode(EVERY, values))
    assert plain(message, EVERY) == values


@given(values_of(EVERY))
def test_we_read_what_google_writes(values: dict[str, object]) -> None:
    assert decode(EVERY, fill(GoogleEvery(), EVERY, values).SerializeToString()) == values


@given(values_of(EVERY), values_of(EVERY))
def test_a_message_in_two_pieces_is_merged_as_google_merges(
    first: dict[str, object], second: dict[str, object]
) -> None:
    data = encode(EVERY, first) + encode(EVERY, second)
    message = GoogleEvery()
    message.ParseFromString(data)
    assert decode(EVERY, data) == plain(message, EVERY)


@given(values_of(NEWER))
def test_unknown_fields_are_skipped(values: dict[str, object]) -> None:
    known = {name: values[name] for name in ("name", "count")}
    assert decode(INNER, encode(NEWER, values)) == known


def agrees_with_google(data: bytes) -> None:
    """What we accept, Google accepts, and reads the same; what we refuse we refuse in one way.

    But for a map: an entry with an unknown field in it is one more entry to us, and an unknown field to Google.
    """
    try:
        ours = decode(EVERY, data)
    except WireError:
        return
    message = GoogleEvery()
    message.ParseFromString(data)
    theirs = plain(message, EVERY)
    assert ours.pop("labels").keys() >= theirs.pop("labels").keys()
    assert ours == theirs


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_arbitrary_bytes(data: bytes) -> None:
    agrees_with_google(data)


@given(values_of(EVERY), st.data())
@settings(max_examples=300)
def test_a_message_cut_or_changed(values: dict[str, object], data: st.DataObject) -> None:
    whole = bytearray(encode(EVERY, values))
    end = data.draw(st.integers(0, len(whole)))
    agrees_with_google(bytes(whole[:end]))
    for _ in range(data.draw(st.integers(0, 3)) if whole else 0):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    agrees_with_google(bytes(whole))


@pytest.mark.parametrize(
    "data",
    [
        b"\x08",  # a tag alone
        b"\x08\xff",  # a truncated varint
        b"\x08" + b"\xff" * 10 + b"\x01",  # eleven bytes
        b"\x08" + b"\xff" * 9 + b"\x02",  # 65 bits
        b"\x3a\x05ab",  # a string longer than the message
        b"\x3a\xff\xff\xff\xff\x0f",  # 4 GiB
        b"\x3a" + b"\xff" * 9 + b"\x01",  # 16 EiB
        b"\x3a\x01\xff",  # not UTF-8
        b"\x0a\x01a",  # a string where a number belongs
        b"\x38\x01",  # a number where a string belongs
        b"\x0d\x00\x00\x00\x00",  # fixed32 where a varint belongs
        b"\x00\x00",  # field number 0
        b"\x0f",  # wire type 7
        b"\xa3\x06",  # a group that does not end
        b"\xa3\x06\xac\x06",  # a group that ends with another's number
        b"\xa4\x06",  # the end of no group
        b"\xa3\x06" * 200,  # groups in groups
        b"\xa1\x06\x00",  # a truncated fixed64
        b"\x5a\x01\xff",  # a truncated varint in a packed list
        b"\x4a\x02\x0a\x05",  # a truncated message in a message
        b"\x6a\x02\x0a\x05",  # a truncated map entry
    ],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(WireError):
        decode(EVERY, data)


@pytest.mark.parametrize("data", [b"\x08", b"\x3a\x05ab", b"\x3a\x01\xff", b"\xa3\x06"])
def test_google_refuses_it_too(data: bytes) -> None:
    with pytest.raises(DecodeError):
        GoogleEvery().ParseFromString(data)


def test_what_is_skipped_may_be_of_every_wire_type() -> None:
    unknown = b"\xa0\x06\x05\xa1\x0612345678\xa2\x06\x02ab\xa3\x06\x0a\x01x\x13\x14\xa4\x06\xa5\x061234"
    assert decode(INNER, unknown + b"\x0a\x02ok")["name"] == "ok"


def test_numbers_in_a_list_may_come_unpacked() -> None:
    assert decode(EVERY, b"\x58\x01\x5a\x02\x02\x03\x58\x04")["numbers"] == [1, 2, 3, 4]


def test_a_large_list_takes_time_in_proportion() -> None:
    texts = ["x"] * 200_000
    assert decode(EVERY, encode(EVERY, {"texts": texts}))["texts"] == texts


@pytest.mark.parametrize(
    "values",
    [
        {"u32": -1},
        {"u32": 1 << 32},
        {"i32": 1 << 31},
        {"i64": -(1 << 63) - 1},
        {"u32": "1"},
        {"text": b"x"},
        {"text": "\udcff"},
        {"data": "x"},
        {"data": 5},
        {"inner": {"name": 5}},
        {"labels": {"a": 1}},
        {"unheard_of": 1},
    ],
)
def test_values_that_do_not_fit(values: dict[str, object]) -> None:
    with pytest.raises(WireError):
        encode(EVERY, values)


def test_two_messages_share_nothing() -> None:
    first = EVERY.new()
    first["texts"].append("x")
    first["labels"]["a"] = "b"
    assert EVERY.new()["texts"] == []
    assert EVERY.new()["labels"] == {}
