"""Firecracker's configuration: what the golden files do not say by themselves."""

from __future__ import annotations

from typing import Any

import pytest

from urunc import jsonio
from urunc.errors import HostError, ImageError, SpecError
from urunc.vm.machine import Boot, Disk, Host, KernelInfo, Launch, Machine, Network, Root
from urunc.vm.monitors import firecracker
from vmcases import LINUX_KERNEL, MULTIBOOT_KERNEL, NETWORKS, PLAIN_KERNEL, PLAIN_NIC, make_machine, solo5_kernel

NEWEST = (1, 16, 1)


def make(**fields: object) -> Machine:
    values = {"name": "web", "arch": "x86_64", "memory_mib": 64, "kernel": PLAIN_KERNEL, **fields}
    return Machine(**values)  # type: ignore[arg-type]


def launch(machine: Machine, version: tuple[int, ...] = NEWEST) -> Launch:
    return firecracker.launch(machine, Host(binary="/usr/bin/firecracker", version=version))


def config(machine: Machine, version: tuple[int, ...] = NEWEST) -> dict[str, Any]:
    (file,) = launch(machine, version).files
    assert file.path == "/config.json"
    document: dict[str, Any] = jsonio.loads(file.content)
    return document


def test_the_configuration_can_be_read_by_the_containers_user() -> None:
    assert launch(make(uid=1000)).files[0].mode & 0o004


@pytest.mark.parametrize(
    ("name", "identity"), [("web", "web"), ("a_b.c+d", "a-b-c-d"), ("x" * 100, "x" * 64), ("--help", "--help")]
)
def test_its_id_has_only_the_letters_that_it_allows(name: str, identity: str) -> None:
    argv = launch(make(name=name)).argv
    assert argv[argv.index("--id") + 1] == identity


def test_its_own_filters_are_on() -> None:
    made = launch(make())
    assert "--no-seccomp" not in made.argv


def test_its_log_stays_off_the_guests_console() -> None:
    argv = launch(make()).argv
    assert argv[argv.index("--level") + 1] == "Off"


def test_devices() -> None:
    assert launch(make()).devices == ("kvm",)
    assert launch(make(network=NETWORKS["plain"])).devices == ("kvm", "net/tun")


def test_drives_are_there_even_where_there_are_none() -> None:
    assert config(make())["drives"] == []


def test_disks() -> None:
    drives = config(make(disks=(Disk(path="/disk0"), Disk(path="/disk1", readonly=True))))["drives"]
    assert [(drive["path_on_host"], drive["is_read_only"]) for drive in drives] == [("/disk0", False), ("/disk1", True)]
    assert drives[0]["cache_type"] == "Writeback", "what the guest flushes is written"
    assert not any(drive["is_root_device"] for drive in drives), "the boot string says what the root is"


def test_the_mtu_is_told_from_1_16_on() -> None:
    machine = make(network=NETWORKS["offlink"])
    assert config(machine, (1, 16, 0))["network-interfaces"][0]["mtu"] == 1400
    for old in ((1, 15, 1), (1, 7), ()):
        assert "mtu" not in config(machine, old)["network-interfaces"][0]
    assert "mtu" not in config(make(network=NETWORKS["plain"]))["network-interfaces"][0]


def test_an_initrd_only_where_there_is_one() -> None:
    assert "initrd_path" not in config(make())["boot-source"]
    assert config(make(initrd=True))["boot-source"]["initrd_path"] == "/initrd"


def test_too_old() -> None:
    with pytest.raises(HostError, match=r"firecracker 1\.6\.0 is too old"):
        launch(make(), (1, 6, 0))


