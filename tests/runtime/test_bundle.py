"""A bundle's config.json, read as it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from urunc.errors import SpecError
from urunc.runtime import bundle


def test_what_it_holds_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'[1, {"a": null}]')
    assert bundle.read_config(str(tmp_path)) == [1, {"a": None}]


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "empty", "text"])
def test_what_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    """A fifo that nobody writes to is empty: it holds nobody up."""
    file = tmp_path / "config.json"
    if kind == "folder":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind != "missing":
        file.write_text("no JSON" if kind == "text" else "")
    with pytest.raises(SpecError, match=f"`{file}`"):
        bundle.read_config(str(tmp_path))
