"""containerd 1.7 from a newer Debian: what test_shim asks of Debian 12's, asked of it."""

from __future__ import annotations

from collections.abc import Iterator

import images
import pytest
from engines import Containerd
from test_shim import TestFaults, TestGuest, TestLinux, TestOrdinary, TestPod, ctr, guest, shim
from tree import Tree, want_tree

from world import which

__all__ = ["TestFaults", "TestGuest", "TestLinux", "TestOrdinary", "TestPod", "ctr", "guest", "shim"]

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    """The tree's containerd, in the place of the machine's."""
    tree = want_tree()
    folder = tmp_path_factory.mktemp("newer-ctr")
    world = Tree(folder, tree)
    try:
        runc = which("runc")
        assert runc is not None
        engine = Containerd(world, runc)
        engine.load(images.busybox(), folder)
        yield engine
    finally:
        world.close()
