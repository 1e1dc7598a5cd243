"""A cgroup of a test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from cgroups import Paths, new_paths, wipe


@pytest.fixture
def paths() -> Iterator[Paths]:
    found = new_paths()
    yield found
    wipe(found)
    assert not any(os.path.exists(place) for place in found.values())
