"""A monitor's API from outside: reached in the monitor's own root, and nothing that a hostile one does leads out."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from urunc.errors import StateError
from urunc.linux import proc
from urunc.runtime import monitor_api
from urunc.vm import api

pytestmark = pytest.mark.root


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[int]:
    """A process whose root is `tmp_path`; its pid."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.chroot(tmp_path)
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    while os.readlink(f"/proc/{pid}/root") == "/":
        os.sched_yield()
    yield pid
    os.close(writer)
    os.waitpid(pid, 0)


def press(pid: int) -> None:
    monitor_api.press_ctrl_alt_del(pid, proc.start_time(pid) or 0)


@pytest.fixture
def serve() -> Iterator[Callable[[Path, bytes], list[bytes]]]:
    """Serve one connection with an answer; what was asked is in the list."""
    threads: list[threading.Thread] = []

    def serve(folder: Path, answer: bytes) -> list[bytes]:
        folder.mkdir()
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(folder / api.SOCKET))
        server.listen()
        asked: list[bytes] = []

        def work() -> None:
            with server, server.accept()[0] as connection:
                asked.append(connection.recv(4096))
                if answer == b"wait":
                    connection.recv(1)
                else:
                    connection.sendall(answer)

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        return asked

    yield serve
    for thread in threads:
        thread.join()


Serve = Callable[[Path, bytes], list[bytes]]


def test_it_asks_and_waits_for_the_answer(monitor: int, serve: Serve, tmp_path: Path) -> None:
    asked = serve(tmp_path / "api", b"HTTP/1.1 204 \r\nServer: Firecracker API\r\n\r\n")
    press(monitor)
    head, _, body = asked[0].partition(b"\r\n\r\n")
    assert head.startswith(b"PUT /actions HTTP/1.1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert body == b'{"action_type":"SendCtrlAltDel"}'


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 \r\n\r\n", b"", b"\x00" * 4000, b"2"])
def test_any_other_answer_is_a_refusal(monitor: int, serve: Serve, tmp_path: Path, answer: bytes) -> None:
    serve(tmp_path / "api", answer)
    with pytest.raises(StateError, match="the monitor refuses"):
        press(monitor)


def test_a_length_that_no_number_is_made_of(monitor: int, serve: Serve, tmp_path: Path) -> None:
    serve(tmp_path / "api", b"HTTP/1.1 204 \r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")
    press(monitor)


def test_no_answer(monitor: int, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_api, "_SECONDS", 0.05)
    serve(tmp_path / "api", b"wait")
    with pytest.raises(StateError, match="does not answer"):
        press(monitor)


def test_nobody_listens(monitor: int, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="no such file"):
        press(monitor)
    (tmp_path / "api").mkdir()
    with pytest.raises(StateError, match="no such file"):
        press(monitor)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "api" / api.SOCKET))
    with pytest.raises(StateError, match="connection refused"):
        press(monitor)


def test_links_are_not_followed(
    monitor: int, serve: Serve, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The link leads to a socket that listens: nobody may be asked there."""
    outside = tmp_path_factory.mktemp("outside")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(outside / api.SOCKET))
        server.listen()
        server.setblocking(False)
        (tmp_path / "api").symlink_to(outside)
        with pytest.raises(StateError, match="not a directory"):
            press(monitor)
        (tmp_path / "api").unlink()
        (tmp_path / "api").mkdir()
        (tmp_path / "api" / api.SOCKET).symlink_to(outside / api.SOCKET)
        with pytest.raises(StateError, match="is no socket"):
            press(monitor)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_what_is_no_socket_is_not_opened(monitor: int, tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    os.mkfifo(tmp_path / "api" / api.SOCKET)
    with pytest.raises(StateError, match="is no socket"):
        press(monitor)


def test_another_process_under_its_pid_is_not_asked(monitor: int) -> None:
    with pytest.raises(StateError, match="no such process"):
        monitor_api.press_ctrl_alt_del(monitor, 1)


def test_a_full_queue_is_not_waited_for(monitor: int, tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    waiting = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "api" / api.SOCKET))
        server.listen(0)
        for _ in range(2):
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            try:
                waiting[-1].connect(str(tmp_path / "api" / api.SOCKET))
            except BlockingIOError:
                break
        with pytest.raises(StateError, match="does not answer"):
            press(monitor)
    for connection in waiting:
        connection.close()


STATISTICS = b'{"target_mib":64,"actual_mib":32}'


def test_the_balloons_size_is_asked_for(monitor: int, serve: Serve, tmp_path: Path) -> None:
    asked = serve(tmp_path / "api", b"HTTP/1.1 200 \r\nContent-length: %d\r\n\r\n" % len(STATISTICS) + STATISTICS)
    answer = monitor_api.balloon_statistics(monitor, proc.start_time(monitor) or 0)
    assert answer == {"target_mib": 64, "actual_mib": 32}
    assert asked == [b"GET /balloon/statistics HTTP/1.1\r\n\r\n"]


def test_the_machines_state_is_asked_for(monitor: int, serve: Serve, tmp_path: Path) -> None:
    body = b'{"id":"web","state":"Running"}'
    asked = serve(tmp_path / "api", b"HTTP/1.1 200 \r\nContent-length: %d\r\n\r\n" % len(body) + body)
    assert monitor_api.instance(monitor, proc.start_time(monitor) or 0)["state"] == "Running"
    assert asked == [b"GET / HTTP/1.1\r\n\r\n"]


def test_the_balloons_size_is_set(monitor: int, serve: Serve, tmp_path: Path) -> None:
    asked = serve(tmp_path / "api", b"HTTP/1.1 204 \r\n\r\n")
    monitor_api.set_balloon(monitor, proc.start_time(monitor) or 0, 64)
    assert asked[0].startswith(b"PATCH /balloon HTTP/1.1\r\n")
    assert asked[0].endswith(b'\r\n\r\n{"amount_mib":64}')


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 5000, b"5", b"{" + b" " * 70_000])
def test_statistics_that_are_none(monitor: int, serve: Serve, tmp_path: Path, body: bytes) -> None:
    serve(tmp_path / "api", b"HTTP/1.1 200 \r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    with pytest.raises(StateError, match="no JSON object"):
        monitor_api.balloon_statistics(monitor, proc.start_time(monitor) or 0)


@pytest.mark.parametrize("length", [b"99999999999", b"-1", b"x", b"9" * 5000])
def test_an_answer_that_never_ends_is_cut_off(
    monitor: int, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: bytes
) -> None:
    monkeypatch.setattr(monitor_api, "_SECONDS", 0.2)
    serve(tmp_path / "api", b"HTTP/1.1 200 \r\nContent-Length: %s\r\n\r\n{" % length)
    with pytest.raises(StateError):
        monitor_api.balloon_statistics(monitor, proc.start_time(monitor) or 0)
