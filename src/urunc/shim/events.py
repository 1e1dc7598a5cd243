"""Events for containerd: queued, sent in order, and kept while containerd is away.

They go to TTRPC_ADDRESS, one at a time, so that a failure repeats an event and never reorders two; without an
address `containerd publish` is run for each. An event that containerd itself refuses is dropped after a few tries.
"""

from __future__ import annotations

import os

from . import messages
from .child import execute
from .messages import EVENTS_SERVICE, FORWARD_REQUEST, TOPICS, now, pack
from .ttrpc import Client
from .wire import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from .children import Children
    from .loop import Loop, Timer
    from .wire import Values
else:
    from _collections import deque

MAX_QUEUE = 4096
"""So many events are kept while containerd is away; then the oldest go."""
MAX_REFUSALS = 5
_ANSWER_SECONDS = 5.0
_FIRST_RETRY, _LAST_RETRY = 0.05, 2.0  # seconds


class Publisher:
    """The queue. `send` is how one event is sent: see `over_ttrpc` and `by_binary`."""

    def __init__(self, loop: Loop, namespace: str, warn: Callable[[str], None]) -> None:
        self._loop, self._namespace, self._warn = loop, namespace, warn
        self._queue: deque[Values] = deque()
        self._current: Values = {}
        self._close: Callable[[], None] | None = None
        self._send: Callable[[Values], None] | None = None
        self._busy = False
        self._refusals = 0
        self._retry = _FIRST_RETRY

    def over_ttrpc(self, address: str) -> None:
        """Send to containerd's ttrpc socket (TTRPC_ADDRESS)."""
        forwarder = _Forwarder(self._loop, address.removeprefix("unix://"), self._answered, self._failed)
        self._send, self._close = forwarder.send, forwarder.close

    def by_binary(self, children: Children, binary: str, address: str) -> None:
        """Send by running `containerd --address A publish` for each event."""
        self._send = _Runner(children, binary, address, self._answered).send

    def publish(self, topic: str, values: Values) -> None:
        """Queue an event of TOPICS."""
        if self._send is None:
            return
        event = pack(TOPICS[topic], values)
        self._queue.append({"timestamp": now(), "namespace": self._namespace, "topic": topic, "event": event})
        if len(self._queue) > MAX_QUEUE:
            lost = self._queue.popleft()
            self._warn(f"containerd is away: the event {lost['topic']} is lost")
        self._next()

    def close(self) -> None:
        """Send nothing more."""
        self._send = None
        if self._close is not None:
            self._close()

    @property
    def idle(self) -> bool:
        """Whether every event has been taken."""
        return not self._queue and not self._busy

    def _next(self) -> None:
        if self._busy or not self._queue or self._send is None:
            return
        self._busy = True
        self._current = self._queue.popleft()
        self._send(self._current)

    def _answered(self, code: int, message: str) -> None:
        """Go on to the next event, or try a refused one again."""
        self._busy = False
        self._retry = _FIRST_RETRY
        if code:
            self._refusals += 1
            if self._refusals < MAX_REFUSALS:
                self._again(_FIRST_RETRY)
                return
            self._warn(f"containerd refuses the event {self._current['topic']}: {message}")
        self._refusals = 0
        self._next()

    def _failed(self) -> None:
        """Containerd is not there: try again later, and later."""
        self._busy = False
        self._again(self._retry)
        self._retry = min(self._retry * 2, _LAST_RETRY)

    def _again(self, seconds: float) -> None:
        self._queue.appendleft(self._current)
        self._busy = True
        self._loop.later(seconds, self._resume)

    def _resume(self) -> None:
        self._busy = False
        self._next()


class _Forwarder:
    """Sends one event at a time over one connection, which is opened again where it was lost."""

    def __init__(self, loop: Loop, path: str, answered: Callable[[int, str], None], failed: Callable[[], None]) -> None:
        self._loop, self._path = loop, path
        self._on_answer, self._on_failure = answered, failed
        self._client: Client | None = None
        self._timer: Timer | None = None

    def send(self, envelope: Values) -> None:
        try:
            if self._client is None:
                self._client = Client(self._loop, self._path, self._lost)
        except OSError:
            self._on_failure()
            return
        self._timer = self._loop.later(_ANSWER_SECONDS, self._client.close)
        payload = encode(FORWARD_REQUEST, {"envelope": envelope})
        self._client.call(EVENTS_SERVICE, "Forward", payload, self._answered)

    def close(self) -> None:
        self._stop_timer()
        if self._client is not None:
            self._client.close()

    def _answered(self, code: int, message: str) -> None:
        if self._stop_timer():
            self._on_answer(code, message)

    def _lost(self) -> None:
        self._client = None
        if self._stop_timer():
            self._on_failure()

    def _stop_timer(self) -> bool:
        """Return whether an event was under way."""
        if self._timer is None:
            return False
        self._timer.cancel()
        self._timer = None
        return True


class _Runner:
    """Runs containerd's own binary, with the event on its standard input."""

    def __init__(self, children: Children, binary: str, address: str, answered: Callable[[int, str], None]) -> None:
        self._children, self._binary, self._address, self._answered = children, binary, address, answered

    def send(self, envelope: Values) -> None:
        argv = [self._binary, "--address", self._address, "publish"]
        argv += ["--topic", envelope["topic"], "--namespace", envelope["namespace"]]
        content = os.memfd_create("event", os.MFD_CLOEXEC)
        try:
            os.write(content, encode(messages.ANY, envelope["event"]))
            os.lseek(content, 0, os.SEEK_SET)
            pid = self._children.fork(lambda: execute(argv), (content, -1, -1), ())
        finally:
            os.close(content)
        self._children.watch(pid, lambda status, _when: self._answered(status, f"{self._binary} ended with {status}"))
