"""A container's status, derived from facts; and the one table of which verb is allowed in which status.

The five statuses of runtime.md, "State", and runc's "paused": nothing here is ever stored.
"""

from __future__ import annotations

import fcntl
import os

from ..errors import StateError
from ..linux import proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .store import Container

CREATING, CREATED, RUNNING, STOPPED, PAUSED = "creating", "created", "running", "stopped", "paused"

ALLOWED: dict[str, tuple[str, ...]] = {
    "start": (CREATED,),
    "kill": (CREATED, RUNNING, PAUSED),
    "delete": (CREATED, STOPPED),
    "ps": (CREATED, RUNNING, PAUSED, STOPPED),
    "pause": (CREATED, RUNNING),
    "resume": (PAUSED,),
    "update": (CREATED, RUNNING, PAUSED),
    "events": (CREATED, RUNNING, PAUSED),
}
"""Which verb runs in which status. `delete` of a created container ends its init first, as runc does."""


_PHRASES = {"events": "follow", "ps": "list the processes of"}
"""Verbs that are no verbs, as an error says them."""


def of(root: str, container: Container) -> str:
    """Return the container's status.

    creating: no init yet, and the `create` that claimed the id still runs. created: init holds the file
    `waiting` until it executes the monitor; where that is frozen the container is paused, as with runc, since a
    `start` would wait for it. A zombie is stopped: its reaper has not looked yet.
    """
    if container.boot_id != proc.boot_id():
        return STOPPED
    if not container.pid:
        creator, started = container.creator
        return CREATING if proc.start_time(creator) == started else STOPPED
    if proc.start_time(container.pid) != container.start_time:
        return STOPPED
    waiting = is_waiting(f"{root}/{container.id}")
    creator, started = container.creator
    if waiting and creator and proc.start_time(creator) == started:
        return CREATING
    if is_frozen(container.cgroup):
        return PAUSED
    return CREATED if waiting else RUNNING


def is_waiting(place: str) -> bool:
    """Return whether an init holds the container's `waiting` file: it has not executed the monitor."""
    try:
        fd = os.open(f"{place}/waiting", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def is_frozen(cgroup: dict[str, str]) -> bool:
    """Return whether the container's cgroup is frozen, or freezing."""
    name, value = ("cgroup.freeze", "1") if "" in cgroup else ("freezer.state", "FROZEN")
    place = cgroup.get("", cgroup.get("freezer"))
    if not place:
        return False
    try:
        with open(f"{place}/{name}", encoding="utf-8") as file:
            state = file.read().strip()
    except OSError:
        return False
    return state in (value, "FREEZING")


def require(verb: str, container: Container, status: str) -> None:
    """Raise StateError where the verb is not allowed in that status."""
    if status in ALLOWED[verb]:
        return
    if verb == "delete":
        raise StateError(
            f"cannot delete container `{container.id}` that is not stopped: {status}",
            hint="kill it first, or use --force",
        )
    if verb == "kill":
        raise StateError(f"cannot kill `{container.id}`: container not running")
    raise StateError(f"cannot {_PHRASES.get(verb, verb)} `{container.id}`: container is {status}")


def document(container: Container, status: str) -> dict[str, Any]:
    """Return the state document of runtime.md, "State"."""
    return {
        "ociVersion": container.oci_version,
        "id": container.id,
        "status": status,
        "pid": 0 if status == STOPPED else container.pid,
        "bundle": container.bundle,
        "annotations": container.annotations,
    }
