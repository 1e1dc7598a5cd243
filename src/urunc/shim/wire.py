"""Protobuf's wire format by tables, because Google's library costs 38 ms to import and this 0.5.

A message is a `Table` of fields; values are plain dicts, keyed by field name. It knows no message of its
own (those are in `messages`) and keeps no unknown fields. Implements the encoding page of protobuf's
documentation for proto3: fields without presence, open enums, packed and unpacked lists, maps, merging of a
message that arrives in pieces; groups are skipped.

What comes in is hostile: anything malformed raises WireError, and nothing else. Two rules are stricter than
Google's: a known field with another wire type is an error (theirs is an unknown field), and so is a varint
that does not fit its 64 bits. Tables are finite and groups are skipped without recursion, so no input nests deeply.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Values = dict[str, Any]

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)
_WIRE_TYPES = {"string": BYTES, "bytes": BYTES, "message": BYTES, "map": BYTES}
_MAX_GROUPS = 100
_U64 = (1 << 64) - 1


class WireError(ValueError):
    """The bytes are not a message, or the values do not fit the table."""


class Table:
    """One message: its full name and its fields, each `(number, name, kind[, label][, table])`.

    `kind` is protobuf's: uint32, uint64, int32, int64, bool, enum, string, bytes, message (with its
    table), or map (from string to string). `label` "repeated" makes a list; numbers in it are written packed.
    """

    __slots__ = ("_given", "by_tag", "fields", "name", "scalars", "shared")
    by_tag: dict[int, _Field]
    fields: tuple[_Field, ...]
    scalars: Values
    shared: list[tuple[str, Callable[[], Any]]]

    def __init__(self, name: str, *fields: tuple[Any, ...]) -> None:
        self.name, self._given = name, fields

    def __getattr__(self, name: str) -> Any:
        """Take the fields apart when they are first wanted: most messages are not, in the life of a shim."""
        if name not in Table.__slots__:
            raise AttributeError(name)
        self._take_apart()
        return getattr(self, name)

    def _take_apart(self) -> None:
        self.fields = tuple(_Field(*field) for field in sorted(self._given))
        self.by_tag, self.shared, self.scalars = {}, [], {}
        for field in self.fields:
            self.by_tag[field.tag] = field
            if field.packed:
                self.by_tag[field.number << 3 | BYTES] = field
            if field.label or field.kind == "map":
                self.shared.append((field.name, dict if field.kind == "map" else list))
            self.scalars[field.name] = None if field.label else _DEFAULTS[field.kind]

    def new(self) -> Values:
        """Return the message with no field set: zeros, empty strings, lists and maps; None for a message."""
        values = self.scalars.copy()
        for name, factory in self.shared:
            values[name] = factory()
        return values


class _Field:
    __slots__ = ("decode", "encode", "kind", "label", "name", "number", "packed", "table", "tag")

    def __init__(self, number: int, name: str, kind: str, *more: Any) -> None:
        self.number, self.name, self.kind = number, name, kind
        self.label = "repeated" if "repeated" in more else ""
        self.table: Table | None = more[-1] if kind == "message" else None
        wire_type = _WIRE_TYPES.get(kind, VARINT)
        self.tag = number << 3 | wire_type
        self.packed = bool(self.label) and wire_type != BYTES
        self.decode = _DECODERS[kind]
        self.encode = _ENCODERS[kind]


def decode(table: Table, data: bytes) -> Values:
    """Return the fields of `data`, defaults where absent. Raises WireError on malformed input."""
    values = table.new()
    try:
        _merge(table, values, data)
    except IndexError:
        raise WireError(f"{table.name}: truncated") from None
    except UnicodeDecodeError:
        raise WireError(f"{table.name}: a string is not UTF-8") from None
    return values


def encode(table: Table, values: Values) -> bytes:
    """Return the message of `values`, absent and default ones left out. Raises WireError where one does not fit."""
    out = bytearray()
    _write(table, values, out)
    return bytes(out)


def _merge(table: Table, values: Values, data: bytes) -> None:
    by_tag = table.by_tag
    at, end = 0, len(data)
    while at < end:
        tag = data[at]
        at += 1
        if tag > 0x7F:
            tag, at = _varint(data, at - 1)
        field = by_tag.get(tag)
        if field is None:
            _check_unknown(table, tag)
            at = _skip(data, at, tag)
            continue
        raw, at = _value(data, at, tag & 7)
        _store(field, values, raw, tag & 7)


def _store(field: _Field, values: Values, raw: Any, wire_type: int) -> None:
    name = field.name
    if field.table is not None:
        _store_message(field, field.table, values, raw)
    elif field.kind == "map":
        entry = decode(_ENTRY, raw)
        values[name][entry["key"]] = entry["value"]
    elif not field.label:
        values[name] = field.decode(raw)
    elif field.packed and wire_type == BYTES:
        values[name].extend(map(field.decode, _unpack(raw, field.tag & 7)))
    else:
        values[name].append(field.decode(raw))


def _store_message(field: _Field, table: Table, values: Values, raw: bytes) -> None:
    if field.label:
        values[field.name].append(decode(table, raw))
        return
    if values[field.name] is None:
        values[field.name] = table.new()
    _merge(table, values[field.name], raw)


def _value(data: bytes, at: int, wire_type: int) -> tuple[Any, int]:
    if wire_type == VARINT:
        return _varint(data, at)
    size = 8 if wire_type == FIXED64 else 4
    if wire_type == BYTES:
        size, at = _varint(data, at)
    end = at + size
    if end > len(data):
        raise IndexError
    return data[at:end], end


def _unpack(data: bytes, wire_type: int) -> list[Any]:
    found = []
    at = 0
    while at < len(data):
        value, at = _value(data, at, wire_type)
        found.append(value)
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint at `at` and the index after it. Raises IndexError where the data ends inside."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise WireError("a varint is longer than ten bytes")
    if value > _U64:
        raise WireError("a varint is larger than 64 bits")
    return value, at


def _check_unknown(table: Table, tag: int) -> None:
    number = tag >> 3
    if not 0 < number < 1 << 29:
        raise WireError(f"{table.name}: bad field number {number}")
    for field in table.fields:
        if field.number == number:
            raise WireError(f"{table.name}: {field.name} has wire type {tag & 7}")


def _skip(data: bytes, at: int, tag: int) -> int:
    """Return the index after the unknown field whose tag was read. A group ends with its own number."""
    groups: list[int] = []
    while True:
        number, wire_type = tag >> 3, tag & 7
        if wire_type == GROUP:
            groups.append(number)
            if len(groups) > _MAX_GROUPS:
                raise WireError("groups are nested too deeply")
        elif wire_type == END_GROUP:
            if not groups or groups.pop() != number:
                raise WireError("a group ends that did not start")
        elif wire_type > FIXED32:
            raise WireError(f"unknown wire type {wire_type}")
        else:
            _, at = _value(data, at, wire_type)
        if not groups:
            return at
        tag, at = _varint(data, at)
        if not 0 < tag >> 3 < 1 << 29:
            raise WireError(f"bad field number {tag >> 3}")


def _write(table: Table, values: Values, out: bytearray) -> None:
    written = 0
    for field in table.fields:
        if field.name not in values:
            continue
        written += 1
        value = values[field.name]
        if value is None or (value == table.scalars[field.name] and field.kind != "message"):
            continue
        if field.packed:
            _write_packed(field, value, out)
        elif field.label:
            for item in value:
                _write_one(field, item, out)
        elif field.kind == "map":
            for key, item in value.items():
                _write_one(field, {"key": key, "value": item}, out)
        else:
            _write_one(field, value, out)
    if written != len(values):
        unknown = values.keys() - table.scalars.keys()
        raise WireError(f"{table.name} has no field {', '.join(sorted(unknown))}")


def _write_one(field: _Field, value: Any, out: bytearray) -> None:
    _write_varint(field.tag, out)
    _write_value(field, value, out)


def _write_packed(field: _Field, items: list[Any], out: bytearray) -> None:
    if not items:
        return
    content = bytearray()
    for item in items:
        _write_value(field, item, content)
    _write_varint(field.number << 3 | BYTES, out)
    _write_varint(len(content), out)
    out += content


def _write_value(field: _Field, value: Any, out: bytearray) -> None:
    try:
        raw: Any = encode(field.table, value) if field.table is not None else field.encode(value)
    except (TypeError, AttributeError, UnicodeEncodeError) as error:
        raise WireError(f"{field.name} cannot be written as {field.kind}: {error}") from None
    wire_type = field.tag & 7
    if wire_type == VARINT:
        _write_varint(raw, out)
        return
    if wire_type == BYTES:
        _write_varint(len(raw), out)
    out += raw


def _write_varint(value: int, out: bytearray) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _signed(bits: int) -> Callable[[int], int]:
    top, mask = 1 << bits - 1, (1 << bits) - 1
    return lambda raw: ((raw & mask) ^ top) - top


def _within(low: int, high: int) -> Callable[[int], int]:
    def check(value: int) -> int:
        if not low <= value <= high:
            raise WireError(f"{value} is out of range")
        return value & _U64

    return check


def _identity(raw: Any) -> Any:
    return raw


_int32 = _within(-(1 << 31), (1 << 31) - 1)
_DEFAULTS: dict[str, Any] = {
    "uint32": 0,
    "uint64": 0,
    "int32": 0,
    "int64": 0,
    "enum": 0,
    "bool": False,
    "string": "",
    "bytes": b"",
    "message": None,
    "map": None,
}
_DECODERS: dict[str, Callable[[Any], Any]] = {
    "uint32": lambda raw: raw & 0xFFFFFFFF,
    "uint64": _identity,
    "int32": _signed(32),
    "int64": _signed(64),
    "enum": _signed(32),
    "bool": bool,
    "string": lambda raw: raw.decode(),
    "bytes": _identity,
    "message": _identity,
    "map": _identity,
}
_ENCODERS: dict[str, Callable[[Any], Any]] = {
    "uint32": _within(0, (1 << 32) - 1),
    "uint64": _within(0, _U64),
    "int32": _int32,
    "int64": _within(-(1 << 63), (1 << 63) - 1),
    "enum": _int32,
    "bool": bool,
    "string": lambda value: value.encode(),
    "bytes": lambda value: b"".join((value,)),
    "message": _identity,
    "map": lambda value: encode(_ENTRY, value),
}
_ENTRY: Table = Table("map entry", (1, "key", "string"), (2, "value", "string"))
