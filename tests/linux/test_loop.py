"""Loop devices that free themselves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from urunc.linux import loop
from world import wait_for

pytestmark = pytest.mark.root


def backing(device: int) -> Path:
    return Path(f"/sys/block/loop{os.minor(os.fstat(device).st_rdev)}/loop/backing_file")


@pytest.mark.parametrize("readonly", [False, True])
def test_a_device_lasts_as_long_as_it_is_open(tmp_path: Path, readonly: bool) -> None:
    (tmp_path / "disk").write_bytes(b"hello".ljust(4096, b"\0"))
    file = os.open(tmp_path / "disk", os.O_RDONLY if readonly else os.O_RDWR)
    device = loop.attach(file, str(tmp_path / "disk"), readonly=readonly)
    os.close(file)
    path = backing(device)
    try:
        assert path.read_text().strip() == str(tmp_path / "disk")
        assert os.pread(device, 5, 0) == b"hello"
        if readonly:
            again = os.open(f"/dev/loop{os.minor(os.fstat(device).st_rdev)}", os.O_RDWR)
            with pytest.raises(PermissionError):
                os.pwrite(again, b"HELLO", 0)
            os.close(again)
        else:
            os.pwrite(device, b"HELLO", 0)
            os.fsync(device)
            assert (tmp_path / "disk").read_bytes()[:5] == b"HELLO"
    finally:
        os.close(device)
    wait_for("the device is free", lambda: not path.exists() or str(tmp_path) not in path.read_text(), 10)


def test_two_devices_are_two(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(4096))
    file = os.open(tmp_path / "disk", os.O_RDONLY)
    devices = [loop.attach(file, "disk", readonly=True) for _ in range(3)]
    numbers = {os.fstat(device).st_rdev for device in devices}
    for descriptor in (file, *devices):
        os.close(descriptor)
    assert len(numbers) == 3
