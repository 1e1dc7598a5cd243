"""What of the host is no monitor: looking at it here, and on a host that lacks things."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from urunc.errors import HostError, KernelError
from urunc.linux import cgroup_layout, devices_bpf, libc, mounts, nftables, ns, seccomp, tc
from urunc.oci.config import Config
from urunc.runtime import facilities, facilities_machine, facilities_network, facilities_sandbox, facility, host
from urunc.runtime.facility import Facility
from urunc.vm import monitors


@pytest.mark.parametrize(("state", "ok", "hint"), [("real", True, None), ("software", False, None)])
def test_kvm(state: str, ok: bool, hint: str | None) -> None:
    found = facilities_machine.find_kvm(state)
    assert (found.ok, found.hint, found.needed) == (ok, hint, False)
    assert facilities_machine.find_kvm("none").hint == "load the module kvm_intel or kvm_amd"


def have(monkeypatch: pytest.MonkeyPatch, folder: Path, version: int, *names: str) -> None:
    """Make the host's cgroups these."""
    trees = {name: cgroup_layout.Hierarchy(mountpoint=str(folder)) for name in names}
    monkeypatch.setattr(cgroup_layout, "detect", lambda: cgroup_layout.Layout(version=version, hierarchies=trees))


def test_cgroups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    have(monkeypatch, tmp_path, 1, "cpu", "cpuset", "memory", "pids", "devices", "blkio", "hugetlb")
    assert facilities_sandbox.find_cgroup().what == "version 1"
    have(monkeypatch, tmp_path, 1, "cpu", "devices")
    assert facilities_sandbox.find_cgroup().what == "version 1, no limits for cpuset, memory, pids, io, hugetlb"
    have(monkeypatch, tmp_path, 1, "cpu")
    assert (facilities_sandbox.find_cgroup().ok, facilities_sandbox.find_cgroup().needed) == (False, True)
    have(monkeypatch, tmp_path, 2, "")
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert (facilities_sandbox.find_cgroup().ok, facilities_sandbox.find_cgroup().what) == (
        True,
        "version 2, no limits for hugetlb",
    )

    def none() -> None:
        raise HostError("no cgroup file system is mounted", hint="mount it")

    monkeypatch.setattr(cgroup_layout, "detect", none)
    found = facilities_sandbox.find_cgroup()
    assert (found.ok, found.what, found.hint) == (False, "no cgroup file system is mounted", "mount it")


def test_what_keeps_devices_away(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    have(monkeypatch, tmp_path, 1, "devices")
    assert facilities_sandbox.find_device_filter().what == "cgroup v1's controller"
    have(monkeypatch, tmp_path, 2, "")
    monkeypatch.setattr(devices_bpf, "load", lambda program: os.open("/dev/null", os.O_RDONLY))
    assert (facilities_sandbox.find_device_filter().ok, facilities_sandbox.find_device_filter().what) == (
        True,
        "eBPF, on cgroup v2",
    )

    def refuse(program: bytes) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(devices_bpf, "load", refuse)
    found = facilities_sandbox.find_device_filter()
    assert (found.ok, found.needed, found.what) == (False, True, "operation not permitted")


@pytest.mark.root
def test_a_device_filter_is_loaded_for_real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    have(monkeypatch, tmp_path, 2, "")
    assert facilities_sandbox.find_device_filter().ok


@pytest.mark.root
def test_the_network_is_tried_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/sys/class/net")
    found = facilities_network.find_network()
    assert (found.ok, found.what) == (True, "taps and redirects work")
    assert os.listdir("/sys/class/net") == before

    def refuse(*_: Any) -> None:
        raise KernelError("cannot redirect")

    monkeypatch.setattr(tc, "add_redirect", refuse)
    found = facilities_network.find_network()
    assert (found.ok, found.what, "act_mirred" in str(found.hint)) == (False, "cannot redirect", True)


@pytest.mark.root
def test_nat_is_tried_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with nftables.Nftables() as tables:
        before = tables.tables()
        found = facilities_network.find_nat()
        assert (found.ok, found.hint) == (True, None)
        assert tables.tables() == before

    def refuse(*_: Any) -> None:
        raise FileNotFoundError(2, "No such file or directory")  # as where the module of an expression is missing

    monkeypatch.setattr(nftables.Nftables, "add_table", refuse)
    found = facilities_network.find_nat()
    assert (found.ok, "nft_masq" in str(found.hint)) == (False, True)


def test_user_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kinds: Any) -> None:
        raise KernelError("cannot make new namespaces (user): no space left on device")

    monkeypatch.setattr(ns, "unshare", refuse)
    found = facilities_sandbox.find_user_namespaces()
    assert (found.ok, "max_user_namespaces" in str(found.hint)) == (False, True)


@pytest.mark.root
def test_the_kernels_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (facilities_sandbox.find_kernel().ok, facilities_sandbox.find_kernel().what) == (True, os.uname().release)

    def missing(*_: Any, **__: Any) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(libc, "openat2", missing)
    found = facilities_sandbox.find_kernel()
    assert (found.ok, "without openat2" in found.what) == (True, True)
    monkeypatch.setattr(mounts, "clone_tree", missing)
    found = facilities_sandbox.find_kernel()
    assert (found.ok, found.needed, found.hint) == (False, True, "use Linux 5.12 or newer")
    assert found.what.endswith("function not implemented")


