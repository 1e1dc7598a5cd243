from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inchild import enter_user_namespace, run_in
from urunc.linux import fsops, libc, mounts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WALKS = [fsops.open_in_root, fsops.walk_in_root]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A rootfs that somebody hostile has made, with a secret beside it."""
    beside = tmp_path_factory.mktemp("beside")
    (beside / "secret").write_text("secret")
    top = beside / "root"
    (top / "a/b").mkdir(parents=True)
    (top / "a/file").write_text("inside")
    (top / "secret").write_text("inside's own")
    (top / "abs").symlink_to("/a/file")
    (top / "a/b/up").symlink_to("../../../../../../secret")
    (top / "out").symlink_to("../secret")
    (top / "host").symlink_to("/etc/passwd")
    (top / "dir").symlink_to("a/b")
    (top / "loop").symlink_to("loop")
    (top / "ping").symlink_to("pong")
    (top / "pong").symlink_to("ping")
    (top / "dangling").symlink_to("nothing/here")
    for number in range(41):
        (top / f"l{number}").symlink_to(f"l{number + 1}")
    (top / "l41").write_text("deep")
    os.mkfifo(top / "fifo")
    fd = os.open(top, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def _read(fd: int) -> str:
    with open(fd) as file:
        return file.read()


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("a/file", "inside"),
        ("/a/file", "inside"),
        ("//a/./b/..//file", "inside"),
        ("abs", "inside"),
        ("../../secret", "inside's own"),
        ("out", "inside's own"),
        ("a/b/up", "inside's own"),
        ("dir/../file", "inside"),
        ("l1", "deep"),
    ],
)
def test_beneath_the_root(root: int, walk: Callable[..., int], path: str, content: str) -> None:
    assert _read(walk(root, path, os.O_RDONLY)) == content


@pytest.mark.parametrize("walk", WALKS)
@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("host", errno.ENOENT),
        ("loop", errno.ELOOP),
        ("ping", errno.ELOOP),
        ("l0", errno.ELOOP),
        ("dangling", errno.ENOENT),
        ("a/file/x", errno.ENOTDIR),
        ("nothing", errno.ENOENT),
    ],
)
def test_refused(root: int, walk: Callable[..., int], path: str, code: int) -> None:
    with pytest.raises(OSError) as caught:
        walk(root, path)
    assert caught.value.errno == code


@pytest.mark.parametrize("walk", WALKS)
def test_the_root_itself_and_close_on_exec(root: int, walk: Callable[..., int]) -> None:
    for path in ("/", ".", "..", "a/../..", "/.."):
        fd = walk(root, path)
        assert os.path.sameopenfile(fd, root)
        assert not os.get_inheritable(fd)
        os.close(fd)


@pytest.mark.parametrize("walk", WALKS)
def test_a_link_of_proc_does_not_lead_out(walk: Callable[..., int]) -> None:
    proc_fd = os.open("/proc", os.O_PATH)
    for path in ("self/root", "self/cwd", "self/exe"):
        with pytest.raises(OSError) as caught:
            walk(proc_fd, f"{path}/etc")
        assert caught.value.errno in (errno.ELOOP, errno.ENOENT, errno.ENOTDIR)
    os.close(proc_fd)


@pytest.mark.parametrize("walk", WALKS)
def test_a_link_itself(root: int, walk: Callable[..., int]) -> None:
    fd = walk(root, "host", os.O_PATH | os.O_NOFOLLOW)
    assert stat.S_ISLNK(os.fstat(fd).st_mode)
    os.close(fd)


def _outcome(walk: Callable[..., int], root: int, path: str) -> object:
    try:
        fd = walk(root, path)
    except OSError as error:
        return error.errno
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


NAMES = ("a", "b", "file", "abs", "dir", "up", "out", "loop", "dangling", "..", ".", "", "secret", "fifo", "l1")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6))
def test_the_walk_does_what_the_kernel_does(root: int, names: list[str]) -> None:
    path = "/".join(names) or "/"
    assert _outcome(fsops.walk_in_root, root, path) == _outcome(fsops.open_in_root, root, path)


def test_the_walk_leaves_no_descriptor(root: int) -> None:
    before = os.listdir("/proc/self/fd")
    for path in ("l0", "a/file/x", "host", "dir/up", "../../.."):
        _outcome(fsops.walk_in_root, root, path)
    assert os.listdir("/proc/self/fd") == before


def test_without_openat2_the_walk_takes_over(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSYS, "openat2")

    monkeypatch.setattr(libc, "openat2", refuse)
    assert _read(fsops.open_in_root(root, "out", os.O_RDONLY)) == "inside's own"


def test_read_in_root(root: int) -> None:
    assert fsops.read_in_root(root, "abs", 6) == b"inside"
    for path in ("fifo", "a", "nothing", "host", "a/file/x", "."):
        assert fsops.read_in_root(root, path, 100) is None
    with pytest.raises(OSError, match="larger than 5 bytes") as caught:
        fsops.read_in_root(root, "a/file", 5)
    assert caught.value.errno == errno.EFBIG


@pytest.mark.parametrize(
    ("mode", "uid", "gids", "reads", "writes"),
    [
        (0o600, 1, (9,), True, True),
        (0o400, 1, (2,), True, False),
        (0o066, 1, (2,), False, False),  # the owner's bits alone count for the owner, as in the kernel
        (0o040, 8, (9, 2), True, False),
        (0o606, 8, (2,), False, False),
        (0o004, 8, (9,), True, False),
        (0o006, 8, (9,), True, True),
        (0o660, 8, (9,), False, False),
    ],
)
def test_who_may_open_a_file(mode: int, uid: int, gids: tuple[int, ...], reads: bool, writes: bool) -> None:
    status = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, 1, 2, 0, 0, 0, 0))
    assert fsops.may_open(status, uid, gids) == reads
    assert fsops.may_open(status, uid, gids, writable=True) == writes


@pytest.mark.root
def test_a_device_in_the_rootfs_is_not_opened(tmp_path: Path) -> None:
    def body() -> bytes | None:
        tree = fsops.detached_tmpfs()
        fsops.make_node(tree, "urunc.json", "c", 1, 5, 0o666, 0, 0)  # /dev/zero
        return fsops.read_in_root(tree, "urunc.json", 10)

    assert run_in(("mount",), body) is None


@pytest.mark.root
@pytest.mark.parametrize("kinds", [("mount",), ("user", "mount")])
def test_a_detached_tmpfs_is_a_room_of_ones_own(kinds: tuple[str, ...]) -> None:
    def body() -> tuple[int, int, int]:
        os.umask(0o077)
        tree = fsops.detached_tmpfs("size=64k,mode=751,uid=5,gid=6")
        fsops.make_dirs(tree, "deep/er")
        fsops.make_dirs(tree, "deep/er/")
        fsops.make_file(tree, "other/file")
        fsops.make_file(tree, "other/file")
        assert os.stat("deep/er", dir_fd=tree).st_mode & 0o777 == 0o755
        assert os.stat("other/file", dir_fd=tree).st_size == 0
        status = os.fstat(tree)
        return status.st_mode & 0o777, status.st_uid, status.st_gid

    assert run_in(kinds, body) == (0o751, 5, 6)


@pytest.mark.root
def test_a_file_system_option_that_is_wrong_is_named() -> None:
    def body() -> None:
        with pytest.raises(OSError, match="fsconfig: invalid argument: 'size=lots'"):
            fsops.detached_tmpfs("size=lots")

    run_in(("mount",), body)


@pytest.mark.root
def test_nodes() -> None:
    def body() -> None:
        os.umask(0o077)
        tree = fsops.detached_tmpfs()
        fsops.make_node(tree, "net/tun", "c", 10, 200, 0o660, 7, 8)
        fsops.make_node(tree, "pipe", "p", 0, 0, 0o622, 0, 0)
        status = os.stat("net/tun", dir_fd=tree)
        assert stat.S_ISCHR(status.st_mode)
        assert (os.major(status.st_rdev), os.minor(status.st_rdev)) == (10, 200)
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o660, 7, 8)
        assert stat.S_ISFIFO(os.stat("pipe", dir_fd=tree).st_mode)
        os.close(os.open("net/tun", os.O_RDWR, dir_fd=tree))

    run_in(("mount",), body)


@pytest.mark.root
def test_a_node_that_the_parent_made_works_in_a_user_namespace() -> None:
    def body() -> None:
        tree = fsops.detached_tmpfs()
        fsops.make_node(tree, "null", "c", 1, 3, 0o666, 0, 0)
        enter_user_namespace()
        inside = fsops.detached_tmpfs()
        with pytest.raises(PermissionError):
            fsops.make_node(inside, "null", "c", 1, 3, 0o666, 0, 0)
        fsops.make_dirs(inside, "dev")
        mounts.attach_at(inside, os.open("/", os.O_PATH), "tmp")
        mounts.attach_at(tree, inside, "dev")
        os.close(os.open("dev/null", os.O_WRONLY, dir_fd=inside))

    run_in(("mount",), body)
