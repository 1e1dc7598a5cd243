"""QEMU, as `qemu-system-x86_64` or `-aarch64`: machines q35, microvm and virt, with KVM or in software.

Checked with 7.2. Never `-nographic`: that puts QEMU's own monitor on the container's standard input. Never a
disk format by probing: a guest that writes a qcow2 header into its raw disk would be given any file of the host.
"""

from __future__ import annotations

from ...errors import HostError, ImageError
from .. import port
from ..machine import BALLOON, BALLOON_SECONDS, INITRD, KERNEL, Capabilities, Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..machine import Disk, Host, KernelInfo, Machine, Nic, Share

_FIRMWARE = (
    "bios-256k.bin",
    "bios-microvm.bin",
    "kvmvapic.bin",
    "linuxboot_dma.bin",
    "multiboot_dma.bin",
    "pvh.bin",
    "qboot.rom",
)

NAME = "qemu"
CAPABILITIES = Capabilities(
    name=NAME,
    package="qemu-system-x86",
    other_packages=(("aarch64", "qemu-system-arm"),),
    binaries=(("x86_64", "qemu-system-x86_64"), ("aarch64", "qemu-system-aarch64")),
    kvm="optional",
    models=("q35", "microvm"),
    support=(
        # Debian builds the accelerator as a module, which ldd does not list
        "{prefix}/lib/*/qemu/accel-tcg-{arch}.so",
        "{prefix}/lib/qemu/accel-tcg-{arch}.so",
        "{prefix}/lib64/qemu/accel-tcg-{arch}.so",
        "{prefix}/lib64/qemu-kvm/accel-tcg-{arch}.so",
        *(f"{{prefix}}/share/{folder}/{name}" for folder in ("qemu", "seabios", "qemu-kvm") for name in _FIRMWARE),
    ),
    tap_by="fd",
    vnet_hdr=True,
    max_nics=8,
    max_disks=8,
    disk_by="fd",
    max_vcpus=255,
    shares=("9p",),
    control=True,
    balloon=True,
    exit_device=True,
    panic_device=True,
    handles_term=True,
    qmp=True,
    stdin=True,
    stream_ports=True,
    parts=(
        ("-machine", "microvm", 'machine = "microvm"'),
        ("-device", "virtio-net-pci", "networks"),
        ("-device", "virtio-blk-pci", "disks"),
        ("-device", "virtio-9p-pci", "folders shared by 9p"),
        ("-device", "virtio-balloon-pci", "balloon = true"),
        ("-device", "virtserialport", "stop signals and standard streams of Linux guests"),
        ("-device", "isa-debug-exit", "exit status"),
        ("-device", "pvpanic", "exit status"),
    ),
    # With 7.2 under TCG, a Linux guest of 256 MiB that fills its memory and the buffer for translated code: killed
    # below 64 MiB more than the guest's on q35, 56 on microvm (1 vCPU; 56 with 2). The rest is for NICs and vCPUs.
    overhead_mib=80,
    multiboot_twice=True,  # hw/i386/multiboot.c, mb_buf
    min_memory_mib=2,
    min_pids=70,
)

_PANIC_EXIT_SINCE = (7, 1)  # -action panic=exit-failure
_TCG_BUFFER_MIB = 32  # by default up to a GiB of translated code would be charged to the container
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def check(machine: Machine) -> None:
    """Raise ImageError where QEMU would not boot the kernel, or a Solo5 kernel would not take the disks.

    HostError where the guest would not find them.
    """
    check_kernel(machine.kernel, machine.arch)
    _check_bus(machine)
    if machine.kernel.solo5_devices is not None:
        from .. import solo5

        solo5.check_disks(machine)


def check_kernel(kernel: KernelInfo, arch: str) -> None:
    """Raise ImageError where QEMU would not boot the kernel, with the reason that QEMU would not give as clearly."""
    if kernel.arch and kernel.arch != arch:
        raise ImageError(f"the kernel is for {kernel.arch}, the machine is {arch}")
    if kernel.solo5_abi not in (None, "virtio"):
        raise ImageError(
            f"the kernel is built for Solo5's `{kernel.solo5_abi}`, not for QEMU",
            hint=f"set the annotation hypervisor to {kernel.solo5_abi}, or build it for virtio",
        )
    if arch != "x86_64":
        return
    # hw/i386/multiboot.c looks at the header's machine and not at its class
    if kernel.format == "elf64" and kernel.multiboot and not kernel.multiboot_address and not kernel.i386:
        raise ImageError(
            "QEMU cannot boot the kernel: it refuses Multiboot in an x86-64 ELF file",
            hint="make it a 32-bit ELF file (objcopy -O elf32-i386), or leave the Multiboot header out",
        )
    if kernel.format == "elf64" and not kernel.pvh and not kernel.multiboot:
        raise ImageError(
            "QEMU cannot boot the kernel: it is a 64-bit ELF file without a PVH note",
            hint="build it for QEMU (multiboot, PVH or bzImage)",
        )
    if kernel.format in ("elf32", "raw") and not (kernel.multiboot or kernel.pvh):
        raise ImageError("QEMU cannot boot the kernel: it is neither multiboot, PVH nor a bzImage")


