"""What Solo5's tenders hvt and spt have in common: their options, and the manifest that these have to match.

Every device that the kernel's manifest declares must be attached and none other may be. Devices are attached under
the manifest's own names: the one that the image gives where it gives one, else in the manifest's order.
"""

from __future__ import annotations

from ..errors import ImageError
from .machine import KERNEL, Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .machine import Disk, Host, KernelInfo, Machine, Nic

MAX_ARGUMENT_BYTES = 8191
"""Of the arguments, joined: HVT_CMDLINE_SIZE and SPT_CMDLINE_SIZE, without the NUL."""

_ABI_VERSIONS = (1, 2)  # of kernel and tender: 1 from Solo5 0.4 to 0.6, 2 since
_FIRST_WITH_2 = (0, 7)


def check_kernel(kernel: KernelInfo, arch: str, abi: str) -> None:
    """Raise ImageError where the kernel is not for the tender `abi`."""
    if kernel.format != "elf64" or kernel.solo5_abi is None:
        raise ImageError(f"the kernel is not a Solo5 kernel: `{abi}` boots nothing else")
    if kernel.solo5_abi != abi:
        raise ImageError(
            f"the kernel is built for Solo5's `{kernel.solo5_abi}`, not for `{abi}`",
            hint=f"set the annotation hypervisor to {kernel.solo5_abi}" if kernel.solo5_abi in ("hvt", "spt") else None,
        )
    if kernel.solo5_abi_version not in _ABI_VERSIONS:
        raise ImageError(
            f"the kernel has version {kernel.solo5_abi_version} of Solo5's ABI, which no known tender speaks"
        )
    if kernel.arch != arch:
        raise ImageError(f"the kernel is for {kernel.arch}, the machine is {arch}")
    if kernel.solo5_devices is None:
        raise ImageError("the kernel has no Solo5 manifest, without which a tender does not start it")


def check(machine: Machine, abi: str) -> None:
    """Raise ImageError where the kernel is not for the tender `abi`, or its manifest asks for other disks.

    The NICs are not known yet when a container is planned: `launch` looks at those.
    """
    check_kernel(machine.kernel, machine.arch, abi)
    _disks(machine)
    if any(disk.readonly for disk in machine.disks):
        raise ImageError(
            "root.readonly: a Solo5 tender opens every disk for writing",
            hint="let the root be writable, or take a monitor with read-only disks",
        )
    size = len(" ".join(machine.boot.arguments).encode("utf-8", "surrogateescape"))
    if size > MAX_ARGUMENT_BYTES:
        raise ImageError(f"the guest's command line is {size} bytes long, and Solo5 takes {MAX_ARGUMENT_BYTES}")


def check_disks(machine: Machine) -> None:
    """Raise ImageError where the kernel's manifest asks for other disks, on any monitor."""
    _disks(machine)


def in_manifest_order(machine: Machine) -> tuple[Nic | Disk, ...]:
    """Return the machine's devices as the kernel's manifest declares them: Solo5 on virtio counts, and knows no names.

    Raises ImageError where it declares more than the machine has.
    """
    devices: dict[str, Nic | Disk] = {**dict(_nics(machine)), **dict(_disks(machine))}
    return tuple(devices[name] for name, _ in machine.kernel.solo5_devices or ())


def launch(machine: Machine, host: Host, devices: tuple[str, ...]) -> Launch:
    """Return a tender's command line; `devices` are the nodes it needs beside the tun device.

    Raises ImageError where the manifest declares more network devices than the container has, or the kernel is of
    another age than the tender.
    """
    _check_age(machine.kernel, host)
    argv = [host.binary, f"--mem={machine.memory_mib}"]
    nics = _nics(machine)
    for name, nic in nics:
        argv += [f"--net:{name}={nic.tap}", f"--net-mac:{name}={nic.mac}"]
    for name, disk in _disks(machine):
        argv.append(f"--block:{name}={disk.path}")
        if disk.sector_size != 512:
            argv.append(f"--block-sector-size:{name}={disk.sector_size}")
    argv += ["--", KERNEL, *machine.boot.arguments]
    return Launch(argv=tuple(argv), fds=machine.held_disks(), devices=devices + (("net/tun",) if nics else ()))


def _check_age(kernel: KernelInfo, host: Host) -> None:
    if not host.version:
        return
    speaks = 2 if host.version >= _FIRST_WITH_2 else 1
    if kernel.solo5_abi_version != speaks:
        raise ImageError(
            f"the kernel has version {kernel.solo5_abi_version} of Solo5's ABI, and `{host.binary}` speaks {speaks}",
            hint="take a kernel and a tender of the same Solo5",
        )


def _nics(machine: Machine) -> tuple[tuple[str, Nic], ...]:
    """Pair the manifest's network devices with the machine's NICs, the primary one first; further NICs stay outside."""
    nics = machine.network.nics
    primary = machine.network.primary()
    ordered = ((primary,) if primary else ()) + tuple(nic for nic in nics if nic is not primary)
    names = _declared(machine, "NET_BASIC", machine.boot.net_device, "solo5NetDev")
    if len(names) > len(ordered):
        raise ImageError(
            f"the kernel's manifest declares {_list(names, 'network device')}, the container has {len(ordered)} "
            f"network interface{'' if len(ordered) == 1 else 's'} for it"
        )
    return tuple(zip(names, ordered, strict=False))


def _disks(machine: Machine) -> tuple[tuple[str, Disk], ...]:
    """Pair the manifest's block devices with the machine's disks: by the disk's name, else in order."""
    names = _declared(machine, "BLOCK_BASIC", machine.boot.block_device, "solo5BlkDev")
    disks = machine.disks
    if len(names) != len(disks):
        raise ImageError(
            f"the kernel's manifest declares {_list(names, 'block device')}, the image gives {len(disks)}",
            hint="name its disk image in the annotation block" if len(disks) < len(names) else None,
        )
    by_name = {disk.name: disk for disk in disks if disk.name}
    if set(by_name) == set(names):
        return tuple((name, by_name[name]) for name in names)
    return tuple(zip(names, disks, strict=True))


def _declared(machine: Machine, kind: str, first: str, annotation: str) -> tuple[str, ...]:
    """Return the names of the manifest's devices of that kind, the one that the image names first."""
    names = tuple(name for name, its in machine.kernel.solo5_devices or () if its == kind)
    if not first:
        return names
    if first not in names:
        raise ImageError(f"annotation {annotation}: the kernel's manifest has no device `{first}` of type {kind}")
    return (first, *(name for name in names if name != first))


def _list(names: tuple[str, ...], what: str) -> str:
    if not names:
        return f"no {what}"
    shown = ", ".join(f"`{name}`" for name in names[:4]) + (", .." if len(names) > 4 else "")
    return f"the {what}{'' if len(names) == 1 else 's'} {shown}"
