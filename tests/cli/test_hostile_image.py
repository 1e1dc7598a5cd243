"""Hostile images, each by the command line: one clear error, nothing left, nothing of the host shown to the guest."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import elves
from bundles import PREFIX, Bundle, solo5
from driver import ROOT, Cli
from refusals import assert_refused, refuse

pytestmark = pytest.mark.root

TERABYTE = 1 << 40


def patched(kernel: bytes, offset: int, value: bytes) -> bytes:
    return kernel[:offset] + value + kernel[offset + len(value) :]


ABI = elves.abi_note()
NETS = tuple((b"n%d" % index, 2) for index in range(64))
SOUND = elves.make_elf(elves.manifest_note(), ABI)

KERNELS = [
    ("another tender's", elves.make_elf(elves.manifest_note(), elves.abi_note(1)), "built for Solo5's `hvt`"),
    ("a target that is none", elves.make_elf(elves.manifest_note(), elves.abi_note(99)), "unknown target 99"),
    ("an ABI to come", elves.make_elf(elves.manifest_note(), elves.abi_note(2, 77)), "version 77 of Solo5's ABI"),
    ("no notes", elves.make_elf(), "not a Solo5 kernel"),
    ("no manifest", elves.make_elf(ABI), "no Solo5 manifest"),
    ("63 networks", elves.make_elf(elves.manifest_note(*NETS[:63]), ABI), "`n0`, `n1`, `n2`, `n3`, .."),
    ("64 devices", elves.make_elf(elves.manifest_note(*NETS), ABI), "65 entries has a wrong size"),
    ("63 disks", elves.make_elf(elves.manifest_note(*((n, 1) for n, _ in NETS[:63])), ABI), "block devices"),
    ("one name twice", elves.make_elf(elves.manifest_note((b"a", 2), (b"a", 1)), ABI), "one device name twice"),
    ("a name that is an option", elves.make_elf(elves.manifest_note((b"a=@3", 2)), ABI), "letters and digits"),
    ("a manifest to come", elves.make_elf(elves.manifest_note(version=2), ABI), "version 2"),
    ("entries without end", elves.make_elf(elves.manifest_note(entries=2**32 - 1), ABI), "wrong size"),
    ("cut in its header", SOUND[:40], "truncated"),
    ("cut in its notes", SOUND[:-8], "outside the file"),
    ("65535 program headers", patched(SOUND, 56, b"\xff\xff"), "65535 segments"),
    ("headers beyond the file", patched(SOUND, 32, b"\xff" * 8), "outside the file"),
    ("a note of four GiB", patched(SOUND, 64 + 32, b"\0\0\0\0\1\0\0\0"), "4294967296 bytes long"),
    ("a note's size that overflows", elves.make_elf(b"\xff" * 12 + bytes(52), ABI), "larger than its segment"),
    ("notes at a negative offset", patched(SOUND, 64 + 8, b"\xff" * 8), "outside the file"),
    ("big endian", patched(SOUND, 5, b"\2"), "big endian"),
    ("for another machine", patched(SOUND, 18, b"\xf3\0"), "machine 243"),
    ("for aarch64", patched(SOUND, 18, b"\xb7\0"), "for aarch64"),
    ("half an ELF magic", b"\x7fEL", ""),
    ("a script", b"#!/bin/sh\nexec /bin/sh\n", "not a Solo5 kernel"),
    ("nothing", b"", "is empty"),
]


@pytest.mark.parametrize(("kernel", "says"), [row[1:] for row in KERNELS], ids=[row[0] for row in KERNELS])
def test_a_kernel_that_lies(cli: Cli, make_unikernel: Callable[..., Bundle], kernel: bytes, says: str) -> None:
    refuse(cli, solo5(cli, make_unikernel, kernel), says)


@pytest.mark.parametrize("monitor", ["qemu", "spt"])
def test_a_kernel_of_a_terabyte(cli: Cli, make_unikernel: Callable[..., Bundle], monitor: str) -> None:
    """Sparse, so it costs an image nothing; reading it would cost the host, or the container's memory, all."""
    bundle = make_unikernel("app")
    if monitor == "spt":
        third = 64 + 2 * 56  # a segment to load that is as large
        large = patched(elves.make_elf(elves.manifest_note(), ABI, b""), third, b"\1")
        bundle = solo5(cli, make_unikernel, patched(large, third + 40, TERABYTE.to_bytes(8, "little")))
    kernel = bundle.rootfs / bundle.config["annotations"][PREFIX + "binary"].lstrip("/")
    if monitor == "qemu":
        kernel.write_bytes(b"\x02\xb0\xad\x1b\0\0\1\0" + (-(0x1BADB002 + 0x10000) & 0xFFFFFFFF).to_bytes(4, "little"))
    os.truncate(kernel, TERABYTE)
    refuse(cli, bundle, "kernel", "does not fit into the guest's")


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "socket", "terabyte", "empty"])
def test_an_initrd_that_is_none(cli: Cli, make_unikernel: Callable[..., Bundle], kind: str) -> None:
    bundle = make_unikernel("app")
    make_odd(bundle.rootfs / "initrd", kind)
    bundle.annotate(initrd="/initrd")
    refuse(cli, bundle, "initrd `/initrd`")