def launch(machine: Machine, host: Host) -> Launch:
    """Return QEMU's command line. Descriptors: one for each NIC, each disk, "listen:qmp", then the ports'.

    Raises HostError where the guest would not find its NICs, ImageError where its manifest declares other devices.
    """
    _check_bus(machine)
    fds: list[str] = []

    def descriptor(what: str) -> int:
        fds.append(what)
        return machine.first_fd + len(fds) - 1

    argv = [host.binary, *_base(machine, host), *_processor(machine), *_kernel(machine)]
    placed: list[tuple[Nic | Disk, list[str]]] = []
    for index, nic in enumerate(machine.network.nics):
        placed.append((nic, _nic(index, nic, descriptor(f"tap:{nic.tap}"), machine)))
    for index, disk in enumerate(machine.disks):
        words = ["-add-fd", f"fd={descriptor(f'disk:{disk.path}')},set={index}"]
        if not disk.readonly:  # it looks at a disk before it opens it for writing
            words += ["-add-fd", f"fd={descriptor(f'read:{disk.path}')},set={index}"]
        placed.append((disk, [*words, *_disk(index, disk, machine)]))
    for words in _in_order(machine, placed):
        argv += words
    for index, share in enumerate(machine.shares):
        argv += _share(index, share, machine)
    argv += _qmp(descriptor("listen:qmp"))
    if machine.boot.control:
        for name in port.FIFOS:
            descriptor(f"fifo:{name}")  # held, so that what is written before QEMU opens them is not lost
        argv += _control(machine)
    if machine.boot.streams:
        argv += _streams(machine, descriptor("output:1"), descriptor("output:2"))
    if machine.balloon:  # what the guest gives back the host may take; a guest out of memory takes it again by itself
        device = f"{_virtio('balloon', machine)},id={BALLOON},guest-stats-polling-interval={BALLOON_SECONDS}"
        argv += ["-device", f"{device},deflate-on-oom=on"]
    argv += _ends(machine, host)
    devices = ["kvm"] if machine.accel == "kvm" else []
    if machine.vhost and machine.network.nics:
        devices.append("vhost-net")
    return Launch(
        argv=tuple(argv),
        fds=tuple(fds),
        devices=tuple(devices),
        own_descriptors=bool(machine.shares),  # hw/9pfs/9p-local.c changes a file's mode by /proc/self/fd/N
    )


def _check_bus(machine: Machine) -> None:
    """The machine type is the host's choice, which no image may change: another one emulates more, to be attacked."""
    if machine.boot.pci_only and _model(machine) == "microvm" and (machine.network.nics or machine.disks):
        raise HostError(
            "monitors.qemu.machine is `microvm`, which has no PCI bus: the guest would not find its devices",
            hint='set monitors.qemu.machine = "q35"',
        )


def _in_order(machine: Machine, placed: list[tuple[Nic | Disk, list[str]]]) -> list[list[str]]:
    """Return the options in the order that the devices have on the bus: any, but for a Solo5 kernel with a manifest."""
    if machine.kernel.solo5_devices is None:
        return [words for _, words in placed]
    from .. import solo5

    return [next(words for other, words in placed if other is device) for device in solo5.in_manifest_order(machine)]


def quote(value: str) -> str:
    """Return `value` for use inside a `key=value,..` option, where a comma is doubled (util/qemu-option.c)."""
    return value.replace(",", ",,")


def _base(machine: Machine, host: Host) -> list[str]:
    argv = ["-name", f"guest={quote(machine.name)},debug-threads=on"]  # vCPUs are told from the rest in ps and `events`
    if host.data_path:
        argv += ["-L", host.data_path]
    argv += ["-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot"]
    argv += ["-sandbox", _SANDBOX]
    if not machine.boot.streams:
        argv += ["-chardev", "stdio,id=console,signal=off"]
    return [*argv, "-serial", "chardev:console"]


def _model(machine: Machine) -> str:
    if machine.arch == "aarch64":
        return "virt"
    return machine.model or CAPABILITIES.models[0]


def _processor(machine: Machine) -> list[str]:
    model = _model(machine)
    options = ",vmport=off,sata=off,smbus=off" if model == "q35" else ""
    argv = ["-machine", f"{model}{options},dump-guest-core=off"]
    if machine.accel == "kvm":
        argv += ["-accel", "kvm", "-cpu", "host"]
    else:
        argv += ["-accel", f"tcg,tb-size={_TCG_BUFFER_MIB}", "-cpu", "max"]
    return [*argv, "-smp", str(machine.vcpus), "-m", f"{machine.memory_mib}M"]


