"""An operation: work that may block, done in a forked child (see `child`). One message comes back.

What containerd asks next is often known: then the child is forked ahead of that, and the answer comes the sooner.
"""

from __future__ import annotations

import _socket
import os

from .. import jsonio
from ..errors import KernelError, reason
from . import child
from .child import NO_STDIO, Given
from .loop import IN
from .places import hold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..errors import UruncError
    from .child import Job, Stdio
    from .children import Children
    from .loop import Loop, Timer

    Done = Callable[["Outcome"], None]

SPARE_SECONDS = 5.0
_MAX_MESSAGE = 128 * 1024


class Outcome:
    """What came of an operation: `values` (and a descriptor, or -1), or the `error` it failed with."""

    __slots__ = ("error", "fd", "values")

    def __init__(self, values: dict[str, Any], error: UruncError | None = None, fd: int = -1) -> None:
        self.values, self.error, self.fd = values, error, fd


class Operations:
    """Starts operations and tells what came of them. `spare` is a child that was forked ahead for a Create."""

    def __init__(self, loop: Loop, children: Children, spare: _socket.socket | None = None) -> None:
        self._loop, self._children = loop, children
        self._spare, self._spare_verb, self._spare_owner = spare, "create" if spare else "", ""
        self._spare_timer: Timer | None = None

    def prepare(self, verb: str, *, ours: bool) -> None:
        """Fork a child ahead for an operation that is likely to come soon. One is kept, and not for long."""
        self.close()
        try:
            self._keep(child.fork_ahead(verb, ours=ours), verb)
        except OSError:
            pass  # `run` will say so where it has to

    def _keep(self, spare: _socket.socket, verb: str, owner: str = "") -> None:
        """Keep a child for a job of `verb`, on the container `owner` where it has made that: it is no other's.

        Its end would else come to the shim only after the other's job, whose hooks would have its environment.
        """
        self._spare, self._spare_verb, self._spare_owner = spare, verb, owner
        self._spare_timer = self._loop.later(SPARE_SECONDS, self.close)

    def run(self, job: Job, done: Done, *, stdio: Stdio = NO_STDIO, ready: int = -1, bundle: str = "") -> None:
        """Have a child do the job, and call `done` with the outcome later.

        Its descriptors 0, 1 and 2 are `stdio`; a logger that is waited for says on `ready` that it reads. Where it may
        make a process, the `bundle` is held until it is through, be the shim killed meanwhile: see
        `places.await_operation`.
        """
        self._children.expect()
        try:
            ours = self._hand_over(job, stdio, ready, bundle)
        except OSError as error:
            failure = KernelError(f"cannot fork: {reason(error)}")
            self._loop.later(0, lambda: self._finish(done, Outcome({}, failure)))
            return
        ours.setblocking(False)
        self._loop.watch(ours.fileno(), IN, lambda _mask: self._receive(ours, job, done))

    def _hand_over(self, job: Job, stdio: Stdio, ready: int, bundle: str) -> _socket.socket:
        """Give the job to a child; return where its outcome comes."""
        held = hold(bundle) if bundle else -1
        given = Given(stdio=stdio, ready=ready, held=held)
        try:
            spare = self._take_spare(job)
            if spare is not None:
                if child.send(spare, job, given):
                    return spare
                spare.close()
            return child.fork(lambda theirs: child.do(job, given, theirs), given)
        finally:
            if held >= 0:
                os.close(held)

    def _take_spare(self, job: Job) -> _socket.socket | None:
        if self._spare_verb != job.verb or self._spare_owner not in ("", job.place.id):
            return None
        spare, self._spare = self._spare, None
        self.close()
        return spare

    def close(self) -> None:
        """End the child that was forked ahead, where there is one. May be called more than once."""
        if self._spare is not None:
            self._spare.close()
        if self._spare_timer is not None:
            self._spare_timer.cancel()
        self._spare, self._spare_verb, self._spare_owner, self._spare_timer = None, "", "", None

    def _receive(self, ours: _socket.socket, job: Job, done: Done) -> None:
        room = _socket.CMSG_SPACE(4)
        try:
            data, control, _flags, _address = ours.recvmsg(_MAX_MESSAGE, room, _socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, control = b"", []
        self._loop.forget(ours.fileno())
        outcome = _outcome(data, control)
        if job.verb == child.STAYS_AFTER and outcome.error is None:
            self.close()
            self._keep(ours, child.STAYS_FOR, job.place.id)
        else:
            ours.close()
        self._finish(done, outcome)

    def _finish(self, done: Done, outcome: Outcome) -> None:
        try:
            done(outcome)
        finally:
            self._children.expect_no_more()


def _outcome(data: bytes, control: list[tuple[int, int, bytes]]) -> Outcome:
    if not data:
        return Outcome({}, KernelError("the process that did this was killed"))
    fd = int.from_bytes(control[0][2][:4], "little") if control else -1
    answer = jsonio.loads(data)
    if "error" in answer:
        from ..runtime.channel import carried_error

        return Outcome({}, carried_error(answer["error"]))
    if answer["fd"] and fd < 0:
        return Outcome({}, KernelError("the shim has no descriptor left for the terminal"))
    return Outcome(answer["values"], None, fd)
