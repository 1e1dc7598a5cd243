"""Machines of every sort, built through the same calls as the runtime's."""

from __future__ import annotations

from urunc import jsonio
from urunc.oci.app import App
from urunc.vm import guests, monitors, storage
from urunc.vm.machine import (
    Address,
    Boot,
    Context,
    Disk,
    GuestFile,
    Host,
    KernelInfo,
    Launch,
    Machine,
    Neighbour,
    Network,
    Nic,
    Root,
    Route,
    Streams,
)

PLAIN_NIC = Nic(
    ifname="eth0",
    tap="urunc0-abcdefg",
    mac="02:42:ac:11:00:02",
    addresses=(Address(ip="172.17.0.2", prefix=16),),
    routes=(
        Route(gateway="172.17.0.1"),
        Route(destination="172.17.0.0", prefix=16, scope="link", source="172.17.0.2"),
    ),
)
OFF_LINK_NIC = Nic(
    ifname="eth0",
    tap="urunc0-abcdefg",
    mac="02:00:00:00:00:01",
    mtu=1400,
    addresses=(Address(ip="10.1.2.3", prefix=32),),
    routes=(
        Route(destination="169.254.1.1", prefix=32, scope="link"),
        Route(gateway="169.254.1.1", onlink=True, metric=5),
    ),
    neighbours=(Neighbour(ip="169.254.1.1", mac="ee:ee:ee:ee:ee:ee"),),
)
SECOND_NIC = Nic(
    ifname="net1",
    tap="urunc1-abcdefg",
    mac="02:00:00:00:00:09",
    addresses=(Address(ip="192.168.7.9", prefix=24),),
    routes=(Route(destination="192.168.7.0", prefix=24, scope="link"),),
)

NETWORKS = {
    "none": Network(hostname="web"),
    "plain": Network(nics=(PLAIN_NIC,), dns=("10.0.0.53", "10.0.0.54", "fd00::53"), search=("a.test",), hostname="web"),
    "offlink": Network(nics=(OFF_LINK_NIC,), hostname="web"),
    "two": Network(nics=(SECOND_NIC, PLAIN_NIC), dns=("10.0.0.53",), hostname="web"),
}

IPV6_ADDRESS = Address(ip="2001:db8::5", prefix=128, family=6)
IPV6_ROUTES = (
    Route(gateway="fe80::1", metric=1024, source="2001:db8::5", family=6),
    Route(destination="fe80::1", prefix=128, metric=1024, family=6),
)
IPV6_NIC = Nic(
    ifname="eth0",
    tap="urunc0-abcdefg",
    mac="02:00:00:00:00:06",
    addresses=(IPV6_ADDRESS,),
    routes=IPV6_ROUTES,
    neighbours=(Neighbour(ip="fe80::1", mac="ee:ee:ee:ee:ee:ee"),),
)
DUAL_NIC = PLAIN_NIC.replace(
    addresses=(*PLAIN_NIC.addresses, IPV6_ADDRESS),
    routes=(*PLAIN_NIC.routes, *IPV6_ROUTES),
)
WITH_IPV6 = {
    "dual": Network(nics=(DUAL_NIC,), dns=("10.0.0.53", "fd00::53"), hostname="web"),
    "ipv6": Network(nics=(IPV6_NIC,), dns=("fd00::53",), hostname="web"),
}
"""Beside NETWORKS, for one kind of root: the address does not care which."""

ARGS = ("/bin/app", "two words", 'quote"s', "-x=1")
ENV = ("PATH=/bin:/usr/bin", "GREETING=hello world")

LINUX_KERNEL = KernelInfo(format="elf64", arch="x86_64", pvh=True)
MULTIBOOT_KERNEL = KernelInfo(format="elf32", arch="x86_64", i386=True, multiboot=True)
PLAIN_KERNEL = KernelInfo(format="elf64", arch="x86_64")

VERSIONS: dict[str, tuple[tuple[int, ...], ...]] = {
    "qemu": ((7, 2, 22),),
    "firecracker": ((1, 7, 0), (1, 16, 1)),
    "hvt": ((0, 12, 1),),
    "spt": ((0, 12, 1),),
}
"""The versions that the golden files are for; the last one was run."""


