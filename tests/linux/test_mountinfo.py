"""What is mounted where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inchild import run_in
from urunc.linux import libc, mountinfo

pytestmark = pytest.mark.root
MS_MOVE = 8192


def test_the_topmost_mount_of_a_point(tmp_path: Path) -> None:
    point = tmp_path / "a b\tc\\d#e"
    point.mkdir()
    inside = point / "inside"

    def look() -> list[object]:
        libc.mount("none", "/", None, libc.MS_REC | libc.MS_PRIVATE)
        libc.mount("first", str(point), "tmpfs", 0)
        inside.mkdir()
        libc.mount("second thing", str(point), "tmpfs", libc.MS_NOSUID)
        found = mountinfo.find(str(point))
        assert mountinfo.points_below(str(tmp_path)) == [str(point)] * 2
        assert mountinfo.points_below(str(tmp_path)[:-1]) == []
        libc.umount(str(point))
        libc.mount(str(inside), str(inside), None, libc.MS_BIND)
        bind = mountinfo.find(str(inside))
        assert found is not None
        assert bind is not None
        return [found.source, found.fstype, "nosuid" in found.options, found.root, found.device[0], bind.root]

    assert run_in(("mount",), look) == ["second thing", "tmpfs", True, "/", 0, "/inside"]


def test_a_mount_that_another_hides_is_not_found(tmp_path: Path) -> None:
    """Moved there last, the oldest is on top; and what is below a place that was mounted over cannot be reached."""
    older, point = tmp_path / "older", tmp_path / "point"
    older.mkdir()
    (point / "below").mkdir(parents=True)

    def look() -> list[object]:
        libc.mount("none", "/", None, libc.MS_REC | libc.MS_PRIVATE)
        libc.mount("older", str(older), "tmpfs", 0)
        libc.mount("below", str(point / "below"), "tmpfs", 0)
        below = mountinfo.find(str(point / "below"))
        libc.mount("newer", str(point), "tmpfs", 0)
        libc.mount(str(older), str(point), None, MS_MOVE)
        (point / "below").mkdir()
        found = mountinfo.find(str(point))
        assert below is not None
        assert found is not None
        return [below.source, found.source, mountinfo.find(str(point / "below")), mountinfo.find(str(older))]

    assert run_in(("mount",), look) == ["below", "older", None, None]


def test_a_link_to_a_mount_is_none(tmp_path: Path) -> None:
    (tmp_path / "root").symlink_to("/")
    assert mountinfo.find(str(tmp_path / "root")) is None
    assert mountinfo.find(str(tmp_path / "missing")) is None


def test_nothing_is_mounted(tmp_path: Path) -> None:
    assert mountinfo.find(str(tmp_path)) is None
    root = mountinfo.find("/")
    assert root is not None
    assert root.point == "/" and os.stat("/").st_dev
