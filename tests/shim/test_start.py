"""`start`: which shim is whose, and what the first does that the second must not."""

from __future__ import annotations

import _socket
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from urunc.errors import HostError, SpecError
from urunc.shim import start


def bundle(folder: Path, config: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config)
    return str(folder)


@pytest.mark.parametrize(
    ("config", "group"),
    [
        ("{}", "web"),
        ('{"annotations": {}}', "web"),
        ('{"annotations": null}', "web"),
        ('{"annotations": {"io.kubernetes.cri.sandbox-id": "pod"}}', "pod"),
        ('{"annotations": {"io.kubernetes.cri.sandbox-id": ""}}', "web"),
        ('{"annotations": {"io.kubernetes.cri.sandbox-id": 5}}', "web"),
        ('{"annotations": {"io.kubernetes.cri.sandbox-id": "p", "io.containerd.runc.v2.group": "g"}}', "g"),
        ("[]", "web"),
    ],
)
def test_the_group(tmp_path: Path, config: str, group: str) -> None:
    assert start.group_of(bundle(tmp_path, config), "web") == group


@pytest.mark.parametrize("config", ["", "{", "\ud800"])
def test_a_config_that_is_not_json(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_bytes(config.encode("utf-8", "surrogatepass"))
    with pytest.raises(SpecError, match=r"config\.json"):
        start.group_of(str(tmp_path), "web")


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such file"):
        start.group_of(str(tmp_path), "web")


def test_a_path_is_short_and_its_own() -> None:
    paths = {
        start.socket_path("/run/containerd/s", address, namespace, group)
        for address in ("/run/a.sock", "/run/b.sock", "")
        for namespace in ("default", "k8s.io")
        for group in ("web", "x" * 1000)
    }
    assert len(paths) == 12
    assert all(len(f"unix://{path}") <= 106 for path in paths)


class TestListening:
    def test_the_first_listens_the_second_does_not(self, tmp_path: Path) -> None:
        path = str(tmp_path / "s" / "socket")
        first = start.listen(path)
        assert first is not None
        assert os.stat(path).st_mode & 0o777 == 0o600
        assert start.listen(path) is None
        first.close()

    def test_a_dead_shims_socket_is_replaced(self, tmp_path: Path) -> None:
        path = str(tmp_path / "socket")
        first = start.listen(path)
        assert first is not None
        first.close()
        second = start.listen(path)
        assert second is not None
        second.close()

    def test_a_busy_shim_is_there(self, tmp_path: Path) -> None:
        path = str(tmp_path / "socket")
        busy = socket.socket(socket.AF_UNIX)
        busy.bind(path)
        busy.listen(0)
        waiting = socket.socket(socket.AF_UNIX)
        waiting.connect(path)
        assert start.listen(path) is None
        waiting.close()
        busy.close()

    def test_a_folder_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(HostError, match="cannot listen"):
            start.listen(str(tmp_path / "file" / "socket"))

    def test_a_dead_shims_socket_is_cleared(self, tmp_path: Path) -> None:
        path = str(tmp_path / "socket")
        start.clear_socket(str(tmp_path))
        alive = start.listen(path)
        assert alive is not None
        start.write_address(str(tmp_path), path)
        assert (tmp_path / "address").read_text() == f"unix://{path}"
        start.clear_socket(str(tmp_path))
        assert os.path.exists(path)
        alive.close()
        start.clear_socket(str(tmp_path))
        assert not os.path.exists(path)

    def test_of_a_dead_shim_whose_child_has_it_too(self, tmp_path: Path) -> None:
        """As one that was killed between a fork and what the child does first, or that the kernel is yet ending."""
        path = str(tmp_path / "socket")
        start.write_address(str(tmp_path), path)
        told, tell = os.pipe()
        shim = os.fork()
        if shim == 0:
            listener = start.listen(path)
            child = os.fork()
            if child == 0:
                time.sleep(60)
            os.write(tell, b"%d" % (child if listener else 0))
            os._exit(0)
        os.waitpid(shim, 0)
        child = int(os.read(told, 20))
        try:
            start.clear_socket(str(tmp_path))
            assert not os.path.exists(path)
        finally:
            os.kill(child, signal.SIGKILL)
            os.close(told)
            os.close(tell)

    def test_while_another_is_not_yet_through(self, tmp_path: Path) -> None:
        """One that has bound its socket and does not listen is not dead: it has locked the folder."""
        path = str(tmp_path / "socket")
        lock = start._lock_folder(path)
        bound = socket.socket(socket.AF_UNIX)
        bound.bind(path)
        answers: list[object] = []
        second = threading.Thread(target=lambda: answers.append(start.listen(path)))
        second.start()
        second.join(0.1)
        bound.listen()
        os.close(lock)
        second.join()
        assert answers == [None]
        bound.close()


SHIM = """
import os, sys
sys.path.insert(0, sys.argv[1])
from urunc.shim import start
def serve(listener):
    facts = (os.getsid(0) == os.getpid(), os.fstat(1).st_rdev == os.stat("/dev/null").st_rdev)
    asked = b""
    while asked != b"end":  # the second `start` only connects
        fd, _ = listener._accept()
        asked = os.read(fd, 3)
    os.write(fd, repr(facts).encode())
sys.stdout.write(start.start(sys.argv[2], sys.argv[3], serve))
"""


def test_what_must_come_before_and_fails(tmp_path: Path) -> None:
    """As a cgroup for the shim that is not there: nobody listens then."""

    def before() -> None:
        raise HostError("cannot find the shim's cgroup `/x`")

    path = str(tmp_path / "socket")
    with pytest.raises(HostError, match="cannot find"):
        start.start(str(tmp_path), path, lambda listener: None, before)
    assert not os.path.exists(path)


def test_the_address_is_printed_and_the_pipe_ends_while_the_shim_serves(tmp_path: Path) -> None:
    source = str(Path(start.__file__).parents[2])
    path = str(tmp_path / "socket")
    done = subprocess.run(
        [sys.executable, "-IS", "-c", SHIM, source, str(tmp_path), path], capture_output=True, timeout=20, check=True
    )
    assert done.stdout.decode() == f"unix://{path}"
    assert (tmp_path / "address").read_text() == f"unix://{path}"
    again = subprocess.run(
        [sys.executable, "-IS", "-c", SHIM, source, str(tmp_path), path], capture_output=True, timeout=20, check=True
    )
    assert again.stdout == done.stdout
    peer = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    peer.connect(path)
    peer.send(b"end")
    data = b""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (part := peer.recv(100)):
        data += part
    peer.close()
    assert data == b"(True, True)"
