"""An operation: work that may block, done in a forked child which already holds the code. One message comes back.

The child is not the one that lives on: what it makes (a monitor's process) outlives it and becomes the shim's.
"""

from __future__ import annotations

import _socket
import os

from .. import jsonio, log
from ..errors import KernelError, reason
from ..runtime.channel import carried_error, error_data
from .loop import IN
from .places import hold

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..errors import UruncError
    from .children import Children
    from .loop import Loop

    Body = Callable[[], "tuple[dict[str, Any], int]"]
    Done = Callable[["Outcome"], None]

_MAX_MESSAGE = 128 * 1024
_NO_STDIO = (-1, -1, -1)


class Outcome:
    """What came of an operation: `values` (and a descriptor, or -1), or the `error` it failed with."""

    __slots__ = ("error", "fd", "values")

    def __init__(self, values: dict[str, Any], error: UruncError | None = None, fd: int = -1) -> None:
        self.values, self.error, self.fd = values, error, fd


class Operations:
    """Starts operations and tells what came of them."""

    def __init__(self, loop: Loop, children: Children) -> None:
        self._loop, self._children = loop, children

    def run(
        self,
        body: Body,
        done: Done,
        *,
        stdio: tuple[int, int, int] = _NO_STDIO,
        keep: tuple[int, ...] = (),
        bundle: str = "",
    ) -> None:
        """Run `body` in a child, and call `done` with the outcome later.

        `body` returns values for JSON and a descriptor (-1 for none), or raises. Its descriptors 0, 1 and 2 are
        `stdio`; beside them it has those of `keep`. Where it may make a process, the `bundle` is held until it is
        through, be the shim killed meanwhile: see `places.await_operation`.
        """
        self._children.expect()
        try:
            ours = self._fork(body, stdio, keep, bundle)
        except OSError as error:
            failure = KernelError(f"cannot fork: {reason(error)}")
            self._loop.later(0, lambda: self._finish(done, Outcome({}, failure)))
            return
        ours.setblocking(False)
        self._loop.watch(ours.fileno(), IN, lambda _mask: self._receive(ours, done))

    def _fork(self, body: Body, stdio: tuple[int, int, int], keep: tuple[int, ...], bundle: str) -> _socket.socket:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        held = -1
        try:
            held = hold(bundle) if bundle else -1
            kept = (theirs.fileno(), log.descriptor(), *(fd for fd in (*keep, held) if fd >= 0))
            self._children.fork(lambda: _work(body, theirs), stdio, kept)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            if held >= 0:
                os.close(held)
        return ours

    def _receive(self, ours: _socket.socket, done: Done) -> None:
        room = _socket.CMSG_SPACE(4)
        try:
            data, control, _flags, _address = ours.recvmsg(_MAX_MESSAGE, room, _socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, control = b"", []
        self._loop.forget(ours.fileno())
        ours.close()
        self._finish(done, _outcome(data, control))

    def _finish(self, done: Done, outcome: Outcome) -> None:
        try:
            done(outcome)
        finally:
            self._children.expect_no_more()


def _work(body: Body, theirs: _socket.socket) -> None:
    fd = -1
    try:
        values, fd = body()
        answer: dict[str, Any] = {"values": values, "fd": fd >= 0}
    except BaseException as error:
        answer = {"error": error_data(error)}
    control = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, "little"))] if fd >= 0 else []
    theirs.sendmsg([jsonio.dumps(answer)], control)


def _outcome(data: bytes, control: list[tuple[int, int, bytes]]) -> Outcome:
    if not data:
        return Outcome({}, KernelError("the process that did this was killed"))
    fd = int.from_bytes(control[0][2][:4], "little") if control else -1
    answer = jsonio.loads(data)
    if "error" in answer:
        return Outcome({}, carried_error(answer["error"]))
    if answer["fd"] and fd < 0:
        return Outcome({}, KernelError("the shim has no descriptor left for the terminal"))
    return Outcome(answer["values"], None, fd)
