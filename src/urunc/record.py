"""Frozen records without the start-up cost of `dataclasses` (17 ms) or `typing.NamedTuple` (12 ms).

A record is declared as a dataclass would be, and type checkers see it as one::

    class Nic(Record):
        mac: str
        mtu: int = 1500

Fields are keyword only. A default must be immutable: it is shared by every record of the class.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_):  # noqa: D103
        return lambda cls: cls


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """Base of every record: keyword-only fields, equality by value, no assignment after construction."""

    if TYPE_CHECKING:
        _fields: ClassVar[tuple[str, ...]]
        _required: ClassVar[frozenset[str]]
        _defaults: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        if "_fields" in cls.__dict__:
            return  # an installed record says so itself: see scripts/compile.py
        cls._fields = tuple(name for name in cls.__annotations__ if name[0] != "_")
        cls._defaults = {name: cls.__dict__[name] for name in cls._fields if name in cls.__dict__}
        cls._required = frozenset(cls._fields) - cls._defaults.keys()

    if not TYPE_CHECKING:

        def __init__(self, **values):
            mine = self.__dict__
            mine.update(self._defaults)
            mine.update(values)
            if len(mine) != len(self._fields) or not self._required <= values.keys():
                odd = sorted(mine.keys() ^ set(self._fields))
                raise TypeError(f"{type(self).__name__}: missing or unknown fields: {', '.join(odd)}")

        def __setattr__(self, name, value):
            raise AttributeError(f"{type(self).__name__} is frozen: cannot set {name}")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash((type(self), tuple(self.__dict__[name] for name in self._fields)))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={self.__dict__[name]!r}" for name in self._fields)
        return f"{type(self).__name__}({values})"

    def replace(self, **changes: Any) -> Self:
        """Return a copy in which the named fields have new values."""
        return type(self)(**{**self.__dict__, **changes})

    def to_data(self) -> dict[str, Any]:
        """Return the record as JSON-ready data: records become objects, tuples become lists."""
        return {name: _plain(self.__dict__[name]) for name in self._fields}


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_data()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
