"""`pause` and `resume`: by the cgroup's freezer, whatever the monitor.

A monitor could stop its own vCPUs (QMP `stop`), and then the guest would not see the time that passes. But a
monitor that was taken over need not obey, an answer would have to be awaited, and "paused" would be one more thing
to remember: the freezer is the kernel's, holds every thread, and the status is read from it. What the guest sees
afterwards is a clock that jumped, as after a laptop's lid was closed.
"""

from __future__ import annotations

from ..linux import freezer
from . import status, store


def pause(root: str, name: str) -> None:
    """Stop a container's processes from running. Raises StateError, KernelError where they do not freeze in time."""
    with store.Lock(root, name):
        container = store.want(root, name)
        status.require("pause", container, status.of(root, container))
        freezer.freeze(container.cgroup)


def resume(root: str, name: str) -> None:
    """Let a paused container run again. Raises StateError, KernelError."""
    with store.Lock(root, name):
        container = store.want(root, name)
        status.require("resume", container, status.of(root, container))
        freezer.thaw(container.cgroup)
