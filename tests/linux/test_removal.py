from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from inchild import OUTSIDE, mount_tmpfs, run_in
from urunc.linux import libc, removal


def test_remove_tree(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("kept")
    tree = tmp_path / "tree"
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/file").touch()
    (tree / "a/link").symlink_to(kept)
    os.mkfifo(tree / "fifo")
    folder = os.open(tmp_path, os.O_RDONLY)
    removal.remove_tree(folder, "tree")
    removal.remove_tree(folder, "tree")
    (tmp_path / "link").symlink_to(kept)
    removal.remove_tree(folder, "link")
    os.close(folder)
    assert os.listdir(tmp_path) == ["kept"]
    assert os.listdir(kept) == ["file"]


def test_the_last_file_goes_after_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tree").mkdir()
    for name in ("a", "lock", "z"):
        (tmp_path / "tree" / name).touch()
    gone: list[str] = []
    unlink = os.unlink

    def noted(name: str, *, dir_fd: int) -> None:
        unlink(name, dir_fd=dir_fd)
        gone.append(name)

    monkeypatch.setattr(os, "unlink", noted)
    folder = os.open(tmp_path, os.O_RDONLY)
    removal.remove_tree(folder, "tree", last="lock")
    os.close(folder)
    assert sorted(gone[:-1]) == ["a", "z"]
    assert gone[-1] == "lock"


def mount_another(place: Path) -> None:
    mount_tmpfs(str(place))


def bind_the_same_device(place: Path) -> None:
    (place.parent.parent / "source").mkdir()
    libc.mount(str(place.parent.parent / "source"), str(place), None, libc.MS_BIND)


@pytest.mark.root
@pytest.mark.parametrize("mount", [mount_another, bind_the_same_device])
def test_remove_tree_stops_at_a_mount(tmp_path: Path, mount) -> None:  # type: ignore[no-untyped-def]
    def body() -> None:
        (tmp_path / "tree/mounted").mkdir(parents=True)
        mount(tmp_path / "tree/mounted")
        (tmp_path / "tree/mounted/file").touch()
        folder = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(OSError) as caught:
            removal.remove_tree(folder, "tree")
        assert caught.value.errno == errno.EXDEV
        assert (tmp_path / "tree/mounted/file").exists()

    run_in(OUTSIDE, body)
