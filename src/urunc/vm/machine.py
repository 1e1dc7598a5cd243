"""The records between a guest, a monitor and the sandbox. All that a monitor may know is in `Machine`.

Every path in here is inside the monitor's own root: `/kernel`, `/initrd`, `/disk0`. No path chosen by an
image ever stands in an option.
"""

from __future__ import annotations

from ..record import Record

KERNEL, INITRD = "/kernel", "/initrd"
"""Where these stand in the monitor's root."""

BALLOON = "balloon"
"""What the memory balloon is called, where a device has a name by which its monitor can be asked of it."""

BALLOON_SECONDS = 10
"""How often a guest with a balloon is asked how it uses its memory."""


class Address(Record):
    """An interface's address: `ip` in text form, `prefix` the length of its network's in bits."""

    ip: str
    prefix: int
    family: int = 4  # 4 or 6


class Route(Record):
    """A route through its NIC. `destination` is None for the default route; `gateway` None for an on-link one."""

    destination: str | None = None
    prefix: int = 0
    gateway: str | None = None
    onlink: bool = False
    scope: str = "global"  # global, link or host
    metric: int = 0
    source: str | None = None
    family: int = 4


class Neighbour(Record):
    """A permanent neighbour entry (AWS gives one for its off-link gateway)."""

    ip: str
    mac: str


class Nic(Record):
    """One NIC of the guest, and the interface in the network namespace that it takes the place of."""

    ifname: str  # the engine's interface, such as eth0
    tap: str  # the tap beside it
    mac: str
    mtu: int = 1500
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()


class Network(Record):
    """What the guest's network looks like; no NIC where the namespace holds no eligible interface."""

    nics: tuple[Nic, ...] = ()
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    hostname: str = ""

    def primary(self) -> Nic | None:
        """Return the NIC with the default route, IPv4's before IPv6's; the first without one, None without a NIC.

        Of several such routes it is that of the lowest metric, and of equal ones the first NIC's.
        """
        for family in (4, 6):
            found = [
                (route.metric, number)
                for number, nic in enumerate(self.nics)
                for route in nic.routes
                if route.destination is None and route.family == family
            ]
            if found:
                return self.nics[min(found)[1]]
        return self.nics[0] if self.nics else None

    def limited(self, count: int | None) -> Network:
        """Return the network for a guest that takes `count` NICs, None for any number: the primary one comes first."""
        if count is None or count >= len(self.nics):
            return self
        primary = self.primary()
        others = tuple(nic for nic in self.nics if nic is not primary)
        return self.replace(nics=((primary, *others) if primary else ())[:count])


class Disk(Record):
    """A disk at `path` in the monitor's root. `name` is the device's name in a Solo5 manifest."""

    path: str
    readonly: bool = False
    name: str = ""
    sector_size: int = 512
    device: bool = False  # a block device and not a file


class Root(Record):
    """What backs the guest's root file system: kind is "initrd", "block", "9p" or "none"."""

    kind: str = "none"
    readonly: bool = False
    fstype: str = ""  # of a block root, as Linux calls it; "" where it is not known
    rootfs: bool = False  # it is the container's own rootfs


def driver(fstype: str) -> str:
    """Return the name of Linux's driver: ext4's mounts ext2 and ext3 as well, and is the one that kernels have."""
    return "ext4" if fstype in ("ext2", "ext3") else fstype


class Share(Record):
    """A folder that the guest mounts by its `tag`; it stands at `path` in the monitor's root."""

    path: str
    tag: str
    readonly: bool = False


def share_tag(number: int) -> str:
    """Return the tag of the share of that number; the root's, where it is a share, has number 0."""
    return f"fs{number}"


class KernelInfo(Record):
    """What the kernel file's headers say (`vm.elf`): format, machine, Solo5 notes."""

    format: str  # "elf64", "elf32", "bzimage", "arm64" or "raw"
    arch: str = ""  # x86_64 (a 32-bit kernel too: the machine is the same), aarch64; "" where the file does not say
    load_bytes: int = 0  # of memory that its segments, or the file where it has none, fill
    least_bytes: int = 0  # of memory, from its start, that it fills or needs to unpack itself; 0 where it does not say
    release: str = ""  # of a Linux kernel, such as 6.1.0-9-amd64, where its header says it
    i386: bool = False  # its ELF header says EM_386, be it a 64-bit one (Mewz)
    linux: bool = False  # its headers or notes are Linux's own
    pvh: bool = False
    multiboot: bool = False
    multiboot_address: bool = False  # its Multiboot header says where to load it, whatever its ELF header says
    solo5_abi: str | None = None  # "hvt", "spt", "virtio", ..; None without a Solo5 ABI note
    solo5_abi_version: int = 0
    solo5_devices: tuple[tuple[str, str], ...] | None = None  # (name, NET_BASIC|BLOCK_BASIC); None without a manifest
    mirage: bool = True  # False: a Solo5 kernel without OCaml's runtime, so without MirageOS's quoting
    mirage_network: bool = True  # False: .. or without MirageOS's network, so without its options


