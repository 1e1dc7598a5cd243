"""File systems that are damaged, or made to be: the host harms itself by none of them, and nothing is left.

As a block image it is the guest's to mount, and the host reads its superblock alone. As the container's rootfs it has
been mounted by the engine: kernel and drivers are read from it before it is the guest's.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

import damage
import linuxes
from bundles import Bundle
from driver import Cli
from guest import linux_guest
from mounted import loops, mounts
from refusals import assert_refused
from world import World, wait_for

pytestmark = pytest.mark.root

SEEDS = range(36)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refused_or_created(cli: Cli, name: str, bundle: Bundle, what: str) -> bool:
    """Create: it works, and is deleted; or there is one clear error. Return which."""
    cli.log.unlink(missing_ok=True)
    if cli.create(name, bundle, check=False) == 0:
        assert cli.status(name) == "created", what
        cli("delete", "--force", name)
        return True
    message = assert_refused(cli, name)
    assert message.isprintable(), what
    assert len(message) < 1000, what
    assert "internal" not in message, what
    return False


@pytest.fixture
def linux(is_runc: bool, tmp_path: Path, world: World) -> Bundle:
    """A bundle of a Linux guest, whose root is to be a disk."""
    if is_runc:
        pytest.skip("runc has no unikernels")
    bundle = Bundle(tmp_path / "linux", ("/bin/sh", "-c", "ls -R / > /dev/null; echo x > /x; exit 3"))
    bundle.config["linux"]["cgroupsPath"] = f"/{world.cgroup}/linux"
    linuxes.add_kernel(bundle.rootfs, linux_guest.find_kernel())
    return linuxes.annotate(bundle, block="/disk.img", blkMntPoint="/")


@pytest.mark.parametrize("kind", ["ext2", "ext4"])
def test_a_block_image_costs_the_host_nothing(cli: Cli, linux: Bundle, tmp_path: Path, kind: str) -> None:
    """It is not mounted, and not an octet of it is written, by any way of `create`."""
    sound = linuxes.make_disk(linuxes.userland(tmp_path / "tree"), tmp_path / "sound", "8M", kind)
    places = damage.find_places(sound, "/bin", "/etc")
    image = linux.rootfs / "disk.img"
    for seed in SEEDS:
        shutil.copy(sound, image)
        what = damage.damage(image, places, seed)
        before = digest(image)
        refused_or_created(cli, f"guest{seed}", linux, what)
        assert digest(image) == before, what
        assert not loops(image), what


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 13, 16, 22])
def test_a_guest_that_mounts_one_harms_itself(cli: Cli, linux: Bundle, tmp_path: Path, seed: int) -> None:
    """Bitmaps, a group's descriptors, folders: it runs on, or its init or its program fails; its console says why."""
    tree = linuxes.userland(tmp_path / "tree")
    image = damage.make_disk(tree, linux.rootfs / "disk.img", "8M")
    damage.damage(image, damage.find_places(image, "/bin", "/etc"), seed)
    status, console = cli.run("guest", linux)
    assert status in (3, 125, 127), console
    assert "EXT4-fs" in console


def test_a_rootfs_that_the_engine_has_mounted(cli: Cli, is_runc: bool, tmp_path: Path, world: World) -> None:
    """What cannot be read of it is an error, and it stays mounted then."""
    if is_runc:
        pytest.skip("runc has no unikernels")
    tree = linuxes.userland(tmp_path / "tree")
    linuxes.add_kernel(tree, linux_guest.find_kernel())
    sound = linuxes.make_disk(tree, tmp_path / "sound", "64M")
    places = damage.find_places(sound, "/boot", "/lib", "/lib/modules")
    disk = tmp_path / "disk.img"
    bundle = linuxes.annotate(Bundle(tmp_path / "bundle", ("/bin/sh",)), mountRootfs="true")
    bundle.config["linux"]["cgroupsPath"] = f"/{world.cgroup}/device"
    outcomes = set()
    for seed in SEEDS:
        shutil.copy(sound, disk)
        what = damage.damage(disk, places, seed)
        mount = ("mount", "-o", "loop,errors=continue,nosuid", str(disk), str(bundle.rootfs))
        if world.run(*mount, check=False).returncode != 0:
            continue  # the engine's failure
        before = mounts(world, bundle.rootfs)
        created = refused_or_created(cli, f"guest{seed}", bundle, what)
        assert mounts(world, bundle.rootfs) == ([] if created else before), what
        world.run("umount", str(bundle.rootfs), check=False)
        wait_for("no loop device", lambda: not loops(disk), 10)
        outcomes.add(created)
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    ("file", "block"),
    [
        ("urunc.json", "0"),
        ("boot/vmlinux", "0"),
        ("boot/vmlinux", "DIND"),
        ("lib/modules/*/modules.dep", "0"),
        ("lib/modules/**/virtio_blk.ko*", "IND"),
    ],
)
def test_a_file_that_cannot_be_read(
    cli: Cli, is_runc: bool, tmp_path: Path, world: World, file: str, block: str
) -> None:
    """Its blocks are beyond the disk's end: a failure of the device to the host."""
    if is_runc:
        pytest.skip("runc has no unikernels")
    tree = linuxes.userland(tmp_path / "tree")
    linuxes.add_kernel(tree, linux_guest.find_kernel())
    bundle = linuxes.annotate(Bundle(tmp_path / "bundle", ("/bin/sh",)), mountRootfs="true")
    (tree / "urunc.json").write_text("{}")
    disk = damage.make_disk(tree, tmp_path / "disk.img", "64M")
    [path] = tree.glob(file)
    damage.lose_block(disk, f"/{path.relative_to(tree)}", block)
    world.run("mount", "-o", "loop,errors=continue", str(disk), str(bundle.rootfs))
    before = mounts(world, bundle.rootfs)
    created = refused_or_created(cli, "guest", bundle, file)
    left = mounts(world, bundle.rootfs)
    world.run("umount", str(bundle.rootfs))
    assert not created
    assert left == before
    assert path.name in cli.last_error()
    assert "input/output error" in cli.last_error() or "structure needs cleaning" in cli.last_error()
    wait_for("no loop device", lambda: not loops(disk), 10)
