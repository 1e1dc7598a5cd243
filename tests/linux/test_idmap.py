"""Id maps of user namespaces, read and written from outside."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable

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


def end_of(child: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ns, "join", lambda path, kind: child())
    idmap.read_maps("/proc/self/ns/user")


def test_a_child_that_is_killed_is_no_empty_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        KernelError, match="cannot read the id maps of the user namespace `/proc/self/ns/user`: the pro"
    ):
        end_of(lambda: os.kill(os.getpid(), signal.SIGKILL), monkeypatch)


def test_any_failure_of_the_child_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.EMFILE, "too many", "/x")

    with pytest.raises(SpecError, match=r"cannot read the id maps of .*: `/x`: too many"):
        end_of(fail, monkeypatch)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SpecError, match="MemoryError"):
        end_of(lambda: (_ for _ in ()).throw(MemoryError()), monkeypatch)
    assert os.listdir("/proc/self/fd") == before
