"""The newc writer, read back by an unpacker of the format and by cpio itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from urunc.vm import cpio
from urunc.vm.machine import GuestFile

FILES = (
    GuestFile(path="/.urunc/init", content=b"\x7fELF" * 3, mode=0o755),
    GuestFile(path="/.urunc/files/etc/hosts", content=b"x", mode=0o644),
    GuestFile(path="/empty", content=b""),
)


def unpack(data: bytes) -> dict[str, tuple[int, bytes]]:
    found, at = {}, 0
    while True:
        assert at % 4 == 0
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode("utf-8", "surrogateescape")
        start = (at + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, data[start : start + size])
        at = (start + size + 3) & ~3


def test_entries() -> None:
    assert unpack(cpio.archive(FILES)) == {
        ".urunc": (0o040755, b""),
        ".urunc/init": (0o100755, b"\x7fELF" * 3),
        ".urunc/files": (0o040755, b""),
        ".urunc/files/etc": (0o040755, b""),
        ".urunc/files/etc/hosts": (0o100644, b"x"),
        "empty": (0o100600, b""),
    }


def test_parents_come_before_children() -> None:
    names = list(unpack(cpio.archive(FILES)))
    assert names.index(".urunc/files/etc") < names.index(".urunc/files/etc/hosts")


def test_odd_names() -> None:
    name = "/\u00e9/" + "x" * 300 + "/" + b"\xff".decode("utf-8", "surrogateescape")
    assert name[1:] in unpack(cpio.archive((GuestFile(path=name, content=b"y"),)))


@pytest.mark.parametrize("length", range(9))
def test_padding(length: int) -> None:
    assert (length + len(cpio.padding(length))) % 4 == 0
    assert len(cpio.padding(length)) < 4
    assert not any(cpio.padding(length))


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is not installed")
def test_cpio_reads_it(tmp_path: Path) -> None:
    subprocess.run(["cpio", "-i", "-d", "--quiet"], input=cpio.archive(FILES), cwd=tmp_path, check=True)
    assert (tmp_path / ".urunc/files/etc/hosts").read_bytes() == b"x"
    assert (tmp_path / ".urunc/init").stat().st_mode & 0o777 == 0o755
