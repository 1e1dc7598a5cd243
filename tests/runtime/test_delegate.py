"""Handing a call over to runc: which program, with what, and the errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from urunc.errors import HostError
from urunc.runtime import delegate

RECORDER = """#!/bin/sh
for arg in "$0" "$@"; do printf '%s\\n' "$arg"; done > "$OUT"
grep SigIgn /proc/$$/status >> "$OUT"
echo "$KEPT" >> "$OUT"
exit 7
"""


def program(folder: Path, name: str = "runc", text: str = RECORDER) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_the_delegate_gets_the_command_line_and_the_environment_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runc = program(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("OUT", f"{tmp_path}/out")
    monkeypatch.setenv("KEPT", "a value")
    argv = ("/usr/bin/urunc", "--root", "/r", "--", "a b", "", "*")
    pid = os.fork()
    if pid == 0:
        try:
            delegate.exec_delegate("runc", argv)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    *seen, ignored, kept = (tmp_path / "out").read_text().splitlines()
    assert seen == [str(runc), *argv[1:]]
    assert kept == "a value"
    assert int(ignored.split()[1], 16) & 0x1000 == 0, "SIGPIPE is ignored"


def test_a_missing_delegate_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="cannot find `runc`") as caught:
        delegate.exec_delegate("runc", ("urunc", "state", "x"))
    assert caught.value.hint == "install runc, or set delegate in [runtime] of the configuration"
    with pytest.raises(HostError, match="cannot find `/none/runc`"):
        delegate.exec_delegate("/none/runc", ("urunc",))


def test_urunc_under_runcs_name_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = program(tmp_path / "a", "urunc")
    (tmp_path / "a/runc").symlink_to(ours)
    real = program(tmp_path / "b")
    monkeypatch.setattr(sys, "argv", [str(ours), "state", "x"])
    monkeypatch.setenv("PATH", f"{tmp_path}/a:{tmp_path}/b")
    assert delegate.find("runc") == str(real)
    with pytest.raises(HostError, match="is urunc itself"):
        delegate.exec_delegate(str(tmp_path / "a/runc"), ("urunc",))


def test_what_cannot_be_executed_is_an_error(tmp_path: Path) -> None:
    broken = program(tmp_path / "bin", text="not a program")
    with pytest.raises(HostError, match=r"cannot run the delegate `.*/runc`: exec format error"):
        delegate.exec_delegate(str(broken), ("urunc",))


def test_the_delegate_is_looked_for_in_absolute_folders_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin")
    monkeypatch.chdir(tmp_path / "bin")
    for path in ("", ".", "../bin"):
        monkeypatch.setenv("PATH", path)
        assert delegate.find("runc") is None
    monkeypatch.setenv("PATH", f":{tmp_path}/bin")
    assert delegate.find("runc") == f"{tmp_path}/bin/runc"


def test_without_path_it_is_looked_for_where_debian_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PATH")
    monkeypatch.setattr(os, "access", lambda path, _mode: path == "/usr/sbin/runc")
    monkeypatch.setattr(os.path, "isfile", lambda path: path == "/usr/sbin/runc")
    assert delegate.find("runc") == "/usr/sbin/runc"


def test_only_a_program_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runc").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert delegate.find("runc") is None