def make_odd(path: Path, kind: str) -> None:
    """Make something that is no file, or one that should not be."""
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        os.mknod(path, 0o20666, os.makedev(1, 5))
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            here = os.open(path.parent, os.O_PATH)
            server.bind(f"/proc/self/fd/{here}/{path.name}")
            os.close(here)
    else:
        path.touch()
        os.truncate(path, TERABYTE if kind == "terabyte" else 0)


# The image's own word.


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" * 500_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"' + PREFIX.encode() + b'binary": ' + b"9" * 5000 + b"}", "urunc.json"),
        (b'{"' + PREFIX.encode() + b'binary": "\\ud800"}', "urunc.json"),
        (b'{"' + PREFIX.encode() + b'binary": "a\\u0000b"}', "NUL"),
        (b'{"' + PREFIX.encode() + b'binary": NaN}', "urunc.json"),
        (b"\xff\xfe{}", "urunc.json"),
        (b"\0" * 1000, "urunc.json"),
        (b"{}", "is missing"),
        (b'{"' + PREFIX.encode() + b'unikernelType": {"a": []}}', "want a string"),
    ],
    ids=["lists", "objects", "number", "surrogate", "NUL", "NaN", "utf-16", "zeros", "empty", "object"],
)
def test_an_urunc_json_that_lies(cli: Cli, make_unikernel: Callable[..., Bundle], content: bytes, says: str) -> None:
    bundle = make_unikernel()
    bundle.config["annotations"] = {}
    (bundle.rootfs / "urunc.json").write_bytes(content)
    refuse(cli, bundle, says)


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "socket", "terabyte"])
def test_an_urunc_json_that_is_no_file(cli: Cli, make_unikernel: Callable[..., Bundle], kind: str) -> None:
    """It hangs nobody. What is no file says nothing: with the engine's annotations alone the guest runs."""
    bundle = make_unikernel("app")
    make_odd(bundle.rootfs / "urunc.json", kind)
    if kind == "terabyte":
        refuse(cli, bundle, "/urunc.json: file too large")
        return
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    cli.end("guest")


