"""A hostile 9P client in the guest: messages that Linux's own never sends, from the test guest to the shared rootfs.

QEMU's server is what stands between such a guest and the host's files; that urunc's options for it, the share's
mount and the monitor's own root leave nothing else to be reached is asked here with octets, not through a kernel
that resolves names and refuses what is odd before anything is sent. docs/storage.md says what is promised.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ninep
from bundles import Bundle
from driver import Cli

pytestmark = pytest.mark.root

ROOT = 1


class Share:
    """A container's rootfs with things in it, the host's folder around it, and a guest that sends messages."""

    def __init__(self, cli: Cli, bundle: Bundle, outside: Path) -> None:
        self.cli, self.bundle, self.rootfs = cli, bundle, bundle.rootfs
        self.secret = outside / "secret"
        self.secret.write_text("the host's secret\n")
        self.console = ""
        bundle.annotate(mountRootfs="true")
        (self.rootfs / "file").write_text("the share's\n")
        (self.rootfs / "folder").mkdir()
        (self.rootfs / "link").symlink_to(self.secret)
        (self.rootfs / "folder-link").symlink_to(outside)

    def send(self, *messages: bytes) -> list[bytes]:
        """Attach the share as ROOT, send the messages one after the other; return the answers to them.

        What can be found outside of the share is as it was, whatever the answers are.
        """
        first = (ninep.version(), ninep.attach(ROOT))
        words = [word for one in (*first, *messages) for word in ("9p", one.hex())]
        self.bundle.config["process"]["args"] = ["app", *words, "poweroff"]
        self.cli.console_file("guest").unlink(missing_ok=True)
        status, self.console = self.cli.run("guest", self.bundle)
        lines = [line for line in self.console.splitlines() if line.startswith("9p: ")]
        answers = [bytes.fromhex(line[4:]) if line != "9p: no answer" else b"" for line in lines]
        assert status == 0, self.console
        assert "share: fs0" in self.console
        assert [ninep.error(answer) for answer in answers[:2]] == [0, 0]
        assert self.secret.read_text() == "the host's secret\n"
        assert all(b"the host's secret" not in answer for answer in answers)
        return answers[2:]

    def errors(self, *messages: bytes) -> list[int]:
        """Send the messages; return the errno of each answer."""
        return [ninep.refusal(*pair) for pair in zip(messages, self.send(*messages), strict=True)]

    def names(self) -> set[str]:
        """Return what is in the share's root."""
        return set(os.listdir(self.rootfs))


@pytest.fixture
def share(cli: Cli, make_unikernel: Callable[..., Bundle], tmp_path: Path) -> Iterator[Share]:
    """A share, whose neighbours on the host stay what they are."""
    outside = tmp_path / "outside"
    outside.mkdir()
    made = Share(cli, make_unikernel(), outside)
    around = (outside, made.bundle.folder, tmp_path)
    before = [{*os.listdir(folder), "config.json", "guest", "log.json"} for folder in around]
    yield made
    assert all(set(os.listdir(folder)) <= names for folder, names in zip(around, before, strict=True))


def test_a_client_that_behaves(share: Share) -> None:
    """What follows is refused for what it is, not because nothing works."""
    answers = share.send(
        *(ninep.walk(ROOT, 2, "file"), ninep.lopen(2), ninep.read(2)),
        *(ninep.walk(ROOT, 3), ninep.lcreate(3, "new"), ninep.write(3, b"written\n")),
        *(ninep.walk(ROOT, 4), ninep.lopen(4), ninep.readdir(4)),
    )
    assert [ninep.error(answer) for answer in answers] == [0] * 9
    assert ninep.data(answers[2]) == b"the share's\n"
    assert b"folder-link" in answers[8]
    assert (share.rootfs / "new").read_text() == "written\n"


def test_dots_at_the_root_are_the_root(share: Share) -> None:
    asked = (ninep.walk(ROOT, 2, *[".."] * 16), ninep.getattr_(ROOT), ninep.getattr_(2))
    walked, root, dots = share.send(*asked, ninep.walk(ROOT, 3, "folder", "..", "..", "..", "file"))[:3]
    assert ninep.refusal(asked[0], walked) == 0
    assert root == dots