def test_root_that_lacks_a_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(facilities_sandbox, "_effective_capabilities", lambda: ~(1 << 27 | 1 << 24))
    found = facilities_sandbox.find_root()
    assert (found.ok, found.needed, found.what) == (False, True, "root without CAP_MKNOD")
    limits = facilities_sandbox.find_resource_limits()
    assert (limits.ok, "CAP_SYS_RESOURCE" in str(limits.hint)) == (False, True)
    monkeypatch.setattr(facilities_sandbox, "_effective_capabilities", lambda: ~0)
    assert facilities_sandbox.find_root().ok
    assert facilities_sandbox.find_resource_limits() == limits.replace(ok=True, what="can be raised", hint=None)
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert (facilities_sandbox.find_root().ok, facilities_sandbox.find_root().what) == (False, "this is user 7")


@pytest.mark.parametrize(
    ("room", "find", "module"),
    [(facilities_network, "find_vhost", "vhost_net"), (facilities_machine, "find_loop", "loop")],
)
def test_devices_that_a_module_brings(
    room: ModuleType, find: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "try_to_open", lambda path: f"{path}: no such file or directory")
    found: Facility = getattr(room, find)()
    assert (found.ok, found.needed) == (False, False)
    assert f"load the module {module}" in str(found.hint)
    monkeypatch.setattr(room, "try_to_open", lambda path: "")
    found = getattr(room, find)()
    assert (found.ok, found.hint) == (True, None)


def test_a_device_is_opened() -> None:
    assert facility.try_to_open("/dev/no-such-device") == "/dev/no-such-device: no such file or directory"
    assert facility.try_to_open("/dev/null") == ""


def program(folder: Path, name: str, script: str) -> Path:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


def test_what_a_monitor_was_built_without(tmp_path: Path) -> None:
    can = monitors.load("qemu").CAPABILITIES
    listed = "\n".join(f'name "{part}", bus X' for _, part, _ in can.parts)
    whole = program(tmp_path, "whole", f"cat <<'EOF'\n{listed}\nEOF")
    assert facilities_machine.find_parts(can, str(whole)).what == "all there"
    listed = listed.replace('"virtio-9p-pci"', '"virtio-9p-pci-odd"')
    found = facilities_machine.find_parts(can, str(program(tmp_path, "less", f"cat <<'EOF'\n{listed}\nEOF")))
    assert (found.ok, found.what) == (False, "no virtio-9p-pci (folders shared by 9p)")
    assert "monitors.qemu.path" in str(found.hint)


def test_debians_qemu_has_every_part() -> None:
    binary = Path("/usr/bin/qemu-system-x86_64")
    if not binary.exists():
        pytest.skip("qemu-system-x86_64 is not installed")
    assert facilities_machine.find_parts(monitors.load("qemu").CAPABILITIES, str(binary)).what == "all there"


def test_another_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, other, package = "x86_64", "aarch64", "qemu-system-arm"
    if os.uname().machine != here:
        here, other, package = other, here, "qemu-system-x86"
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = facilities_machine.find_emulation(Config(), here)
    assert (found.name, found.ok, found.hint) == (f"{other} kernels", False, f"install {package}, for {other} kernels")
    assert found.what == f"there is no `qemu-system-{other}` on PATH"
    emulator = program(tmp_path, f"qemu-system-{other}", "")
    monkeypatch.setattr(host, "read_guest_init", lambda arch: b"init")
    (found,) = facilities_machine.find_emulation(Config(), here)
    assert (found.ok, found.what, found.hint) == (True, str(emulator), None)

    def none(arch: str) -> bytes:
        raise HostError(f"urunc's init for Linux guests of {arch} is not installed", hint="install a compiler")

    monkeypatch.setattr(host, "read_guest_init", none)
    (found,) = facilities_machine.find_emulation(Config(), here)
    assert (found.ok, "no Linux guests" in found.what) == (True, True)


def test_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "tsc_khz", lambda cache: 2_600_000)
    assert (facilities_machine.find_clock("x86_64", "").ok, facilities_machine.find_clock("x86_64", "").what) == (
        True,
        "2600 MHz",
    )
    assert not facilities_machine.find_clock("aarch64", "").ok
    monkeypatch.setattr(host, "tsc_khz", lambda cache: 0)
    assert "cannot on `microvm`" in facilities_machine.find_clock("x86_64", "").what


def test_seccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> bytes:
        raise HostError("there is no libseccomp.so.2", hint="install libseccomp2")

    monkeypatch.setattr(seccomp, "compile", none)
    found = facilities_sandbox.find_seccomp()
    assert (found.ok, found.hint) == (False, "install libseccomp2")


def test_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (facilities.find_shim().ok, "make install" in str(facilities.find_shim().hint)) == (False, True)
    shim = program(tmp_path, "containerd-shim-urunc-v2", "")
    assert (facilities.find_shim().ok, facilities.find_shim().what) == (True, str(shim))
    assert facilities.find_delegate("no-such-program").hint == (
        "install no-such-program, or set delegate in [runtime] of the configuration"
    )
    assert facilities.find_delegate("/bin/sh").what == "/bin/sh"


def test_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert facilities_sandbox.find_namespaces().ok
    assert facilities_network.find_ipv6().ok == os.path.exists("/proc/sys/net/ipv6")
    monkeypatch.setattr(host, "read_guest_init", lambda arch: b"x" * 2048)
    assert facilities_machine.find_guest_init("x86_64").what == "installed, 2 kB"


def test_a_try_that_dies_is_a_problem() -> None:
    assert facility.try_in_child(lambda: os.kill(os.getpid(), 9)) == "the attempt was killed"
    assert facility.try_in_child(lambda: None) == ""
    assert facility.try_in_child(lambda: {}["x"]) == "KeyError: 'x'"
