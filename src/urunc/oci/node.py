"""A cursor over decoded JSON that knows its path, so that every error can name it: `process.args[2]: want ..`.

`null` counts as absent, as for the Go programs that write these documents. A boolean is not a number, and a
number with a fraction or an exponent is not an integer. Knows nothing of what the document means.
"""

from __future__ import annotations

from ..errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INT64 = (-(2**63), 2**63 - 1)
UINT64 = (0, 2**64 - 1)
UINT32 = (0, 2**32 - 1)
UINT16 = (0, 2**16 - 1)

_KINDS: dict[Any, str] = {dict: "an object", list: "a list"}
_CONSTANTS = {None: "null", True: "true", False: "false"}
_SHOWN = 60


def plain(text: str) -> str:
    """Return `text` as an error may show it: short, and nothing that a terminal would obey."""
    safe = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: _SHOWN + 1])
    return safe if len(safe) <= _SHOWN else safe[:_SHOWN] + ".."


def show(text: str) -> str:
    """Return `text` as an error may show it, in backquotes."""
    return f"`{plain(text)}`"


def describe(value: Any) -> str:
    """Return what a JSON value is, for an error: `an object`, `5`, the string in backquotes."""
    if isinstance(value, str):
        return show(value)
    if value is None or isinstance(value, bool):
        return _CONSTANTS[value]
    return _KINDS.get(type(value)) or str(value)[:_SHOWN]


def clean_path(path: str) -> str:
    """Return the path from `/`, without `.`, `..` and doubled slashes; `..` never leads above `/`."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


class Node:
    """A value of the document and its JSON path. Every method raises SpecError, which starts with the path."""

    __slots__ = ("path", "value")

    def __init__(self, value: Any, path: str = "") -> None:
        self.value = value
        self.path = path

    def fail(self, what: str) -> SpecError:
        """Return the error that says `what` is wrong here; the caller raises it."""
        return SpecError(f"{self.path or 'config.json'}: {what}")

    def unwanted(self, want: str) -> SpecError:
        """Return the error for a value that is not what is wanted."""
        return self.fail(f"want {want}, got {describe(self.value)}")

    def key(self, name: str) -> Node | None:
        """Return the property, None where it is absent or null."""
        value = self.members().get(name)
        return None if value is None else self._child(value, name)

    def need(self, name: str) -> Node:
        """Return the property that must be there."""
        node = self.key(name)
        if node is None:
            raise self._child(None, name).fail("missing")
        return node

    def section(self, name: str) -> Node:
        """Return the property as an object; an empty one where it is absent."""
        node = self.key(name) or self._child({}, name)
        node.members()
        return node

    def items(self, name: str) -> list[Node]:
        """Return the elements of the list `name`; none where it is absent."""
        node = self.key(name)
        if node is None:
            return []
        if type(node.value) is not list:
            raise node.unwanted("a list")
        return [Node(value, f"{node.path}[{index}]") for index, value in enumerate(node.value)]

    def entries(self, name: str) -> list[tuple[str, Node]]:
        """Return the properties of the object `name`, whose keys are not known beforehand: `as_text` must take them."""
        node = self.section(name)
        for key in node.members():
            node._child(key, plain(key)).as_text()
        return [(key, node._child(value, plain(key))) for key, value in node.members().items()]

    def text(self, name: str, default: str = "") -> str:
        """Return the string `name`, or the default."""
        node = self.key(name)
        return default if node is None else node.as_text()

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the list of strings `name`; empty where it is absent."""
        return tuple(item.as_text() for item in self.items(name))

    def word(self, name: str, known: tuple[str, ...], default: str = "") -> str:
        """Return the string `name`, which must be one of `known` where it is given and not empty."""
        node = self.key(name)
        value = default if node is None else node.as_text() or default
        if node is not None and value != default and value not in known:
            raise node.fail(f"unknown value {show(value)}, want one of {', '.join(known)}")
        return value

    def flag(self, name: str) -> bool:
        """Return the boolean `name`, False where it is absent."""
        node = self.key(name)
        if node is None:
            return False
        if type(node.value) is not bool:
            raise node.unwanted("a boolean")
        return node.value

    def number(self, name: str, limits: tuple[int, int] = INT64) -> int | None:
        """Return the integer `name` within `limits` (both included), None where it is absent."""
        node = self.key(name)
        return None if node is None else node.as_number(limits)

    def as_text(self) -> str:
        """Return the value as a string that the kernel can take: without NUL, and encodable."""
        value = self.value
        if type(value) is not str:
            raise self.unwanted("a string")
        if "\0" in value:
            raise self.fail("holds a NUL character")
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise self.fail("holds half of a surrogate pair")
        return value

    def as_path(self) -> str:
        """Return the value as an absolute path."""
        path = self.as_text()
        if not path.startswith("/"):
            raise self.fail(f"want an absolute path, got {show(path)}")
        return path

    def as_number(self, limits: tuple[int, int] = INT64) -> int:
        """Return the value as an integer within `limits`, both included."""
        value = self.value
        if type(value) is not int:
            raise self.unwanted("an integer")
        low, high = limits
        if not low <= value <= high:
            raise self.unwanted(f"an integer from {low} to {high}")
        return value

    def members(self) -> dict[str, Any]:
        """Return the value as an object."""
        if type(self.value) is not dict:
            raise self.unwanted("an object")
        return self.value

    def _child(self, value: Any, name: str) -> Node:
        return Node(value, f"{self.path}.{name}" if self.path else name)
