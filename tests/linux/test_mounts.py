from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from inchild import bind_file, enter_user_namespace, mount_tmpfs, run_in, set_propagation
from urunc.linux import fsops, libc, mounts, ns

pytestmark = pytest.mark.root

EITHER = pytest.mark.parametrize("kinds", [("mount",), ("user", "mount")], ids=["root", "userns"])


def _mount_line(path: str) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    found = [line.split() for line in lines if line.split()[4] == path]
    return found[-1] if found else []


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)  # pytest makes them 0700, and a user namespace's root is somebody else
    folder = tmp_path / "source"
    (folder / "inner").mkdir(parents=True)
    (folder / "file").write_text("content")
    (folder / "file").chmod(0o666)
    (tmp_path / "target").mkdir()
    return tmp_path


@EITHER
def test_a_file_bound_read_only(kinds: tuple[str, ...], source: Path) -> None:
    def body() -> None:
        root = fsops.detached_tmpfs("mode=755")
        mounts.attach(root, str(source / "target"))
        bind_file(str(source / "source/file"), root, "lib/deep/file")
        bind_file(str(source / "source/file"), root, "rw", readonly=False)
        bind_file(str(source / "source"), root, "folder")
        fd = os.open(source / "source/file", os.O_PATH)
        bind_file(fd, root, "by-fd")
        mounts.make_readonly(root)
        top = source / "target"
        for name in ("lib/deep/file", "folder/file", "by-fd"):
            assert (top / name).read_text() == "content"
            with pytest.raises(OSError) as caught:
                (top / name).write_text("x")
            assert caught.value.errno == errno.EROFS
        with pytest.raises(OSError) as caught:
            (top / "new").touch()
        assert caught.value.errno == errno.EROFS
        (top / "rw").write_text("content")
        options = _mount_line(str(top / "lib/deep/file"))[5].split(",")
        assert {"ro", "nosuid", "nodev"} <= set(options)

    run_in(kinds, body)


@EITHER
def test_a_recursive_clone_takes_the_mounts_below_along(kinds: tuple[str, ...], source: Path) -> None:
    def body() -> None:
        mount_tmpfs(str(source / "source/inner"), "mode=755")
        (source / "source/inner/deep").touch()
        mounts.attach(mounts.clone_tree(str(source / "source"), readonly=True, recursive=True), str(source / "target"))
        assert (source / "target/inner/deep").exists()
        with pytest.raises(OSError) as caught:
            (source / "target/inner/more").touch()
        assert caught.value.errno == errno.EROFS
        (source / "source/inner/more").touch()  # the original is as it was

    run_in(kinds, body)


def test_a_mount_below_that_is_locked_can_only_be_cloned_recursively(source: Path) -> None:
    def body() -> None:
        mount_tmpfs(str(source / "source/inner"), "mode=755")
        enter_user_namespace()
        with pytest.raises(OSError, match="open_tree") as caught:
            mounts.clone_tree(str(source / "source"))
        assert caught.value.errno == errno.EINVAL
        os.close(mounts.clone_tree(str(source / "source"), recursive=True, readonly=True))

    run_in(("mount",), body)


def test_the_hosts_flags_stay_locked_and_do_no_harm(source: Path) -> None:
    def body() -> None:
        mount_tmpfs(str(source / "source/inner"), "mode=755", libc.MS_NOEXEC | libc.MS_NODEV | libc.MS_NOSUID)
        (source / "source/inner/file").touch()
        enter_user_namespace()
        root = fsops.detached_tmpfs()
        mounts.attach(root, str(source / "target"))
        bind_file(str(source / "source/inner/file"), root, "file")
        options = set(_mount_line(str(source / "target/file"))[5].split(","))
        assert {"ro", "noexec", "nodev", "nosuid"} <= options

    run_in(("mount",), body)


def test_a_tree_made_by_the_parent_is_attached_in_a_user_namespace(source: Path) -> None:
    """How `create` hands files over that the monitor's user could not open by path."""

    def body() -> str:
        (source / "source/private").mkdir(mode=0o700)
        (source / "source/private/file").write_text("handed over")
        tree = mounts.clone_tree(str(source / "source/private/file"), readonly=True)
        enter_user_namespace()
        root = fsops.detached_tmpfs()
        mounts.attach(root, str(source / "target"))
        mounts.attach_file(tree, root, "file")
        return (source / "target/file").read_text()

    assert run_in(("mount",), body) == "handed over"


@EITHER
def test_pivot_into_a_tmpfs_stacked_on_the_root(kinds: tuple[str, ...], source: Path) -> None:
    def body() -> tuple[list[str], str]:
        set_propagation("rslave")
        root = fsops.detached_tmpfs("size=1m,mode=755")
        mounts.attach(root, "/")
        os.fchdir(root)
        bind_file(str(source / "source/file"), root, "file")
        mounts.make_readonly(root)
        mounts.pivot(".")
        assert os.getcwd() == "/"
        assert os.path.samefile("/..", "/")
        with open("/file") as file:
            return os.listdir("/"), file.read()

    assert run_in(kinds, body) == (["file"], "content")


@EITHER
def test_pivot_by_path_lets_go_of_the_old_root(kinds: tuple[str, ...], source: Path) -> None:
    def body() -> None:
        mount_tmpfs(str(source / "target"))
        (source / "target/proc").mkdir()
        libc.mount("proc", str(source / "target/proc"), "proc", 0) if "user" not in kinds else None
        before = len(os.listdir("/proc/self/fd"))
        mounts.pivot(str(source / "target"))
        assert os.listdir("/") == ["proc"]
        if "user" not in kinds:
            assert len(os.listdir("/proc/self/fd")) == before
            assert len(Path("/proc/self/mountinfo").read_text().splitlines()) == 2

    run_in(kinds, body)


def test_a_root_is_entered_where_pivoting_is_impossible(source: Path) -> None:
    def body() -> list[str]:
        mount_tmpfs(str(source / "target"))
        (source / "target/here").touch()
        mounts.enter_root(str(source / "target"))
        return os.listdir("/")

    assert run_in(("mount",), body) == ["here"]


@pytest.mark.parametrize("word", ["", "shared", "rshared", "rslave", "private", "runbindable"])
def test_the_new_root_does_not_reach_the_host(word: str) -> None:
    """Whatever the specification's propagation, and where the host's `/` is shared, as systemd makes it."""

    def body() -> None:
        set_propagation("rshared")
        before = Path("/proc/self/mountinfo").read_text()
        child = os.fork()
        if child == 0:
            try:
                ns.unshare(("mount",))
                mounts.isolate(word)
                root = fsops.detached_tmpfs("size=1m")
                mounts.attach(root, "/")
                os.fchdir(root)
                mounts.pivot(".")
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert Path("/proc/self/mountinfo").read_text() == before

    run_in(("mount",), body)


def test_a_mount_below_a_shared_one_does_not_reach_the_host(source: Path) -> None:
    def body() -> None:
        mount_tmpfs(str(source / "target"))
        set_propagation("rshared", str(source / "target"))
        (source / "target/below").mkdir()
        ready, told = os.pipe()
        child = os.fork()
        if child == 0:
            ns.unshare(("mount",))
            mounts.isolate()
            mount_tmpfs(str(source / "target/below"))
            mounts.pivot(str(source / "target/below"))
            os.write(told, b"x")
            os._exit(0)
        os.close(told)
        assert os.read(ready, 1) == b"x"
        os.waitpid(child, 0)
        assert _mount_line(str(source / "target/below")) == []
        assert _mount_line("/") != []

    run_in(("mount",), body)
