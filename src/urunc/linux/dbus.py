"""D-Bus messages to and from bytes: `encode` and `decode` go by a signature, `to_bytes` and `from_bytes` by a message.

What comes in is checked as a stranger's: every length against what is there, nesting against the specification's
limits. Implements the D-Bus Specification 0.42, "Type System" and "Message Protocol". Pure: must not know
who is spoken to.
"""

from __future__ import annotations

from _struct import error as StructError  # type: ignore[attr-defined]  # noqa: N812  # it is one
from _struct import pack, unpack_from

from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4

_MOST_BYTES = 128 * 1024 * 1024  # a whole message (specification, "Message Format")
_MOST_ARRAY = 64 * 1024 * 1024
_DEEPEST = 64
_SIGNATURE_BYTES = 255

_FIXED = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d"}
_SIZES = {"y": 1, "b": 4, "n": 2, "q": 2, "i": 4, "u": 4, "x": 8, "t": 8, "d": 8}
_ALIGNMENT = {**_SIZES, "s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8}


class MalformedError(ValueError):
    """The bytes, or the signature, are not D-Bus."""


def split_signature(signature: str) -> list[str]:
    """Return the complete types of a signature: `a{sv}(us)s` is `a{sv}`, `(us)`, `s`. Raises MalformedError."""
    if len(signature) > _SIGNATURE_BYTES:
        raise MalformedError("signature longer than 255")
    found = []
    start = 0
    while start < len(signature):
        end = _type_end(signature, start, 0)
        found.append(signature[start:end])
        start = end
    return found


def _type_end(signature: str, at: int, depth: int) -> int:
    """Return where the complete type at `at` ends."""
    code = signature[at : at + 1]
    if depth > _DEEPEST or code not in _ALIGNMENT or code == "":
        raise MalformedError(f"bad signature `{signature}`")
    if code == "a":
        return _type_end(signature, at + 1, depth + 1)
    if code not in "({":
        return at + 1
    close = ")" if code == "(" else "}"
    if code == "{" and (at == 0 or signature[at - 1] != "a"):
        raise MalformedError(f"bad signature `{signature}`")
    start, count, at = at, 0, at + 1
    while signature[at : at + 1] != close:
        at = _type_end(signature, at, depth + 1)
        count += 1
    if count == 0 or (code == "{" and (count != 2 or signature[start + 1] in "av({")):
        raise MalformedError(f"bad signature `{signature}`")
    return at + 1


def encode(signature: str, values: Sequence[Any], start: int = 0) -> bytes:
    """Return values as little-endian D-Bus, aligned as from offset `start`.

    Arrays are lists or tuples (`ay` also bytes, `a{..}` also a dict), structs are tuples, variants are pairs of a
    signature and a value. Raises MalformedError where a value does not fit its type.
    """
    types = split_signature(signature)
    if len(types) != len(values):
        raise MalformedError(f"{len(values)} values for signature `{signature}`")
    out = bytearray(start)
    try:
        for kind, value in zip(types, values, strict=True):
            _put(out, kind, value)
    except MalformedError:
        raise
    except (StructError, TypeError, AttributeError, ValueError) as error:
        raise MalformedError(f"value does not fit signature `{signature}`: {error}") from None
    return bytes(out[start:])


def _pad(out: bytearray, alignment: int) -> None:
    out.extend(bytes(-len(out) % alignment))


def _put(out: bytearray, kind: str, value: Any) -> None:
    code = kind[0]
    if code in _FIXED:
        _pad(out, _ALIGNMENT[code])
        out += pack("<" + _FIXED[code], value)
    elif code in "so":
        _pad(out, 4)
        _put_text(out, "<I", value)
    elif code == "g":
        _put_text(out, "<B", value)
    elif code == "v":
        signature, inner = value
        if len(split_signature(signature)) != 1:
            raise MalformedError(f"variant of `{signature}`")
        _put_text(out, "<B", signature)
        _put(out, signature, inner)
    elif code == "a":
        _put_array(out, kind[1:], value)
    else:
        _pad(out, 8)
        types = split_signature(kind[1:-1])
        for inner_kind, inner in zip(types, value, strict=True):
            _put(out, inner_kind, inner)


def _put_text(out: bytearray, length: str, text: str) -> None:
    content = text.encode()
    if b"\0" in content:
        raise MalformedError("a string holds a NUL")
    out += pack(length, len(content)) + content + b"\0"


def _put_array(out: bytearray, kind: str, value: Any) -> None:
    _pad(out, 4)
    place = len(out)
    out += bytes(4)
    _pad(out, _ALIGNMENT[kind[0]])
    first = len(out)
    if kind == "y":
        out += bytes(value)
    else:
        for item in value.items() if isinstance(value, dict) else value:
            _put(out, kind, item)
    if len(out) - first > _MOST_ARRAY:
        raise MalformedError("array longer than 64 MiB")
    out[place : place + 4] = pack("<I", len(out) - first)


class _Reader:
    """A place in a message's bytes; `order` is < or >."""

    def __init__(self, data: bytes, order: str, at: int) -> None:
        self.data = data
        self.order = order
        self.at = at

    def align(self, alignment: int) -> None:
        end = self.at + -self.at % alignment
        if any(self.data[self.at : end]) or end > len(self.data):
            raise MalformedError("bad padding")
        self.at = end

    def number(self, code: str, size: int) -> Any:
        self.align(_ALIGNMENT[code])
        if self.at + size > len(self.data):
            raise MalformedError("cut short")
        (value,) = unpack_from(self.order + _FIXED[code], self.data, self.at)
        self.at += size
        return value

    def text(self, length: int) -> str:
        end = self.at + length
        if end + 1 > len(self.data) or self.data[end] != 0:
            raise MalformedError("string cut short")
        content = self.data[self.at : end]
        self.at = end + 1
        if 0 in content:
            raise MalformedError("a string holds a NUL")
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise MalformedError("a string is not UTF-8") from None


def decode(signature: str, data: bytes, order: str = "<", start: int = 0) -> list[Any]:
    """Return the values in `data` from `start` on. Raises MalformedError, also where bytes are left over.

    Types come back as `encode` takes them: arrays as lists (`ay` as bytes, `a{..}` as dict), structs as tuples.
    """
    reader = _Reader(data, order, start)
    values = [_get(reader, kind, 0) for kind in split_signature(signature)]
    if reader.at != len(data):
        raise MalformedError(f"{len(data) - reader.at} bytes too many")
    return values


def _get(reader: _Reader, kind: str, depth: int) -> Any:
    code = kind[0]
    if depth > _DEEPEST:
        raise MalformedError("nested too deeply")
    if code in _FIXED:
        value = reader.number(code, _SIZES[code])
        if code == "b" and value not in (0, 1):
            raise MalformedError("a boolean is neither 0 nor 1")
        return bool(value) if code == "b" else value
    if code in "so":
        return reader.text(reader.number("u", 4))
    if code == "g":
        return reader.text(reader.number("y", 1))
    if code == "v":
        signature = reader.text(reader.number("y", 1))
        if len(split_signature(signature)) != 1:
            raise MalformedError(f"variant of `{signature}`")
        return (signature, _get(reader, signature, depth + 1))
    if code == "a":
        return _get_array(reader, kind[1:], depth + 1)
    reader.align(8)
    return tuple(_get(reader, inner, depth + 1) for inner in split_signature(kind[1:-1]))


def _get_array(reader: _Reader, kind: str, depth: int) -> Any:
    length = reader.number("u", 4)
    reader.align(_ALIGNMENT[kind[0]])
    end = reader.at + length
    if length > _MOST_ARRAY or end > len(reader.data):
        raise MalformedError("array cut short")
    if kind == "y":
        content = reader.data[reader.at : end]
        reader.at = end
        return bytes(content)
    items = []
    while reader.at < end:
        items.append(_get(reader, kind, depth))
    if reader.at != end:
        raise MalformedError("an array's last item goes over its end")
    return dict(items) if kind[0] == "{" else items


class Message(Record):
    """One message. `body` holds the values of `signature`."""

    kind: int
    serial: int = 0
    path: str = ""
    interface: str = ""
    member: str = ""
    error_name: str = ""
    reply_serial: int = 0
    destination: str = ""
    signature: str = ""
    body: tuple[Any, ...] = ()


_TEXT_FIELDS = {1: ("path", "o"), 2: ("interface", "s"), 3: ("member", "s"), 4: ("error_name", "s")}
_HEADER_FIELDS = {**_TEXT_FIELDS, 5: ("reply_serial", "u"), 6: ("destination", "s"), 8: ("signature", "g")}


def to_bytes(message: Message) -> bytes:
    """Return the message as little-endian bytes."""
    body = encode(message.signature, message.body)
    fields = [
        (number, (kind, value)) for number, (name, kind) in _HEADER_FIELDS.items() if (value := message.__dict__[name])
    ]
    head = encode("yyyyuua(yv)", (ord("l"), message.kind, 0, 1, len(body), message.serial, fields))
    return head + bytes(-len(head) % 8) + body


def frame_length(head: bytes) -> int:
    """Return the length of the whole message of which `head` holds the first 16 bytes. Raises MalformedError."""
    order = _order(head)
    if head[3] != 1:
        raise MalformedError(f"protocol version {head[3]}")
    (body,) = unpack_from(order + "I", head, 4)
    (fields,) = unpack_from(order + "I", head, 12)
    length = 16 + fields + -fields % 8 + body
    if fields > _MOST_ARRAY or length > _MOST_BYTES:
        raise MalformedError("message longer than 128 MiB")
    return int(length)


def _order(head: bytes) -> str:
    try:
        return {ord("l"): "<", ord("B"): ">"}[head[0]]
    except KeyError:
        raise MalformedError("bad byte order") from None


def from_bytes(data: bytes) -> Message:
    """Return the message that the bytes are, exactly. Raises MalformedError."""
    if len(data) < 16 or frame_length(data[:16]) != len(data):
        raise MalformedError("message cut short")
    order = _order(data)
    (fields_length,) = unpack_from(order + "I", data, 12)
    kind, serial = data[1], unpack_from(order + "I", data, 8)[0]
    values: dict[str, Any] = {}
    reader = _Reader(data[: 16 + fields_length], order, 12)
    for number, (signature, value) in _get_array(reader, "(yv)", 1):
        name, expected = _HEADER_FIELDS.get(number, ("", signature))
        if signature != expected:
            raise MalformedError(f"header field {number} is of type `{signature}`")
        if name:
            values[name] = value
    start = 16 + fields_length + -fields_length % 8
    body = decode(values.get("signature", ""), data[start:], order)
    return Message(kind=kind, serial=serial, body=tuple(body), **values)
