"""QEMU's command line: what the golden files do not say by themselves."""

from __future__ import annotations

import pytest

from urunc.errors import HostError, ImageError
from urunc.vm.machine import Boot, Disk, Host, KernelInfo, Machine, Network, Root, Share
from urunc.vm.monitors import qemu
from vmcases import LINUX_KERNEL, MULTIBOOT_KERNEL, NETWORKS, PLAIN_NIC, SECOND_NIC, launch, make_machine, solo5_kernel


def make(**fields: object) -> Machine:
    values = {"name": "web", "arch": "x86_64", "memory_mib": 64, "kernel": MULTIBOOT_KERNEL, **fields}
    return Machine(**values)  # type: ignore[arg-type]


def argv(machine: Machine, version: tuple[int, ...] = (7, 2)) -> list[str]:
    return list(qemu.launch(machine, Host(binary="/usr/bin/qemu-system-x86_64", version=version)).argv)


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_its_own_monitor_is_never_on_the_console() -> None:
    words = argv(make())
    assert "-nographic" not in words
    assert option(words, "-monitor") == "none"
    assert option(words, "-display") == "none"
    assert "signal=off" in option(words, "-chardev")


def test_disks_are_always_raw() -> None:
    words = argv(make(disks=(Disk(path="/disk0"), Disk(path="/disk1", readonly=True, sector_size=4096))))
    drives = [words[index + 1] for index, word in enumerate(words) if word == "-drive"]
    assert drives == [
        "if=none,id=disk0,format=raw,file=/dev/fdset/0",
        "if=none,id=disk1,format=raw,readonly=on,file=/dev/fdset/1",
    ]
    assert "virtio-blk-pci,drive=disk1,logical_block_size=4096" in words
    device = option(argv(make(disks=(Disk(path="/disk0", device=True),))), "-drive")
    assert device == "if=none,id=disk0,format=raw,file.driver=host_device,file.filename=/dev/fdset/0"


def test_commas_are_doubled_in_options_and_nowhere_else() -> None:
    words = argv(make(name="a,b", shares=(Share(path="/s,0", tag="t,0"),), boot=Boot(command_line="x,y -S")))
    assert option(words, "-name") == "guest=a,,b,debug-threads=on"
    assert "path=/s,,0," in option(words, "-fsdev")
    assert "virtio-9p-pci,fsdev=share0,mount_tag=t,,0" in words
    assert option(words, "-append") == "x,y -S"


def test_shares() -> None:
    shares = (Share(path="/share0", tag="fs0"), Share(path="/share1", tag="vol1", readonly=True))
    words = argv(make(shares=shares))
    assert [words[index + 1] for index, word in enumerate(words) if word == "-fsdev"] == [
        "local,id=share0,path=/share0,security_model=none,multidevs=remap",
        "local,id=share1,path=/share1,security_model=none,multidevs=remap,readonly=on",
    ]
    assert qemu.launch(make(shares=shares), Host(binary="q")).own_descriptors
    assert not qemu.launch(make(), Host(binary="q")).own_descriptors
    assert "virtio-9p-device,fsdev=share1,mount_tag=vol1" in argv(make(shares=shares, model="microvm"))


def test_the_boot_string_is_one_word() -> None:
    words = argv(make(boot=Boot(command_line='-monitor stdio "x" , -S')))
    assert option(words, "-append") == '-monitor stdio "x" , -S'
    assert "-append" not in argv(make())


def test_descriptors_are_numbered_in_order() -> None:
    machine = make(network=NETWORKS["two"], disks=(Disk(path="/disk0"),), boot=Boot(control=True), first_fd=7)
    result = qemu.launch(machine, Host(binary="q"))
    taps = ("tap:urunc1-abcdefg", "tap:urunc0-abcdefg")
    assert result.fds == (*taps, "disk:/disk0", "read:/disk0", "listen:qmp", "fifo:control.in", "fifo:control.out")
    text = " ".join(result.argv)
    disk = "-add-fd fd=9,set=0 -add-fd fd=10,set=0"
    for word in ("net0,fd=7", "net1,fd=8", disk, "id=qmp,fd=11", "id=control,path=/control"):
        assert word in text


