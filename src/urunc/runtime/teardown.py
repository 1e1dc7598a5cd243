"""The undo of everything that `create` records, in reverse; each step may run again, and on what was never made.

Used by a `create` that fails half way, by `delete`, and by `delete --force` on what a killed urunc left.
"""

from __future__ import annotations

import os

from .. import log
from ..errors import StateError, UruncError, describe, reason
from ..linux import proc, removal
from . import signals, status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .store import Container

GONE_SECONDS = 10.0


def clear(root: str, container: Container) -> None:
    """Undo what was done for the container, its folder last. Raises the first error once all was tried."""
    problems: list[UruncError] = []
    for step in (_give_back_devices, _end_process, _remove_cgroup, _detach_network, _give_back_rootfs):
        try:
            step(container)
        except (UruncError, OSError) as error:
            problems.append(
                error
                if isinstance(error, UruncError)
                else StateError(f"cannot clear `{container.id}`: {describe(error)}")
            )
    if problems:
        raise problems[0]
    remove_folder(root, container.id)


def remove_folder(root: str, name: str) -> None:
    """Remove the container's folder, its lock last: until then nobody else is in there. Gone already is fine."""
    try:
        place = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        removal.remove_tree(place, name, last="lock")
    finally:
        os.close(place)


def run_poststop(container: Container) -> None:
    """Run the poststop hooks; a failure is logged and the next one runs (runtime.md, "Lifecycle", step 13)."""
    run_late_hooks(container, "poststop", status.STOPPED, warn=log.warn)


def run_late_hooks(container: Container, kind: str, state: str, *, warn: Callable[[str], None] | None = None) -> None:
    """Run the hooks that the record keeps for later, as `hooks.run_hooks` does."""
    items: list[dict[str, Any]] = container.hooks.get(kind, [])
    if not items:
        return
    from . import hooks

    listed = tuple(hooks.from_data(item) for item in items)
    hooks.run_hooks(listed, status.document(container, state), kind=kind, warn=warn)


def _give_back_devices(container: Container) -> None:
    """Move the host's network devices out of a namespace that outlives a killed `create`. Any other has none any more.

    A `create` that fails has done so itself: the namespace may end with init. What stands in the way is no reason to
    keep the container for ever.
    """
    path = container.network_path
    if not path or not container.net_devices or container.creator == (0, 0) or container.boot_id != proc.boot_id():
        return
    from . import net_devices

    try:
        net_devices.give_back(container.net_devices, path, container.network_id)
    except (UruncError, OSError) as error:
        log.warn(f"network devices of `{container.id}` cannot be given back: {error}")


def _end_process(container: Container) -> None:
    if not container.pid or container.boot_id != proc.boot_id():
        return
    try:
        signals.end(container)
    except ProcessLookupError:
        return
    if not proc.wait_gone(container.pid, container.start_time, GONE_SECONDS):
        raise StateError(f"process {container.pid} of `{container.id}` does not end")


def _remove_cgroup(container: Container) -> None:
    from ..linux import cgroup

    cgroup.leave(container.cgroup, container.scope, container.mark)


def _detach_network(container: Container) -> None:
    """Only a namespace that outlives the container keeps anything: the others took tap and qdisc with them."""
    if container.network_path and container.taps and os.path.exists(container.network_path):
        from . import net

        net.detach(container.network_path, container.taps, behind_nat=container.behind_nat)


def _give_back_rootfs(container: Container) -> None:
    """Mount again what a failed `create` unmounted. After a container's life it stays unmounted: engines bear that."""
    if not container.rootfs_mount or container.creator == (0, 0):
        return
    from . import storage

    source, kind, *options = container.rootfs_mount
    try:
        storage.give_back(container.rootfs, source, kind, options)
    except OSError as error:
        log.warn(f"the rootfs `{container.rootfs}` of `{container.id}` cannot be mounted again: {reason(error)}")