class GuestFile(Record):
    """A file that urunc puts into the guest's initrd. `mode` holds permission bits; `content` its bytes.

    `needed`: the guest is not to run without it, where its root has no place for it and cannot be written.
    """

    path: str
    content: bytes
    mode: int = 0o600
    needed: bool = False


class GuestMount(Record):
    """What the guest mounts beside its root: a disk ("/dev/vdb") or a share (its tag) at an absolute path."""

    source: str
    fstype: str
    target: str
    readonly: bool = False
    noexec: bool = False
    name: str = ""  # of the one file in the share that is to stand at `target`


class Capabilities(Record):
    """What a monitor is, needs and can do: the one record by which the rest of urunc knows it.

    Sizes are MiB. `overhead_mib` is measured: the highest figure of a memory cgroup that held nothing but the
    monitor, minus the guest's memory; each module says when and how.
    """

    name: str
    package: str  # what to install where the binary is missing
    other_packages: tuple[tuple[str, str], ...] = ()  # (architecture, package) where that is another
    binaries: tuple[tuple[str, str], ...]  # (the machine's architecture, name on PATH)
    kvm: str  # "no", "required", or "optional": without it the CPU is emulated, be it the host's kind or another
    models: tuple[str, ...] = ()  # machine types of x86_64, the default first
    support: tuple[str, ...] = ()
    """Globs of the host files that it opens itself (modules, firmware), with {prefix} (/usr) and {arch} to fill in."""
    data_path: str = ""  # its firmware folder, where it must be told; [monitors.<name>] data_path wins
    tap_by: str = "fd"  # "fd" or "name"
    vnet_hdr: bool = False
    max_nics: int = 1
    max_disks: int = 1
    disk_by: str = "path"  # "fd": it takes an open disk, "path": it opens the file or node itself
    max_vcpus: int = 1
    shares: tuple[str, ...] = ()  # "9p", or none
    arguments: bool = False  # it hands the guest an argv (Boot.arguments), not a string (Boot.command_line)
    control: bool = False  # it can give the guest a control port
    balloon: bool = False  # it has a memory balloon that can be set while it runs
    exit_device: bool = False  # it has isa-debug-exit
    panic_device: bool = False  # it has pvpanic, and can fail by it
    fault_fails: bool = False  # a triple fault may end it with a failure, a reset by the keyboard controller never
    handles_term: bool = False  # it ends by TERM even as PID 1 of a namespace
    qmp: bool = False  # it speaks QMP on a socket of its own
    ctrl_alt_del: bool = False  # it can press Ctrl-Alt-Del on x86_64, by its HTTP API (`vm.api`)
    stdin: bool = False  # the guest's console reads its standard input
    stream_ports: bool = False  # it can give the guest ports for the standard streams (`vm.port`)
    power_off: bool = True  # False: on x86_64 a guest ends the machine by a reset through the keyboard controller
    inserts_words: bool = False
    """It puts words of its own before the ` -- ` of a boot string, after a `--` that nothing follows."""
    arm_console: str = "ttyAMA0"  # what Linux calls the console on aarch64
    parts: tuple[tuple[str, str, str], ...] = ()
    """What it may have been built without: (option whose `help` lists it, its name there, what it is used for)."""
    overhead_mib: int = 0
    multiboot_twice: bool = False  # it holds a copy of what it loads by Multiboot: the kernel, its zeros, the initrd
    min_memory_mib: int = 1
    min_pids: int = 1  # threads that it needs beside the vCPUs', or its I/O fails


class Streams(Record):
    """What the container's standard streams are, which the monitor inherits."""

    stdin: str = "console"  # "null" where there is none, "port" where it need not be the console's
    stdout: str = "console"  # or "port"
    merged: bool = False  # standard error is the same file


class Context(Record):
    """What a guest module may know beside the app, the network and the root."""

    arch: str = "x86_64"
    model: str = ""  # the machine type, one of Capabilities.models
    accel: str = "tcg"
    kernel: KernelInfo = KernelInfo(format="raw")
    tsc_khz: int = 0  # the host's, for a guest under TCG; 0 where it is not known
    init: bytes | None = None  # urunc's own init for Linux guests (guest/init)
    uid: int = 0  # process.user, inside the guest
    gid: int = 0
    groups: tuple[int, ...] = ()
    umask: int | None = None
    rlimits: tuple[tuple[str, int, int], ...] = ()  # (RLIMIT_.., soft, hard)
    streams: Streams = Streams()
    terminal: bool = False
    console_size: tuple[int, int] | None = None  # (height, width) in characters
    files: tuple[GuestFile, ...] = ()  # files for the guest's root, such as /etc/hosts
    modules: tuple[GuestFile, ...] = ()  # the kernel's modules that the guest needs to see its root, modules.dep too
    mounts: tuple[GuestMount, ...] = ()
    balloon: bool = False  # the monitor has a memory balloon, and is to have one


