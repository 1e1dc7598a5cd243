"""Finding monitors and their files, KVM, the TSC, and the cache that keeps the answers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from urunc import jsonio
from urunc.errors import HostError
from urunc.oci.config import MonitorConfig
from urunc.runtime import host, probe
from urunc.vm.monitors import qemu

FAKE = "#!/bin/sh\necho FAKE emulator version 9.1.2 >> {log}\necho FAKE emulator version 9.1.2\n"


def fake(folder: Path, name: str = "qemu-system-x86_64") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(FAKE.format(log=folder / "log"))
    program.chmod(0o755)
    return program


def runs(program: Path) -> int:
    return (program.parent / "log").read_text().count("\n")


def test_configured_path(tmp_path: Path) -> None:
    program = fake(tmp_path)
    assert host.find_monitor("qemu", MonitorConfig(path=str(program)), "x86_64") == str(program)
    for wrong in (tmp_path, tmp_path / "missing"):
        with pytest.raises(HostError, match=r"monitors\.qemu\.path: .* is not a program"):
            host.find_monitor("qemu", MonitorConfig(path=str(wrong)), "x86_64")


def test_path_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/qemu-system-x86_64").write_text("not executable")
    program = fake(tmp_path / "b")
    monkeypatch.setenv("PATH", f"{tmp_path}/a:{tmp_path}/b")
    assert host.find_monitor("qemu", MonitorConfig(), "x86_64") == str(program)


def test_relative_folders_of_path_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", ".:")
    with pytest.raises(HostError):
        host.find_monitor("qemu", MonitorConfig(), "x86_64")


def test_missing_monitor_has_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostError, match="no `solo5-spt` on PATH") as caught:
        host.find_monitor("spt", MonitorConfig(), "x86_64")
    assert caught.value.hint == "install solo5-spt, or set monitors.spt.path"
    with pytest.raises(HostError, match="does not run on riscv64"):
        host.find_monitor("spt", MonitorConfig(), "riscv64")


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="aarch64 is not another architecture here")
def test_another_architectures_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is configured is the host's own; the other lies beside it, or is found as any."""
    monkeypatch.setenv("PATH", f"{tmp_path}/b")
    config = MonitorConfig(path=str(fake(tmp_path / "a")))
    with pytest.raises(HostError, match="the kernel is for aarch64, and monitor `qemu` for that is not") as caught:
        host.find_monitor("qemu", config, "aarch64")
    assert caught.value.hint == "install qemu-system-arm, or build the kernel for x86_64"
    on_path = fake(tmp_path / "b", "qemu-system-aarch64")
    for given in (config, MonitorConfig()):
        assert host.find_monitor("qemu", given, "aarch64") == str(on_path)
    beside = fake(tmp_path / "a", "qemu-system-aarch64")
    assert host.find_monitor("qemu", config, "aarch64") == str(beside)


def test_support_files_lie_beside_the_binary(tmp_path: Path) -> None:
    program = fake(tmp_path / "opt/bin")
    firmware = tmp_path / "opt/share/qemu/pvh.bin"
    firmware.parent.mkdir(parents=True)
    firmware.write_bytes(b"x")
    found = host.probe_monitor("qemu", MonitorConfig(path=str(program)), "x86_64", str(tmp_path / "cache"))
    assert found.binary == str(program)
    assert found.version == (9, 1, 2)
    assert [bind.source for bind in found.binds] == [str(program), str(firmware)]
    assert all(bind.source == bind.target for bind in found.binds)


def test_data_path_is_bound(tmp_path: Path) -> None:
    program = fake(tmp_path / "bin")
    config = MonitorConfig(path=str(program), data_path=str(tmp_path))
    found = host.probe_monitor("qemu", config, "x86_64", str(tmp_path / "cache"))
    assert str(tmp_path) in [bind.source for bind in found.binds]


