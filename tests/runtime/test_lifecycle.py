"""What `delete` makes of folders that no running container stands behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from urunc.errors import StateError
from urunc.runtime import lifecycle, store

NAME = "web"


def leave(root: Path, content: bytes | None) -> None:
    """Leave a container's folder, with what is said as its record."""
    (root / NAME).mkdir(parents=True)
    (root / NAME / "lock").touch()
    if content is not None:
        (root / NAME / "record.json").write_bytes(content)


@pytest.mark.parametrize("content", [None, b"{", b'{"version":99}'])
def test_force_removes_what_tells_nothing(tmp_path: Path, content: bytes | None) -> None:
    leave(tmp_path, content)
    with pytest.raises(StateError):
        lifecycle.delete(str(tmp_path), NAME)
    assert os.listdir(tmp_path) == [NAME]
    lifecycle.delete(str(tmp_path), NAME, force=True)
    assert os.listdir(tmp_path) == []


def test_force_on_nothing_is_no_error(tmp_path: Path) -> None:
    lifecycle.delete(str(tmp_path), NAME, force=True)
    with pytest.raises(StateError, match="does not exist"):
        lifecycle.delete(str(tmp_path), NAME)


def test_force_removes_an_unclaimed_folder(tmp_path: Path) -> None:
    passing = tmp_path / store.unclaimed(NAME)
    passing.mkdir()
    (passing / "lock").touch()
    lifecycle.delete(str(tmp_path), NAME, force=True)
    assert os.listdir(tmp_path) == []