def test_a_bzimage_needs_the_release_after_1_16() -> None:
    machine = make(kernel=KernelInfo(format="bzimage", arch="x86_64"))
    firecracker.check(machine)
    launch(machine, (1, 17, 0))
    for old in (NEWEST, ()):
        with pytest.raises(ImageError, match="compressed bzImage"):
            launch(machine, old)


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (MULTIBOOT_KERNEL, "not a 64-bit ELF file"),
        (KernelInfo(format="raw"), "not a 64-bit ELF file"),
        (KernelInfo(format="arm64", arch="aarch64"), "the kernel is for aarch64"),
        (solo5_kernel("hvt", 0, 0), "built for Solo5's `hvt`"),
    ],
)
def test_kernels_that_it_cannot_boot(kernel: KernelInfo, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        firecracker.check(make(kernel=kernel))


def test_kernels_that_it_boots() -> None:
    firecracker.check(make(kernel=PLAIN_KERNEL))
    firecracker.check(make(kernel=LINUX_KERNEL))


def test_aarch64_takes_an_image_alone() -> None:
    firecracker.check(make(arch="aarch64", kernel=KernelInfo(format="arm64", arch="aarch64")))
    with pytest.raises(ImageError, match="no arm64 `Image`"):
        firecracker.check(make(arch="aarch64", kernel=KernelInfo(format="elf64", arch="aarch64")))


@pytest.mark.parametrize("letter", ["\n", "é", "\x7f", "\t"])
def test_a_boot_string_that_it_cannot_carry(letter: str) -> None:
    machine = make(boot=Boot(command_line=f"app -- {letter}"))
    with pytest.raises(SpecError, match="printable ASCII"):
        firecracker.check(machine)
    with pytest.raises(SpecError, match="printable ASCII"):
        launch(machine)


def test_a_boot_string_that_is_too_long() -> None:
    firecracker.check(make(boot=Boot(command_line="x" * 1990)))
    with pytest.raises(SpecError, match="about 2048 bytes"):
        firecracker.check(make(boot=Boot(command_line="x" * 2000)))
    with pytest.raises(SpecError, match="the boot string is about"):
        launch(make(boot=Boot(command_line="x" * 1990), network=NETWORKS["two"]))


@pytest.mark.parametrize("guest", ["linux", "unikraft"])
def test_a_boot_string_without_arguments_does_not_end_in_dashes(guest: str) -> None:
    """Firecracker would add its `virtio_mmio.device=` behind them, where the guest takes it for an argument."""
    from urunc.oci.app import App

    root = Root(kind="block" if guest == "linux" else "none")
    app = App(guest=guest, monitor="firecracker", kernel="/kernel", args=("/bin/app",))
    line = make_machine(guest, "firecracker", Network(nics=(PLAIN_NIC,)), root, app=app).boot.command_line
    assert not line.rstrip().endswith("--")


def test_no_path_of_the_image_in_the_configuration() -> None:
    machine = make_machine("linux", "firecracker", Network(nics=(PLAIN_NIC,)), Root(kind="block"))
    document = config(machine)
    assert document["boot-source"]["kernel_image_path"] == "/kernel"
    assert document["drives"][0]["path_on_host"] == "/disk0"


def test_a_linux_guests_failure_is_a_triple_fault() -> None:
    """Firecracker has no device by which a guest could say its status."""
    boot = make_machine("linux", "firecracker", Network(), Root()).boot
    (settings,) = [file.content for file in boot.initrd_tail if file.path == "/.urunc/config"]
    assert b"exit\0triple-fault\0" in settings
    assert b"end\0reboot\0" in settings


def test_the_api_is_there_for_ctrl_alt_del_alone() -> None:
    with_keys = launch(make_machine("linux", "firecracker", Network(), Root()))
    assert with_keys.folders == ("/api",)
    assert "--no-api" not in with_keys.argv
    without = launch(make_machine("unikraft", "firecracker", Network(), Root()))
    assert without.folders == ()
    assert "--no-api" in without.argv
    assert "--api-sock" not in without.argv


def test_a_balloon_brings_the_api_that_sets_it() -> None:
    machine = make(balloon=True)
    assert config(machine)["balloon"] == {
        "amount_mib": 0,
        "deflate_on_oom": True,
        "stats_polling_interval_s": 10,
    }
    assert launch(machine).argv[launch(machine).argv.index("--api-sock") + 1] == "/api/api.sock"
    assert "balloon" not in config(make())
