"""Solo5's tenders: their argv, and every way in which manifest and container can disagree."""

from __future__ import annotations

import pytest

from urunc.errors import ImageError
from urunc.vm.machine import Boot, Disk, Host, KernelInfo, Launch, Machine, Network
from urunc.vm.monitors import hvt, spt
from vmcases import NETWORKS, PLAIN_NIC, SECOND_NIC, solo5_kernel

HOST = Host(binary="/usr/bin/solo5-spt")


def make(nics: int = 0, disks: int = 0, /, **fields: object) -> Machine:
    values = {"name": "web", "arch": "x86_64", "memory_mib": 32, "kernel": solo5_kernel("spt", nics, disks), **fields}
    return Machine(**values)  # type: ignore[arg-type]


def launch(machine: Machine) -> Launch:
    spt.check(machine)
    return spt.launch(machine, HOST)


def test_arguments_come_behind_the_kernel() -> None:
    result = launch(make(boot=Boot(arguments=("--mem=1", "a b"))))
    assert result.argv == ("/usr/bin/solo5-spt", "--mem=32", "--", "/kernel", "--mem=1", "a b")
    assert result.devices == () and result.fds == ()


def test_aarch64_is_no_different() -> None:
    kernel = solo5_kernel("spt", 1, 1).replace(arch="aarch64")
    devices = {"network": NETWORKS["plain"], "disks": (Disk(path="/disk0"),)}
    assert launch(make(arch="aarch64", kernel=kernel, **devices)) == launch(make(1, 1, **devices))
    with pytest.raises(ImageError, match="the kernel is for aarch64, the machine is x86_64"):
        spt.check(make(kernel=kernel, **devices))


def test_devices_under_the_manifest_s_names() -> None:
    result = launch(make(1, 1, network=NETWORKS["plain"], disks=(Disk(path="/disk0", sector_size=4096),)))
    assert result.argv[1:7] == (
        "--mem=32",
        "--net:service0=urunc0-abcdefg",
        "--net-mac:service0=02:42:ac:11:00:02",
        "--block:storage0=/disk0",
        "--block-sector-size:storage0=4096",
        "--",
    )
    assert result.devices == ("net/tun",)


def test_primary_nic_takes_the_first_device() -> None:
    result = launch(make(2, network=NETWORKS["two"]))
    assert f"--net:service0={PLAIN_NIC.tap}" in result.argv
    assert f"--net:service1={SECOND_NIC.tap}" in result.argv


def test_the_image_names_the_device() -> None:
    result = launch(make(2, network=NETWORKS["two"], boot=Boot(net_device="service1")))
    assert f"--net:service1={PLAIN_NIC.tap}" in result.argv
    with pytest.raises(ImageError, match="solo5NetDev: the kernel's manifest has no device `eth`"):
        launch(make(1, network=NETWORKS["plain"], boot=Boot(net_device="eth")))


def test_disks_by_name_else_in_order() -> None:
    named = (Disk(path="/disk0", name="storage1"), Disk(path="/disk1", name="storage0"))
    assert "--block:storage1=/disk0" in launch(make(0, 2, disks=named)).argv
    plain = (Disk(path="/disk0"), Disk(path="/disk1"))
    assert "--block:storage1=/disk1" in launch(make(0, 2, disks=plain)).argv
    chosen = make(0, 2, disks=plain, boot=Boot(block_device="storage1"))
    assert "--block:storage1=/disk0" in launch(chosen).argv


def test_nics_that_the_manifest_does_not_know_stay_outside() -> None:
    result = launch(make(0, network=NETWORKS["two"]))
    assert not [word for word in result.argv if word.startswith("--net")]
    assert result.devices == ()


def test_a_declared_nic_that_is_not_there() -> None:
    spt.check(make(2))  # the network is not known yet when a container is planned
    with pytest.raises(
        ImageError, match="network devices `service0`, `service1`, the container has 1 network interface for"
    ):
        launch(make(2, network=NETWORKS["plain"]))


def test_a_declared_disk_that_is_not_there() -> None:
    with pytest.raises(ImageError, match="the block device `storage0`, the image gives 0") as caught:
        spt.check(make(0, 1))
    assert caught.value.hint


def test_a_disk_that_is_not_declared() -> None:
    with pytest.raises(ImageError, match="declares no block device, the image gives 1"):
        spt.check(make(0, 0, disks=(Disk(path="/disk0"),)))


def test_sixty_three_devices_are_named_in_short() -> None:
    with pytest.raises(ImageError) as caught:
        launch(make(63))
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (solo5_kernel("hvt", 0, 0), "built for Solo5's `hvt`, not for `spt`"),
        (solo5_kernel("spt", 0, 0).replace(solo5_devices=None), "no Solo5 manifest"),
        (solo5_kernel("spt", 0, 0).replace(solo5_abi_version=9), "version 9"),
        (solo5_kernel("spt", 0, 0).replace(arch="aarch64"), "for aarch64"),
        (KernelInfo(format="elf64", arch="x86_64"), "not a Solo5 kernel"),
        (KernelInfo(format="bzimage", arch="x86_64"), "not a Solo5 kernel"),
    ],
)
def test_kernels_that_it_cannot_boot(kernel: KernelInfo, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        spt.check(make(kernel=kernel))


@pytest.mark.parametrize(("version", "abi"), [((0, 6, 9), 2), ((0, 7), 1), ((0, 12, 1), 1)])
def test_a_kernel_of_another_age(version: tuple[int, ...], abi: int) -> None:
    machine = make()
    machine = machine.replace(kernel=machine.kernel.replace(solo5_abi_version=abi))
    with pytest.raises(ImageError, match=rf"version {abi} of Solo5's ABI, and `/usr/bin/solo5-spt` speaks {3 - abi}"):
        spt.launch(machine, HOST.replace(version=version))
    assert spt.launch(machine, HOST).argv


def test_other_tender_is_named() -> None:
    with pytest.raises(ImageError) as caught:
        spt.check(make(kernel=solo5_kernel("hvt", 0, 0)))
    assert caught.value.hint == "set the annotation hypervisor to hvt"


def test_long_command_line() -> None:
    spt.check(make(boot=Boot(arguments=("x" * 8191,))))
    with pytest.raises(ImageError, match="8192 bytes long"):
        spt.check(make(boot=Boot(arguments=("x" * 4000, "y" * 4191))))


def test_hvt_needs_kvm() -> None:
    machine = make(1, kernel=solo5_kernel("hvt", 1, 0), network=Network(nics=(PLAIN_NIC,)))
    hvt.check(machine)
    result = hvt.launch(machine, HOST)
    assert result.devices == ("kvm", "net/tun")


def test_a_read_only_disk_is_an_error() -> None:
    with pytest.raises(ImageError, match=r"root\.readonly"):
        launch(make(0, 1, disks=(Disk(path="/disk0", readonly=True),)))
