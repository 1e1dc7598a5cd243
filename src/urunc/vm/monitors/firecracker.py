"""Firecracker, `firecracker`: microVMs by KVM alone, configured by one JSON file that only it can see.

Checked with 1.16.1; for 1.7 to 1.16. Its fields refuse names that they do not know, so what came later is written
only for the versions that have it. It filters its own system calls, thread by thread; the sandbox is its jail, so
that its `jailer` is not used. It has no handler for TERM; its API is there only to press Ctrl-Alt-Del for a guest
that hears it. Its own log is switched off: it would go to the guest's console, and what ends the monitor is told on
standard error all the same.

The machine has no power-off: on x86_64 a guest ends it by a reset through the keyboard controller, which is exit
status 0. A triple fault is 1 from 1.15 on, but not always: a vCPU's thread wakes the one that ends the process before
it says how it ended, and where that is not heard in time the status is 0 (1.16.1: in half the runs on two CPUs).
"""

from __future__ import annotations

from ... import jsonio
from ...errors import HostError, ImageError, SpecError
from .. import api
from ..machine import BALLOON_SECONDS, INITRD, KERNEL, Capabilities, File, Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..machine import Disk, Host, KernelInfo, Machine, Nic

NAME = "firecracker"
CAPABILITIES = Capabilities(
    name=NAME,
    package="firecracker",
    binaries=(("x86_64", "firecracker"), ("aarch64", "firecracker")),
    kvm="required",
    tap_by="name",
    vnet_hdr=True,
    max_nics=8,
    max_disks=8,
    max_vcpus=32,
    ctrl_alt_del=True,
    balloon=True,
    stdin=True,
    power_off=False,
    fault_fails=True,
    inserts_words=True,  # pci=off, and virtio_mmio.device=.. for each device (linux-loader, Cmdline::insert)
    arm_console="ttyS0",
    # The test guest: 5 MiB with 64 MiB of guest memory, 6 with 512 and two vCPUs, of which 3 are the program itself;
    # a limit of a million open files adds 8 for the table that it makes at once; page tables grow.
    overhead_mib=16,
    min_memory_mib=2,
    min_pids=4,  # itself, the API's thread, KVM's own worker, and one to spare
)

_OLDEST = (1, 7)
_MTU_SINCE = (1, 16)
_BZIMAGE_SINCE = (1, 17)
_CONFIG = "/config.json"
_BALLOON = {"amount_mib": 0, "deflate_on_oom": True, "stats_polling_interval_s": BALLOON_SECONDS}
"""Without an interval it would not tell the balloon's size either, which does not wait for it."""
_CMDLINE_BYTES = 2048  # vmm/src/arch/*/layout.rs: CMDLINE_MAX_SIZE, with the NUL
_DEVICE_BYTES = 48  # what it adds for each device itself: " virtio_mmio.device=4K@0xc0001000:5", and some more
_ID_LENGTH = 64


def check(machine: Machine) -> None:
    """Raise ImageError where it would not load the kernel, SpecError where it could not pass on the boot string."""
    check_kernel(machine.kernel, machine.arch)
    _check_boot_string(machine)


def check_kernel(kernel: KernelInfo, arch: str) -> None:
    """Raise ImageError where no version would load the kernel."""
    if kernel.arch and kernel.arch != arch:
        raise ImageError(
            f"the kernel is for {kernel.arch}, the machine is {arch}",
            hint="set the annotation hypervisor to qemu, which emulates other architectures",
        )
    if kernel.solo5_abi is not None:
        raise ImageError(f"the kernel is built for Solo5's `{kernel.solo5_abi}`, not for Firecracker")
    if arch == "aarch64":
        if kernel.format != "arm64":
            raise ImageError("Firecracker cannot boot the kernel: it is no arm64 `Image`")
    elif kernel.format not in ("elf64", "bzimage"):
        raise ImageError(
            "Firecracker cannot boot the kernel: it is not a 64-bit ELF file",
            hint="set the annotation hypervisor to qemu" if kernel.multiboot else None,
        )