def _kernel(machine: Machine) -> list[str]:
    argv = ["-kernel", KERNEL]
    if machine.initrd:
        argv += ["-initrd", INITRD]
    if machine.boot.command_line:
        argv += ["-append", machine.boot.command_line]  # taken as it is: no option syntax here
    return argv


def _virtio(kind: str, machine: Machine) -> str:
    """Return the virtio device of that kind on the machine's bus: PCI, or memory-mapped on microvm."""
    if _model(machine) == "microvm":
        return f"virtio-{kind}-device"
    modern = ",disable-legacy=on,disable-modern=off" if machine.boot.modern_virtio_only else ""
    return f"virtio-{kind}-pci{modern}"


def _nic(index: int, nic: Nic, fd: int, machine: Machine) -> list[str]:
    vhost = ",vhost=on" if machine.vhost else ""
    device = f"{_virtio('net', machine)},netdev=net{index},mac={nic.mac}"
    if _model(machine) != "microvm":
        device += ",romfile="  # no network boot, and no iPXE to load
    if nic.mtu != 1500:
        device += f",host_mtu={nic.mtu}"
    return ["-netdev", f"tap,id=net{index},fd={fd}{vhost}", "-device", device]


def _disk(index: int, disk: Disk, machine: Machine) -> list[str]:
    """Return a disk that was opened for QEMU, whose user need not be allowed to open it."""
    readonly = ",readonly=on" if disk.readonly else ""
    file = "file.driver=host_device,file.filename" if disk.device else "file"
    sectors = f",logical_block_size={disk.sector_size}" if disk.sector_size != 512 else ""
    return [
        "-drive",
        f"if=none,id=disk{index},format=raw{readonly},{file}=/dev/fdset/{index}",
        "-device",
        f"{_virtio('blk', machine)},drive=disk{index}{sectors}",
    ]


def _share(index: int, share: Share, machine: Machine) -> list[str]:
    """Share a folder by 9p. `none`: owners and modes are the files' own, and what QEMU's user may not change stays.

    The mapped models keep them in extended attributes and would not read the links that an image holds.
    """
    readonly = ",readonly=on" if share.readonly else ""
    return [
        "-fsdev",
        f"local,id=share{index},path={quote(share.path)},security_model=none,multidevs=remap{readonly}",
        "-device",
        f"{_virtio('9p', machine)},fsdev=share{index},mount_tag={quote(share.tag)}",
    ]


def _qmp(fd: int) -> list[str]:
    return ["-chardev", f"socket,id=qmp,fd={fd},server=on,wait=off", "-mon", "chardev=qmp,mode=control"]


def _control(machine: Machine) -> list[str]:
    ports = 2 + len(machine.boot.streams)  # port 0 is the console's, which is not there
    return [
        "-device",
        f"{_virtio('serial', machine)},max_ports={ports}",
        "-chardev",
        "pipe,id=control,path=/control",
        *_port("control", port.NAME),
    ]


def _streams(machine: Machine, output: int, error: int) -> list[str]:
    """Give the guest ports for standard input and output, and its console standard error.

    `stdio` is the only character device of 7.2 that reads a pipe and hears of its end, and there can be only one: it
    is the input's. What a guest writes to that port goes to standard output as well.
    """
    argv: list[str] = []
    if "stdin" in machine.boot.streams:
        argv += ["-chardev", "stdio,id=stdin,signal=off", *_port("stdin", port.STDIN)]
    number = len(machine.disks)
    return [
        *argv,
        *_writer("stdout", output, number),
        *_port("stdout", port.STDOUT),
        *_writer("console", error, number + 1),
    ]


def _writer(name: str, fd: int, number: int) -> list[str]:
    """Return a character device that writes to a descriptor, which QEMU finds in a set where it would open a file."""
    return [
        "-add-fd",
        f"fd={fd},set={number}",
        "-chardev",
        f"file,id={name},path=/dev/fdset/{number},append=on",  # else it would empty the file
    ]


def _port(chardev: str, name: str) -> list[str]:
    return ["-device", f"virtserialport,chardev={chardev},name={name}"]


def _ends(machine: Machine, host: Host) -> list[str]:
    """Return the devices by which a guest reports that it failed (x86 only)."""
    argv: list[str] = []
    if machine.arch != "x86_64":
        return argv
    if machine.boot.exit_device:
        argv += ["-device", "isa-debug-exit,iobase=0x501,iosize=2"]
    if machine.boot.panic_device and _model(machine) != "microvm" and host.version >= _PANIC_EXIT_SINCE:
        argv += ["-device", "pvpanic", "-action", "panic=exit-failure"]
    return argv
