"""What the `go` message carries (see `channel`): the Launch as JSON in a file without a name, and its descriptors."""

from __future__ import annotations

import os

from .. import jsonio
from ..errors import KernelError
from . import inherit, streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..oci.spec import Hooks
    from ..vm.machine import Launch
    from .inherit import Descriptors


def orders(launch: Launch, state: dict[str, Any], hooks: Hooks) -> int:
    """Return a memfd with what init has to do: a message has not the room. `state` is what its hooks are told."""
    fd = os.memfd_create("launch", os.MFD_CLOEXEC)
    with open(os.dup(fd), "wb") as file:
        file.write(jsonio.dumps(_data(launch, state, hooks)))
    return fd


def _data(launch: Launch, state: dict[str, Any], hooks: Hooks) -> dict[str, Any]:
    return {
        "argv": launch.argv,
        "env": launch.env,
        "files": [
            {"path": file.path, "content": file.content.decode("latin-1"), "mode": file.mode} for file in launch.files
        ],
        "folders": launch.folders,
        "own_descriptors": launch.own_descriptors,
        "state": state,
        "create_container": [hook.to_data() for hook in hooks.create_container],
        "start_container": [hook.to_data() for hook in hooks.start_container],
    }


def descriptors(
    launch: Launch, place: str, taps: dict[str, int], disks: dict[str, int], held: Descriptors
) -> list[int]:
    """Return the descriptors that the Launch names, in its order; `held` gets those that are opened here.

    `place` is the container's folder, `taps` are by their names, `disks` by their paths in the monitor's root.
    """
    return [_descriptor(name, place, taps, disks, held) for name in launch.fds]


def _descriptor(name: str, place: str, taps: dict[str, int], disks: dict[str, int], held: Descriptors) -> int:
    kind, _, which = name.partition(":")
    if kind == "tap":
        return taps[which]
    if kind == "disk":
        return disks[which]
    if kind == "read":
        return held.add(os.open(f"/proc/self/fd/{disks[which]}", os.O_RDONLY | os.O_CLOEXEC))
    if kind == "listen":
        return held.add(inherit.listen(place, which))
    if kind == "fifo":
        return held.add(os.open(f"{place}/{which}", os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
    if kind == "output":
        return held.add(streams.output(int(which)))
    raise KernelError(f"the monitor wants a descriptor `{name}` that nobody makes")