def test_ports_for_the_streams_leave_the_console_standard_error() -> None:
    boot, disk = Boot(control=True, streams=("stdin", "stdout")), (Disk(path="/disk0"),)
    result = qemu.launch(make(disks=disk, boot=boot), Host(binary="q"))
    out, error = (3 + result.fds.index(name) for name in ("output:1", "output:2"))
    text = " ".join(result.argv)
    assert "-chardev stdio,id=stdin,signal=off -device virtserialport,chardev=stdin,name=org.urunc.stdin" in text
    assert f"-add-fd fd={out},set=1 -chardev file,id=stdout,path=/dev/fdset/1,append=on" in text
    assert f"-add-fd fd={error},set=2 -chardev file,id=console,path=/dev/fdset/2,append=on" in text
    assert "virtio-serial-pci,max_ports=4" in text and text.count("virtserialport,") == 3


def test_without_input_nothing_reads_it() -> None:
    text = " ".join(argv(make(boot=Boot(control=True, streams=("stdout",)))))
    assert "stdio" not in text and "max_ports=3" in text and text.count("virtserialport,") == 2


def test_without_ports_the_console_has_both_streams() -> None:
    plain = qemu.launch(make(boot=Boot(control=True)), Host(binary="q"))
    assert "output:1" not in plain.fds and "max_ports=2" in " ".join(plain.argv)
    assert option(list(plain.argv), "-chardev") == "stdio,id=console,signal=off"


def test_no_control_port_unless_the_guest_serves_it() -> None:
    assert "virtserialport" not in " ".join(argv(make()))
    assert "virtserialport,chardev=control,name=org.urunc.control" in argv(make(boot=Boot(control=True)))


def test_mtu_is_told() -> None:
    assert "host_mtu" not in " ".join(argv(make(network=NETWORKS["plain"])))
    assert "host_mtu=1400" in " ".join(argv(make(network=NETWORKS["offlink"])))


def test_microvm_has_no_pci() -> None:
    words = argv(
        make(model="microvm", network=NETWORKS["plain"], disks=(Disk(path="/disk0"),), boot=Boot(control=True))
    )
    assert not [word for word in words if "-pci" in word]
    assert not [word for word in words if "romfile" in word]


@pytest.mark.parametrize("guest", ["mirage", "mewz"])
def test_a_guest_that_knows_pci_alone_gets_no_devices_of_microvm(guest: str) -> None:
    """The image does not choose another machine type than the host's: there is more in it to be attacked."""
    machine = make_machine(guest, "qemu", NETWORKS["plain"], Root(), "microvm")
    with pytest.raises(HostError, match="`microvm`, which has no PCI bus"):
        launch(machine, "qemu", (7, 2))
    launch(make_machine(guest, "qemu", NETWORKS["none"], Root(), "microvm"), "qemu", (7, 2))
    launch(make_machine(guest, "qemu", NETWORKS["plain"], Root(), "q35"), "qemu", (7, 2))


def test_a_disk_that_a_guest_would_not_find_is_refused_before_anything_is_made() -> None:
    machine = make_machine("mirage", "qemu", NETWORKS["none"], Root(kind="block"), "q35")
    qemu.check(machine)
    with pytest.raises(HostError, match="no PCI bus"):
        qemu.check(machine.replace(model="microvm"))


def test_ways_to_report_a_failure() -> None:
    boot = Boot(exit_device=True, panic_device=True)
    words = argv(make(boot=boot))
    assert "isa-debug-exit,iobase=0x501,iosize=2" in words
    assert "pvpanic" in words
    assert option(words, "-action") == "panic=exit-failure"
    assert "-action" not in argv(make(boot=boot), version=(6, 2))
    assert "pvpanic" not in argv(make(boot=boot, model="microvm"))
    assert "-device" not in argv(make())


def test_accelerators() -> None:
    words = argv(make(accel="kvm"))
    assert (option(words, "-accel"), option(words, "-cpu")) == ("kvm", "host")
    assert qemu.launch(make(accel="kvm"), Host(binary="q")).devices == ("kvm",)
    assert option(argv(make()), "-accel").startswith("tcg,tb-size=")
    assert qemu.launch(make(), Host(binary="q")).devices == ()


def test_vhost() -> None:
    result = qemu.launch(make(vhost=True, network=NETWORKS["plain"]), Host(binary="q"))
    assert "tap,id=net0,fd=3,vhost=on" in result.argv
    assert result.devices == ("vhost-net",)
    assert qemu.launch(make(vhost=True), Host(binary="q")).devices == ()


