"""From a decoded TOML document to a Config: which tables and keys there are, and what each may hold.

Not part of `config` because the result is cached: most verbs need no more than the records.
"""

from __future__ import annotations

import _socket

from ..errors import ConfigError
from .config import Config, MonitorConfig
from .node import describe, plain, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, TypeAlias

    Check: TypeAlias = Callable[[Any], str | None]
    """Returns what is wrong with a value, None where nothing is."""

MAX_MIB = 1024 * 1024
"""A default size beyond a TiB is a slip of units."""

GO_MONITORS = ("qemu", "firecracker", "hvt", "spt", "cloud-hypervisor")
"""Tables that a file of the Go urunc may hold, whether or not there is such a monitor here."""


def read_config(data: dict[str, Any], file: str, monitors: Collection[str], text: str) -> Config:
    """Return the Config of a decoded TOML document: see `config.from_toml`. Raises ConfigError."""
    reader = _Reader(file, text)
    fields: dict[str, Any] = {}
    for table, content in data.items():
        if table == "monitors":
            fields["monitors"] = _monitors(reader, content, monitors)
        elif table == "extra_binaries":
            fields |= _extra_binaries(reader, content)
        elif table in TABLES:
            fields |= reader.fields(table, content, TABLES[table])
        else:
            raise reader.error(table, "", f"unknown table, want one of {', '.join((*TABLES, *_NESTED))}")
    return Config(**fields)


class _Reader:
    """Says where a mistake is: file, line, key."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text

    def error(self, table: str, key: str, what: str) -> ConfigError:
        line = find_line(self.text, table, key)
        where = f"{self.file}:{line}" if line else self.file
        name = f"{plain(table)}.{plain(key)}" if key else f"[{plain(table)}]"
        return ConfigError(f"{where}: {name}: {what}")

    def table(self, name: str, content: Any) -> dict[str, Any]:
        if type(content) is not dict:
            raise self.error(name, "", f"want a table, got {describe(content)}")
        return content

    def fields(self, table: str, content: Any, rows: dict[str, tuple[str, Check]]) -> dict[str, Any]:
        """Return the record's fields that the keys of one table set."""
        found: dict[str, Any] = {}
        for key, value in self.table(table, content).items():
            if key not in rows:
                raise self.error(table, key, f"unknown key, want one of {', '.join(rows)}")
            field, check = rows[key]
            wrong = check(value)
            if wrong:
                raise self.error(table, key, wrong)
            found[field] = tuple(value) if type(value) is list else value
        return found


def find_line(text: str, table: str, key: str) -> int:
    """Return the number of the line that sets `key` in `table`, of the table's header without one; 0 if not found.

    Only an aid for the reader of an error: it knows plain headers and keys, not TOML's rarer spellings.
    """
    current, header = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].strip()
        if words.startswith("["):
            current = words.strip("[] ").replace(" ", "").replace('"', "")
            header = number if current == table else header
            if not key and current.split(".")[0] == table:
                return number
        elif key and "=" in words:
            name = words.split("=", 1)[0].replace(" ", "").strip("\"'")
            if (current == table and name == key) or (not current and name == f"{table}.{key}"):
                return number
    return header


def _monitors(reader: _Reader, content: Any, known: Collection[str]) -> tuple[tuple[str, MonitorConfig], ...]:
    found = []
    for name, table in reader.table("monitors", content).items():
        if name not in known and name not in GO_MONITORS:
            raise reader.error(f"monitors.{name}", "", f"unknown monitor, want one of {', '.join(sorted(known))}")
        found.append((name, MonitorConfig(**reader.fields(f"monitors.{name}", table, MONITOR_KEYS))))
    return tuple(found)


def _extra_binaries(reader: _Reader, content: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, table in reader.table("extra_binaries", content).items():
        if name != "virtiofsd":
            raise reader.error(f"extra_binaries.{name}", "", "unknown binary, want virtiofsd")
        fields |= reader.fields("extra_binaries.virtiofsd", table, VIRTIOFSD_KEYS)
    return fields


def _check_flag(value: Any) -> str | None:
    return None if type(value) is bool else f"want true or false, got {describe(value)}"


def _check_text(value: Any) -> str | None:
    if type(value) is not str:
        return f"want a string, got {describe(value)}"
    return None if value.isprintable() else f"{show(value)} holds a control character"


def _check_path(value: Any) -> str | None:
    wrong = _check_text(value)
    if wrong or not value or value.startswith("/"):
        return wrong
    return f"want an absolute path, got {show(value)}"


def _check_program(value: Any) -> str | None:
    wrong = _check_text(value)
    if wrong or (value and not value.startswith("-") and ("/" not in value or value.startswith("/"))):
        return wrong
    return f"want a program's name or absolute path, got {show(value)}"


def _check_machine(value: Any) -> str | None:
    wrong = _check_text(value)
    if wrong or all(char.isascii() and (char.isalnum() or char in "._-") for char in value):
        return wrong
    return f"want a machine type such as q35, got {show(value)}"


def _check_addresses(value: Any) -> str | None:
    if type(value) is not list:
        return f"want a list of addresses, got {describe(value)}"
    odd = [item for item in value if not _is_address(item)]
    return f"want an IP address, got {describe(odd[0])}" if odd else None


def _is_address(value: Any) -> bool:
    if type(value) is not str:
        return False
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, value)
            return True
        except (OSError, ValueError):
            continue
    return False


def _number(low: int, high: int) -> Check:
    def check(value: Any) -> str | None:
        good = type(value) is int and low <= value <= high
        return None if good else f"want a number from {low} to {high}, got {describe(value)}"

    return check


def _one_of(*words: str) -> Check:
    def check(value: Any) -> str | None:
        return None if value in words else f"want one of {', '.join(filter(None, words))}, got {describe(value)}"

    return check


_LEVELS = ("", "trace", "debug", "info", "warn", "warning", "error", "fatal", "panic")
_NESTED = ("monitors", "extra_binaries")

TABLES: dict[str, dict[str, tuple[str, Check]]] = {
    "log": {
        "level": ("log_level", _one_of(*_LEVELS)),
        "syslog": ("log_syslog", _check_flag),
    },
    "timestamps": {
        "enabled": ("timestamps_enabled", _check_flag),
        "destination": ("timestamps_destination", _check_path),
    },
    "runtime": {
        "delegate": ("delegate", _check_program),
        "unsupported_mounts": ("unsupported_mounts", _one_of("error", "warn")),
    },
    "network": {"dns": ("dns", _check_addresses)},
}
"""Table -> key -> the record's field, and the check of its value."""

MONITOR_KEYS: dict[str, tuple[str, Check]] = {
    "default_memory_mb": ("default_memory_mb", _number(1, MAX_MIB)),
    "default_vcpus": ("default_vcpus", _number(1, 1024)),
    "path": ("path", _check_path),
    "data_path": ("data_path", _check_path),
    "vhost": ("vhost", _check_flag),
    "balloon": ("balloon", _check_flag),
    "accel": ("accel", _one_of("auto", "kvm", "tcg")),
    "machine": ("machine", _check_machine),
    "overhead_mb": ("overhead_mb", _number(0, MAX_MIB)),
}

VIRTIOFSD_KEYS: dict[str, tuple[str, Check]] = {
    "path": ("virtiofsd_path", _check_path),
    "options": ("virtiofsd_options", _check_text),
}
