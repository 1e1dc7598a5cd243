from __future__ import annotations

import os
from pathlib import Path

import pytest

from inchild import OUTSIDE, mount_tmpfs, run_in
from urunc.errors import KernelError, SpecError
from urunc.linux import libc, ns, proc

KINDS = ("mount", "network", "ipc", "uts", "cgroup")


@pytest.mark.root
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_namespace_is_another_and_the_old_can_be_joined(kind: str) -> None:
    old = os.open(ns.own_path(kind), os.O_RDONLY)
    path = f"/proc/{os.getpid()}/fd/{old}"

    def body() -> None:
        assert not ns.is_hosts(path, kind)
        ns.join(path, kind)
        assert ns.is_hosts(path, kind)

    try:
        run_in((kind,), body)
    finally:
        os.close(old)


@pytest.mark.root
def test_paths_are_looked_up_before_the_mount_namespace_changes(tmp_path: Path) -> None:
    """Which is joined after the others, and need not hold their paths."""

    def body() -> None:
        mount_tmpfs(str(tmp_path))
        for name in ("net", "mnt"):
            (tmp_path / name).touch()
        libc.mount("/proc/self/ns/net", str(tmp_path / "net"), None, libc.MS_BIND)
        net = ns.identity("/proc/self/ns/net")
        mount = os.open(ns.own_path("mount"), os.O_RDONLY)
        ns.unshare(("network", "mount"))
        libc.umount(str(tmp_path), libc.MNT_DETACH)
        mount_tmpfs(str(tmp_path))
        (tmp_path / "net").touch()
        libc.mount("/proc/self/ns/net", str(tmp_path / "net"), None, libc.MS_BIND)
        here = ns.identity("/proc/self/ns/net")
        ns.unshare(("network",))
        ns.join_all((("mount", f"/proc/self/fd/{mount}"), ("network", str(tmp_path / "net"))))
        assert ns.identity("/proc/self/ns/net") == here
        assert ns.identity(str(tmp_path / "net")) == net

    run_in(OUTSIDE, body)


def test_a_namespace_of_another_kind_is_the_specs_error() -> None:
    with pytest.raises(SpecError, match=r"`/proc/self/ns/uts` is not a network namespace"):
        ns.join("/proc/self/ns/uts", "network")


def test_a_file_is_no_namespace(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SpecError, match="is not a uts namespace"):
        ns.join(str(tmp_path / "file"), "uts")
    with pytest.raises(SpecError, match="is not a uts namespace"):
        ns.join(str(tmp_path / "fifo"), "uts")
    with pytest.raises(SpecError, match="there is none"):
        ns.join(str(tmp_path / "missing"), "uts")


@pytest.mark.root
def test_refused_is_not_the_specs_error() -> None:
    def body() -> None:
        proc.become(1000, 1000)
        with pytest.raises(KernelError, match="operation not permitted"):
            ns.join("/proc/self/ns/uts", "uts")
        with pytest.raises(KernelError, match=r"cannot make new namespaces \(mount, uts\)"):
            ns.unshare(("mount", "uts"))

    run_in((), body)


@pytest.mark.root
def test_inside_comes_back() -> None:
    def body() -> None:
        before = ns.identity(ns.own_path("network"))
        child_ready, ready = os.pipe()
        done, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(go)
            ns.unshare(("network",))
            os.write(ready, b"r")
            os.read(done, 1)
            os._exit(0)
        os.read(child_ready, 1)
        with ns.inside(f"/proc/{child}/ns/net", "network"):
            assert ns.identity(ns.own_path("network")) != before
        with pytest.raises(ZeroDivisionError), ns.inside(f"/proc/{child}/ns/net", "network"):
            raise ZeroDivisionError
        assert ns.identity(ns.own_path("network")) == before
        other = os.open(f"/proc/{child}/ns/net", os.O_RDONLY)
        with ns.inside(other, "network"):
            assert ns.identity(ns.own_path("network")) != before
        with pytest.raises(SpecError, match=r": `net:\[\d+\]` is not a uts namespace"), ns.inside(other, "uts"):
            pass
        assert ns.identity(ns.own_path("network")) == before
        os.close(other)
        os.close(go)
        os.waitpid(child, 0)

    run_in((), body)


@pytest.mark.root
def test_time_offsets_reach_the_next_child() -> None:
    def body() -> str:
        ns.set_time_offsets((("monotonic", 1000, 5), ("boottime", 2000, 0)))
        return Path("/proc/self/timens_offsets").read_text()

    lines = run_in(("time",), body).split("\n")
    assert [line.split() for line in lines if line] == [["monotonic", "1000", "5"], ["boottime", "2000", "0"]]


def test_no_offsets_touch_nothing() -> None:
    ns.set_time_offsets(())
    ns.unshare(())


@pytest.mark.root
def test_only_the_child_of_the_block_is_born_into_the_new_namespace() -> None:
    def is_first() -> int:
        child = os.fork()
        if child == 0:
            os._exit(os.getpid() == 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    with ns.for_next_child(("pid",)):
        assert is_first() == 1
    assert is_first() == 0
    with ns.for_next_child(()):
        assert is_first() == 0


@pytest.mark.root
def test_a_block_that_fails_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_flags: int) -> None:
        raise PermissionError(1, "no")

    before = os.listdir("/proc/self/fd")
    with pytest.raises(RuntimeError), ns.for_next_child(("pid",)):
        raise RuntimeError
    monkeypatch.setattr(libc, "unshare", refuse)
    with pytest.raises(KernelError), ns.for_next_child(("pid",)):
        pass
    assert os.listdir("/proc/self/fd") == before
