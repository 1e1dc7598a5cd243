"""The order in which a guest's root is found, and how each monitor gets at its disks."""

from __future__ import annotations

import pytest

from urunc.errors import ImageError
from urunc.oci.app import App
from urunc.vm import monitors, storage
from urunc.vm.machine import Root, Share
from urunc.vm.storage import BlockImage, Device, DiskSource

EXT4 = Device(source="/dev/loop7", major=7, minor=7, filesystem="ext4", mounted_as="ext4", options=("rw",))
EXT2 = EXT4.replace(filesystem="ext2")
IMAGE = BlockImage(size=1 << 20, filesystem="ext4", filesystem_bytes=1 << 20)


def app(guest: str = "linux", monitor: str = "qemu", **fields: object) -> App:
    return App(guest=guest, monitor=monitor, kernel="/k", args=("/x",), **fields)  # type: ignore[arg-type]


def find(what: App, *, readonly: bool = False, block: BlockImage | None = None, device: Device | None = None) -> Root:
    can = monitors.load(what.monitor).CAPABILITIES
    return storage.find_root(what, can, readonly, block, device)


def test_the_order() -> None:
    """An initrd, a block image at /, the rootfs's device, the rootfs shared, nothing (facts: storage order)."""
    everything = {"initrd": "/i", "block": "/b", "block_mount": "/", "mount_rootfs": True}
    order = []
    for gone in ((), ("initrd",), ("initrd", "block"), ("initrd", "block", "device"), (*everything, "device")):
        fields = {key: value for key, value in everything.items() if key not in gone}
        root = find(app(**fields), block=IMAGE, device=None if "device" in gone else EXT4)
        order.append((root.kind, root.rootfs))
    assert order == [("initrd", False), ("block", False), ("block", True), ("9p", True), ("none", False)]


def test_what_the_root_is_made_of() -> None:
    assert find(app(block="/b"), block=IMAGE, readonly=True) == Root(kind="block", readonly=True, fstype="ext4")
    assert find(app(mount_rootfs=True), device=EXT2) == Root(kind="block", fstype="ext2", rootfs=True)
    mounted_so = EXT2.replace(options=("ro", "nosuid"))
    assert find(app(mount_rootfs=True), device=mounted_so).readonly


@pytest.mark.parametrize("mount", [None, "", "/"])
def test_a_block_image_is_the_root_unless_it_is_mounted_elsewhere(mount: str | None) -> None:
    assert find(app(block="/b", block_mount=mount), block=IMAGE).kind == "block"
    assert find(app(block="/b", block_mount="/data"), block=IMAGE).kind == "none"


@pytest.mark.parametrize(
    ("what", "device", "says"),
    [
        (app("linux", "firecracker", mount_rootfs=True), None, "takes a block device, and .* is no block device"),
        (app("unikraft", "firecracker", mount_rootfs=True), EXT4, "takes no rootfs at all, and .* is `/dev/loop7`"),
        (app("rumprun", "hvt", mount_rootfs=True), EXT4, "takes a block device, and .* `/dev/loop7` with ext4"),
        (app("mewz", mount_rootfs=True), None, "takes no rootfs at all"),
    ],
)
def test_a_rootfs_that_cannot_be_given_is_an_error(what: App, device: Device | None, says: str) -> None:
    with pytest.raises(ImageError, match=f"`mountRootfs` cannot be met: .*{says}"):
        find(what, device=device)


def test_a_file_system_that_the_guest_does_not_mount_is_shared_instead() -> None:
    assert find(app(mount_rootfs=True), device=EXT4.replace(filesystem="f2fs")).kind == "9p"
    assert find(app("rumprun", "hvt", mount_rootfs=True), device=EXT2).kind == "block"
    assert find(app("mirage", "hvt", mount_rootfs=True), device=EXT4).kind == "block"


@pytest.mark.parametrize("what", [app("unikraft", block="/b"), app("mirage", initrd="/i")])
def test_a_root_that_the_guest_does_not_take_is_an_error(what: App) -> None:
    with pytest.raises(ImageError, match=f"guest `{what.guest}` cannot take (block|initrd) as its root"):
        find(what, block=IMAGE)


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (IMAGE.replace(size=0), "is empty"),
        (IMAGE.replace(size=1 << 20 | 5), "not a whole number of sectors"),
        (IMAGE.replace(filesystem_bytes=2 << 20), "cut short: its file system has 2097152 bytes, the file 1048576"),
        (IMAGE.replace(filesystem=""), "no file system that urunc knows, or a damaged one"),
    ],
)
def test_an_image_that_no_guest_can_use(image: BlockImage, says: str) -> None:
    storage.check_block(app(block="/b"), IMAGE)
    with pytest.raises(ImageError, match=f"block image `/b` .*{says}"):
        storage.check_block(app(block="/b"), image)


def test_who_mounts_its_disk_itself_may_have_anything_on_it() -> None:
    storage.check_block(app("mirage", block="/b"), IMAGE.replace(filesystem=""))


def sources(what: App, root: Root, image: BlockImage | None = None, device: Device | None = None) -> list[DiskSource]:
    can = monitors.load(what.monitor).CAPABILITIES
    return list(storage.disk_sources(what, can, root, image, device))


def test_how_a_monitor_gets_at_an_image() -> None:
    closed = IMAGE.replace(openable=False)
    root = Root(readonly=True)
    assert sources(app(block="/b"), root, closed) == [DiskSource(path="/disk0", source="/b", readonly=True, by="fd")]
    fire = app(monitor="firecracker", block="/b")
    assert sources(fire, Root(), IMAGE) == [DiskSource(path="/disk0", source="/b", by="bind")]
    assert sources(fire, Root(), closed) == [DiskSource(path="/dev/disk0", source="/b", by="loop")]
    assert sources(app(), Root()) == []


def test_how_a_monitor_gets_at_the_rootfs() -> None:
    root = Root(kind="block", rootfs=True)
    found = DiskSource(path="/disk0", source="/dev/loop7", device=True, rootfs=True, number=(7, 7), by="fd")
    assert sources(app(mount_rootfs=True), root, device=EXT4) == [found]
    fire = app(monitor="firecracker", mount_rootfs=True)
    assert sources(fire, root, device=EXT4) == [found.replace(path="/dev/disk0", by="node")]


def test_disks_and_shares() -> None:
    one = DiskSource(path="/disk0", source="/b", readonly=True)
    assert [(disk.path, disk.readonly, disk.name) for disk in storage.disks(app(block_device="blk"), (one,))] == [
        ("/disk0", True, "blk")
    ]
    shares, folders = storage.root_shares(Root(kind="9p", readonly=True))
    assert shares == (Share(path="/share0", tag="fs0", readonly=True),)
    assert [(folder.target, folder.source, folder.readonly) for folder in folders] == [("/share0", "", True)]
    assert storage.root_shares(Root(kind="block")) == ((), ())
