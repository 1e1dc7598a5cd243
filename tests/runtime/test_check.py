"""`check`: what can run, decided from what was seen; and looking, on this host and on one that lacks things."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from urunc import tables
from urunc.errors import HostError, KernelError
from urunc.linux import cgroup_layout, ns, tc
from urunc.oci.config import Config, MonitorConfig
from urunc.runtime import check, load
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
INIT = Facility(name="guest init", ok=False, what="is not installed")


def judged(programs: tuple[Program, ...] = BOTH, *facilities: Facility, arch: str = "x86_64") -> dict[str, str]:
    """Return why each pair cannot run, "" where it can."""
    pairs = check.judge(ROWS, programs, facilities, arch)
    assert all(pair.ok == (not pair.why) for pair in pairs)
    return {f"{pair.guest}-{pair.monitor}": pair.why for pair in pairs}


def test_everything_runs_where_nothing_is_missing() -> None:
    assert judged() == {"linux-qemu": "", "mirage-qemu": "", "mirage-spt": ""}
    optional = Facility(name="seccomp", ok=False, what="none")
    assert set(judged(BOTH, optional).values()) == {""}


def test_a_monitor_that_is_missing_takes_its_pairs() -> None:
    programs = (Program(name="qemu", ok=False, note="not installed"), Program(name="spt", ok=True))
    assert judged(programs) == {"linux-qemu": "not installed", "mirage-qemu": "not installed", "mirage-spt": ""}


def test_without_the_init_only_linux_cannot_run() -> None:
    assert judged(BOTH, INIT) == {"linux-qemu": "is not installed", "mirage-qemu": "", "mirage-spt": ""}


def test_without_what_all_need_nothing_runs() -> None:
    needed = Facility(name="cgroup", ok=False, what="none is mounted", needed=True)
    assert set(judged(BOTH, needed).values()) == {"cgroup: none is mounted"}


def test_another_architecture() -> None:
    assert judged(arch="aarch64") == {"linux-qemu": "not on aarch64", "mirage-qemu": "not on aarch64", "mirage-spt": ""}


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


@pytest.mark.parametrize(("state", "ok", "hint"), [("real", True, None), ("software", False, None)])
def test_kvm(state: str, ok: bool, hint: str | None) -> None:
    found = check.find_kvm(state)
    assert (found.ok, found.hint, found.needed) == (ok, hint, False)
    assert check.find_kvm("none").hint == "load the module kvm_intel or kvm_amd"


def test_cgroups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def layout(version: int, *names: str) -> None:
        trees = {name: cgroup_layout.Hierarchy(mountpoint=str(tmp_path)) for name in names}
        monkeypatch.setattr(cgroup_layout, "detect", lambda: cgroup_layout.Layout(version=version, hierarchies=trees))

    layout(1, "cpu", "cpuset", "memory", "pids", "devices")
    assert check.find_cgroup().what == "version 1"
    layout(1, "cpu", "devices")
    assert check.find_cgroup().what == "version 1, no limits for cpuset, memory, pids"
    layout(1, "cpu")
    assert (check.find_cgroup().ok, check.find_cgroup().needed) == (False, True)
    layout(2, "")
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert (check.find_cgroup().ok, check.find_cgroup().what) == (True, "version 2")

    def none() -> None:
        raise HostError("no cgroup file system is mounted", hint="mount it")

    monkeypatch.setattr(cgroup_layout, "detect", none)
    found = check.find_cgroup()
    assert (found.ok, found.what, found.hint) == (False, "no cgroup file system is mounted", "mount it")


@pytest.mark.root
def test_the_network_is_tried_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/sys/class/net")
    assert check.find_network() == Facility(name="network", ok=True, what="taps and redirects work")
    assert os.listdir("/sys/class/net") == before

    def refuse(*_: Any) -> None:
        raise KernelError("cannot redirect")

    monkeypatch.setattr(tc, "add_redirect", refuse)
    found = check.find_network()
    assert (found.ok, found.what, "act_mirred" in str(found.hint)) == (False, "cannot redirect", True)


def test_user_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kinds: Any) -> None:
        raise KernelError("cannot make new namespaces (user): no space left on device")

    monkeypatch.setattr(ns, "unshare", refuse)
    found = check.find_user_namespaces()
    assert (found.ok, "max_user_namespaces" in str(found.hint)) == (False, True)


def test_the_rest_of_the_facilities(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check.find_namespaces().ok
    assert check.find_delegate("no-such-program").hint == (
        "install no-such-program, or set delegate in [runtime] of the configuration"
    )
    assert check.find_delegate("/bin/sh").what == "/bin/sh"
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert (check.find_root().ok, check.find_root().what) == (False, "this is user 7")
    monkeypatch.setattr(load, "read_guest_init", lambda: b"x" * 2048)
    assert check.find_guest_init().what == "installed, 2 kB"


def test_a_try_that_dies_is_a_problem() -> None:
    assert check._in_child(lambda: os.kill(os.getpid(), 9)) == "the attempt was killed"
    assert check._in_child(lambda: None) == ""
    assert check._in_child(lambda: {}["x"]) == "KeyError: 'x'"


REPORT = Report(
    ok=True,
    arch="x86_64",
    kvm="none",
    monitors=(
        Program(name="qemu", ok=True, path="/q", version="7.2", accel="tcg", note="slow"),
        Program(name="hvt", ok=False, note="not there", hint="install solo5-hvt"),
    ),
    facilities=(
        Facility(name="kvm", ok=False, what="none", hint="load the module"),
        Facility(name="root", ok=True, what="this is root", hint="run as root"),
        Facility(name="again", ok=False, what="none", hint="load the module"),
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
    assert ["kvm", "no", "none"] in lines
    assert ["linux", "qemu", "-"] in lines
    assert ["mirage", "qemu", "hvt"] in lines
    assert text.endswith("what to do for the rest:\n  install solo5-hvt\n  load the module\n")
