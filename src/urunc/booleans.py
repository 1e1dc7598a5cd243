"""The words for true and false that Go's strconv.ParseBool takes, as the programs that call urunc write them."""

from __future__ import annotations

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def parse(text: str) -> bool | None:
    """Return what the word says, None where it is none of them."""
    return True if text in _TRUE else False if text in _FALSE else None
