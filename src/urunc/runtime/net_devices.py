"""Devices of the host that a container is to have: config-linux.md, "Network Devices".

They are moved into its network namespace, where the guest takes their place as that of any interface that an engine has
made. The kernel drops their addresses on the way, so these are given back there. Nobody takes a device out again once
the container is created: the specification leaves that to the kernel, and to whoever owns the namespace. A `create`
that fails does take it back.

Any namespace may have other devices of these names, and numbers devices by itself: what is recorded of each says which
it is.
"""

from __future__ import annotations

import os
from errno import EEXIST, ENODEV

from ..errors import KernelError, SpecError, reason
from ..linux import ns
from ..linux.rtnl import Rtnl
from ..oci.checks import completes
from .store import NetDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import FileIO
    from typing import Self

    from ..linux.rtnl import Link, LinkAddress


class _Place:
    """A network namespace by its open descriptor, and a socket that stays in it while the block lasts."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        with ns.inside(descriptor, "network"):
            self.rtnl = Rtnl()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.rtnl.close()

    def find(self, name: str) -> Link | None:
        """Return the device of that name."""
        return next((link for link in self.rtnl.links() if link.name == name), None)


def find(names: Sequence[tuple[str, str]], namespace: int) -> tuple[NetDevice, ...]:
    """Return the devices (name, name inside) as they are on the host, before they are moved.

    `namespace` is the container's network namespace, open, here and below. Raises SpecError where that is the host's,
    the host has no such device, or the namespace has one of that name already.
    """
    if ns.is_hosts(f"/proc/self/fd/{namespace}", "network"):
        raise SpecError("linux.netDevices: needs a network namespace that is not the host's")
    with Rtnl() as host, _Place(namespace) as there:
        known, addresses = {link.name: link for link in host.links()}, host.addresses()
        taken = {link.name for link in there.rtnl.links()}
    for name, inside in names:
        if name not in known:
            raise SpecError(f"linux.netDevices.{name}: the host has no network device of that name")
        if inside in taken:
            raise SpecError(f"linux.netDevices.{name}: the container's network namespace has a `{inside}` already")
    return tuple(
        NetDevice(
            name=name,
            inside=inside,
            index=known[name].index,
            up=known[name].up,
            addresses=_lasting(addresses, known[name].index),
        )
        for name, inside in names
    )


def move_in(devices: tuple[NetDevice, ...], namespace: int) -> Iterator[tuple[NetDevice, ...]]:
    """Move the devices into the network namespace, and set them up there. Raises KernelError.

    Yields them all as soon as one of them was moved, for the record: that one by its name and index inside.
    """
    with _own() as own, _Place(own.fileno()) as host, _Place(namespace) as there:
        for number, device in enumerate(devices):
            try:
                link = _move(host, there, device.name, device.index, device.inside)
                moved = device.replace(inside=link.name, index=link.index, moved=True)
                devices = (*devices[:number], moved, *devices[number + 1 :])
                yield devices
                _dress(there, link, device.addresses, up=True)
            except OSError as error:
                raise _failed(device, "moved", error) from None


def move_back(devices: Sequence[NetDevice], namespace: int) -> None:
    """Undo `move_in`, in reverse, of what is still there. Raises the first KernelError once all was tried."""
    problems = []
    with _own() as own, _Place(own.fileno()) as host, _Place(namespace) as there:
        for device in reversed(devices):
            try:
                _give_back(host, there, device)
            except OSError as error:
                problems.append(_failed(device, "moved back", error))
    if problems:
        raise problems[0]


def give_back(devices: Sequence[NetDevice], path: str, identity: tuple[int, int]) -> None:
    """`move_back` out of the namespace at `path`, if it is the one of that `ns.identity` and not the host's own.

    Does nothing where it is another or gone; may be called again. Raises KernelError, OSError.
    """
    try:
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    try:
        if ns.identity(f"/proc/self/fd/{namespace}") == identity != ns.identity(ns.own_path("network")):
            move_back(devices, namespace)
    finally:
        os.close(namespace)


def _own() -> FileIO:
    return open(ns.own_path("network"), "rb", buffering=0)


def _give_back(host: _Place, there: _Place, device: NetDevice) -> None:
    """Move one device back; one that is not recorded as moved may have been, where urunc was killed in between."""
    taken = host.find(device.name)
    if taken and not device.moved:
        return
    for link in there.rtnl.links():
        if link.index == device.index and (device.moved or completes(device.inside, link.name)):
            if taken:
                raise OSError(EEXIST, "the host has another of that name")
            moved = _move(there, host, link.name, link.index, device.name)
            _dress(host, moved, device.addresses, up=device.up)


def _move(source: _Place, target: _Place, name: str, index: int, new: str) -> Link:
    """Move a device, call it `new`, and return it as it is then. Raises OSError with the device where it was."""
    link = source.find(name)
    if link is None or link.index != index:
        raise _vanished()
    others = {each.index for each in target.rtnl.links()}
    addresses = _lasting(source.rtnl.addresses(), index)
    try:
        source.rtnl.move_link(index, target.descriptor, new)
    except OSError:
        # The kernel moves first, under the name that the device has where that is free there, and renames it then.
        stray = _arrived(target, others, link, name)
        if stray and not source.find(name):
            target.rtnl.move_link(stray.index, source.descriptor, name)
            home = source.find(name)
            if home:
                _dress(source, home, addresses, up=link.up)
        raise
    moved = _arrived(target, others, link, new)
    if moved is None:
        raise _vanished()
    return moved


def _arrived(target: _Place, others: set[int], link: Link, name: str) -> Link | None:
    """Return the device as which `link` has come: it keeps its index where that is free, and its MAC address."""
    come = [
        each
        for each in target.rtnl.links()
        if each.index not in others and each.mac == link.mac and completes(name, each.name)
    ]
    return min(come, key=lambda each: each.index != link.index, default=None)


def _lasting(addresses: Sequence[LinkAddress], index: int) -> tuple[str, ...]:
    """Return those of a device that are given back to it, with their prefixes."""
    return tuple(
        f"{each.ip}/{each.prefix}"
        for each in addresses
        if each.index == index and each.permanent and each.scope == "global"
    )


def _dress(place: _Place, link: Link, addresses: Sequence[str], *, up: bool) -> None:
    """Give a device that has been moved what the kernel took from it. Raises OSError."""
    for address in addresses:
        ip, _, prefix = address.partition("/")
        place.rtnl.add_address(link.index, ip, int(prefix))
    if up:
        place.rtnl.set_link(link.index, up=True)


def _vanished() -> OSError:
    return OSError(ENODEV, os.strerror(ENODEV))


def _failed(device: NetDevice, what: str, error: OSError) -> KernelError:
    why = error.strerror or reason(error)
    return KernelError(f"linux.netDevices.{device.name}: cannot be {what}: {why}", errno=error.errno or 0)
