"""The shim's children: forked safely, reaped once, their ends told to whoever waits for them.

The shim is a subreaper, so a container's monitor becomes its child when the process that made it ends. Such a
monitor may end before anybody has heard of its pid: while an operation is under way (`expect`), ends that
nobody claims are kept. Knows nothing of containers.
"""

from __future__ import annotations

import os
import time

from . import child
from .loop import IN

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable, Iterable

    from .child import Stdio
    from .loop import Loop

    Ended = Callable[[int, int], None]
else:
    import _signal


class Children:
    """Reaps on SIGCHLD. `on_term` is called for SIGTERM and SIGINT. There is one in a process."""

    def __init__(self, loop: Loop, on_term: Callable[[], None]) -> None:
        self._loop, self._on_term = loop, on_term
        self._watched: dict[int, Ended] = {}
        self._early: dict[int, tuple[int, int]] = {}
        self.lingering: set[int] = set()
        """Those that may go on when the last container is gone, and that somebody sees to: loggers."""
        self._expecting = 0
        self._wake, self._alarm = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._old_wakeup = _signal.set_wakeup_fd(self._alarm, warn_on_full_buffer=False)
        self._old_handlers = {
            number: _signal.signal(number, _note) for number in (_signal.SIGCHLD, _signal.SIGTERM, _signal.SIGINT)
        }
        loop.watch(self._wake, IN, self._woken)

    def watch(self, pid: int, ended: Ended) -> None:
        """Call `ended` with the exit status (128 + N after signal N) and the time (ns since the epoch) of its end."""
        early = self._early.pop(pid, None)
        if early is None:
            self._watched[pid] = ended
        else:
            self._loop.later(0, lambda: ended(*early))

    def expect(self) -> None:
        """From now on keep the ends of unknown children: an operation may yet tell their pids."""
        self._expecting += 1

    @property
    def expecting(self) -> bool:
        """Whether an operation is under way."""
        return self._expecting > 0

    def expect_no_more(self) -> None:
        """The operation is over, and all it told is watched."""
        self._expecting -= 1
        if not self._expecting:
            self._early.clear()

    def fork(self, body: Callable[[], None], stdio: Stdio, keep: Iterable[int]) -> int:
        """Run `body` in a child that has these descriptors alone (see `child.be`), and return its pid."""
        pid = os.fork()
        if pid == 0:
            child.be(body, stdio, keep)
        return pid

    def close(self) -> None:
        """Give the signals back."""
        self._loop.forget(self._wake)
        _signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._old_handlers.items():
            _signal.signal(number, handler if handler is not None else _signal.SIG_DFL)
        os.close(self._wake)
        os.close(self._alarm)

    def _woken(self, _mask: int) -> None:
        numbers = os.read(self._wake, 4096)
        if _signal.SIGTERM in numbers or _signal.SIGINT in numbers:
            self._on_term()
        self.reap()

    def reap(self) -> None:
        """Reap every child that has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._tell(pid, exit_status(status), time.time_ns())

    def _tell(self, pid: int, status: int, when: int) -> None:
        ended = self._watched.pop(pid, None)
        if ended is not None:
            self._loop.call(lambda: ended(status, when))  # what it lets out must not make the shim deaf to the others
        elif self._expecting:
            self._early[pid] = (status, when)


def exit_status(wait_status: int) -> int:
    """Return a container's exit status of a wait status: the exit code, or 128 + N after signal N."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def _note(*_: object) -> None:
    """Handle a signal: its number is in the wake-up pipe already, and this only keeps the default from happening."""
