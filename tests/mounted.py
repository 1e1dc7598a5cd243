"""A container's rootfs on a block device of its own, as devmapper and blockfile snapshotters give it: a loop device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bundles import Bundle
from world import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from world import World


def loops(disk: Path) -> list[str]:
    """Return the loop devices over the disk."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if backing.read_text().strip().startswith(str(disk)):
                found.append(backing.parts[3])
        except OSError:
            continue
    return found


def mounts(world: World, point: Path) -> list[str]:
    """Return the options of what is mounted there, in the world."""
    lines = Path(f"/proc/{world.pid}/mountinfo").read_text().splitlines()
    return [field[5] for field in map(str.split, lines) if field[4] == str(point)]


class Mounted:
    """A bundle whose rootfs is the file system of a disk on a loop device, mounted in the world alone.

    The device goes with its mount, unless it `stays`, as a device of devmapper does.
    """

    def __init__(
        self, world: World, folder: Path, disk: Path, args: Sequence[str] = ("/bin/sh",), *, stays: bool = False
    ) -> None:
        self.world = world
        self.disk = disk
        self.bundle = Bundle(folder / "bundle", args, cgroup=f"/{world.cgroup}/device")
        self.device = world.run("losetup", "--find", "--show", str(disk)).stdout.strip() if stays else ""
        self.mount()

    def mount(self) -> None:
        """Mount it, as an engine does before create."""
        options = "nosuid,noatime" if self.device else "loop,nosuid,noatime"
        self.world.run("mount", "-o", options, self.device or str(self.disk), str(self.bundle.rootfs))

    def mounts(self) -> list[str]:
        """Return the options of what is mounted at the rootfs."""
        return mounts(self.world, self.bundle.rootfs)

    def loops(self) -> list[str]:
        """Return the loop devices over the disk."""
        return loops(self.disk)

    def close(self) -> None:
        """Unmount it, where it is still mounted."""
        self.world.run("umount", str(self.bundle.rootfs), check=False)
        if self.device:
            self.world.run("losetup", "--detach", self.device)
        wait_for("no loop device", lambda: not self.loops(), 10)
