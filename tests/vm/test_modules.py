"""The modules that a guest's root needs, by the text of modules.dep."""

from __future__ import annotations

from urunc.vm import modules

DEP = """\
kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs/netfs.ko
kernel/net/9p/9pnet.ko:
kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko
kernel/fs/netfs/netfs.ko:
kernel/drivers/virtio/virtio-mmio.ko:
kernel/sound/snd.ko: kernel/sound/core.ko
no colon
"""


def test_closure() -> None:
    paths, left = modules.closure(DEP, ("9p", "9pnet_virtio", "virtio_mmio", "ext4"))
    assert paths == (
        "kernel/fs/9p/9p.ko",
        "kernel/net/9p/9pnet.ko",
        "kernel/fs/netfs/netfs.ko",
        "kernel/net/9p/9pnet_virtio.ko.xz",
        "kernel/drivers/virtio/virtio-mmio.ko",
    )
    assert modules.closure(left, ("9p", "9pnet_virtio", "virtio_mmio")) == (paths, left)
    assert "snd" not in left


def test_nothing_wanted() -> None:
    assert modules.closure(DEP, ("nonesuch",)) == ((), "")
    assert modules.closure("", ("9p",)) == ((), "")


def test_lacks() -> None:
    assert not modules.lacks("9p", DEP, "")
    assert not modules.lacks("virtio-mmio", DEP, "")
    assert not modules.lacks("ext4", DEP, "kernel/fs/ext4/ext4.ko\n")
    assert modules.lacks("ext4", DEP, "kernel/fs/xfs/xfs.ko\n")
