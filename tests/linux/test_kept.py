"""What is kept between two calls, and whose word is taken for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from urunc.linux import kept

NAME = "answer"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A folder that is not there yet."""
    return f"{tmp_path}/a/b"


def read(folder: str) -> bytes | None:
    return kept.read(folder, NAME, 100)


def test_there_and_back_whatever_the_umask(folder: str) -> None:
    assert read(folder) is None
    umask = os.umask(0)
    try:
        kept.write(folder, NAME, b"42")
    finally:
        os.umask(umask)
    assert read(folder) == b"42"
    assert os.stat(folder).st_mode & 0o777 == 0o700
    kept.write(folder, NAME, b"x" * 200)
    assert read(folder) == b"x" * 100
    assert os.listdir(folder) == [NAME]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o400, 0o4600])
def test_what_others_could_touch_is_not_believed(folder: str, mode: int) -> None:
    kept.write(folder, NAME, b"42")
    os.chmod(f"{folder}/{NAME}", mode)
    assert read(folder) is None
    kept.write(folder, NAME, b"43")
    assert read(folder) == b"43"


@pytest.mark.root
def test_anothers_is_not_believed(folder: str) -> None:
    kept.write(folder, NAME, b"42")
    os.chown(f"{folder}/{NAME}", 65534, -1)
    assert read(folder) is None


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_only_a_file_is_read(folder: str, kind: str) -> None:
    kept.write(folder, "other", b"42")
    place = f"{folder}/{NAME}"
    if kind == "link":
        os.symlink("other", place)
    elif kind == "fifo":
        os.mkfifo(place, 0o600)
    else:
        os.mkdir(place, 0o600)
    assert read(folder) is None


def test_what_cannot_be_kept_is_no_error(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    kept.write(f"{tmp_path}/file/below", NAME, b"42")
    os.makedirs(f"{folder}/{NAME}/full")
    kept.write(folder, NAME, b"42")
    assert os.listdir(folder) == [NAME]
