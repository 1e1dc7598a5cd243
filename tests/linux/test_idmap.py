"""Id maps of user namespaces, read and written from outside."""

from __future__ import annotations

import os

import pytest

from cgroups import sleeper
from urunc.errors import KernelError, SpecError
from urunc.linux import idmap, ns

pytestmark = pytest.mark.root
MAPS = [(0, 300000, 10), (100, 400000, 1)]


def test_what_was_written_is_read() -> None:
    ready, ready_end = os.pipe()

    def prepare() -> None:
        ns.unshare(("user",))
        os.write(ready_end, b"+")

    with sleeper(prepare) as pid:
        os.read(ready, 1)
        idmap.write_maps(pid, MAPS, MAPS[:1])
        assert idmap.read_maps(f"/proc/{pid}/ns/user") == (MAPS, MAPS[:1])
        with pytest.raises(KernelError, match="uid_map"):
            idmap.write_maps(pid, MAPS, MAPS)
    os.close(ready)
    os.close(ready_end)


@pytest.mark.parametrize("path", ["/no/such", "/etc/passwd", "/proc/self/ns/uts", "/proc/self/ns/user"])
def test_what_cannot_be_joined_has_no_maps(path: str) -> None:
    with pytest.raises(SpecError, match="user namespace"):
        idmap.read_maps(path)
