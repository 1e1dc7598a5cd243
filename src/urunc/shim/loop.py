"""One epoll loop for everything the shim waits for: sockets, fifos, consoles, timers, the end of children.

No threads (the shim forks) and no asyncio (50 ms to import). A callback must not block; one that raises is
reported and loses its descriptor's watch, and the loop goes on: the other containers of the pod need it.
"""

from __future__ import annotations

import select
import time
from _heapq import heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

IN, OUT, ERR, HUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR, select.EPOLLHUP
_BATCH = 64
_LONGEST_WAIT = 3600.0  # seconds; epoll counts milliseconds in an int


class Timer:
    """A callback at a moment of the monotonic clock; `cancel` makes it not happen."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None] | None) -> None:
        self.when, self.callback = when, callback

    def cancel(self) -> None:
        """Make the timer not happen. May be called more than once, and after it happened."""
        self.callback = None

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when


class Loop:
    """The loop. `report` is told of every exception that a callback let out."""

    def __init__(self, report: Callable[[Exception], None]) -> None:
        self._epoll = select.epoll()
        self._report = report
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._forgotten: set[int] = set()
        self._timers: list[Timer] = []
        self._running = False

    def watch(self, fd: int, mask: int, callback: Callable[[int], None]) -> None:
        """Call `callback` with the events when one of `mask`, an error or a hang-up comes; replaces an older watch."""
        if fd in self._callbacks:
            self._epoll.modify(fd, mask)
        else:
            self._epoll.register(fd, mask)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Stop watching; to be called before the descriptor is closed. Nothing happens where it is not watched."""
        if self._callbacks.pop(fd, None) is not None:
            self._forgotten.add(fd)
            self._epoll.unregister(fd)

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once, after that time."""
        timer = Timer(time.monotonic() + seconds, callback)
        heappush(self._timers, timer)
        return timer

    def call(self, callback: Callable[[], None]) -> None:
        """Call it now, and report what it lets out."""
        try:
            callback()
        except Exception as error:
            self._report(error)

    def run(self) -> None:
        """Serve until `stop` is called."""
        self._running = True
        while self._running:
            self.once(self._until_next_timer())

    def stop(self) -> None:
        """Make `run` return after the events in hand."""
        self._running = False

    def once(self, timeout: float) -> None:
        """Wait for at most `timeout` seconds (-1: for ever) and serve what is there."""
        events = self._epoll.poll(timeout, _BATCH)
        # A descriptor closed by one callback may be open again, as another's, before its old event is served.
        self._forgotten.clear()
        for fd, mask in events:
            callback = self._callbacks.get(fd)
            if callback is not None and fd not in self._forgotten:
                self._serve(fd, mask, callback)
        self._run_timers()

    def close(self) -> None:
        """Close the epoll descriptor. In a forked child this leaves the parent's watches alone."""
        self._epoll.close()
        self._callbacks.clear()
        self._timers.clear()

    def _serve(self, fd: int, mask: int, callback: Callable[[int], None]) -> None:
        try:
            callback(mask)
        except Exception as error:
            self.forget(fd)
            self._report(error)

    def _until_next_timer(self) -> float:
        while self._timers and self._timers[0].callback is None:
            heappop(self._timers)
        if not self._timers:
            return -1
        return min(max(0.0, self._timers[0].when - time.monotonic()), _LONGEST_WAIT)

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0].when <= now:
            callback = heappop(self._timers).callback
            if callback is not None:
                self.call(callback)
