"""What the operations do, in their forked children: each verb for a unikernel by `runtime`, else by the delegate.

The children hold what most of them need. What makes a container is more than the rest of the shim, and is
needed once in a container's life: it is imported in the child that does it, and an idle shim is small.
"""

from __future__ import annotations

import os
import select

from ..errors import HostError, StateError
from ..linux import cgroup_layout
from ..runtime import lifecycle
from ..runtime import pause as freezer
from ..runtime.options import Options
from . import delegated, rootfs
from .places import make_folder, read_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .child import Job
    from .places import Place
    from .wire import Values

READY_SECONDS = 10.0

_BOOTED = "/run/systemd/system"
"""There where systemd is init: sd_booted(3)."""


def prepare(verb: str) -> None:
    """Load what a job of that verb will need, in a child that was forked ahead."""
    if verb == "create":
        from ..linux import libc
        from ..runtime import create, load, settings  # noqa: F401

        libc.load()
    elif verb == "start":
        from ..runtime import init_words  # noqa: F401
    elif verb == "delete":
        from ..linux import cgroup  # noqa: F401
        from ..runtime import teardown  # noqa: F401


def perform(job: Job, ready: int) -> tuple[dict[str, Any], int]:
    """Do a job, once the logger of its streams, where one is, is ready. Returns values for JSON and a descriptor."""
    if ready >= 0:
        await_logger(ready, job.strict)
    verb: Callable[..., tuple[dict[str, Any], int]] = globals()[job.verb]
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
    """Mount the rootfs and make the container. Returns pid, kind and cgroup, and the terminal's master or -1."""
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

    if place.config:
        os.environ[settings.VARIABLE] = place.config
    options = Options(id=place.id, bundle=place.bundle, no_pivot=place.no_pivot, no_new_keyring=place.no_new_keyring)
    request = load.load(place.root, options, systemd=place.systemd)
    if request is None:
        return _create_delegated(place, terminal)
    masters: list[int] = []
    container = creation.create(place.root, options, request, take_terminal=masters.append)
    _write_pid_file(place, container.pid)
    facts = {"pid": container.pid, "ours": True, "cgroup": container.cgroup, "stop": container.stop}
    return facts, masters[0] if masters else -1


def _create_delegated(place: Place, terminal: bool) -> tuple[dict[str, Any], int]:
    from ..runtime import knative

    knative.adapt(place.bundle)
    place = place.replace(systemd=place.systemd or _is_systemds(read_config(place.bundle)))
    verb = ["create", "--bundle", place.bundle]
    verb += ["--no-pivot"] if place.no_pivot else []
    verb += ["--no-new-keyring"] if place.no_new_keyring else []
    pid, master = delegated.make(place, tuple(verb), place.id, terminal)
    _write_pid_file(place, pid)
    return {"pid": pid, "ours": False, "cgroup": cgroup_layout.of_process(pid), "stop": ""}, master


def _is_systemds(config: dict[str, Any]) -> bool:
    """Return whether cgroupsPath has systemd's form, `a.slice:prefix:name`, where systemd is the host's init.

    The form decides for a unikernel. runc goes by its flag, and a kubelet that has systemd make the cgroups has no way
    to tell a shim of another name than runc's so. Without systemd, runc takes such a path for folders' names.
    """
    if not os.path.isdir(_BOOTED):
        return False
    path = str((config.get("linux") or {}).get("cgroupsPath", ""))
    return path.count(":") == 2 and path.partition(":")[0].endswith(".slice")


def _write_pid_file(place: Place, pid: int) -> None:
    """Write `init.pid` into the bundle: engines' tools look there."""
    with open(
        os.open(f"{place.bundle}/init.pid", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644), "w"
    ) as f:
        f.write(str(pid))


def start(place: Place) -> tuple[dict[str, Any], int]:
    """Start the container."""
    if place.ours:
        lifecycle.start(place.root, place.id)
    else:
        delegated.call(place, "start", place.id)
    return {}, -1


def kill(place: Place, signum: int, everything: bool) -> tuple[dict[str, Any], int]:
    """Send a signal."""
    if place.ours:
        lifecycle.kill(place.root, place.id, signum, everything=everything)
    else:
        delegated.call(place, "kill", *(["--all"] if everything else []), place.id, str(signum))
    return {}, -1


def pause(place: Place) -> tuple[dict[str, Any], int]:
    """Pause the container, by its cgroup's freezer."""
    if place.ours:
        freezer.pause(place.root, place.id)
    else:
        delegated.call(place, "pause", place.id)
    return {}, -1


def resume(place: Place) -> tuple[dict[str, Any], int]:
    """Resume a container that is paused."""
    if place.ours:
        freezer.resume(place.root, place.id)
    else:
        delegated.call(place, "resume", place.id)
    return {}, -1


def update(place: Place, resources: str) -> tuple[dict[str, Any], int]:
    """Change the limits: JSON of config.json's `linux.resources`. A guest's memory and vCPUs stay what they are."""
    if not place.ours:
        delegated.call(place, "update", "--resources", "-", place.id, stdin=resources.encode())
        return {}, -1
    from ..runtime import limits
    from ..runtime import update as change

    change.update(place.root, place.id, limits.parse(resources.encode()))
    return {}, -1


def delete(place: Place, force: bool) -> tuple[dict[str, Any], int]:
    """Delete the container, and unmount its rootfs whatever comes of that."""
    try:
        if place.ours:
            lifecycle.delete(place.root, place.id, force=force)
        else:
            _delete_delegated(place, force)
    finally:
        rootfs.unmount_all(f"{place.bundle}/rootfs")
    return {}, -1


def _delete_delegated(place: Place, force: bool) -> None:
    try:
        delegated.call(place, "delete", *(["--force"] if force else []), place.id)
    except StateError as error:
        if "does not exist" not in error.message:
            raise


def execute(place: Place, process: Any, terminal: bool) -> tuple[dict[str, Any], int]:
    """Start another process in an ordinary container."""
    path = delegated.process_file(place, {**process, "terminal": terminal})
    try:
        pid, master = delegated.make(place, ("exec", "--process", path, "--detach"), place.id, terminal)
    finally:
        os.unlink(path)
    return {"pid": pid}, master
