"""What the operations do, in their forked children: each verb for a unikernel by `runtime`; see `ordinary` for others.

What each needs is imported here, in the child, and an idle shim is small. A child that is forked ahead has done that
by the time its job comes.
"""

from __future__ import annotations

import os
import select

from ..errors import HostError
from ..linux import libc
from . import rootfs
from .places import make_folder, write_pid_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .child import Job
    from .places import Place
    from .wire import Values

READY_SECONDS = 10.0
_OF_EITHER_KIND = frozenset({"create", "delete"})
"""What is done here for ordinary containers too: create tells them apart, and delete has their rootfs to unmount."""


def prepare(verb: str, *, ours: bool) -> None:
    """Load what a job of that verb will need, in a child that was forked ahead."""
    if verb != "start" or not ours:
        libc.load()
    if not ours:
        from . import ordinary  # noqa: F401
    elif verb == "create":
        from ..runtime import create, load, settings  # noqa: F401
    elif verb == "start":
        from ..runtime import init_words, lifecycle  # noqa: F401
    elif verb == "delete":
        from ..linux import cgroup  # noqa: F401
        from ..runtime import lifecycle, teardown  # noqa: F401


def perform(job: Job, ready: int) -> tuple[dict[str, Any], int]:
    """Do a job, once the logger of its streams, where one is, is ready. Returns values for JSON and a descriptor."""
    if ready >= 0:
        await_logger(ready, job.strict)
    verbs = globals()
    if not job.place.ours and job.verb not in _OF_EITHER_KIND:
        from . import ordinary

        verbs = vars(ordinary)
    verb: Callable[..., tuple[dict[str, Any], int]] = verbs[job.verb]
    return verb(job.place, *job.arguments)


def await_logger(ready: int, strict: bool) -> None:
    """Wait until a logger says that it reads. Raises HostError.

    A byte or the end of the pipe is the word; with `strict` (`binary-v2`) the end alone means that it died.
    """
    poll = select.poll()
    poll.register(ready, select.POLLIN)
    if not poll.poll(READY_SECONDS * 1000):
        raise HostError(f"the logger said nothing for {READY_SECONDS:.0f} s")
    if not os.read(ready, 1) and strict:
        raise HostError("the logger ended before it was ready")


def create(place: Place, mounts: list[Values], terminal: bool) -> tuple[dict[str, Any], int]:
    """Mount the rootfs and make the container. Returns facts of it, and the terminal's master or -1."""
    target = f"{place.bundle}/rootfs"
    rootfs.mount_all(mounts, target)
    try:
        make_folder(place.root, 0o700)
        return _create(place, terminal)
    except BaseException:
        rootfs.unmount_all(target)
        raise


def _create(place: Place, terminal: bool) -> tuple[dict[str, Any], int]:
    from ..runtime import create as creation
    from ..runtime import load, settings
    from ..runtime.options import Options

    if place.config:
        os.environ[settings.VARIABLE] = place.config
    options = Options(id=place.id, bundle=place.bundle, no_pivot=place.no_pivot, no_new_keyring=place.no_new_keyring)
    request = load.load(place.root, options, systemd=place.systemd)
    if request is None:
        from . import ordinary

        return ordinary.create(place, terminal)
    masters: list[int] = []
    container = creation.create(place.root, options, request, take_terminal=masters.append)
    write_pid_file(place, container.pid)
    facts = {
        "pid": container.pid,
        "started": container.start_time,
        "ours": True,
        "cgroup": container.cgroup,
        "stop": container.stop,
    }
    return facts, masters[0] if masters else -1


def start(place: Place) -> tuple[dict[str, Any], int]:
    """Start the container."""
    from ..runtime import lifecycle

    lifecycle.start(place.root, place.id)
    return {}, -1


def kill(place: Place, signum: int, everything: bool) -> tuple[dict[str, Any], int]:
    """Send a signal."""
    from ..runtime import lifecycle

    lifecycle.kill(place.root, place.id, signum, everything=everything)
    return {}, -1


def pause(place: Place) -> tuple[dict[str, Any], int]:
    """Pause the container, by its cgroup's freezer."""
    from ..runtime import pause as freezer

    freezer.pause(place.root, place.id)
    return {}, -1


def resume(place: Place) -> tuple[dict[str, Any], int]:
    """Resume a container that is paused."""
    from ..runtime import pause as freezer

    freezer.resume(place.root, place.id)
    return {}, -1


def update(place: Place, resources: str) -> tuple[dict[str, Any], int]:
    """Change the limits: JSON of config.json's `linux.resources`. A guest's memory and vCPUs stay what they are."""
    from ..runtime import limits
    from ..runtime import update as change

    change.update(place.root, place.id, limits.parse(resources.encode()))
    return {}, -1


def delete(place: Place, force: bool) -> tuple[dict[str, Any], int]:
    """Delete the container, of either kind, and unmount its rootfs whatever comes of that."""
    try:
        if place.ours:
            from ..runtime import lifecycle

            lifecycle.delete(place.root, place.id, force=force)
        else:
            from . import ordinary

            ordinary.delete(place, force)
    finally:
        rootfs.unmount_all(f"{place.bundle}/rootfs")
    return {}, -1
