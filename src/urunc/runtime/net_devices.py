"""Devices of the host that a container is to have: config-linux.md, "Network Devices".

They are moved into its network namespace, where the guest takes their place as that of any interface that an engine has
made. The kernel drops their addresses on the way, so these are given back there. Nobody takes a device out again once
the container is created: the specification leaves that to the kernel, and to whoever owns the namespace. A `create`
that fails does take it back.
"""

from __future__ import annotations

import os

from ..errors import KernelError, SpecError, reason
from ..linux import ns
from ..linux.rtnl import Rtnl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Names = Sequence[tuple[str, str]]
    """What a device is called where it is, and where it is to be."""


def check(devices: Names, namespace: int) -> None:
    """Raise SpecError where the host has no such device, or the namespace has one of that name already.

    `namespace` is the network namespace's descriptor, here and below.
    """
    with Rtnl() as host, _inside(namespace) as there:
        known, taken = _indices(host), _indices(there)
    for old, new in devices:
        if old not in known:
            raise SpecError(f"linux.netDevices.{old}: the host has no network device of that name")
        if new in taken:
            raise SpecError(f"linux.netDevices.{old}: the container's network namespace has a `{new}` already")


def move_in(devices: Names, namespace: int) -> None:
    """Move the devices into the network namespace, and set them up there. Raises KernelError."""
    with Rtnl() as host, _inside(namespace) as there:
        for old, new in devices:
            _move(host, there, namespace, old, new)


def move_back(devices: Names, namespace: int) -> None:
    """Undo `move_in`, in reverse, of what is still there. Raises KernelError.

    A device whose name inside the kernel has chosen is not known by it.
    """
    own = os.open(ns.own_path("network"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with Rtnl() as host, _inside(namespace) as there:
            for old, new in reversed(devices):
                if new in _indices(there):
                    _move(there, host, own, new, old)
    finally:
        os.close(own)


def _inside(namespace: int) -> Rtnl:
    """Return a socket that stays in that namespace."""
    with ns.inside(f"/proc/self/fd/{namespace}", "network"):
        return Rtnl()


def _indices(rtnl: Rtnl) -> dict[str, int]:
    return {link.name: link.index for link in rtnl.links()}


def _move(source: Rtnl, target: Rtnl, namespace: int, old: str, new: str) -> None:
    try:
        before, index = _indices(target), _indices(source)[old]
        addresses = [each for each in source.addresses() if each.index == index]
        source.move_link(index, namespace, new)
        after = _indices(target)
        moved = after.get(new) or next(number for name, number in after.items() if name not in before)
        for address in addresses:
            if address.permanent and address.scope == "global":
                target.add_address(moved, address.ip, address.prefix)
        target.set_link(moved, up=True)
    except OSError as error:
        raise KernelError(
            f"linux.netDevices.{old}: cannot be moved: {error.strerror or reason(error)}", errno=error.errno or 0
        ) from None
