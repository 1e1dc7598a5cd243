"""The shim's own cgroup: joined where it is, an error where it is not."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import cgroups
from urunc.errors import HostError
from urunc.linux import cgroup, cgroup_layout
from urunc.shim import own_cgroup

pytestmark = pytest.mark.root


@pytest.fixture
def paths() -> Iterator[cgroups.Paths]:
    found = cgroups.new_paths()
    yield found
    cgroups.wipe(found)


def test_it_is_joined_wherever_it_is(paths: cgroups.Paths) -> None:
    cgroup.make(paths)

    def join() -> None:
        own_cgroup.join("/" + os.path.basename(next(iter(paths.values()))))
        now = cgroup_layout.of_process(os.getpid())
        assert {name: now[name] for name in paths} == paths

    cgroups.run(join)


def test_one_that_is_nowhere() -> None:
    with pytest.raises(HostError, match="cannot find the shim's cgroup `/urunc-test-none`"):
        own_cgroup.join("/urunc-test-none")
