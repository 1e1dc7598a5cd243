"""What stands in a superblock, sound or not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc.vm import filesystems
from urunc.vm.filesystems import FileSystem
from world import which


def inspect(data: bytes) -> FileSystem | None:
    return filesystems.inspect(lambda offset, length: data[offset : offset + length])


@pytest.mark.parametrize(("kind", "name"), [("ext2", "ext2"), ("ext3", "ext4"), ("ext4", "ext4")])
@pytest.mark.parametrize("block", ["1024", "4096"])
def test_ext(tmp_path: Path, kind: str, name: str, block: str) -> None:
    program = which(f"mkfs.{kind}")
    if program is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    image = tmp_path / "image"
    subprocess.run([program, "-q", "-b", block, str(image), "8M"], check=True)
    assert inspect(image.read_bytes()) == FileSystem(name=name, size=8 << 20)


def test_erofs(tmp_path: Path) -> None:
    program = which("mkfs.erofs")
    if program is None:
        pytest.skip("mkfs.erofs is not installed")
    (tmp_path / "tree").mkdir()
    subprocess.run([program, str(tmp_path / "image"), str(tmp_path / "tree")], check=True, capture_output=True)
    assert inspect((tmp_path / "image").read_bytes()) == FileSystem(name="erofs")


@pytest.mark.parametrize(
    ("name", "offset", "magic"), [("squashfs", 0, b"hsqs"), ("xfs", 0, b"XFSB"), ("btrfs", 0x10040, b"_BHRfS_M")]
)
def test_magics(name: str, offset: int, magic: bytes) -> None:
    assert inspect((bytes(offset) + magic).ljust(0x20000, b"\0")) == FileSystem(name=name)


@pytest.mark.parametrize("data", [b"", bytes(1024), bytes(1 << 20), b"\x53\xef" * 2048])
def test_none(data: bytes) -> None:
    assert inspect(data) is None


@given(st.binary(max_size=2048))
def test_anything_is_looked_at_without_an_error(data: bytes) -> None:
    inspect(data)
    inspect(bytes(1024) + data[:56].ljust(56, b"\1") + b"\x53\xef" + data[:966].ljust(966, b"\xff"))
