"""A containerd built from its repository, 2.x: what test_shim asks of Debian 12's, asked of it.

URUNC_TEST_CONTAINERD names the folder of `containerd` and `ctr`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import images
import pytest
from engines import Containerd
from test_shim import TestFaults, TestGuest, TestLinux, TestOrdinary, TestPod, TestSolo5, ctr, guest, shim

from world import World, which

__all__ = ["TestFaults", "TestGuest", "TestLinux", "TestOrdinary", "TestPod", "TestSolo5", "ctr", "guest", "shim"]

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

VARIABLE = "URUNC_TEST_CONTAINERD"


class Built(Containerd):
    """Its own binaries, in the place of Debian's."""

    def program(self, name: str) -> str:
        """Return the path of `containerd` or `ctr`."""
        return f"{os.environ[VARIABLE]}/{name}"


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    """The built containerd, in the place of the machine's."""
    if VARIABLE not in os.environ:
        pytest.skip(f"{VARIABLE} names no folder with a built containerd and ctr")
    folder = tmp_path_factory.mktemp("built")
    world = World(folder)
    try:
        runc = which("runc")
        assert runc is not None
        engine = Built(world, runc)
        engine.load(images.busybox(), folder)
        yield engine
    finally:
        world.close()