@pytest.mark.parametrize(("model", "bus"), [("q35", "pci"), ("microvm", "device")])
def test_a_balloon_where_there_is_to_be_one(model: str, bus: str) -> None:
    device = f"virtio-balloon-{bus},id=balloon,guest-stats-polling-interval=10,deflate-on-oom=on"
    assert device in argv(make(balloon=True, model=model))
    assert not any("balloon" in word for word in argv(make(model=model)))


def test_data_path() -> None:
    words = qemu.launch(make(), Host(binary="q", data_path="/opt/firmware")).argv
    assert option(list(words), "-L") == "/opt/firmware"
    assert "-L" not in argv(make())


def test_aarch64() -> None:
    words = argv(make(arch="aarch64", model="q35", kernel=KernelInfo(format="arm64", arch="aarch64")))
    assert option(words, "-machine").startswith("virt,")
    assert "isa-debug-exit" not in " ".join(argv(make(arch="aarch64", boot=Boot(exit_device=True))))


@pytest.mark.parametrize(
    ("kernel", "reason"),
    [
        (KernelInfo(format="elf64", arch="x86_64"), "without a PVH note"),
        (KernelInfo(format="elf64", arch="x86_64", multiboot=True, pvh=True), "refuses Multiboot in an x86-64"),
        (KernelInfo(format="elf32", arch="x86_64"), "neither multiboot, PVH nor a bzImage"),
        (KernelInfo(format="raw"), "neither multiboot, PVH nor a bzImage"),
        (KernelInfo(format="arm64", arch="aarch64"), "the kernel is for aarch64"),
        (solo5_kernel("spt", 0, 0), "built for Solo5's `spt`"),
    ],
)
def test_kernels_that_it_cannot_boot(kernel: KernelInfo, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        qemu.check(make(kernel=kernel))


@pytest.mark.parametrize(
    "kernel",
    [
        MULTIBOOT_KERNEL,
        LINUX_KERNEL,
        KernelInfo(format="bzimage", arch="x86_64"),
        KernelInfo(format="elf32", arch="x86_64", pvh=True),
        KernelInfo(format="elf64", arch="x86_64", multiboot=True, multiboot_address=True),
        KernelInfo(format="elf64", arch="x86_64", multiboot=True, i386=True),  # Mewz
        KernelInfo(format="raw", arch="x86_64", multiboot=True),
        solo5_kernel("virtio", 0, 0).replace(multiboot=True, multiboot_address=True),
    ],
)
def test_kernels_that_it_boots(kernel: KernelInfo) -> None:
    qemu.check(make(kernel=kernel))


def test_no_path_of_the_image_in_the_argv() -> None:
    machine = make_machine("linux", "qemu", Network(nics=(PLAIN_NIC,)), Root(kind="block"))
    words = launch(machine, "qemu").argv
    assert option(list(words), "-kernel") == "/kernel"
    assert not [word for word in words if "disk.img" in word]


def test_solo5s_devices_are_in_its_manifests_order() -> None:
    """Solo5 on virtio pairs what is on the bus with its manifest, and stops where the kinds differ."""
    manifest = (("a", "BLOCK_BASIC"), ("net1", "NET_BASIC"), ("b", "BLOCK_BASIC"), ("net0", "NET_BASIC"))
    kernel = solo5_kernel("virtio", 0, 0).replace(multiboot=True, multiboot_address=True, solo5_devices=manifest)
    boot = Boot(net_device="net0")
    disks = (Disk(path="/disk0", name="b"), Disk(path="/disk1", name="a"))
    words = argv(make(kernel=kernel, boot=boot, disks=disks, network=Network(nics=(PLAIN_NIC, SECOND_NIC))))
    placed = [word.split(",")[1] for word in words if word.startswith("virtio-")]
    assert placed == ["drive=disk1", "netdev=net1", "drive=disk0", "netdev=net0"]
    with pytest.raises(ImageError, match="declares the block devices `a`, `b`, the image gives 1"):
        qemu.check(make(kernel=kernel, disks=disks[:1]))
    with pytest.raises(ImageError, match="declares the network devices"):
        argv(make(kernel=kernel, disks=disks, network=Network(nics=(PLAIN_NIC,))))
