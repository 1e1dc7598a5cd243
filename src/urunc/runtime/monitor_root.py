"""The monitor's root file system, as init builds it of what it has inherited and of the Launch.

It holds no path of the host and none that an image chose: what is in it stands at names of urunc's own.
"""

from __future__ import annotations

import os

from ..linux import fsops, mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..oci.spec import User
    from .init import Orders

_SIZE = "size=16m,mode=755"


def build(orders: Orders, launch: dict[str, Any]) -> None:
    """Build the monitor's root and stand in it: a small tmpfs, stacked on `/`, that holds only binds.

    On `/` since every other folder may be one that a user namespace cannot reach or that a hook looks at;
    what was there stays visible to this process until the pivot. Raises OSError.
    """
    mounts.isolate(orders.spec.rootfs_propagation)
    root = fsops.detached_tmpfs(_SIZE)
    mounts.attach(root, "/")
    os.fchdir(root)
    _attach(root, orders.files)
    mounts.protect_below(root)
    fsops.make_dirs(root, "dev", 0o755)
    mounts.attach_at(orders.dev_tree, root, "dev")
    _attach(root, orders.trees)
    for item in launch["files"]:
        _write_file(root, item["path"].lstrip("/"), item["content"].encode("latin-1"), item["mode"])
    for folder in launch["folders"]:
        _make_writable(root, folder.lstrip("/"), orders.spec.process.user)
    if launch["own_descriptors"]:
        _show_descriptors(root)
    mounts.make_readonly(root)


def _attach(root: int, trees: list[tuple[str, int]]) -> None:
    for target, tree in trees:
        mounts.attach_file(tree, root, target.lstrip("/"))
        os.close(tree)


def _show_descriptors(root: int) -> None:
    """Give the monitor /proc/self/fd alone, its own: a whole /proc, read-only even, tells of the host."""
    tree = mounts.clone_tree("/proc/self/fd", readonly=True, noexec=True)
    mounts.attach_file(tree, root, "proc/self/fd")
    os.close(tree)


def _make_writable(root: int, path: str, user: User) -> None:
    """Give the monitor a folder of its own: small, and in no other mount namespace."""
    tree = fsops.detached_tmpfs(f"size=64k,nr_inodes=16,mode=700,uid={user.uid},gid={user.gid}")
    fsops.make_dirs(root, path)
    mounts.attach_at(tree, root, path)
    os.close(tree)


def _write_file(root: int, path: str, content: bytes, mode: int) -> None:
    fsops.make_dirs(root, os.path.dirname(path), 0o755)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode, dir_fd=root)
    with open(fd, "wb") as file:
        os.fchmod(fd, mode)
        file.write(content)
