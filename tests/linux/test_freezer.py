"""The freezer of a real cgroup."""

from __future__ import annotations

import os
import time

import pytest

from cgroups import Paths, need, sleeper, text
from urunc.linux import cgroup, freezer

pytestmark = pytest.mark.root


def test_freeze_and_thaw(paths: Paths) -> None:
    cgroup.make(paths)
    need(paths, "freezer")

    def work() -> None:
        while True:
            os.getpid()

    with sleeper(work) as pid:
        cgroup.join(paths, pid)
        assert not freezer.is_frozen(paths)
        freezer.freeze(paths)
        assert freezer.is_frozen(paths)
        before = text(f"/proc/{pid}/stat").split()[13:15]
        time.sleep(0.05)
        assert text(f"/proc/{pid}/stat").split()[13:15] == before
        freezer.thaw(paths)
        assert not freezer.is_frozen(paths)
        freezer.thaw(paths)
