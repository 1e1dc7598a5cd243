"""What init is sent with `go`: its orders in a file, and the monitor's descriptors in their order."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from urunc import jsonio
from urunc.errors import KernelError
from urunc.oci.spec import Hook, Hooks
from urunc.runtime import go_message
from urunc.runtime.inherit import Descriptors
from urunc.vm.machine import File, Launch


@pytest.fixture
def held() -> Iterator[Descriptors]:
    made = Descriptors()
    yield made
    made.close()


def test_the_orders_are_a_file_that_is_read_from_its_start() -> None:
    launch = Launch(argv=("/bin/q", "é\n"), env=("A=b",), files=(File(path="/f", content=b"\xff\0", mode=0o444),))
    hooks = Hooks(create_container=(Hook(path="/h", args=("h",)),))
    fd = go_message.orders(launch, {"id": "web"}, hooks)
    with open(fd, "rb") as file:
        file.seek(0)
        data = jsonio.loads(file.read())
    assert (data["argv"], data["env"], data["state"]) == (["/bin/q", "é\n"], ["A=b"], {"id": "web"})
    assert data["files"] == [{"path": "/f", "content": "\xff\0", "mode": 0o444}]
    assert (data["create_container"][0]["path"], data["start_container"]) == ("/h", [])


def test_descriptors_come_in_the_launchs_order(tmp_path: Path, held: Descriptors) -> None:
    os.mkfifo(tmp_path / "control.in")
    (tmp_path / "disk").write_bytes(b"content")
    disk = held.add(os.open(tmp_path / "disk", os.O_RDWR))
    before = len(held.fds)
    launch = Launch(argv=(), fds=("disk:/disk0", "listen:qmp", "tap:urunc0-x", "read:/disk0", "fifo:control.in"))
    found = go_message.descriptors(launch, str(tmp_path), {"urunc0-x": 99}, {"/disk0": disk}, held)
    assert (found[0], found[2]) == (disk, 99)
    assert sorted([found[1], *found[3:]]) == sorted(held.fds[before:])
    assert os.read(found[3], 7) == b"content"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(found[3], b"x")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "qmp.sock"))


def test_one_that_nobody_makes_is_an_error(tmp_path: Path, held: Descriptors) -> None:
    with pytest.raises(KernelError, match="a descriptor `vsock:3` that nobody makes"):
        go_message.descriptors(Launch(argv=(), fds=("vsock:3",)), str(tmp_path), {}, {}, held)
