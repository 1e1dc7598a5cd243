"""What backs the guest's root, and which disks, shares and mounts the machine gets, decided from what was found. Pure.

How one of them is made is `vm.storage`'s, of the volumes `vm.volumes`'s; here they are put together and checked.
"""

from __future__ import annotations

from ..errors import ImageError, SpecError
from ..oci import checks
from ..record import Record
from ..vm import guests, storage
from ..vm.machine import Disk, GuestMount, Root, Share
from ..vm.storage import Device, DiskSource, ShareSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..oci.app import App
    from ..oci.checks import MountPlan
    from ..oci.spec import Spec
    from ..vm.machine import Capabilities
    from .plan import Facts


class Storage(Record):
    """The guest's root, the machine's disks and shares with where each comes from, and what the guest mounts."""

    root: Root
    device: Device | None  # the rootfs's, where it is the guest's root: to be unmounted on the host
    disks: tuple[Disk, ...]
    disk_sources: tuple[DiskSource, ...]
    shares: tuple[Share, ...]
    share_sources: tuple[ShareSource, ...]
    mounts: tuple[GuestMount, ...]  # beside the root


def decide(spec: Spec, app: App, mounts: MountPlan, can: Capabilities, facts: Facts) -> Storage:
    """Return what the guest gets. Raises SpecError or ImageError for what it or the monitor cannot have."""
    root = storage.find_root(app, can, spec.root_readonly, facts.block, facts.device)
    device = facts.device if root.kind == "block" and root.rootfs else None
    _check(spec, app, facts, root, device)
    sources = storage.disk_sources(app, can, root, facts.block, facts.device)
    shares, folders = storage.root_shares(root)
    found = Storage(
        root=root,
        device=device,
        disks=storage.disks(app, sources),
        disk_sources=sources,
        shares=shares,
        share_sources=folders,
        mounts=storage.block_mounts(app, root, sources, facts.block),
    )
    return _with_volumes(found, spec, app, mounts, can)


def _check(spec: Spec, app: App, facts: Facts, root: Root, device: Device | None) -> None:
    if facts.block:
        storage.check_block(app, facts.block)
    storage.check_drivers(root, facts.lacks)
    if device and app.block:
        raise ImageError("`block` and `mountRootfs` exclude each other: the image's file goes with its rootfs")
    if device and spec.hooks.start_container:
        raise SpecError(
            "hooks.startContainer: the container's rootfs is the guest's own disk, and no longer mounted by then",
            hint="use createRuntime or createContainer hooks",
        )


def _with_volumes(found: Storage, spec: Spec, app: App, mounts: MountPlan, can: Capabilities) -> Storage:
    """Return what the guest gets with its volumes and the block devices of linux.devices."""
    blocks = checks.find_disks(spec, takes_disks=guests.load(app.guest).OWN_INIT and can.max_disks > 0)
    if not mounts.volumes and not blocks:
        return found
    from ..vm import volumes

    more = volumes.attach(mounts.volumes, blocks, can, len(found.disks), len(found.shares))
    return found.replace(
        disks=found.disks + volumes.disks(more.disks),
        disk_sources=found.disk_sources + more.disks,
        shares=found.shares + more.shares,
        share_sources=found.share_sources + more.folders,
        mounts=found.mounts + more.mounts,
    )