def test_walks_out_of_the_share(share: Share) -> None:
    """A name with a slash in it is none, and by `..` there is nothing that is not the share's."""
    up = "../" * 20
    paths = (up + str(share.secret)[1:], str(share.secret), "folder/../../x", "./file", "/", "/etc", "../x")
    errors = share.errors(
        *(ninep.walk(ROOT, 2, path) for path in paths),
        *(ninep.walk(ROOT, 2, "folder", path) for path in paths),
        ninep.walk(ROOT, 2, "..", "..", "etc", "passwd"),
        ninep.walk(ROOT, 2, "folder", "..", "..", "..", share.rootfs.name),
    )
    assert set(errors) == {errno.ENOENT}


def test_attaches_to_another_folder(share: Share) -> None:
    """The name of what is attached means nothing to this server: it is the share in any case."""
    names = ("/etc", "../..", str(share.secret.parent))
    errors = share.errors(
        *(ninep.attach(2 + index, name) for index, name in enumerate(names)),
        *(ninep.walk(2 + index, 9, name) for index in range(3) for name in ("secret", "shadow")),
    )
    assert errors == [0] * 3 + [errno.ENOENT] * 6


def test_follows_no_link_of_the_image(share: Share) -> None:
    """Neither at the end of a path nor in it. A link can be walked to as what it is."""
    errors = share.errors(
        *(ninep.walk(ROOT, 2, "link"), ninep.walk(ROOT, 3, "folder-link")),
        *(ninep.lopen(2), ninep.lopen(2, ninep.O_WRONLY | ninep.O_TRUNC), ninep.setattr_(2, ninep.SET_SIZE)),
        *(ninep.walk(ROOT, 4, "folder-link", "secret"), ninep.walk(3, 4, "secret"), ninep.lcreate(3, "made")),
        *(ninep.mknod(3, "fifo", 0o10644), ninep.symlink(3, "made", "x"), ninep.mkdir(3, "made")),
        *(ninep.renameat(3, "secret", ROOT, "stolen"), ninep.renameat(ROOT, "file", 3, "given")),
        *(ninep.link(3, 2, "made"), ninep.unlinkat(3, "secret"), ninep.lcreate(ROOT, "link")),
    )
    assert errors[:2] == [0, 0]
    assert 0 not in errors[2:], errors
    assert share.names() == {"file", "folder", "link", "folder-link", "unikernel"}


def test_follows_no_link_of_its_own(share: Share) -> None:
    targets = {"one": str(share.secret), "up": "../../..", "root": "/proc/self/root", "folder": "/proc/1/cwd"}
    made = [ninep.symlink(ROOT, f"to-{name}", target) for name, target in targets.items()]
    walked = [ninep.walk(ROOT, fid, f"to-{name}") for fid, name in enumerate(targets, 2)]
    answers = share.send(*made, *walked, *map(ninep.readlink, range(2, 6)))
    assert {ninep.error(answer) for answer in answers} == {0}
    assert [answer[9:].decode() for answer in answers[8:]] == list(targets.values())
    errors = share.errors(
        *walked,
        *map(ninep.lopen, range(2, 6)),
        *(ninep.walk(ROOT, 6, f"to-{name}", inside) for name in targets for inside in ("etc", "passwd", "..")),
        *(ninep.unlinkat(fid, "rootfs", 0x200) for fid in range(2, 6)),
    )
    assert errors[:4] == [0] * 4
    assert 0 not in errors[4:8] + errors[-4:], errors
    assert all(errors[8 + 3 * index + number] for index in range(4) for number in (0, 1)), errors


NULS = ("..\0made", "\0", "\0/made", "../\0made", "/\0")


