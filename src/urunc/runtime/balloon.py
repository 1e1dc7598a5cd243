"""The memory balloon of a guest that has one: asking it to give memory back, and giving it that again.

A balloon is a request, not a limit: a guest that was taken over need not follow it, and says what it likes of its
size. The limit is the cgroup's, and is set only once the guest says that it fits. One that lied is killed by it.
"""

from __future__ import annotations

import time

from .. import log
from ..errors import StateError
from ..vm import monitors
from ..vm.machine import BALLOON

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .store import Container

_SECONDS = 30.0  # a guest in software gives about 100 MiB in a second
_PATIENCE = 4.0  # without a MiB more
_PAUSE = 0.05
_MIB = 1 << 20
_USAGE = {  # virtio 1.2, section 5.5.6.4: our name -> the HTTP API's; QMP has another
    "free": "free_memory",
    "available": "available_memory",
    "total": "total_memory",
    "caches": "disk_caches",
    "swappedIn": "swap_in",
    "swappedOut": "swap_out",
    "majorFaults": "major_faults",
    "minorFaults": "minor_faults",
}
_LARGEST = (1 << 63) - 1  # of a figure: one that the guest does not give is 2**64 - 1 by QMP
_SLACK = _MIB  # what stays of a balloon that is empty: drivers count in pages, monitors in MiB


def size(place: str, container: Container) -> int:
    """Return the memory that the guest says it has, in bytes, never more than the machine's.

    `place` is the container's folder. Raises StateError where its monitor does not answer, or makes no sense.
    """
    whole = container.memory_mib * _MIB
    if _speaks_qmp(container):
        from . import control

        (answer,) = control.ask(place, "query-balloon")
        found = answer.get("actual") if isinstance(answer, dict) else None
    else:
        from . import monitor_api

        answer = monitor_api.balloon_statistics(container.pid, container.start_time)
        taken = answer.get("actual_mib")
        found = whole - taken * _MIB if type(taken) is int else None
    if type(found) is not int or not 0 <= found <= whole:
        raise StateError("the monitor does not say how large the balloon is")
    return found


def usage(place: str, container: Container) -> dict[str, int]:
    """Return how the guest says that it uses its memory: bytes, and counts of faults; {} where it says nothing.

    Raises StateError where its monitor does not answer.
    """
    if _speaks_qmp(container):
        from . import control

        (answer,) = control.ask(
            place, ("qom-get", {"path": f"/machine/peripheral/{BALLOON}", "property": "guest-stats"})
        )
        given = answer.get("stats") if isinstance(answer, dict) else None
        keys = {name: f"stat-{key.replace('_', '-')}" for name, key in _USAGE.items()}
    else:
        from . import monitor_api

        given, keys = monitor_api.balloon_statistics(container.pid, container.start_time), _USAGE
    if not isinstance(given, dict):
        return {}
    numbers = {name: given.get(key) for name, key in keys.items()}
    return {name: number for name, number in numbers.items() if type(number) is int and 0 <= number <= _LARGEST}


def resize(place: str, container: Container, mib: int) -> None:
    """Ask the guest to make do with `mib` MiB; it does so in its own time. Raises StateError."""
    if _speaks_qmp(container):
        from . import control

        (answer,) = control.ask(place, ("balloon", {"value": mib * _MIB}))
        if answer is None:
            raise StateError("the monitor refuses to change the balloon")
        return
    from . import monitor_api

    monitor_api.set_balloon(container.pid, container.start_time, container.memory_mib - mib)


def _speaks_qmp(container: Container) -> bool:
    return monitors.load(container.monitor).CAPABILITIES.qmp


def shrink(place: str, container: Container, mib: int) -> None:
    """Have the guest give memory back until it says that it has `mib` MiB.

    Raises StateError where it does not in time, once the balloon is as it was.
    """
    before = least = size(place, container)
    resize(place, container, mib)
    began = moved = time.monotonic()
    while (now := size(place, container)) > mib * _MIB + _SLACK:
        clock = time.monotonic()
        if now <= least - _MIB:
            least, moved = now, clock
        if clock > min(began + _SECONDS, moved + _PATIENCE):
            restore(place, container, before // _MIB)
            raise StateError(
                f"the guest of `{container.id}` does not give its memory back: it has {now // _MIB} MiB, not {mib}",
                hint="it may need it, or have no driver for a virtio balloon",
            )
        time.sleep(_PAUSE)


def restore(place: str, container: Container, mib: int) -> None:
    """Give the memory back after what it was taken for has failed; that this fails as well is only logged."""
    try:
        resize(place, container, mib)
    except StateError as error:
        log.warn(f"taking back the failed update: {error}")
