"""Mounts, by descriptor: trees are cloned or made detached, get their attributes, and are then attached.

An attribute is only ever added to a mount of our own, never taken away: so nothing here trips over the flags
that the kernel locks once a mount is seen from a user namespace. Knows nothing of what is mounted why. Needs
Linux 5.12.
"""

from __future__ import annotations

import os
import stat

from . import fsops, libc

_PROPAGATION = {
    "shared": libc.MS_SHARED,
    "slave": libc.MS_SLAVE,
    "private": libc.MS_PRIVATE,
    "unbindable": libc.MS_UNBINDABLE,
}


def set_propagation(word: str, target: str = "/") -> None:
    """Set the propagation of `target` by the specification's word: slave, rprivate, .. (`linux.rootfsPropagation`).

    Raises KeyError for another word, OSError.
    """
    recursive = word.startswith("r")
    flag = _PROPAGATION[word.removeprefix("r")]
    libc.mount("none", target, None, flag | (libc.MS_REC if recursive else 0))


def make_private_slave() -> None:
    """Let no mount made here reach the host, while those made on the host still reach here."""
    set_propagation("rslave")


def attributes(*, readonly: bool = False, nosuid: bool = False, nodev: bool = False, noexec: bool = False) -> int:
    """Return the MOUNT_ATTR_* of these words."""
    return (
        (libc.MOUNT_ATTR_RDONLY if readonly else 0)
        | (libc.MOUNT_ATTR_NOSUID if nosuid else 0)
        | (libc.MOUNT_ATTR_NODEV if nodev else 0)
        | (libc.MOUNT_ATTR_NOEXEC if noexec else 0)
    )


def clone_tree(
    source: int | str,
    *,
    readonly: bool = False,
    recursive: bool = False,
    nosuid: bool = True,
    nodev: bool = True,
    noexec: bool = False,
) -> int:
    """Return a descriptor of a new detached mount of what is at a path or descriptor, private, with these attributes.

    `recursive` takes the mounts below it along, and gives them the attributes too; inside a user namespace that
    did not make them, a folder with mounts below it can only be cloned so (EINVAL). Raises OSError.
    """
    deep = libc.AT_RECURSIVE if recursive else 0
    if isinstance(source, int):
        tree = libc.open_tree(source, "", libc.OPEN_TREE_CLONE | libc.AT_EMPTY_PATH | deep)
    else:
        tree = libc.open_tree(libc.AT_FDCWD, source, libc.OPEN_TREE_CLONE | deep)
    wanted = attributes(readonly=readonly, nosuid=nosuid, nodev=nodev, noexec=noexec)
    try:
        libc.mount_setattr(tree, "", libc.AT_EMPTY_PATH | deep, wanted, 0, libc.MS_PRIVATE)
    except OSError:
        os.close(tree)
        raise
    return tree


def new_tmpfs(options: str = "", *, nodev: bool = False, noexec: bool = False) -> int:
    """Return a descriptor of a new detached tmpfs; `options` as in tmpfs(5): `size=16m,mode=755,uid=1000`.

    It belongs to the caller's user namespace: device nodes work only in one made outside of any. Raises OSError.
    """
    context = libc.fsopen("tmpfs")
    try:
        for option in options.split(","):
            key, equals, value = option.partition("=")
            if equals:
                libc.fsconfig_set(context, key, value)
            elif key:
                libc.fsconfig_flag(context, key)
        libc.fsconfig_create(context)
        return libc.fsmount(context, 0, attributes(nosuid=True, nodev=nodev, noexec=noexec))
    finally:
        os.close(context)


def make_readonly(tree: int) -> None:
    """Make a mount read-only through its descriptor, attached or not; its file system stays writable to others."""
    libc.mount_setattr(tree, "", libc.AT_EMPTY_PATH, libc.MOUNT_ATTR_RDONLY)


def attach(tree: int, target: str, dir_fd: int = libc.AT_FDCWD) -> None:
    """Attach a detached mount at `target`, which is below `dir_fd` where it is relative. A final link is not followed.

    The descriptor stays open and is the mount's. An empty `target` is `dir_fd` itself. Raises OSError.
    """
    flags = libc.MOVE_MOUNT_F_EMPTY_PATH | (0 if target else libc.MOVE_MOUNT_T_EMPTY_PATH)
    libc.move_mount(tree, "", dir_fd, target, flags)


def attach_in(tree: int, root_fd: int, target: str) -> None:
    """Attach a detached mount at `target` below `root_fd`, making the file or folder it stands on. Raises OSError."""
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        fsops.make_dirs(root_fd, target)
    else:
        fsops.make_file(root_fd, target)
    attach(tree, target, root_fd)


def bind_file(source: int | str, root_fd: int, target: str, *, readonly: bool = True, nodev: bool = True) -> None:
    """Bind a file or folder at `target` below `root_fd`, making what it stands on. Raises OSError."""
    tree = clone_tree(source, readonly=readonly, nodev=nodev)
    try:
        attach_in(tree, root_fd, target)
    finally:
        os.close(tree)


def mount_tmpfs(target: str, options: str = "", flags: int = libc.MS_NOSUID | libc.MS_NODEV) -> None:
    """Mount a tmpfs by path, with MS_* flags. Raises OSError."""
    libc.mount("tmpfs", target, "tmpfs", flags, options)


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


def move_root(new_root: str) -> None:
    """Do what `pivot` does where the old root is the initial ramfs, which cannot be pivoted (`--no-pivot`).

    The old root stays beneath the new one; a process without CAP_SYS_CHROOT does not reach it.
    """
    os.chdir(new_root)
    libc.mount(".", "/", None, libc.MS_MOVE)
    os.chroot(".")
    os.chdir("/")
