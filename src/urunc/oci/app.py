"""What to boot, or None: this is not a unikernel, and the delegate (runc) takes the container.

Holds the one table that says which container is a unikernel, with the reason for each row.
"""

from __future__ import annotations

from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .spec import Spec


class App(Record):
    """What the image and the engine ask to boot. Paths are absolute inside the container's rootfs, without `..`."""

    guest: str  # a key of vm.guests, such as "unikraft"
    monitor: str  # a key of vm.monitors, such as "qemu"
    kernel: str
    initrd: str | None = None
    block: str | None = None
    block_mount: str | None = None  # where the guest mounts `block`
    args: tuple[str, ...] = ()  # process.args, or the annotation `cmdline` split as a shell splits words
    env: tuple[str, ...] = ()  # process.env, each NAME=VALUE
    cwd: str = "/"
    guest_version: str | None = None
    mount_rootfs: bool = False
    net_device: str | None = None  # solo5NetDev: the manifest's name for the NIC
    block_device: str | None = None  # solo5BlkDev


def find_app(spec: Spec, urunc_json: bytes | None) -> App | None:
    """Return what to boot, None where the container is not a unikernel.

    `urunc_json` is the content of `/urunc.json` in the rootfs, None where there is none. Raises ImageError
    where the container is a unikernel but a broken one (unknown guest, missing key, bad value).
    """
    raise NotImplementedError
