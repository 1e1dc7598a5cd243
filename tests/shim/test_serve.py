"""How the shim ends: not before what it was asked for is done and answered."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from urunc.shim import io, serve


@pytest.fixture
def shim(tmp_path: Path) -> Iterator[serve._Shim]:
    """A shim that listens and tells nobody of its events."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()
    shim = serve._Shim(serve.Identity(namespace="default", path=str(tmp_path / "socket")), listener)
    yield shim
    shim.close()
    shim.children.close()
    shim.loop.close()


def test_it_ends_at_once_where_nothing_is_left_to_do(shim: serve._Shim) -> None:
    shim.end()
    assert not shim.loop._running


def test_an_operation_is_waited_for(shim: serve._Shim) -> None:
    """As a Kill whose answer comes after the Delete and the Shutdown that its container's end has brought."""
    done: list[bool] = []

    def finish() -> None:
        done.append(True)
        shim.children.expect_no_more()

    shim.children.expect()
    shim.loop.later(0.05, finish)
    shim.loop.later(0, shim.end)
    shim.loop.run()
    assert done == [True]


def test_but_not_for_ever(shim: serve._Shim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shim, "_looks", 3)
    shim.children.expect()
    shim.loop.later(0, shim.end)
    shim.loop.run()


def test_nobody_needs_it(shim: serve._Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a containerd that was killed before the first Create. Who serves, or is asked, stays."""
    monkeypatch.setattr(serve, "_USE_SECONDS", 0.01)
    client = socket.socket(socket.AF_UNIX)
    looks: list[bool] = []

    def is_deserted() -> bool:
        looks.append(True)
        if len(looks) == 2:
            client.connect(str(tmp_path / "socket"))
            shim.loop.once(0)
        return len(looks) != 3

    monkeypatch.setattr(shim.service, "is_deserted", is_deserted)
    shim.loop.later(0, shim.look_for_use)
    shim.loop.run()
    assert len(looks) == 5  # a first, a connection, one that serves, and two in a row
    client.close()


def test_a_logger_is_seen_to(shim: serve._Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not end by itself: its kill comes later than the last container's Delete and Shutdown."""
    monkeypatch.setattr(io, "_LOGGER_GRACE", 0.05)
    request = {"stdin": "", "stdout": f"binary://{tmp_path}/logger", "stderr": "", "terminal": False}
    (tmp_path / "logger").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "logger").chmod(0o755)
    streams = io.open_streams(shim.loop, shim.children, request, io.Owner("default", "web"))
    logger = streams._logger
    streams.close()
    shim.loop.later(0, shim.end)
    shim.loop.run()
    shim.close()
    assert not (tmp_path / "socket").exists()
    shim.linger()
    assert not os.path.exists(f"/proc/{logger}")
