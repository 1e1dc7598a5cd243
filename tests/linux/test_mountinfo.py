"""What is mounted where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inchild import run_in
from urunc.linux import libc, mountinfo

pytestmark = pytest.mark.root


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


def test_nothing_is_mounted(tmp_path: Path) -> None:
    assert mountinfo.find(str(tmp_path)) is None
    root = mountinfo.find("/")
    assert root is not None
    assert root.point == "/" and os.stat("/").st_dev