class Boot(Record):
    """What a guest module makes of an app: its boot string, and what the machine must have for it.

    `command_line` is one string for monitors that hand the kernel a string (QEMU `-append`); `arguments` is
    the list for those that hand it an argv (Solo5). A guest module fills the one its monitors take.
    """

    command_line: str = ""
    arguments: tuple[str, ...] = ()
    initrd_tail: tuple[GuestFile, ...] = ()  # a newc archive behind the initrd, or in the place of none
    control: bool = False  # the guest serves the control port: signals in, exit status out
    streams: tuple[str, ...] = ()
    """"stdin", "stdout": the guest has a port for it. Then its console reads nothing, and prints to standard error."""
    ctrl_alt_del: bool = False  # the guest ends by Ctrl-Alt-Del, and the monitor can press it
    acpi_shutdown: bool = False  # the guest listens to the ACPI power button
    exit_device: bool = False  # the guest reports a failure by isa-debug-exit at I/O port 0x501
    panic_device: bool = False  # the guest reports a panic by pvpanic
    balloon: bool = False  # the guest drives a memory balloon
    modern_virtio_only: bool = False
    pci_only: bool = False  # the guest looks for its devices on the PCI bus, where the machine may have another
    nics: int | None = None  # how many NICs the guest takes; None for any number
    net_device: str = ""  # the NIC's name in a Solo5 manifest, where the image names it
    block_device: str = ""
    min_memory_mib: int = 1  # below this the guest cannot boot
    messages: tuple[str, ...] = ()  # what the user should read in the log, such as "the guest takes one NIC of two"


class Machine(Record):
    """All that a monitor may know."""

    name: str  # the container's id, for process titles and nothing else
    arch: str  # x86_64 or aarch64
    memory_mib: int
    vcpus: int = 1
    accel: str = "tcg"  # "kvm" or "tcg"; only monitors that can do both look at it
    model: str = ""  # the monitor's machine type, such as q35 or microvm; "" for its default
    kernel: KernelInfo
    initrd: bool = False  # /initrd is there
    boot: Boot = Boot()
    network: Network = Network()
    disks: tuple[Disk, ...] = ()
    shares: tuple[Share, ...] = ()
    uid: int = 0
    gid: int = 0
    first_fd: int = 3  # the Launch's descriptors are numbered from here
    vhost: bool = False
    balloon: bool = False

    def held_disks(self) -> tuple[str, ...]:
        """Return the Launch's descriptors of block devices, for a monitor that opens the nodes itself.

        They are to be held for as long as it runs: a loop device then lasts, and nobody mounts what the guest has.
        """
        return tuple(f"disk:{disk.path}" for disk in self.disks if disk.path.startswith("/dev/"))


class Host(Record):
    """What was found on the host for the chosen monitor. `binary` is the monitor's path inside its root."""

    binary: str
    version: tuple[int, ...] = ()
    data_path: str = ""  # firmware folder inside the monitor's root


class Bind(Record):
    """A read-only bind into the monitor's root: host path `source` at `target`."""

    source: str
    target: str


class File(Record):
    """A file to write into the monitor's root before it starts."""

    path: str
    content: bytes
    mode: int = 0o400


class Launch(Record):
    """All that the sandbox must give the monitor."""

    argv: tuple[str, ...]
    env: tuple[str, ...] = ()
    files: tuple[File, ...] = ()
    fds: tuple[str, ...] = ()
    """Descriptors to keep, in order from `Machine.first_fd`: "tap:<name>" an open tap queue, "listen:<name>" a
    listening unix socket <name>.sock in the state directory, "fifo:<name>" a fifo there that is bound at /<name>,
    "disk:<path>" the open disk of that path, "read:<path>" the same for reading alone, "output:1" and
    "output:2" standard output and error, for writing alone."""
    folders: tuple[str, ...] = ()  # the folders of its root that it may write to, each a tmpfs of 64 kB
    own_descriptors: bool = False  # it finds its own descriptors at /proc/self/fd, and nothing else of /proc
    devices: tuple[str, ...] = ()  # nodes below /dev, of those that the plan gives it: "kvm", "net/tun", ..
