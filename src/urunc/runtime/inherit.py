"""What init inherits over the fork: descriptors that the parent opens while it still has all of the host's rights.

The monitor's root is made of detached read-only mounts (open_tree), opened here by path or beneath the rootfs,
so that init, in whatever user namespace, needs no path of the host. The files of an image that the monitor's
user may not read, and an initrd that gets urunc's part behind it, are copied into the state folder: on the
parent's account, before the container's memory cgroup has anyone in it.
"""

from __future__ import annotations

import _socket
import os
from errno import EDQUOT, ENOSPC, ENXIO

from ..errors import HostError, ImageError, SpecError, reason
from ..linux import fsops, mounts
from ..vm.machine import INITRD
from . import image
from .init import Orders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..oci.spec import Spec
    from ..vm.machine import Boot
    from ..vm.storage import ShareSource
    from .channel import Channel
    from .load import Request
    from .plan import ImageFile, Plan
    from .plan_devices import Node

_BACKLOG = 4
_NEEDED_CALLS = ("execve", "sendto", "exit_group", "mmap", "read", "write")
"""What init's last steps and every program take, under the profile. What else a monitor does, its version knows."""


class Descriptors:
    """Descriptors that are closed together, once."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def add(self, fd: int) -> int:
        """Take `fd` over and return it."""
        self.fds.append(fd)
        return fd

    def close(self) -> None:
        """Close them all."""
        while self.fds:
            os.close(self.fds.pop())


def open_all(
    request: Request,
    place: str,
    speaker: Channel,
    terminal: int,
    cache: str,
    owned: Descriptors,
    *,
    new_keyring: bool = True,
    nodes: tuple[Node, ...] = (),
) -> Orders:
    """Open and make everything that init inherits; `owned` gets every descriptor, also when a step fails.

    `place` is the container's folder, `speaker` init's end of the channel, `terminal` the console's slave end
    or -1, `cache` the folder of the compiled seccomp profiles, `new_keyring` whether the session's keys stay outside,
    `nodes` are device nodes that the plan could not name.
    """
    spec, plan = request.spec, request.plan
    return Orders(
        spec=spec,
        plan=plan,
        channel=speaker,
        listener=owned.add(listen(place, "start")),
        waiting=owned.add(_new_file(f"{place}/waiting", 0o600)),
        dev_tree=_device_tree((*plan.nodes, *nodes), owned),
        files=_own_files(plan, owned),
        trees=[
            *_image_trees(request, place, owned),
            *_share_trees(request.bundle, plan, owned),
            *_fifo_trees(plan, place, owned),
        ],
        rootfs_tree=_rootfs_tree(spec, plan, owned),
        terminal=terminal,
        new_keyring=new_keyring,
        filter_program=_seccomp_filter(spec, os.uname().machine, cache),
    )


def _seccomp_filter(spec: Spec, arch: str, cache: str) -> bytes | None:
    if not spec.seccomp:
        return None
    from ..linux import seccomp

    return seccomp.compile_cached(spec.seccomp, arch, cache, _NEEDED_CALLS)


def listen(place: str, name: str) -> int:
    """Return a listening SOCK_SEQPACKET (start) or stream socket `<name>.sock` in the container's folder.

    Bound through a descriptor of the folder: its path may be longer than a socket's address.
    """
    kind = _socket.SOCK_SEQPACKET if name == "start" else _socket.SOCK_STREAM
    server = _socket.socket(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC)
    folder = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        server.bind(f"/proc/self/fd/{folder}/{name}.sock")
        server.listen(_BACKLOG)
        return server.detach()
    finally:
        os.close(folder)
        server.close()


def open_terminal(request: Request, owned: Descriptors) -> tuple[int, int]:
    """Return the console's master and slave ends, (-1, -1) where no terminal is asked for."""
    process = request.spec.process
    if not process.terminal:
        return -1, -1
    from . import console

    master, slave = console.open_pty(process.console_size, request.plan.host_uid)
    owned.add(slave)
    return master, slave


def write_initrd_tail(place: str, boot: Boot) -> None:
    """Write urunc's part of the guest's initrd, as a newc archive behind what is there. Raises OSError."""
    from ..vm import cpio

    path = f"{place}/initrd"
    with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW), "ab") as file:
        file.write(cpio.padding(os.fstat(file.fileno()).st_size) + cpio.archive(boot.initrd_tail))


def _new_file(path: str, mode: int) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)


def _device_tree(nodes: tuple[Node, ...], owned: Descriptors) -> int:
    tree = owned.add(fsops.detached_tmpfs("size=64k,mode=755"))
    for node in nodes:
        fsops.make_node(tree, node.path, node.kind, node.major, node.minor, node.mode, node.uid, node.gid)
    mounts.make_readonly(tree)
    return tree


def _own_files(plan: Plan, owned: Descriptors) -> list[tuple[str, int]]:
    """Return the monitor's own files and folders: some sixty, so init makes them read-only all at once."""
    trees = []
    for bind in plan.binds:
        try:
            trees.append((bind.target, owned.add(mounts.clone_file(bind.source))))
        except FileNotFoundError:
            raise HostError(f"`{bind.source}`, which the monitor needs, is not there") from None
    return trees


