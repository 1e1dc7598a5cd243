"""The command lines on aarch64: QEMU's `virt` with its PL011, Firecracker with its 8250, an `Image` as the kernel.

tests/cli/test_aarch64.py boots QEMU's. Write the files anew with URUNC_GOLDEN=write.
"""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import pytest

from urunc.errors import ImageError
from urunc.vm import choose, guests, monitors
from urunc.vm.machine import Host, KernelInfo, Machine, Root
from vmcases import LINUX_KERNEL, NETWORKS, VERSIONS, describe, make_app, make_context

FOLDER = Path(__file__).resolve().parent.parent / "golden/aarch64"
IMAGE = KernelInfo(format="arm64", arch="aarch64")
CASES = list(product(("linux", "unikraft"), ("qemu", "firecracker"), ("none", "plain", "offlink"), ("initrd",)))


def make_machine(guest: str, monitor: str, network: str, root: str) -> Machine:
    module = monitors.load(monitor)
    accel = "kvm" if module.CAPABILITIES.kvm == "required" else "tcg"
    context = make_context(guest, IMAGE, "", arch="aarch64", accel=accel)
    app = make_app(guest, monitor, Root(kind=root))
    boot = guests.load(guest).boot(app, NETWORKS[network], Root(kind=root), module.CAPABILITIES, context)
    machine = Machine(
        name="web",
        arch="aarch64",
        memory_mib=256,
        accel=accel,
        kernel=IMAGE,
        initrd=True,
        boot=boot,
        network=NETWORKS[network],
    )
    module.check(machine)
    return machine


@pytest.mark.parametrize(("guest", "monitor", "network", "root"), CASES)
def test_command_line(guest: str, monitor: str, network: str, root: str) -> None:
    machine = make_machine(guest, monitor, network, root)
    module = monitors.load(monitor)
    binary = dict(module.CAPABILITIES.binaries)["aarch64"]
    launch = module.launch(machine, Host(binary=f"/usr/bin/{binary}", version=VERSIONS[monitor][-1]))
    actual = describe(machine.boot, launch)
    path = FOLDER / f"{guest}-{monitor}-{network}-{root}.txt"
    if os.environ.get("URUNC_GOLDEN") == "write":
        path.write_text(actual)
    assert actual == path.read_text()


def test_no_file_without_a_case() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{'-'.join(case)}.txt" for case in CASES}


def test_every_pair_that_claims_it_has_one() -> None:
    """Solo5's tenders are the exception: their command line is the same everywhere."""
    claimed = {(row.guest, row.monitor) for row in choose.matrix() if "aarch64" in row.architectures}
    assert {(guest, monitor) for guest, monitor, _, _ in CASES} <= claimed


@pytest.mark.parametrize("monitor", ["qemu", "firecracker"])
def test_a_kernel_for_x86_64_is_refused(monitor: str) -> None:
    machine = make_machine("linux", monitor, "none", "initrd").replace(kernel=LINUX_KERNEL)
    with pytest.raises(ImageError, match="the kernel is for x86_64"):
        monitors.load(monitor).check(machine)


def test_what_x86_64_alone_has_is_not_there() -> None:
    for case in CASES:
        text = (FOLDER / f"{'-'.join(case)}.txt").read_text()
        for word in (
            "i8042",
            "reboot=k",
            "isa-debug-exit",
            "--api-sock",
            "pvpanic",
            "ttyS0" if case[1] == "qemu" else "ttyAMA0",
        ):
            assert word not in text, case
