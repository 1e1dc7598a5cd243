"""`run`: create, start and, unless detached, stay: pass signals on, hand the exit status through, delete."""

from __future__ import annotations

import os

from ..errors import UruncError
from ..linux import libc
from . import console, lifecycle, load
from . import create as creation

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal

    from .options import Globals, Options
    from .store import Container
else:
    import _signal

_PR_SET_CHILD_SUBREAPER = 36
_FORWARDED = (
    _signal.SIGTERM,
    _signal.SIGINT,
    _signal.SIGQUIT,
    _signal.SIGHUP,
    _signal.SIGUSR1,
    _signal.SIGUSR2,
)


def run(settings: Globals, options: Options) -> int:
    """Create and start the container. Returns 0 with --detach, else the exit status (128 + N after signal N)."""
    request = load.load(settings.root, options, systemd=settings.systemd_cgroup)
    if request is None:
        lifecycle.hand_over(settings)
    if options.detach:
        creation.create(settings.root, options, request)
        _start_or_delete(settings, options)
        return 0
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # init loses its parent by its second fork; now it becomes ours
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (*_FORWARDED, _signal.SIGCHLD))
    masters: list[int] = []
    container = creation.create(settings.root, options, request, take_terminal=masters.append)
    _start_or_delete(settings, options)
    try:
        return _stay(settings.root, container, masters)
    finally:
        if not options.keep:
            lifecycle.delete(settings.root, options.id, force=True)


def _start_or_delete(settings: Globals, options: Options) -> None:
    try:
        lifecycle.start(settings.root, options.id)
    except UruncError:
        lifecycle.delete(settings.root, options.id, force=True)
        raise


def _stay(root: str, container: Container, masters: list[int]) -> int:
    if masters:
        ended: list[int] = []
        console.copy_terminal(masters[0], lambda: _has_ended(container, ended))
        return ended[0] if ended else _status(os.waitpid(container.pid, 0)[1])
    while True:
        ended = []
        if _has_ended(container, ended):
            return ended[0]
        signum = _signal.sigwaitinfo((*_FORWARDED, _signal.SIGCHLD)).si_signo
        if signum != _signal.SIGCHLD:
            _forward(root, container, signum)


def _has_ended(container: Container, ended: list[int]) -> bool:
    """Return whether the monitor has ended; its exit status is then in `ended`."""
    pid, state = os.waitpid(container.pid, os.WNOHANG)
    if pid:
        ended.append(_status(state))
    return bool(pid)


def _forward(root: str, container: Container, signum: int) -> None:
    try:
        lifecycle.kill(root, container.id, signum)
    except UruncError:
        pass  # it has just ended, which the next look shows


def _status(state: int) -> int:
    code = os.waitstatus_to_exitcode(state)
    return code if code >= 0 else 128 - code
