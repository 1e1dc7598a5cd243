"""The test guest on real QEMU machines: what it prints, how it ends, what it answers on the network."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import ninep
from guest import frames
from guest.machines import GUEST, PATIENCE, Qemu, connect, want_programs

MACHINES = ("q35", "pc", "microvm", "microvm,acpi=off", "microvm,pic=off,pit=off,rtc=off")
BUTTON_MACHINES = ("q35", "pc", "microvm")
GUEST_IP = socket.inet_aton("192.0.2.7")
GUEST_MAC = "52:54:00:12:34:56"
BOOT_STRING = "app netdev.ip=192.0.2.7/24:192.0.2.1:192.0.2.53"


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    want_programs()


def boot(machine: str, append: str, *arguments: str, kernel: str = "testguest.elf", fds: tuple[int, ...] = ()) -> Qemu:
    return Qemu(machine, GUEST / "build" / kernel, append, "-m", "32", *arguments, fds=fds)


def device(machine: str, kind: str) -> str:
    return f"virtio-{kind}-device" if machine.startswith("microvm") else f"virtio-{kind}-pci"


def disk(machine: str, number: int, path: Path, more: str = "") -> list[str]:
    drive = f"if=none,id=d{number},format=raw,file={path}{more}"
    return ["-drive", drive, "-device", f"{device(machine, 'blk')},drive=d{number}"]


@pytest.mark.parametrize("machine", MACHINES)
def test_prints_what_it_was_given(machine: str, tmp_path: Path) -> None:
    initrd, first, second = tmp_path / "initrd", tmp_path / "first", tmp_path / "second"
    initrd.write_bytes(bytes(range(256)) * 40 + b"end")
    first.write_bytes(b"first disk".ljust(4096, b"."))
    second.write_bytes(b"second disk".ljust(1024, b"."))
    append = 'app "quoted  blanks" = é -- exit 0'
    disks = disk(machine, 0, first) + disk(machine, 1, second, ",readonly=on")
    with boot(machine, append, "-initrd", str(initrd), *disks) as qemu:
        assert qemu.wait() == 0
    lines = qemu.lines()
    assert lines[0] == f"cmdline: {append}"
    assert "memory: 32 MiB" in lines
    crc = zlib.crc32(initrd.read_bytes())
    assert f"initrd: 10243 bytes, crc32 {crc:08x}, first bytes {bytes(range(16)).hex(' ')}" in lines
    assert f"disk0: 8 sectors, first bytes {b'first disk......'.hex(' ')}" in lines
    assert f"disk1: 2 sectors, read-only, first bytes {b'second disk.....'.hex(' ')}" in lines
    assert b"\r" not in qemu.output


@pytest.mark.parametrize("machine", MACHINES)
def test_sends_messages_to_a_share(machine: str, tmp_path: Path) -> None:
    """As many octets as are given; without a share, and without octets, nothing is sent."""
    messages = (ninep.version(), ninep.walk(1, 2), b"")
    words = " ".join(f"9p {message.hex()}" for message in messages)
    share = ("-fsdev", f"local,id=s,path={tmp_path},security_model=none")
    tag = ("-device", f"{device(machine, '9p')},fsdev=s,mount_tag=a-tag")
    with boot(machine, f"app -- {words} poweroff", *share, *tag) as qemu:
        assert qemu.wait() == 0
    assert "share: a-tag" in qemu.lines()
    answers = [line for line in qemu.lines() if line.startswith("9p: ")]
    assert answers[0] == "9p: " + ninep.message(101, ninep.version()[7:], tag=0xFFFF).hex(" ")
    assert bytes.fromhex(answers[1][4:])[4] == ninep.ERROR
    assert answers[2] == "9p: no answer"
    with boot(machine, f"app -- {words} poweroff") as qemu:
        assert qemu.wait() == 0
    assert qemu.lines().count("9p: no answer") == 3


@pytest.mark.parametrize("machine", MACHINES)
def test_drives_a_balloon(machine: str) -> None:
    with boot(machine, "app -- balloon poweroff", "-device", device(machine, "balloon")) as qemu:
        assert qemu.wait() == 0
    assert "balloon: driven" in qemu.lines()
    with boot(machine, "app -- balloon poweroff") as qemu:
        assert qemu.wait() == 0
    assert "balloon: none" in qemu.lines()


@pytest.mark.parametrize("machine", ["q35", "microvm"])
def test_the_elf64_boots_by_pvh(machine: str, tmp_path: Path) -> None:
    initrd = tmp_path / "initrd"
    initrd.write_bytes(b"x" * 100)
    with boot(machine, "-- exit 0", "-initrd", str(initrd), kernel="testguest64.elf") as qemu:
        assert qemu.wait() == 0
    assert "cmdline: -- exit 0" in qemu.lines()
    assert "memory: 32 MiB" in qemu.lines()
    assert any(line.startswith("initrd: 100 bytes") for line in qemu.lines())


def test_cpus_are_counted() -> None:
    with boot("q35", "poweroff", "-smp", "3") as qemu:
        assert qemu.wait() == 0
    assert "cpus: 3" in qemu.lines()


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("words", "status"), [("exit 0", 0), ("exit 1", 1), ("exit 2", 3), ("exit 7", 7), ("poweroff", 0), ("reboot", 0)]
)
def test_ends(machine: str, words: str, status: int) -> None:
    with boot(machine, f"app -- {words}") as qemu:
        assert qemu.wait() == status


def test_words_before_the_dashes_are_no_commands() -> None:
    with boot("microvm", "poweroff env=[ exit 3 ] -- sleep 1 unknown exit 5") as qemu:
        assert qemu.wait() == 5


def test_panic_is_told_to_the_monitor() -> None:
    with boot("q35", "panic", "-device", "pvpanic", "-action", "panic=exit-failure") as qemu:
        assert qemu.wait() == 1
    assert "panic" in qemu.lines()


def test_panic_without_the_device_hangs_and_spin_is_silent() -> None:
    with boot("microvm", "panic") as qemu:
        qemu.wait_for(b"\npanic\n")
        assert qemu.process.poll() is None
    with boot("microvm", "spin") as qemu:
        qemu.wait_for(b"initrd: none\n")
        qemu.type(b"poweroff\n")
        assert qemu.process.poll() is None
        assert b"ready" not in qemu.output


def test_flood_never_ends() -> None:
    with boot("microvm", "flood") as qemu:
        qemu.wait_for(b"\nflood 500\n")


@pytest.mark.parametrize("machine", ["q35", "microvm"])
def test_console_lines(machine: str) -> None:
    with boot(machine, "") as qemu:
        qemu.wait_for(b"ready\n")
        qemu.type(b"one\ntwo words\n" + b"x" * 600 + b"\n")
        qemu.wait_for(b"console: one\nconsole: two words\nconsole: " + b"x" * 511 + b"\n")
        qemu.type(b"exit 9\n")
        assert qemu.wait() == 9


@pytest.mark.parametrize("machine", BUTTON_MACHINES)
def test_power_button(machine: str, tmp_path: Path) -> None:
    path = tmp_path / "qmp"
    with boot(machine, "", "-qmp", f"unix:{path},server=on,wait=off") as qemu, connect(path) as qmp:
        qemu.wait_for(b"ready\n")
        for command in ("qmp_capabilities", "system_powerdown"):
            qmp.sendall(json.dumps({"execute": command}).encode())
        assert qemu.wait() == 0
    assert "power button" in qemu.lines()


class Wire:
    """The other end of the guest's network card."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    def ask(self, frame: bytes) -> bytes:
        self.end.send(frame)
        return self.end.recv(65536)


