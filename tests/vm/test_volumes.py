"""Volumes as disks, shares and mounts, numbered behind the root's."""

from __future__ import annotations

import pytest

from urunc.errors import SpecError
from urunc.oci.checks import Source, Volume
from urunc.oci.spec import Device, Mount
from urunc.vm import volumes
from urunc.vm.machine import Disk, GuestMount, Share, driver
from urunc.vm.monitors import firecracker, qemu
from urunc.vm.storage import DiskSource, ShareSource

CAN = qemu.CAPABILITIES


def bind(target: str, source: str, *options: str) -> Mount:
    return Mount(destination=target, type="bind", source=source, options=options)


def test_a_folder_and_a_file() -> None:
    folder = Volume(mount=bind("/data, x", "/srv,a", "rbind"), way="share", source=Source(kind="folder"))
    file = Volume(mount=bind("/etc/app", "app.conf"), way="share", readonly=True, source=Source(kind="file"))
    found = volumes.attach((folder, file), (), CAN, 0, 1)
    assert found.shares == (
        Share(path="/share1", tag="fs1"),
        Share(path="/share2", tag="fs2", readonly=True),
    )
    assert found.folders == (
        ShareSource(target="/share1", source="/srv,a", recursive=True),
        ShareSource(target="/share2/file", source="app.conf", readonly=True),
    )
    assert found.mounts == (
        GuestMount(source="fs1", fstype="9p", target="/data, x"),
        GuestMount(source="fs2", fstype="9p", target="/etc/app", readonly=True, name="file"),
    )
    assert found.disks == ()


def test_disks_come_behind_the_roots() -> None:
    mount = Mount(destination="/disk", type="ext3", source="/dev/sdb")
    volume = Volume(mount=mount, way="disk", readonly=True, source=Source(kind="block", device=(8, 16)))
    device = Device(path="/dev/xvda", kind="b", major=8, minor=32)
    found = volumes.attach((volume,), (device,), CAN, 1, 0)
    assert found.disks == (
        DiskSource(path="/disk1", source="/dev/sdb", device=True, number=(8, 16), readonly=True, by="fd"),
        DiskSource(path="/disk2", source="/dev/xvda", device=True, number=(8, 32), by="fd"),
    )
    assert volumes.disks(found.disks) == (
        Disk(path="/disk1", readonly=True, device=True),
        Disk(path="/disk2", device=True),
    )
    assert found.mounts == (
        GuestMount(source="/dev/vdb", fstype="ext3", target="/disk", readonly=True),
        GuestMount(source="/dev/vdc", fstype="bind", target="/dev/xvda"),
    )
    assert driver(found.mounts[0].fstype) == "ext4"
    nodes = volumes.attach((volume,), (), firecracker.CAPABILITIES, 0, 0).disks
    assert [(node.path, node.by) for node in nodes] == [("/dev/disk0", "node")]


def test_the_guests_own_and_copies() -> None:
    scratch = Volume(mount=Mount(destination="/scratch", type="tmpfs"), way="tmpfs")
    options = ("nosuid", "rnoexec", "size=64k", "ro", "mode=700")
    small = Volume(mount=Mount(destination="/small", type="tmpfs", options=options), way="tmpfs", readonly=True)
    copy = Volume(mount=bind("/config", "/c"), way="copy")
    found = volumes.attach((scratch, small, copy), (), CAN, 0, 0)
    assert found.mounts == (
        GuestMount(source="tmpfs", fstype="tmpfs", target="/scratch"),
        GuestMount(source="size=64k,mode=700", fstype="tmpfs", target="/small", readonly=True, noexec=True),
    )
    assert (found.shares, found.disks, found.folders) == ((), (), ())


def test_too_many_disks() -> None:
    device = Device(path="/dev/xvda", kind="b")
    volumes.attach((), (device,) * 7, CAN, 1, 0)
    with pytest.raises(SpecError, match="9 disks, the monitor `qemu` can attach 8"):
        volumes.attach((), (device,) * 8, CAN, 1, 0)