def test_the_engines_annotations_win_over_the_images(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel("app")
    values = {"binary": "/no-such", "hypervisor": "spt", "unikernelType": "mirage"}
    (bundle.rootfs / "urunc.json").write_text(json.dumps({PREFIX + key: value for key, value in values.items()}))
    cli.create("guest", bundle)
    assert "testguest" in str(bundle.config["annotations"])
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    cli.end("guest")


@pytest.mark.parametrize("text", ["/unikernel/testguest.elf\x1b[2J", "/a\x07", "qemu\r", "/a\x9b31m", "/a\u202e"])
def test_base64_of_control_characters(cli: Cli, make_unikernel: Callable[..., Bundle], text: str) -> None:
    bundle = make_unikernel("app")
    bundle.annotate(binary=base64.b64encode(text.encode()).decode())
    refuse(cli, bundle)


@pytest.mark.parametrize(
    ("annotations", "says"),
    [
        ({"block": "/disk", "blkMntPoint": "/", "mountRootfs": "true"}, "cannot take block as its root"),
        ({"unikernelType": "linux", "block": "/unikernel/testguest.elf", "blkMntPoint": "/proc"}, ""),
        ({"unikernelType": "linux", "block": "/disk", "blkMntPoint": "relative"}, ""),
    ],
)
def test_annotations_that_contradict_each_other(
    cli: Cli, make_unikernel: Callable[..., Bundle], annotations: dict[str, str], says: str
) -> None:
    bundle = make_unikernel("app")
    (bundle.rootfs / "disk").write_bytes(b"x" * 512)
    bundle.annotate(**annotations)
    refuse(cli, bundle, says)


# What else is in the rootfs.


def test_a_rootfs_with_the_names_of_the_monitors_root(
    cli: Cli, make_unikernel: Callable[..., Bundle], tmp_path: Path
) -> None:
    """Nothing of the image but what is named gets into the monitor's root, so none of its files has an effect there."""
    bundle = make_unikernel("app")
    for name in ("kernel", "initrd", "disk0", "control.in", "api", "proc/self/fd", "share0"):
        (bundle.rootfs / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle.rootfs / name).write_text("not this")
    for name in ("dev", "lib64", "usr", "etc"):
        (bundle.rootfs / name).symlink_to(tmp_path)
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    pid = cli.state("guest")["pid"]
    root = cli.world.path(f"/proc/{pid}/root")
    assert (root / "kernel").read_bytes()[:4] == b"\x7fELF"
    assert not (root / "disk0").exists()
    assert not (root / "share0").exists()
    cli.end("guest")
    assert sorted(os.listdir(tmp_path)) == sorted(["bundle0", "config.toml", "consoles", "log.json"])


def test_a_rootfs_of_200_000_files(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    """None of them is looked at, so none of them costs anything."""
    bundle = make_unikernel("app")
    kernel = (bundle.rootfs / "unikernel/testguest.elf").read_bytes()
    cli.world.run("mount", "-t", "tmpfs", "none", str(bundle.rootfs))
    rootfs = cli.world.path(str(bundle.rootfs))
    (rootfs / "unikernel").mkdir()
    (rootfs / "unikernel/testguest.elf").write_bytes(kernel)
    (rootfs / "file").touch()
    folder = os.open(rootfs, os.O_PATH)
    for number in range(200_000):
        os.link("file", f"file{number}", src_dir_fd=folder, dst_dir_fd=folder)
    os.close(folder)
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    cli.end("guest")
    cli.world.run("umount", str(bundle.rootfs))


def test_a_set_user_id_kernel_with_hard_links(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    """Its mode and its links mean nothing: the monitor reads it, through a mount without set-user-id."""
    bundle = make_unikernel("app")
    kernel = bundle.rootfs / "unikernel/testguest.elf"
    kernel.chmod(0o6755)
    for number in range(100):
        os.link(kernel, bundle.rootfs / f"unikernel/link{number}")
    bundle.config["process"]["user"] = {"uid": 1234, "gid": 2345}
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    pid = cli.state("guest")["pid"]
    mounts = cli.world.path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    (line,) = [line for line in mounts if line.split()[4] == "/kernel"]
    assert {"ro", "nosuid", "nodev"} <= set(line.split()[5].split(","))
    cli.end("guest")


@pytest.mark.parametrize("destination", ["/../../etc", "/etc/../../x", "relative", "", "/a\nb", "/" + "x" * 5000])
def test_a_mount_whose_destination_lies(
    cli: Cli, make_unikernel: Callable[..., Bundle], tmp_path: Path, destination: str
) -> None:
    bundle = make_unikernel("app")
    (tmp_path / "file").write_text("x")
    mount = {"destination": destination, "type": "bind", "source": str(tmp_path / "file"), "options": ["ro", "bind"]}
    bundle.config["mounts"].append(mount)
    refuse(cli, bundle, "mounts")


@pytest.mark.parametrize("what", ["link to itself", "file", "fifo", "link out"])
def test_a_rootfs_that_is_none(cli: Cli, make_unikernel: Callable[..., Bundle], tmp_path: Path, what: str) -> None:
    bundle = make_unikernel("app")
    shutil.rmtree(bundle.rootfs)
    if what == "link to itself":
        bundle.rootfs.symlink_to("rootfs")
    elif what == "file":
        bundle.rootfs.write_text("")
    elif what == "fifo":
        os.mkfifo(bundle.rootfs)
    else:
        bundle.rootfs.symlink_to("/nonexistent")
    refuse(cli, bundle, "root.path")


def test_a_block_image_with_holes(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    """A terabyte of nothing is a disk like any other; nobody reads it through."""
    bundle = make_unikernel("app")
    make_odd(bundle.rootfs / "disk", "terabyte")
    bundle.annotate(block="/disk", blkMntPoint="/data")
    cli.create("guest", bundle)
    cli("start", "guest")
    assert f"disk0: {TERABYTE // 512} sectors" in cli.wait_console("guest", "ready")
    cli.end("guest")
    assert (bundle.rootfs / "disk").stat().st_blocks < 100


def test_an_initrd_of_holes_takes_no_room(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    """One that the monitor's user may not read is copied, into what is the host's memory as a rule."""
    bundle = make_unikernel("app")
    with (bundle.rootfs / "initrd").open("wb") as file:
        file.truncate(120 << 20)
        file.seek(60 << 20)
        file.write(b"data")
    (bundle.rootfs / "initrd").chmod(0o600)
    bundle.annotate(initrd="/initrd")
    bundle.config["process"]["user"] = {"uid": 1234, "gid": 2345}
    cli.create("guest", bundle)
    copy = cli.world.path(f"{ROOT}/guest/initrd.copy")
    assert copy.stat().st_blocks * 512 < 1 << 20
    with copy.open("rb") as file:
        file.seek(60 << 20)
        assert file.read(5) == b"data\0"
    cli("start", "guest")
    assert f"initrd: {120 << 20} bytes" in cli.wait_console("guest", "ready")
    cli.end("guest")


def test_an_initrd_that_would_fill_the_state_directory(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel("app")
    (bundle.rootfs / "initrd").write_bytes(b"x" * (6 << 20))
    (bundle.rootfs / "initrd").chmod(0o600)
    bundle.annotate(initrd="/initrd")
    bundle.config["process"]["user"] = {"uid": 1234, "gid": 2345}
    cli.world.run("mkdir", "/run/small")
    cli.world.run("mount", "-t", "tmpfs", "-o", "size=8m", "none", "/run/small")
    assert cli.to_file("bad", "--root=/run/small", "create", f"--bundle={bundle.write()}", "bad", check=False) == 1
    assert_refused(cli, "bad", "`/initrd` of 6 MiB has to be copied", "no more than half is taken")
    cli.world.run("umount", "/run/small")
    cli.world.run("rmdir", "/run/small")