def test_answer_is_kept_until_a_file_changes(tmp_path: Path) -> None:
    program = fake(tmp_path / "bin")
    config, cache = MonitorConfig(path=str(program)), str(tmp_path / "cache")
    first = host.probe_monitor("qemu", config, "x86_64", cache)
    assert host.probe_monitor("qemu", config, "x86_64", cache) == first
    assert runs(program) == 1
    os.utime(program, ns=(1, 1))
    assert host.probe_monitor("qemu", config, "x86_64", cache) == first
    assert runs(program) == 2


def test_what_is_installed_later_is_found(tmp_path: Path) -> None:
    program = fake(tmp_path / "opt/bin")
    firmware = tmp_path / "opt/share/qemu"
    firmware.mkdir(parents=True)
    (firmware / "pvh.bin").write_bytes(b"x")
    config, cache = MonitorConfig(path=str(program)), str(tmp_path / "cache")
    first = host.probe_monitor("qemu", config, "x86_64", cache)
    os.utime(firmware, ns=(1, 1))  # clocks of file systems are coarse
    second = host.probe_monitor("qemu", config, "x86_64", cache)
    (firmware / "linuxboot_dma.bin").write_bytes(b"x")
    third = host.probe_monitor("qemu", config, "x86_64", cache)
    assert second == first
    assert [bind.source for bind in third.binds] == [str(program), *sorted(map(str, firmware.iterdir()))]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"inputs": 1}', b"\xff"])
def test_a_spoiled_cache_is_passed_over(tmp_path: Path, content: bytes) -> None:
    program = fake(tmp_path / "bin")
    config, cache = MonitorConfig(path=str(program)), tmp_path / "cache"
    first = host.probe_monitor("qemu", config, "x86_64", str(cache))
    (cache / "monitor-qemu-x86_64").write_bytes(content)
    assert host.probe_monitor("qemu", config, "x86_64", str(cache)) == first


def test_no_cache_is_no_error(tmp_path: Path) -> None:
    program = fake(tmp_path / "bin")
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    assert host.probe_monitor("qemu", MonitorConfig(path=str(program)), "x86_64", str(nowhere)).version == (9, 1, 2)


def test_real_qemu(tmp_path: Path) -> None:
    """Debian's QEMU opens modules and firmware that ldd does not list, and the modules have libraries of their own."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    found = host.probe_monitor("qemu", MonitorConfig(), "x86_64", str(tmp_path))
    names = [os.path.basename(bind.source) for bind in found.binds]
    assert found.version >= (2,)
    assert "pvh.bin" in names and "bios-256k.bin" in names
    assert len(names) > len(qemu.CAPABILITIES.support)


def test_kvm_state(tmp_path: Path) -> None:
    state = host.kvm_state(str(tmp_path))
    assert state in ("none", "real", "software")
    if state != "none":
        assert (tmp_path / "kvm").exists()
    if not os.path.exists("/dev/kvm"):
        assert state == "none"
    assert host.kvm_state(str(tmp_path)) == state


def test_answers_last_until_the_next_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(probe, "tsc_khz", lambda: asked.append(1) or 2_500_000)
    assert host.tsc_khz(str(tmp_path)) == 2_500_000
    assert host.tsc_khz(str(tmp_path)) == 2_500_000
    assert len(asked) == 1
    kept = tmp_path / "tsc"
    kept.write_bytes(kept.read_bytes().replace(b'"boot":"', b'"boot":"an-earlier-'))
    assert host.tsc_khz(str(tmp_path)) == 2_500_000
    assert len(asked) == 2


def test_an_answer_of_another_version_is_asked_for_anew(tmp_path: Path) -> None:
    program = fake(tmp_path / "bin")
    config, cache = MonitorConfig(path=str(program)), tmp_path / "cache"
    first = host.probe_monitor("qemu", config, "x86_64", str(cache))
    known = jsonio.loads((cache / "monitor-qemu-x86_64").read_bytes())
    (cache / "monitor-qemu-x86_64").write_bytes(jsonio.dumps({**known, "urunc": "0.0.1", "answer": {}}))
    assert host.probe_monitor("qemu", config, "x86_64", str(cache)) == first
    assert runs(program) == 2


def test_cpu_count() -> None:
    assert host.cpu_count() == len(os.sched_getaffinity(0)) >= 1
