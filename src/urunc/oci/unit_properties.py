"""Annotations `org.systemd.property.<Name>`: properties that an engine wants the container's scope to have.

CRI-O and Podman use them (TimeoutStopUSec, CollectMode, KillSignal, After), runc defines them
(docs/systemd-properties.md): the value is GVariant text, such as `uint64 10000000`, `'inactive'`, `true` or
`['a.service']`. What is read here is that text without tuples, dictionaries and nested variants, which no property
of a scope has.
"""

from __future__ import annotations

from ..errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .scope import Property

PREFIX = "org.systemd.property."

_KEYWORDS = {
    "boolean": "b",
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
    "double": "d",
    "string": "s",
    "objectpath": "o",
}
_RANGES = {
    "y": (0, 2**8 - 1),
    "n": (-(2**15), 2**15 - 1),
    "q": (0, 2**16 - 1),
    "i": (-(2**31), 2**31 - 1),
    "u": (0, 2**32 - 1),
    "x": (-(2**63), 2**63 - 1),
    "t": (0, 2**64 - 1),
}
_ESCAPES = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "t": "\t"}


def unit_properties(annotations: dict[str, str]) -> tuple[Property, ...]:
    """Return the properties that the annotations ask for, by name. Raises SpecError naming the annotation."""
    found = []
    for key in sorted(annotations):
        if key.startswith(PREFIX):
            try:
                found.append(_property(key.removeprefix(PREFIX), annotations[key]))
            except (ValueError, OverflowError) as error:
                raise SpecError(f"annotations.{key}: `{annotations[key]}`: {error}") from None
    return tuple(found)


def _property(name: str, text: str) -> Property:
    if len(name) < 3 or not (name.isascii() and name.isalpha()):
        raise ValueError("not a property's name")
    kind, value = parse_variant(text)
    stem = name.removesuffix("Sec")
    if stem != name and stem[-1:].islower():
        # Documented in seconds (TimeoutStopSec), told to systemd in microseconds.
        if kind not in (*_RANGES, "d"):
            raise ValueError("not a number of seconds")
        return (f"{stem}USec", "t", _within("t", int(float(str(value)) * 1_000_000)))
    return (name, kind, value)


def parse_variant(text: str) -> tuple[str, object]:
    """Return the D-Bus signature and the value of GVariant text. Raises ValueError."""
    kind, value, rest = _value(text.strip())
    if rest.strip():
        raise ValueError("more than one value")
    return kind, value


def _value(text: str) -> tuple[str, object, str]:
    """Return signature, value and the text behind it."""
    if text[:1] in ("'", '"'):
        value, rest = _string(text)
        return "s", value, rest
    if text[:1] == "[":
        return _array(text[1:].lstrip())
    word, rest = _word(text)
    if word in ("true", "false"):
        return "b", word == "true", rest
    if word in _KEYWORDS:
        return _typed(_KEYWORDS[word], rest.lstrip())
    return _number(word, rest)


def _word(text: str) -> tuple[str, str]:
    end = next((at for at, char in enumerate(text) if char in " ,]\t"), len(text))
    return text[:end], text[end:]


def _string(text: str) -> tuple[str, str]:
    quote, out, at = text[0], "", 1
    while at < len(text) and text[at] != quote:
        if text[at] == "\\":
            at += 1
            if text[at : at + 1] not in _ESCAPES:
                raise ValueError("unknown escape")
            out += _ESCAPES[text[at]]
        elif text[at] == "\0":
            raise ValueError("a NUL in a string")
        else:
            out += text[at]
        at += 1
    if at >= len(text):
        raise ValueError("a string without its end")
    return out, text[at + 1 :]


def _array(text: str) -> tuple[str, object, str]:
    kinds, items = set(), []
    while True:
        kind, value, rest = _value(text)
        kinds.add(kind)
        items.append(value)
        rest = rest.lstrip()
        if rest[:1] == "]":
            break
        if rest[:1] != ",":
            raise ValueError("an array without its end")
        text = rest[1:].lstrip()
    if len(kinds) != 1 or kind.startswith("a"):
        raise ValueError("an array of more than one type")
    return f"a{kind}", items, rest[1:]


def _typed(kind: str, text: str) -> tuple[str, object, str]:
    """Return the value behind a type's keyword, as that type."""
    if kind in "so":
        if text[:1] not in ("'", '"'):
            raise ValueError("not a string")
        return (kind, *_string(text))
    word, rest = _word(text)
    if kind == "b":
        if word not in ("true", "false"):
            raise ValueError("not a boolean")
        return "b", word == "true", rest
    return kind, float(word) if kind == "d" else _within(kind, int(word, 0)), rest


def _number(word: str, rest: str) -> tuple[str, object, str]:
    try:
        return "i", _within("i", int(word, 0)), rest
    except ValueError:
        if "." not in word:
            raise ValueError("not a value") from None
        return "d", float(word), rest


def _within(kind: str, number: int) -> int:
    least, most = _RANGES[kind]
    if not least <= number <= most:
        raise ValueError("out of range")
    return number