@contextlib.contextmanager
def on_a_wire(machine: str, append: str) -> Iterator[tuple[Qemu, Wire]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.settimeout(PATIENCE)
    netdev = f"dgram,id=n0,local.type=fd,local.str={theirs.fileno()}"
    card = f"{device(machine, 'net')},netdev=n0,mac={GUEST_MAC}"
    with ours, theirs, boot(machine, append, "-netdev", netdev, "-device", card, fds=(theirs.fileno(),)) as qemu:
        qemu.wait_for(b"ready\n")
        yield qemu, Wire(ours)


NET_MACHINES = ("q35", "microvm", "microvm,acpi=off")


@pytest.mark.parametrize("machine", NET_MACHINES)
def test_network(machine: str) -> None:
    mac = bytes.fromhex(GUEST_MAC.replace(":", ""))
    with on_a_wire(machine, f"{BOOT_STRING} --") as (qemu, wire):
        assert f"nic0: mac {GUEST_MAC}" in qemu.lines()
        announcement = wire.end.recv(65536)
        assert announcement[:14] == frames.BROADCAST + mac + struct.pack("!H", frames.ARP)
        assert announcement[22:32] == mac + GUEST_IP and announcement[38:42] == GUEST_IP

        reply = wire.ask(frames.arp_request(GUEST_IP))
        assert reply[:12] == frames.MAC + mac and reply[20:32] == b"\0\2" + mac + GUEST_IP

        for size in (0, 1, 56, 1472):
            reply = wire.ask(frames.ipv4(mac, GUEST_IP, frames.ICMP, frames.ping(b"p" * size)))
            message = frames.payload_of(reply)
            assert message[0] == 0 and frames.checksum(message) == 0 and message[8:] == b"p" * size

        reply = wire.ask(frames.ipv4(mac, GUEST_IP, frames.UDP, frames.udp(7, b"echo me")))
        assert reply[:12] == frames.MAC + mac
        assert frames.payload_of(reply) == struct.pack("!HHHH", 7, 4000, 15, 0) + b"echo me"


def test_frames_that_are_not_for_it_or_broken_are_left_alone() -> None:
    mac = bytes.fromhex(GUEST_MAC.replace(":", ""))
    whole = frames.ipv4(mac, GUEST_IP, frames.UDP, frames.udp(7, b"x" * 64))
    with on_a_wire("microvm", f"{BOOT_STRING} --") as (_, wire):
        wire.end.recv(65536)
        wire.end.send(frames.arp_request(socket.inet_aton("192.0.2.8")))
        wire.end.send(frames.ipv4(mac, socket.inet_aton("192.0.2.8"), frames.UDP, frames.udp(7, b"not yours")))
        for size in (1, 13, 14, 20, 33, 40, 60):
            wire.end.send(whole[:size])
        wire.end.send(b"\0" * 20000)
        reply = wire.ask(frames.ipv4(mac, GUEST_IP, frames.UDP, frames.udp(7, b"yours")))
        assert frames.payload_of(reply)[8:] == b"yours"


def test_off_link_gateway_and_many_datagrams() -> None:
    mac = bytes.fromhex(GUEST_MAC.replace(":", ""))
    with on_a_wire("q35", "app netdev.ip=192.0.2.7/32:169.254.1.1 --") as (_, wire):
        wire.end.recv(65536)
        for number in range(200):
            payload = b"%d" % number
            reply = wire.ask(frames.ipv4(mac, GUEST_IP, frames.UDP, frames.udp(7, payload)))
            assert frames.payload_of(reply)[8:] == payload


def test_web_page() -> None:
    mac = bytes.fromhex(GUEST_MAC.replace(":", ""))
    syn, ack, fin, rst = 2, 16, 1, 4

    with on_a_wire("microvm", f"{BOOT_STRING} --") as (_, wire):
        wire.end.recv(65536)

        def ask(port: int, sequence: int, acknowledged: int, flags: int, data: bytes = b"") -> tuple[int, bytes]:
            segment = frames.tcp(GUEST_IP, port, sequence, acknowledged, flags, data)
            answer = frames.payload_of(wire.ask(frames.ipv4(mac, GUEST_IP, frames.TCP, segment)))
            pseudo = GUEST_IP + frames.IP + struct.pack("!HH", frames.TCP, len(answer))
            assert frames.checksum(pseudo + answer) == 0
            assert struct.unpack_from("!I", answer, 8)[0] == sequence + len(data) + bool(flags & (syn | fin))
            return answer[13], answer[20:]

        assert ask(81, 100, 0, syn)[0] & rst
        assert ask(80, 100, 0, syn) == (syn | ack, b"")
        flags, page = ask(80, 101, 0x10000001, ack, b"GET / HTTP/1.0\r\n\r\n")
        assert flags & fin and page.startswith(b"HTTP/1.0 200 OK\r\n")
        assert page.endswith(f"\r\n\r\ntestguest: {BOOT_STRING} --\n".encode())


def test_command_by_udp() -> None:
    mac = bytes.fromhex(GUEST_MAC.replace(":", ""))
    with on_a_wire("q35", f"{BOOT_STRING} --") as (qemu, wire):
        wire.end.recv(65536)
        reply = wire.ask(frames.ipv4(mac, GUEST_IP, frames.UDP, frames.udp(9, b"exit 11")))
        assert frames.payload_of(reply)[8:] == b"exit 11"
        assert qemu.wait() == 11
