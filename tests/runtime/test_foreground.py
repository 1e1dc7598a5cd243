"""`run`'s wait: what is deleted when it cannot even begin. Waits themselves are tested in tests/cli."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from containers import NAME, container
from urunc.errors import StateError
from urunc.runtime import foreground
from urunc.runtime.options import Globals, Options


@pytest.mark.parametrize("keep", [False, True])
def test_a_guest_that_cannot_be_listened_to_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    deleted: list[str] = []

    def delete(_root: str, name: str, **_options: Any) -> None:
        deleted.append(name)

    monkeypatch.setattr(foreground.load, "load", lambda *_args, **_more: object())
    monkeypatch.setattr(foreground.libc, "prctl", lambda *_args: None)
    monkeypatch.setattr(foreground._signal, "pthread_sigmask", lambda *_args: None)
    monkeypatch.setattr(foreground.creation, "create", lambda *_args, **_more: container(stop="control"))
    monkeypatch.setattr(foreground.lifecycle, "delete", delete)
    os.mkdir(tmp_path / NAME)  # without a fifo in it
    with pytest.raises(StateError, match="cannot open the guest's control port"):
        foreground.run(Globals(root=str(tmp_path)), Options(id=NAME, bundle="/b", keep=keep))
    assert deleted == ([] if keep else [NAME])
