"""Mounts, by descriptor: trees are cloned or made detached, get their attributes, and are then attached.

An attribute is only ever added to a mount that came from elsewhere, never taken away: so nothing here trips over the
flags that the kernel locks once a mount is seen from a user namespace. Knows nothing of what is mounted why. Needs
Linux 5.12.
"""

from __future__ import annotations

import os
import stat

from . import fsops, libc


def isolate(word: str = "") -> None:
    """Let no mount made here reach the host; those made on the host still reach here, unless `word` says private.

    `word` is the specification's `linux.rootfsPropagation`. Where it says shared, the mounts are slaves all the
    same: on a host whose `/` is shared, as systemd has it, the new root would be mounted over the host's. Raises
    OSError.
    """
    private = word.endswith(("private", "unbindable"))
    libc.mount("none", "/", None, libc.MS_REC | (libc.MS_PRIVATE if private else libc.MS_SLAVE))


def clone_file(path: str) -> int:
    """Return a descriptor of a new detached mount of what is at a path, with the attributes that it has there.

    For many files, which get theirs together once they are attached: `protect_below`. Raises OSError.
    """
    return libc.open_tree(libc.AT_FDCWD, path, libc.OPEN_TREE_CLONE)


def protect_below(tree: int) -> None:
    """Make every mount below `tree` read-only and private, without devices and set-user-id programs.

    `tree` itself is a mount that this process has made: it stays writable, and gets the rest. Raises OSError.
    """
    attributes = libc.MOUNT_ATTR_RDONLY | libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NODEV
    libc.mount_setattr(tree, "", libc.AT_EMPTY_PATH | libc.AT_RECURSIVE, attributes, 0, libc.MS_PRIVATE)
    libc.mount_setattr(tree, "", libc.AT_EMPTY_PATH, 0, libc.MOUNT_ATTR_RDONLY)


def clone_tree(
    source: int | str,
    *,
    readonly: bool = False,
    recursive: bool = False,
    noexec: bool = False,
) -> int:
    """Return a descriptor of a new detached mount of what is at a path or descriptor: private, nosuid and nodev.

    `recursive` takes the mounts below it along, and makes them the same; inside a user namespace that
    did not make them, a folder with mounts below it can only be cloned so (EINVAL). Raises OSError.
    """
    deep = libc.AT_RECURSIVE if recursive else 0
    if isinstance(source, int):
        tree = libc.open_tree(source, "", libc.OPEN_TREE_CLONE | libc.AT_EMPTY_PATH | deep)
    else:
        tree = libc.open_tree(libc.AT_FDCWD, source, libc.OPEN_TREE_CLONE | deep)
    more = (libc.MOUNT_ATTR_RDONLY if readonly else 0) | (libc.MOUNT_ATTR_NOEXEC if noexec else 0)
    wanted = libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NODEV | more
    try:
        libc.mount_setattr(tree, "", libc.AT_EMPTY_PATH | deep, wanted, 0, libc.MS_PRIVATE)
    except OSError:
        os.close(tree)
        raise
    return tree


def make_readonly(tree: int) -> None:
    """Make a mount read-only through its descriptor, attached or not; its file system stays writable to others."""
    libc.mount_setattr(tree, "", libc.AT_EMPTY_PATH, libc.MOUNT_ATTR_RDONLY)


def attach(tree: int, target: str) -> None:
    """Attach a detached mount at a path, whose last link is not followed; the descriptor stays the mount's."""
    attach_at(tree, libc.AT_FDCWD, target)


def attach_at(tree: int, dir_fd: int, path: str) -> None:
    """Attach a detached mount at what stands at `path` below `dir_fd`, or on `dir_fd` itself where `path` is empty."""
    flags = libc.MOVE_MOUNT_F_EMPTY_PATH | (0 if path else libc.MOVE_MOUNT_T_EMPTY_PATH)
    libc.move_mount(tree, "", dir_fd, path, flags)


def attach_file(tree: int, dir_fd: int, path: str) -> None:
    """Attach a detached mount at `path` below `dir_fd`, making the file (or folder, as the mount is) it stands on."""
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        fsops.make_dirs(dir_fd, path)
    else:
        fsops.make_file(dir_fd, path)
    attach_at(tree, dir_fd, path)


def pivot(new_root: str) -> None:
    """Make the mount at `new_root` this mount namespace's root, and let go of the old one. Raises OSError.

    Both stand on `/` for a moment (pivot_root(2), "pivot_root(".", ".")"), so no folder for the old one is needed.
    It is made a slave first: its unmounting must not reach the host.
    """
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(new_root)
        libc.pivot_root(".", ".")
        os.fchdir(old)
        libc.mount("none", ".", None, libc.MS_SLAVE | libc.MS_REC)
        libc.umount(".", libc.MNT_DETACH)
    finally:
        os.close(old)
    os.chdir("/")


def enter_root(new_root: str) -> None:
    """Do what `pivot` does where the old root is the initial ramfs, which cannot be pivoted (`--no-pivot`).

    `new_root` stands on `/` already. The old root stays beneath it; a process without CAP_SYS_CHROOT does not reach
    it. Raises OSError.
    """
    os.chdir(new_root)
    os.chroot(".")
    os.chdir("/")
