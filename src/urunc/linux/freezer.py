"""The freezer of a cgroup: stop all of its processes from running, and let them run again. v1 and v2.

Must not know why: `pause` and `kill` do, each with its own patience.
"""

from __future__ import annotations

import errno
import time

from ..errors import HostError, KernelError
from .cgroup_files import directory_of, kernel_error, keyed, read_file, version_of, write_file, write_raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .cgroup_files import Paths

FREEZE_SECONDS = 10.0


def freeze(paths: Paths, seconds: float = FREEZE_SECONDS) -> None:
    """Stop every process of the cgroup from running. Raises KernelError where it takes longer than `seconds`."""
    place = directory(paths)
    if version_of(paths) == 2:
        write_file(f"{place}/cgroup.freeze", "1")
        _wait_for(lambda: keyed(f"{place}/cgroup.events").get("frozen") == 1, seconds, paths)
        return

    def is_done() -> bool:
        # Old kernels miss a process that is born meanwhile: the write is repeated until all are in (runc).
        write_file(f"{place}/freezer.state", "FROZEN")
        return read_file(f"{place}/freezer.state").strip() == "FROZEN"

    _wait_for(is_done, seconds, paths)


def _wait_for(is_done: Callable[[], bool], seconds: float, paths: Paths) -> None:
    deadline = time.monotonic() + seconds
    pause = 0.0005
    while not is_done():
        if time.monotonic() > deadline:
            thaw(paths)  # half frozen is worse than running
            raise KernelError(f"cgroup `{directory(paths)}` did not freeze within {seconds:g} s", errno=errno.ETIMEDOUT)
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


def thaw(paths: Paths) -> None:
    """Let the processes of the cgroup run again. One that is gone or was not frozen is no error. Raises KernelError."""
    try:
        place = directory(paths)
    except HostError:
        return
    file, value = ("cgroup.freeze", "0") if version_of(paths) == 2 else ("freezer.state", "THAWED")
    try:
        write_raw(f"{place}/{file}", value)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise kernel_error(f"cannot thaw cgroup `{place}`", error) from None


def is_frozen(paths: Paths) -> bool:
    """Return whether the cgroup itself was told to freeze: not only one of its parents."""
    try:
        place = directory(paths)
        if version_of(paths) == 2:
            return read_file(f"{place}/cgroup.freeze").strip() == "1"
        return read_file(f"{place}/freezer.self_freezing").strip() == "1"
    except (KernelError, HostError):
        return False


def directory(paths: Paths) -> str:
    """Return where the freezer's files are. Raises HostError where there is none."""
    place = directory_of(paths, "freezer")
    if place is None:
        raise HostError("cannot freeze: the freezer controller is not mounted")
    return place
