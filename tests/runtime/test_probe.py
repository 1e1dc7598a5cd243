"""What is asked of the machine once: the libraries of a program, and questions to a child that may die."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from urunc.runtime import probe


def test_libraries() -> None:
    program = os.path.realpath(sys.executable)
    files = probe.libraries(program)
    assert [name for name in files if "/libc.so" in name]
    assert [name for name in files if "ld-linux" in name]
    assert all(os.path.exists(name) for name in files)


def test_libraries_suffice(tmp_path: Path) -> None:
    """A program runs in a root that holds nothing but it and them."""
    if os.geteuid() != 0:
        pytest.skip("needs root (chroot)")
    for path in ("/bin/cat", *probe.libraries("/bin/cat")):
        target = tmp_path / "root" / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.chroot(tmp_path / "root")
            os.execv("/bin/cat", ["cat", "/bin/cat"])  # noqa: S606
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_static_program_has_no_libraries() -> None:
    static = shutil.which("busybox")
    if static is None:
        pytest.skip("busybox-static is not installed")
    assert probe.libraries(static) == []


def test_a_probe_that_dies_or_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_PROBE_SECONDS", 0.05)
    children, fork = [], os.fork
    monkeypatch.setattr(os, "fork", lambda: children.append(fork()) or children[-1])
    assert probe._in_child(lambda: os.kill(os.getpid(), 9) or 1) == 0
    assert probe._in_child(lambda: 1 // 0) == 0
    assert probe._in_child(lambda: __import__("time").sleep(60) or 1) == 0
    monkeypatch.setattr(probe, "_PROBE_SECONDS", 10.0)
    assert probe._in_child(lambda: 42) == 42
    for child in children:
        with pytest.raises(ChildProcessError):
            os.waitpid(child, os.WNOHANG)


def test_tsc_agrees_with_the_clock() -> None:
    khz = probe.tsc_khz()
    assert khz == 0 or 100_000 < khz < 10_000_000


def test_a_device_that_is_no_kvm(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for device in ("/dev/null", str(tmp_path / "file"), str(tmp_path / "missing")):
        assert probe.kvm(device) == "none"
