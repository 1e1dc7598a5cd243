"""`check`: what can run, decided from what was seen; looking for monitors; and the report's form."""

from __future__ import annotations

from pathlib import Path

import pytest

from urunc import tables
from urunc.oci.config import Config, MonitorConfig
from urunc.runtime import check
from urunc.runtime.check import Facility, Pair, Program, Report
from urunc.vm.choose import Row

ROWS = (
    Row(
        guest="linux",
        monitor="qemu",
        roots=(),
        architectures=("x86_64",),
        kvm="optional",
        own_init=True,
        full_cpu=True,
    ),
    Row(guest="mirage", monitor="qemu", roots=(), architectures=("x86_64",), kvm="optional"),
    Row(guest="mirage", monitor="spt", roots=(), architectures=("x86_64", "aarch64"), kvm="no"),
)
BOTH = (Program(name="qemu", ok=True), Program(name="spt", ok=True))
INIT = Facility(name="guest init", used="Linux", ok=False, what="is not installed")


def judged(programs: tuple[Program, ...] = BOTH, *facilities: Facility, arch: str = "x86_64") -> dict[str, str]:
    """Return why each pair cannot run, "" where it can."""
    pairs = check.judge(ROWS, programs, facilities, arch)
    assert all(pair.ok == (not pair.why) for pair in pairs)
    return {f"{pair.guest}-{pair.monitor}": pair.why for pair in pairs}


def test_everything_runs_where_nothing_is_missing() -> None:
    assert judged() == {"linux-qemu": "", "mirage-qemu": "", "mirage-spt": ""}
    optional = Facility(name="seccomp", used="", ok=False, what="none")
    assert set(judged(BOTH, optional).values()) == {""}


def test_a_monitor_that_is_missing_takes_its_pairs() -> None:
    programs = (Program(name="qemu", ok=False, note="not installed"), Program(name="spt", ok=True))
    assert judged(programs) == {"linux-qemu": "not installed", "mirage-qemu": "not installed", "mirage-spt": ""}


def test_without_the_init_only_linux_cannot_run() -> None:
    assert judged(BOTH, INIT) == {"linux-qemu": "is not installed", "mirage-qemu": "", "mirage-spt": ""}


def test_without_what_all_need_nothing_runs() -> None:
    needed = Facility(name="cgroup", used="", ok=False, what="none is mounted", needed=True)
    assert set(judged(BOTH, needed).values()) == {"cgroup: none is mounted"}


def test_another_architecture() -> None:
    assert judged(arch="aarch64") == {"linux-qemu": "not on aarch64", "mirage-qemu": "not on aarch64", "mirage-spt": ""}
    emulator = Facility(name="x86_64 kernels", used="", ok=True, what="/usr/bin/qemu-system-x86_64")
    assert set(judged(BOTH, emulator, arch="aarch64").values()) == {""}
    missing = emulator.replace(ok=False)
    assert judged(BOTH, missing, arch="aarch64")["linux-qemu"] == "not on aarch64"


def test_linux_needs_more_than_a_kvm_in_software() -> None:
    programs = (Program(name="qemu", ok=True, accel="kvm", note=check._SOFTWARE), Program(name="spt", ok=True))
    found = judged(programs)
    assert "no hardware" in found["linux-qemu"]
    assert found["mirage-qemu"] == ""


def test_monitors_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "solo5-spt"
    program.write_text("#!/bin/sh\necho solo5 v1.2.3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    cache = str(tmp_path / "cache")
    found = check.find_monitor("spt", Config(), "x86_64", "none", cache)
    assert found == Program(name="spt", ok=True, path=str(program), version="1.2.3")
    missing = check.find_monitor("hvt", Config(), "x86_64", "real", cache)
    assert (missing.ok, missing.hint) == (False, "install solo5-hvt, or set monitors.hvt.path")
    program.rename(tmp_path / "solo5-hvt")
    without = check.find_monitor("hvt", Config(), "x86_64", "none", cache)
    assert (without.ok, without.version, "needs KVM" in without.note) == (False, "1.2.3", True)
    weak = check.find_monitor("hvt", Config(), "x86_64", "software", cache)
    assert (weak.ok, weak.accel, weak.note) == (True, "kvm", check._SOFTWARE)
    real = check.find_monitor("hvt", Config(), "x86_64", "real", cache)
    assert (real.ok, real.accel, real.note) == (True, "kvm", "")
    wrong = Config(monitors=(("hvt", MonitorConfig(machine="q35")),))
    assert "is not a machine type" in check.find_monitor("hvt", wrong, "x86_64", "real", cache).note


@pytest.mark.root
def test_the_whole_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every facility once, each with what it is used for; a monitor that can lack something has a row for that."""
    program = tmp_path / "qemu-system-x86_64"
    program.write_text("#!/bin/sh\necho QEMU 7.2.1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    report = check.check(str(tmp_path / "cache"), Config())
    names = [facility.name for facility in report.facilities]
    assert len(set(names)) == len(names)
    assert {"root", "kernel", "kvm", "network", "nat", "vhost-net", "loop devices", "shim", "qemu's parts"} <= set(
        names
    )
    assert all(facility.used and facility.what for facility in report.facilities)
    assert check.to_data(report)["facilities"][0].keys() >= {"name", "used", "ok", "what", "hint", "needed"}


REPORT = Report(
    ok=True,
    arch="x86_64",
    kvm="none",
    monitors=(
        Program(name="qemu", ok=True, path="/q", version="7.2", accel="tcg", note="slow"),
        Program(name="hvt", ok=False, note="not there", hint="install solo5-hvt"),
    ),
    facilities=(
        Facility(name="kvm", used="vCPUs", ok=False, what="none", hint="load the module"),
        Facility(name="root", used="all", ok=True, what="this is root", hint="run as root"),
        Facility(name="again", used="more", ok=False, what="none", hint="load the module"),
    ),
    pairs=(
        Pair(guest="linux", monitor="qemu", ok=True),
        Pair(guest="mirage", monitor="hvt", ok=False, why="not there"),
        Pair(guest="mirage", monitor="qemu", ok=True),
    ),
)


def test_what_is_to_be_done_is_said_once() -> None:
    assert check.hints(REPORT) == ("install solo5-hvt", "load the module")


def test_the_tables() -> None:
    text = tables.report(check.to_data(REPORT), "table")
    lines = [line.split() for line in text.splitlines()]
    assert ["qemu", "yes", "7.2", "/q", "slow"] in lines
    assert ["hvt", "no", "-", "-", "not", "there"] in lines
    assert ["kvm", "no", "vCPUs", "none"] in lines
    assert ["linux", "qemu", "-"] in lines
    assert ["mirage", "qemu", "hvt"] in lines
    assert text.endswith("what to do for the rest:\n  install solo5-hvt\n  load the module\n")
