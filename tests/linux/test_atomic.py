"""A file that is written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inchild import run_in
from urunc.linux import atomic, proc


def test_it_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with file.open("rb") as reader:
        atomic.write(str(file), b"new", 0o640)
        assert reader.read() == b"old"
    assert (file.read_bytes(), file.stat().st_mode & 0o7777) == (b"new", 0o640)
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"mine")
    link.symlink_to(target)
    atomic.write(str(link), b"new")
    assert (target.read_bytes(), link.is_symlink()) == (b"mine", False)


def test_two_of_the_same_pid_are_not_in_each_others_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two pid namespaces, with one folder."""
    rename, path = os.rename, f"{tmp_path}/file"

    def let_another_write(source: str, target: str) -> None:
        monkeypatch.setattr(os, "rename", rename)
        atomic.write(path, b"theirs")
        rename(source, target)

    monkeypatch.setattr(os, "rename", let_another_write)
    atomic.write(path, b"ours")
    assert (os.listdir(tmp_path), (tmp_path / "file").read_bytes()) == (["file"], b"ours")


def test_a_disk_that_takes_a_part_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:2]))
    atomic.write(f"{tmp_path}/file", b"seven..")
    assert (tmp_path / "file").read_bytes() == b"seven.."


def test_the_owner_and_the_mode_stay_where_they_are_given(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    file.chmod(0o606)  # which no usual umask lets through
    atomic.write(str(file), b"new", like=file.stat())
    assert (file.read_bytes(), file.stat().st_mode & 0o7777) == (b"new", 0o606)


def test_a_failure_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="No space"):
        atomic.write(f"{tmp_path}/file", b"new")
    assert (os.listdir(tmp_path), (tmp_path / "file").read_bytes()) == (["file"], b"old")


@pytest.mark.root
def test_a_file_of_the_root_folder_is_written_beside_it_too(tmp_path: Path) -> None:
    def body() -> list[str]:
        os.chroot(tmp_path)
        os.mkdir("/here")
        os.chdir("/here")
        os.chmod("/here", 0)
        proc.become(1000, 1000)  # who may not write there
        atomic.write("/file", b"new")
        return os.listdir("/")

    tmp_path.chmod(0o777)
    assert sorted(run_in(("mount",), body)) == ["file", "here"]


def test_a_path_without_a_folder_is_in_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    atomic.write("file", b"new")
    assert os.listdir(tmp_path) == ["file"]
    atomic.discard("file")
    atomic.discard("file")
    assert os.listdir(tmp_path) == []