def test_walks_by_names_with_a_nul(share: Share) -> None:
    """The server's strings end at it: what it takes is the name before it, in the folder as ever."""
    asked = (ninep.walk(ROOT, 2, "..\0"), ninep.getattr_(ROOT), ninep.getattr_(2))
    _, root, dots = share.send(*asked)
    assert dots == root or ninep.error(dots)
    secret = f"..\0{share.secret}"
    errors = share.errors(
        *(ninep.walk(ROOT, 3, "..\0", "..\0", name) for name in ("secret", "etc\0", share.secret.name + "\0")),
        *(ninep.walk(ROOT, 3, "folder-link\0", "secret"), ninep.walk(ROOT, 3, secret, "secret")),
        *(ninep.attach(4, "/etc\0"), ninep.walk(4, 3, "passwd"), ninep.walk(4, 3, "file\0/../../x"), ninep.lopen(3)),
    )
    assert 0 not in errors[:5] + errors[6:7], errors


@pytest.mark.parametrize(
    "name", ["../made", "folder/made", "/made", "..", ".", "", "a/../../made", "x" * 300, *NULS], ids=repr
)
def test_makes_nothing_by_a_name_that_is_a_path(share: Share, name: str) -> None:
    before = {path.relative_to(share.rootfs) for path in share.rootfs.rglob("*")}
    errors = share.errors(
        *(ninep.walk(ROOT, 2), ninep.lcreate(2, name)),
        ninep.symlink(ROOT, name, "x"),
        ninep.mkdir(ROOT, name),
        ninep.mknod(ROOT, name, 0o10644),
        *(ninep.walk(ROOT, 3, "file"), ninep.rename(3, ROOT, name)),
        ninep.link(ROOT, 3, name),
        ninep.renameat(ROOT, "file", ROOT, name),
        ninep.renameat(ROOT, name, ROOT, "taken"),
        ninep.unlinkat(ROOT, name),
        ninep.unlinkat(ROOT, name, 0x200),
    )
    made = {path.relative_to(share.rootfs) for path in share.rootfs.rglob("*")} - before
    assert made == set(), (made, errors)
    assert (share.rootfs / "file").read_text() == "the share's\n"


