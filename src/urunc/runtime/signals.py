"""How a signal reaches a container: into the guest, where guest and monitor have a way, else it ends the monitor.

Which way there is, the plan has decided (`Container.stop`). Never waits for what comes of it.
"""

from __future__ import annotations

from _signal import (  # type: ignore[import-not-found]
    SIGCONT,
    SIGHUP,
    SIGINT,
    SIGKILL,
    SIGPWR,
    SIGQUIT,
    SIGSTOP,
    SIGTERM,
)

from .. import log
from ..errors import StateError
from ..linux import proc
from . import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .store import Container

STOP_SIGNALS = (SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGPWR, 37)
"""The signals that ask a container to end: 37 is RTMIN+3, which systemd as an init listens to."""


def send(root: str, container: Container, now: str, signum: int) -> None:
    """Send a signal to a container, which is in the status `now`; 0 does nothing.

    Raises ProcessLookupError where it has ended, StateError where its guest or its monitor takes nothing.
    """
    if signum == 0:
        return
    if signum == SIGKILL:
        end(container)
    elif signum in (SIGSTOP, SIGCONT):
        _signal_monitor(container, signum)
    elif now == status.CREATED or (now == status.PAUSED and status.is_waiting(f"{root}/{container.id}")):
        if signum in STOP_SIGNALS:
            end(container)  # init, as PID 1 without a handler, would not hear it
    elif container.stop == "control":
        _tell_guest(root, container, f"signal {signum}\n".encode())
    elif signum not in STOP_SIGNALS:
        log.warn(f"signal {signum} for `{container.id}` is left out: the guest has no way to receive it")
    elif container.stop == "acpi":
        _press_power_button(root, container)
    elif container.stop == "ctrl-alt-del":
        _press_ctrl_alt_del(container, now)
    elif container.stop == "term" and proc.catches(container.pid, SIGTERM):
        _signal_monitor(container, SIGTERM)
    else:
        end(container)  # as process 1 it would not hear TERM, without a handler or before it has set that


def end(container: Container) -> None:
    """Kill the monitor, or the init before it. Raises ProcessLookupError where it has ended."""
    _signal_monitor(container, SIGKILL)
    thaw(container)


def _signal_monitor(container: Container, signum: int) -> None:
    proc.send_signal(container.pid, container.start_time, signum)


def thaw(container: Container) -> None:
    """Let a frozen container run: on cgroup v1, a process that is frozen does not die of KILL."""
    if status.is_frozen(container.cgroup):
        from ..linux import freezer

        freezer.thaw(container.cgroup)


def _tell_guest(root: str, container: Container, line: bytes) -> None:
    """Write one line to the guest's control port: it waits in the fifo until the guest listens."""
    from . import control

    control.write_line(f"{root}/{container.id}", line)


def _press_power_button(root: str, container: Container) -> None:
    from . import control

    control.power_down(f"{root}/{container.id}")


def _press_ctrl_alt_del(container: Container, now: str) -> None:
    """A monitor that does not listen yet has no guest to be asked; one that does not answer has to be ended."""
    from . import monitor_api

    if now == status.PAUSED:
        log.warn(f"the signal for `{container.id}` is left out: its monitor is paused and cannot be asked")
        return
    try:
        monitor_api.press_ctrl_alt_del(container.pid, container.start_time)
    except StateError as error:
        log.warn(f"ending `{container.id}` at once: {error}")
        end(container)
