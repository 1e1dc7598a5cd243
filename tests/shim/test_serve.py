"""How the shim ends: not before what it was asked for is done and answered."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from urunc.shim import serve


@pytest.fixture
def shim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[serve._Shim]:
    """A shim that listens and tells nobody of its events."""
    monkeypatch.setattr(serve, "read_delegate", lambda: "runc")
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


def test_its_bundle_is_gone(shim: serve._Shim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a containerd that was killed before the first Create. One that serves a container stays."""
    monkeypatch.setattr(serve, "_BUNDLE_SECONDS", 0.01)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    monkeypatch.chdir(bundle)
    looks: list[Any] = [lambda: None, lambda: None, bundle.rmdir, lambda: None]
    served = [False, False, True]  # asked for once the bundle is gone

    def is_deserted() -> bool:
        return not served.pop()

    def look() -> None:
        looks.pop(0)()
        serve._Shim.look_for_bundle(shim)

    monkeypatch.setattr(shim.service, "is_deserted", is_deserted)
    monkeypatch.setattr(shim, "look_for_bundle", look)
    shim.loop.later(0, look)
    shim.loop.run()
    assert (looks, served) == ([], [False])
    monkeypatch.chdir(tmp_path)