def _check_boot_string(machine: Machine) -> None:
    line = machine.boot.command_line
    if not all(" " <= letter <= "~" for letter in line):
        raise SpecError(
            "process: Firecracker's boot string carries printable ASCII alone",
            hint="use the monitor qemu for arguments and environment with other letters",
        )
    size = len(line) + _DEVICE_BYTES * (1 + len(machine.disks) + len(machine.network.nics))
    if size >= _CMDLINE_BYTES:
        raise SpecError(f"process: the boot string is about {size} bytes long, Firecracker takes {_CMDLINE_BYTES - 1}")


def launch(machine: Machine, host: Host) -> Launch:
    """Return the command line and the configuration file. Raises HostError, ImageError or SpecError."""
    _check_version(machine, host)
    _check_boot_string(machine)  # it speaks of the network now
    has_api = machine.boot.ctrl_alt_del or machine.balloon
    control = ("--api-sock", f"{api.FOLDER}/{api.SOCKET}") if has_api else ("--no-api",)
    nics = machine.network.nics
    return Launch(
        argv=(host.binary, "--id", _identity(machine.name), "--level", "Off", *control, "--config-file", _CONFIG),
        folders=(api.FOLDER,) if has_api else (),
        files=(File(path=_CONFIG, content=jsonio.dumps(_config(machine, host)), mode=0o444),),
        fds=machine.held_disks(),
        devices=("kvm", *(("net/tun",) if nics else ())),
    )


def _check_version(machine: Machine, host: Host) -> None:
    """Refuse what this version cannot do. One that does not say its version is taken for the oldest."""
    if host.version and host.version < _OLDEST:
        raise HostError(
            f"firecracker {_text(host.version)} is too old: {_text(_OLDEST)} is the oldest that urunc knows",
            hint="install a newer one, or set monitors.firecracker.path",
        )
    if machine.kernel.format == "bzimage" and host.version < _BZIMAGE_SINCE:
        raise ImageError(
            f"firecracker {_text(host.version)} cannot boot the kernel: it is a compressed bzImage",
            hint="put the uncompressed ELF file (vmlinux) into the image",
        )


def _text(version: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in version) or "of unknown version"


def _identity(name: str) -> str:
    """Return the container's id in the letters that it allows (utils/src/validators.rs)."""
    letters = (letter if letter.isascii() and letter.isalnum() else "-" for letter in name[:_ID_LENGTH])
    return "".join(letters)


def _config(machine: Machine, host: Host) -> dict[str, Any]:
    boot = {"kernel_image_path": KERNEL, "boot_args": machine.boot.command_line}
    if machine.initrd:
        boot["initrd_path"] = INITRD
    balloon = {"balloon": _BALLOON} if machine.balloon else {}
    return {
        **balloon,
        "boot-source": boot,
        "machine-config": {"vcpu_count": machine.vcpus, "mem_size_mib": machine.memory_mib, "smt": False},
        "drives": [_drive(index, disk) for index, disk in enumerate(machine.disks)],
        "network-interfaces": [_nic(index, nic, host) for index, nic in enumerate(machine.network.nics)],
    }


def _drive(index: int, disk: Disk) -> dict[str, Any]:
    return {
        "drive_id": f"disk{index}",
        "path_on_host": disk.path,
        "is_root_device": False,  # the boot string says what the root is
        "is_read_only": disk.readonly,
        "cache_type": "Unsafe" if disk.readonly else "Writeback",  # Unsafe passes over the guest's flushes
    }


def _nic(index: int, nic: Nic, host: Host) -> dict[str, Any]:
    config: dict[str, Any] = {"iface_id": f"net{index}", "host_dev_name": nic.tap, "guest_mac": nic.mac}
    if nic.mtu != 1500 and host.version >= _MTU_SINCE:
        config["mtu"] = nic.mtu
    return config
