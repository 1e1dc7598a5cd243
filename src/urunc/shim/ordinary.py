"""What the operations do for an ordinary container, of a pause or a sidecar: each verb by one call of the delegate.

It has the functions of `work`, which has the unikernels'.
"""

from __future__ import annotations

import os

from ..errors import StateError
from . import delegated
from .places import read_config, write_pid_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .places import Place

_BOOTED = "/run/systemd/system"
"""There where systemd is init: sd_booted(3)."""


def create(place: Place, terminal: bool) -> tuple[dict[str, Any], int]:
    """Make the container. Returns pid, kind, cgroup and delegate, and the terminal's master or -1."""
    from ..linux import cgroup_layout
    from ..runtime import knative

    knative.adapt(place.bundle)
    place = with_delegate(place)
    place = place.replace(systemd=place.systemd or _is_systemds(read_config(place.bundle)))
    verb = ["create", "--bundle", place.bundle]
    verb += ["--no-pivot"] if place.no_pivot else []
    verb += ["--no-new-keyring"] if place.no_new_keyring else []
    pid, master = delegated.make(place, tuple(verb), place.id, terminal)
    write_pid_file(place, pid)
    facts = {"pid": pid, "ours": False, "cgroup": cgroup_layout.of_process(pid), "stop": ""}
    return {**facts, "delegate": place.delegate}, master


def with_delegate(place: Place) -> Place:
    """Return the place with the configuration's delegate, where none is said yet. Raises ConfigError."""
    if place.delegate:
        return place
    from ..runtime import settings, store

    return place.replace(delegate=settings.load(store.cache(store.DEFAULT_ROOT), place.config).delegate)


def _is_systemds(config: dict[str, Any]) -> bool:
    """Return whether cgroupsPath has systemd's form, `a.slice:prefix:name`, where systemd is the host's init.

    The form decides for a unikernel. runc goes by its flag, and a kubelet that has systemd make the cgroups has no way
    to tell a shim of another name than runc's so. Without systemd, runc takes such a path for folders' names.
    """
    if not os.path.isdir(_BOOTED):
        return False
    path = str((config.get("linux") or {}).get("cgroupsPath", ""))
    return path.count(":") == 2 and path.partition(":")[0].endswith(".slice")


def start(place: Place) -> tuple[dict[str, Any], int]:
    """Start the container."""
    delegated.call(place, "start", place.id)
    return {}, -1


def kill(place: Place, signum: int, everything: bool) -> tuple[dict[str, Any], int]:
    """Send a signal."""
    delegated.call(place, "kill", *(["--all"] if everything else []), place.id, str(signum))
    return {}, -1


def pause(place: Place) -> tuple[dict[str, Any], int]:
    """Pause the container."""
    delegated.call(place, "pause", place.id)
    return {}, -1


def resume(place: Place) -> tuple[dict[str, Any], int]:
    """Resume a container that is paused."""
    delegated.call(place, "resume", place.id)
    return {}, -1


def update(place: Place, resources: str) -> tuple[dict[str, Any], int]:
    """Change the limits: JSON of config.json's `linux.resources`."""
    delegated.call(place, "update", "--resources", "-", place.id, stdin=resources.encode())
    return {}, -1


def delete(place: Place, force: bool) -> None:
    """Delete the container. One that the delegate does not know is deleted."""
    try:
        delegated.call(with_delegate(place), "delete", *(["--force"] if force else []), place.id)
    except StateError as error:
        if "does not exist" not in error.message:
            raise


def execute(place: Place, process: Any, terminal: bool) -> tuple[dict[str, Any], int]:
    """Start another process in the container."""
    path = delegated.process_file(place, {**process, "terminal": terminal})
    try:
        pid, master = delegated.make(place, ("exec", "--process", path, "--detach"), place.id, terminal)
    finally:
        os.unlink(path)
    return {"pid": pid}, master