def _image_trees(request: Request, place: str, owned: Descriptors) -> list[tuple[str, int]]:
    plan = request.plan
    rootfs = image.open_rootfs(plan.rootfs)
    try:
        trees = [(file.target, owned.add(_image_tree(rootfs, file, plan, place))) for file in plan.images]
        if plan.machine.boot.initrd_tail:
            trees.append((INITRD, owned.add(_initrd_tree(rootfs, request, place))))
        return trees
    finally:
        os.close(rootfs)


def _share_trees(bundle: str, plan: Plan, owned: Descriptors) -> list[tuple[str, int]]:
    """Return the folders that the guest shares: nothing to run in them, and no device to open.

    What the guest makes set-user-id in there stays so on the host, as with any container's rootfs.
    """
    return [
        (share.target, owned.add(_share_tree(os.path.join(bundle, share.source or plan.rootfs), share)))
        for share in plan.shares
    ]


def _share_tree(source: str, share: ShareSource) -> int:
    try:
        return mounts.clone_tree(source, readonly=share.readonly, recursive=share.recursive, noexec=True)
    except OSError as error:
        raise SpecError(f"mounts: `{source}` cannot be shared with the guest: {reason(error)}") from None


def _fifo_trees(plan: Plan, place: str, owned: Descriptors) -> list[tuple[str, int]]:
    """Make the fifos between the guest and whoever commands urunc: the monitor's user opens its ends by name."""
    trees = []
    for name in plan.fifos:
        path = f"{place}/{name}"
        os.mkfifo(path, 0o600)
        os.chown(path, plan.host_uid, plan.host_gid)
        trees.append((f"/{name}", owned.add(mounts.clone_tree(path, noexec=True))))
    return trees


def _image_tree(rootfs: int, file: ImageFile, plan: Plan, place: str) -> int:
    fd = image.open_file(rootfs, file.source, "file")
    try:
        status = os.fstat(fd)
        if file.copy or not (file.disk or fsops.may_open(status, plan.host_uid, (plan.host_gid, *plan.host_groups))):
            copy = f"{place}/{os.path.basename(file.target)}.copy"  # the image's own name may be any, or there twice
            _copy(fd, file.source, copy, plan)
            return mounts.clone_tree(copy, readonly=True)
        return mounts.clone_tree(fd, readonly=file.readonly)
    finally:
        os.close(fd)


def _initrd_tree(rootfs: int, request: Request, place: str) -> int:
    """Make the file that becomes the guest's initrd. Its last part is written once the network is known."""
    path = f"{place}/initrd"
    if request.app.initrd:
        fd = image.open_file(rootfs, request.app.initrd, "initrd")
        try:
            _copy(fd, request.app.initrd, path, request.plan)
        finally:
            os.close(fd)
    else:
        os.close(_monitors_file(path, request.plan))
    return mounts.clone_tree(path, readonly=True)


def _monitors_file(path: str, plan: Plan) -> int:
    """Return a new file that only the monitor's user may read: the guest's environment may hold secrets."""
    fd = _new_file(path, 0o400)
    os.fchown(fd, plan.host_uid, plan.host_gid)
    return fd


def _copy(source: int, name: str, path: str, plan: Plan) -> None:
    """Copy an image's file, called `name` in there, to `path` in the state folder.

    No more than fits into the guest's memory, nor into the folder. That is on a tmpfs, as a rule, which is the host's
    memory and others' room: half of what is free is left.
    """
    limit = plan.machine.memory_mib << 20
    status, room = os.fstat(source), os.statvfs(os.path.dirname(path))
    size, free = status.st_size, room.f_bavail * room.f_frsize
    if status.st_blocks * 512 > free // 2:
        raise HostError(
            f"`{name}` of {size >> 20} MiB has to be copied for the monitor, and the state directory "
            f"has {free >> 20} MiB free, of which no more than half is taken"
        )
    if size > limit:
        raise ImageError(f"`{name}` of {size >> 20} MiB does not fit into the guest's {limit >> 20} MiB")
    reader = image.open_data(source, f"`{name}`")
    try:
        writer = _monitors_file(path, plan)
        try:
            _copy_data(reader, writer, size)
        except OSError as error:
            if error.errno in (ENOSPC, EDQUOT):
                raise HostError(f"`{name}` cannot be copied for the monitor: the state directory is full") from None
            raise ImageError(f"`{name}` cannot be copied for the monitor: {reason(error)}") from None  # damaged
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _copy_data(reader: int, writer: int, size: int) -> None:
    """Copy what is not a hole: a file of nothing else is as long as it likes, and costs an image nothing."""
    os.ftruncate(writer, size)
    end = 0
    while end < size:
        try:
            start = os.lseek(reader, end, os.SEEK_DATA)
            end = os.lseek(reader, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != ENXIO:
                raise
            return  # a hole is all that is left
        os.lseek(writer, start, os.SEEK_SET)
        while start < end and (sent := os.sendfile(writer, reader, start, end - start)):
            start += sent


def _rootfs_tree(spec: Spec, plan: Plan, owned: Descriptors) -> int:
    """Return a detached read-only clone of the rootfs for the startContainer hooks, -1 where there are none."""
    if not spec.hooks.start_container:
        return -1
    return owned.add(mounts.clone_tree(plan.rootfs, readonly=True, recursive=True))
