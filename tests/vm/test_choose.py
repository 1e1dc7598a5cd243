"""Accelerator, memory, vCPUs, machine type, and the support matrix."""

from __future__ import annotations

import pytest

from urunc.errors import ConfigError, HostError, SpecError
from urunc.oci.config import MonitorConfig
from urunc.vm import choose, guests, monitors
from urunc.vm.machine import KernelInfo
from urunc.vm.monitors import hvt, qemu, spt

DEFAULT = MonitorConfig()
MIB = 1024 * 1024


class TestAccelerator:
    def test_auto_takes_only_a_real_kvm(self) -> None:
        assert choose.accelerator(qemu.CAPABILITIES, DEFAULT, "real") == ("kvm", None)
        for state, reason in (("none", "no usable /dev/kvm"), ("software", "no hardware behind it")):
            accel, message = choose.accelerator(qemu.CAPABILITIES, DEFAULT, state)
            assert accel == "tcg"
            assert message is not None and reason in message

    def test_configured(self) -> None:
        assert choose.accelerator(qemu.CAPABILITIES, MonitorConfig(accel="tcg"), "real") == ("tcg", None)
        assert choose.accelerator(qemu.CAPABILITIES, MonitorConfig(accel="kvm"), "real") == ("kvm", None)

    @pytest.mark.parametrize(
        ("state", "reason"), [("none", "no usable /dev/kvm"), ("software", "no hardware behind it")]
    )
    def test_kvm_is_not_replaced_by_software(self, state: str, reason: str) -> None:
        with pytest.raises(HostError, match=reason) as caught:
            choose.accelerator(qemu.CAPABILITIES, MonitorConfig(accel="kvm"), state)
        assert caught.value.hint is not None

    def test_another_architecture_is_emulated_and_said(self) -> None:
        for config in (DEFAULT, MonitorConfig(accel="auto")):
            accel, message = choose.accelerator(qemu.CAPABILITIES, config, "foreign")
            assert (accel, "another architecture" in str(message)) == ("tcg", True)
        with pytest.raises(HostError, match="another architecture") as caught:
            choose.accelerator(qemu.CAPABILITIES, MonitorConfig(accel="kvm"), "foreign")
        assert caught.value.hint == 'set monitors.qemu.accel = "auto"'

    def test_required_by_the_monitor(self) -> None:
        assert choose.accelerator(hvt.CAPABILITIES, MonitorConfig(accel="tcg"), "software") == ("kvm", None)
        with pytest.raises(HostError, match="`hvt` needs KVM"):
            choose.accelerator(hvt.CAPABILITIES, DEFAULT, "none")

    def test_unknown_to_the_monitor(self) -> None:
        assert choose.accelerator(spt.CAPABILITIES, MonitorConfig(accel="kvm"), "none") == ("tcg", None)


class TestMemory:
    @pytest.mark.parametrize("limit", [None, -1, 0])
    def test_without_a_limit(self, limit: int | None) -> None:
        assert choose.guest_memory(limit, DEFAULT, 50, 4) == 256
        assert choose.guest_memory(limit, MonitorConfig(default_memory_mb=64), 50, 512) == 512

    def test_the_guest_gets_what_the_monitor_leaves(self) -> None:
        assert choose.guest_memory(256 * MIB, DEFAULT, 56, 4) == 200
        assert choose.guest_memory(256 * MIB + MIB - 1, DEFAULT, 56, 4) == 200

    def test_a_monitor_that_holds_what_it_loads_twice(self) -> None:
        """Mewz's zeros are 320 MiB, and QEMU's copy of them counts as well."""
        can = monitors.load("qemu").CAPABILITIES
        kernel = KernelInfo(format="elf64", multiboot=True, load_bytes=3 * MIB + 1)
        assert choose.measured_overhead(can, kernel, 2 * MIB) == can.overhead_mib + 6
        assert choose.measured_overhead(can, kernel.replace(multiboot=False), 2 * MIB) == can.overhead_mib
        assert choose.measured_overhead(can.replace(multiboot_twice=False), kernel, 0) == can.overhead_mib

    def test_configured_overhead(self) -> None:
        assert choose.guest_memory(256 * MIB, MonitorConfig(overhead_mb=0), 56, 4) == 256

    def test_too_little_names_both_numbers(self) -> None:
        assert choose.guest_memory(60 * MIB, DEFAULT, 56, 4) == 4
        with pytest.raises(SpecError) as caught:
            choose.guest_memory(59 * MIB, DEFAULT, 56, 4)
        assert "59 MiB" in caught.value.message and "56 MiB" in caught.value.message
        assert caught.value.hint == "give at least 60 MiB"