def solo5_kernel(abi: str, nics: int, disks: int) -> KernelInfo:
    """Return a kernel for a tender, whose manifest declares so many devices."""
    devices = tuple((f"service{index}", "NET_BASIC") for index in range(nics))
    devices += tuple((f"storage{index}", "BLOCK_BASIC") for index in range(disks))
    return KernelInfo(format="elf64", arch="x86_64", solo5_abi=abi, solo5_abi_version=2, solo5_devices=devices)


def kernel_for(guest: str, monitor: str, network: Network, root: Root) -> KernelInfo:
    """Return a kernel of the guest that the monitor boots, and whose manifest, if any, fits the devices."""
    if monitor in ("hvt", "spt"):
        return solo5_kernel(monitor, min(len(network.nics), 1), int(root.kind == "block"))
    if guest == "linux":
        return LINUX_KERNEL
    return PLAIN_KERNEL if monitor == "firecracker" else MULTIBOOT_KERNEL


def make_app(guest: str, monitor: str, root: Root, **changes: object) -> App:
    """Return an app with arguments, an environment and the files of its root; `changes` are fields of its own."""
    values = {"args": ARGS, "env": ENV, "cwd": "/srv", "initrd": "/initrd" if root.kind == "initrd" else None}
    if root.kind == "block":
        values.update(block="/disk.img", block_mount="/")
    return App(guest=guest, monitor=monitor, kernel="/kernel", **{**values, **changes})  # type: ignore[arg-type]


def make_context(guest: str, kernel: KernelInfo, model: str, **changes: object) -> Context:
    """Return a context in which the guest boots; `changes` are fields of its own."""
    values: dict[str, object] = {"kernel": kernel, "model": model, "tsc_khz": 2_600_000}
    if guest == "linux":
        hosts = GuestFile(path="/etc/hosts", content=b"127.0.0.1 localhost\n", mode=0o644)
        values.update(
            init=b"\x7fELF init",
            streams=Streams(stdin="port", stdout="port"),
            uid=1000,
            gid=100,
            groups=(5, 6),
            files=(hosts,),
        )
    return Context(**{**values, **changes})  # type: ignore[arg-type]


def make_machine(
    guest: str, monitor: str, network: Network, root: Root, model: str = "", app: App | None = None
) -> Machine:
    """Return the machine of a guest on a monitor, of the monitor's first model where none is named."""
    can = monitors.load(monitor).CAPABILITIES
    model = model or (can.models[0] if can.models else "")
    kernel = kernel_for(guest, monitor, network, root)
    accel = "kvm" if can.kvm == "required" else "tcg"
    context = make_context(guest, kernel, model, accel=accel)
    app = app or make_app(guest, monitor, root)
    network = network.limited(guests.load(guest).boot(app, Network(), root, can, context).nics)
    boot = guests.load(guest).boot(app, network, root, can, context)
    return Machine(
        name="web",
        arch="x86_64",
        memory_mib=256,
        vcpus=2,
        accel=accel,
        model=model,
        kernel=kernel,
        initrd=bool(root.kind == "initrd" or boot.initrd_tail),
        boot=boot,
        network=network,
        disks=(Disk(path="/disk0", readonly=root.readonly),) if root.kind == "block" else (),
        shares=storage.root_shares(root)[0],
    )


def launch(machine: Machine, monitor: str, version: tuple[int, ...] = ()) -> Launch:
    """Return what starts the machine, by the last version of the monitor where none is named."""
    module = monitors.load(monitor)
    module.check(machine)
    binary = dict(module.CAPABILITIES.binaries)[machine.arch]
    return module.launch(machine, Host(binary=f"/usr/bin/{binary}", version=version or VERSIONS[monitor][-1]))


def describe(boot: Boot, launch: Launch) -> str:
    """Return one line for each word of the argv, and all else that a machine is started with."""
    lines = [*launch.argv, ""]
    lines += [f"descriptor: {name}" for name in launch.fds]
    lines += [f"device: {name}" for name in launch.devices]
    for written in launch.files:
        lines.append(f"monitor's file: {written.path} {written.mode:o}")
        lines += jsonio.indented(jsonio.loads(written.content)).splitlines()
    lines += [f"file: {file.path} {file.mode:o}" for file in boot.initrd_tail]
    lines += [f"message: {message}" for message in boot.messages]
    lines += [f"nics: {boot.nics}"]
    return "\n".join(lines) + "\n"