def test_opens_no_device_fifo_or_socket(share: Share) -> None:
    """The image's own nodes: a device's number would be the host's, and a fifo would hold a thread of the monitor."""
    nodes = {"null": (0o20666, 1, 3), "memory": (0o20666, 1, 1), "loop": (0o60666, 7, 0)}
    for name, (mode, major, minor) in nodes.items():
        os.mknod(share.rootfs / name, mode, os.makedev(major, minor))
    os.mkfifo(share.rootfs / "fifo")
    folder = os.open(share.rootfs, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{folder}/socket")
    os.close(folder)
    names = (*nodes, "fifo", "socket")
    ways = (ninep.O_RDONLY, ninep.O_WRONLY, ninep.O_RDWR)
    asked = [
        (ninep.walk(ROOT, fid, name), *(ninep.lopen(fid, way) for way in ways)) for fid, name in enumerate(names, 2)
    ]
    errors = share.errors(
        *(one for messages in asked for one in messages),
        *(ninep.walk(ROOT, 9, "file"), ninep.lopen(9), ninep.read(9)),
    )
    for index, name in enumerate(names):
        walked, *opened = errors[4 * index : 4 * index + 4]
        assert walked == 0
        assert 0 not in opened, (name, opened)
    assert errors[-3:] == [0, 0, 0]  # it serves on


def test_makes_no_device_and_gives_nothing_away(share: Share) -> None:
    """What it may do to its own files, a set-user-id mode among it, it may in any container's rootfs."""
    errors = share.errors(
        *(ninep.mknod(ROOT, "character", 0o20666, 1, 3), ninep.mknod(ROOT, "disk", 0o60666, 7, 0)),
        *(ninep.walk(ROOT, 2, "file"), ninep.setattr_(2, ninep.SET_UID | ninep.SET_GID, uid=1234, gid=1234)),
        *(ninep.xattrcreate(2, "security.capability", 20), ninep.write(2, b"\1\0\0\2" + b"\xff" * 16), ninep.clunk(2)),
        *(ninep.xattrcreate(ROOT, "trusted.overlay.redirect", 4), ninep.write(ROOT, b"/etc"), ninep.clunk(ROOT)),
    )
    assert errors[0] == errors[1] == errno.EPERM
    assert errors[3] == errno.EPERM
    assert not {"character", "disk"} & share.names()
    file = (share.rootfs / "file").stat()
    assert (file.st_uid, file.st_gid) == (0, 0)
    assert os.listxattr(share.rootfs / "file") == []
    assert os.listxattr(share.rootfs) == []


def test_a_set_user_id_program_is_its_own(share: Share) -> None:
    """On the host's disk it has the monitor's user, whatever owner the message asks for (docs/storage.md)."""
    share.bundle.config["process"]["user"] = {"uid": 1234, "gid": 2345}
    share.rootfs.chmod(0o777)
    errors = share.errors(
        *(
            ninep.walk(ROOT, 2),
            ninep.lcreate(2, "program", mode=0o106755),
            ninep.setattr_(2, ninep.SET_MODE, mode=0o6755),
        ),
        *(ninep.walk(ROOT, 3, "file"), ninep.setattr_(3, ninep.SET_MODE, mode=0o4777), ninep.lopen(3, ninep.O_RDWR)),
        *(ninep.mkdir(ROOT, "made", 0o6777),),
    )
    assert errors[3:6] == [0, errno.EPERM, errno.EACCES]  # another's file
    program = (share.rootfs / "program").stat()
    assert (program.st_uid, program.st_gid) == (1234, 2345)
    assert stat.S_IMODE((share.rootfs / "file").stat().st_mode) & 0o7000 == 0
    assert (share.rootfs / "made").stat().st_uid == 1234


def test_a_read_only_share_takes_nothing(share: Share) -> None:
    share.bundle.config["root"]["readonly"] = True
    errors = share.errors(
        *(ninep.walk(ROOT, 2), ninep.lcreate(2, "made"), ninep.symlink(ROOT, "made", "x"), ninep.mkdir(ROOT, "made")),
        *(ninep.mknod(ROOT, "made", 0o10644), ninep.unlinkat(ROOT, "file"), ninep.renameat(ROOT, "file", ROOT, "made")),
        *(ninep.walk(ROOT, 3, "file"), ninep.lopen(3, ninep.O_RDWR), ninep.setattr_(3, ninep.SET_MODE, mode=0o777)),
        *(
            ninep.setattr_(3, ninep.SET_SIZE),
            ninep.link(ROOT, 3, "made"),
            ninep.lopen(3, ninep.O_RDONLY | ninep.O_TRUNC),
        ),
    )
    assert errors[0] == errors[7] == 0
    assert 0 not in errors[1:7] + errors[8:], errors
    assert "made" not in share.names()
    assert (share.rootfs / "file").read_text() == "the share's\n"


LIES = {
    "a size that is too small": ninep.message(110, b"", size=0),
    "a size beyond what was sent": ninep.message(110, ninep.numbers(ROOT, 2), size=0x7FFFFFFF),
    "a kind that is none": ninep.message(255, b""),
    "a walk of 65535 names": ninep.message(110, ninep.numbers(ROOT, 2) + b"\xff\xff"),
    "a name that is longer than the message": ninep.message(110, ninep.numbers(ROOT, 2) + b"\1\0\xff\xffx"),
    "a read of four GiB": ninep.read(2, count=0xFFFFFFFF),
    "a read beyond all": ninep.read(2, offset=2**64 - 1),
    "a write of what was not sent": ninep.write(2, b"x", count=0xFFFFFFFF),
    "a folder's list without end": ninep.readdir(ROOT, count=0xFFFFFFFF),
    "an attribute of all memory": ninep.xattrcreate(ROOT, "user.x", 2**63),
    "nothing": b"\0",
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_message_that_lies_is_the_guests_own_harm(share: Share, lie: bytes) -> None:
    """The answer is an error, or the device stops answering; the monitor lives on, and so do the host's files."""
    answers = share.send(ninep.walk(ROOT, 2, "file"), ninep.lopen(2), lie)
    assert len(answers) == 3
    assert (share.rootfs / "file").read_text() == "the share's\n"
    assert share.names() == {"file", "folder", "link", "folder-link", "unikernel"}