class TestVcpus:
    @pytest.mark.parametrize(
        ("quota", "period", "expected"),
        [
            (None, None, 1),
            (-1, 100_000, 1),
            (0, 100_000, 1),
            (50_000, 100_000, 1),
            (100_000, 100_000, 1),
            (100_001, 100_000, 2),
            (250_000, None, 3),
            (900_000, 100_000, 8),
            (10_000, 5_000, 2),
        ],
    )
    def test_limit(self, quota: int | None, period: int | None, expected: int) -> None:
        assert choose.vcpus(quota, period, DEFAULT, qemu.CAPABILITIES, 8) == expected

    def test_default_is_the_configuration_s(self) -> None:
        assert choose.vcpus(None, None, MonitorConfig(default_vcpus=4), qemu.CAPABILITIES, 8) == 4
        assert choose.vcpus(None, None, MonitorConfig(default_vcpus=4), qemu.CAPABILITIES, 2) == 2

    def test_a_monitor_s_most(self) -> None:
        assert choose.vcpus(400_000, 100_000, DEFAULT, spt.CAPABILITIES, 8) == 1


def test_model() -> None:
    assert choose.model(qemu.CAPABILITIES, DEFAULT, "x86_64") == "q35"
    assert choose.model(qemu.CAPABILITIES, MonitorConfig(machine="microvm"), "x86_64") == "microvm"
    assert choose.model(qemu.CAPABILITIES, MonitorConfig(machine="microvm"), "aarch64") == ""
    assert choose.model(spt.CAPABILITIES, DEFAULT, "x86_64") == ""
    with pytest.raises(ConfigError, match="`isapc` is not a machine type"):
        choose.model(qemu.CAPABILITIES, MonitorConfig(machine="isapc"), "x86_64")


@pytest.mark.parametrize(
    ("monitor", "kernel", "machine"),
    [
        ("qemu", "aarch64", "aarch64"),  # it emulates what is not the host's
        ("qemu", "x86_64", "x86_64"),
        ("qemu", "", "x86_64"),  # a kernel that does not say
        ("firecracker", "aarch64", "x86_64"),  # .. which its own check then refuses
        ("spt", "aarch64", "x86_64"),
    ],
)
def test_the_architecture_is_the_kernels_where_it_can_be_emulated(monitor: str, kernel: str, machine: str) -> None:
    can = monitors.load(monitor).CAPABILITIES
    assert choose.architecture(can, KernelInfo(format="elf64", arch=kernel), "x86_64") == machine


def test_matrix() -> None:
    rows = {(row.guest, row.monitor): row for row in choose.matrix()}
    assert {("linux", "qemu"), ("unikraft", "qemu"), ("mirage", "hvt"), ("mirage", "spt")} <= set(rows)
    assert ("linux", "spt") not in rows
    assert rows["linux", "qemu"].roots[:2] == ("initrd", "none")
    assert rows["mirage", "hvt"].kvm == "required"
    assert rows["mirage", "hvt"].architectures == ("x86_64", "aarch64")
    assert rows["mirage", "qemu"].architectures == rows["mewz", "qemu"].architectures == ("x86_64",)


def test_supports() -> None:
    pairs = {(row.guest, row.monitor) for row in choose.matrix()}
    for guest in (*guests.GUESTS, "windows"):
        for monitor in (*monitors.MONITORS, "firecracker", "bochs"):
            assert choose.supports(guest, monitor) == ((guest, monitor) in pairs)


@pytest.mark.parametrize("name", guests.GUESTS)
def test_guest_modules(name: str) -> None:
    module = guests.load(name)
    assert name == module.NAME
    assert module.MONITORS and module.ROOTS
    assert guests.load(name) is module


@pytest.mark.parametrize("name", monitors.MONITORS)
def test_monitor_modules(name: str) -> None:
    module = monitors.load(name)
    assert name == module.NAME == module.CAPABILITIES.name
    assert module.CAPABILITIES.kvm in ("no", "optional", "required")
    assert module.CAPABILITIES.tap_by in ("fd", "name")


def test_unknown_modules() -> None:
    for registry in (guests, monitors):
        with pytest.raises(KeyError):
            registry.load("os")
