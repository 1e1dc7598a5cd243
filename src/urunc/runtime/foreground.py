"""`run`: create, start and, unless detached, stay: pass signals on, hand the exit status through, delete."""

from __future__ import annotations

import os
import stat

from ..errors import UruncError
from ..linux import libc
from . import console, control, lifecycle, load
from . import create as creation

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable

    from .load import Request
    from .options import Globals, Options
    from .store import Container
else:
    import _signal

_FORWARDED = (
    _signal.SIGTERM,
    _signal.SIGINT,
    _signal.SIGQUIT,
    _signal.SIGHUP,
    _signal.SIGUSR1,
    _signal.SIGUSR2,
)
_LOOK_SECONDS = 0.5  # between two looks whether somebody reads standard output still


def run(settings: Globals, options: Options) -> int:
    """Create and start the container. Returns 0 with --detach, else the exit status (128 + N after signal N)."""
    request = load.load(settings.root, options, systemd=settings.systemd_cgroup)
    if request is None:
        lifecycle.hand_over(settings, options)
    if options.detach:
        creation.create(settings.root, options, request)
        _start_or_delete(settings, options)
        return 0
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)  # init loses its parent by its second fork; now it becomes ours
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (*_FORWARDED, _signal.SIGCHLD))
    if os.isatty(0) and not request.spec.process.terminal:
        from .keyboard import Keyboard

        with Keyboard() as keyboard:
            return _run_here(settings, options, request, keyboard.let_go)
    return _run_here(settings, options, request)


def _run_here(settings: Globals, options: Options, request: Request, created: Callable[[], None] = lambda: None) -> int:
    masters: list[int] = []
    container = creation.create(settings.root, options, request, take_terminal=masters.append)
    created()
    try:
        with _Visit(settings.root, container) as visit:
            _start_or_delete(settings, options)
            return visit.stay(masters)
    finally:
        if not options.keep:
            lifecycle.delete(settings.root, options.id, force=True)


def _start_or_delete(settings: Globals, options: Options) -> None:
    try:
        lifecycle.start(settings.root, options.id)
    except UruncError:
        lifecycle.delete(settings.root, options.id, force=True)
        raise


class _Visit:
    """The wait for a container's end. A context manager: it listens to the guest meanwhile."""

    def __init__(self, root: str, container: Container) -> None:
        self.root, self.container = root, container
        self.wait_status: int | None = None
        self.tells_hangup = False
        self.guest = control.Listener(f"{root}/{container.id}") if container.stop == "control" else None

    def __enter__(self) -> _Visit:
        return self

    def __exit__(self, *_: object) -> None:
        if self.guest:
            self.guest.close()

    def stay(self, masters: list[int]) -> int:
        """Stay until the monitor has ended; return the exit status, the guest's own where it told one."""
        if masters:
            console.copy_terminal(masters[0], self.is_over, self._resize)
        self.tells_hangup = not masters and self.guest is not None and stat.S_ISFIFO(os.fstat(1).st_mode)
        while not self.is_over():
            self._await_news()
        code = os.waitstatus_to_exitcode(self.wait_status or 0)
        if code < 0:
            return 128 - code
        return self.guest.status(code) if self.guest else code

    def is_over(self) -> bool:
        """Return whether the monitor has ended; pass on the signals that have come meanwhile."""
        while self.wait_status is None and (caught := _signal.sigtimedwait(_FORWARDED, 0)):
            self._pass_on(caught.si_signo)
        if self.guest:
            self.guest.read()
        if self.wait_status is None:
            pid, status = os.waitpid(self.container.pid, os.WNOHANG)
            self.wait_status = status if pid else None
            if pid and self.guest:
                self.guest.read()
        return self.wait_status is not None

    def _await_news(self) -> None:
        """Wait for a signal, and tell a guest, which cannot see it, when nobody reads our standard output any more."""
        signals = (*_FORWARDED, _signal.SIGCHLD)
        if not self.tells_hangup:
            self._pass_on(_signal.sigwaitinfo(signals).si_signo)
        elif caught := _signal.sigtimedwait(signals, _LOOK_SECONDS):
            self._pass_on(caught.si_signo)
        elif console.hung_up(1):
            self.tells_hangup = False
            try:
                control.hang_up(f"{self.root}/{self.container.id}")
            except UruncError:
                pass  # it has just ended, which the next look shows

    def _resize(self, height: int, width: int) -> None:
        if self.guest:
            try:
                control.resize(f"{self.root}/{self.container.id}", height, width)
            except UruncError:
                pass  # it has just ended, which the next look shows

    def _pass_on(self, signum: int) -> None:
        if signum == _signal.SIGCHLD:
            return
        try:
            lifecycle.kill(self.root, self.container.id, signum)
        except UruncError:
            pass  # it has just ended, which the next look shows
