"""The shim at work: one process that serves the containers of a pod until the last is gone.

It is loaded after `start` has told containerd where the shim listens. Jobs of the runtime are done in children, which
load what that takes: see `work`.
"""

from __future__ import annotations

import _socket
import gc
import os

from .. import log
from ..linux import subreaper
from ..record import Record
from . import child
from .children import Children
from .events import Publisher
from .io import TERM_SECONDS
from .lives import Lives
from .loop import Loop
from .messages import TASK_SERVICE
from .operation import Operations
from .pod import Pod
from .task import Service
from .ttrpc import Server

_DRAIN_SECONDS = 5.0
_LOOK_SECONDS = 0.01
_USE_SECONDS = 30.0


class Identity(Record):
    """What containerd told the shim about itself."""

    namespace: str
    path: str  # of the socket
    grpc_address: str = ""
    ttrpc_address: str = ""
    publish_binary: str = ""


def serve(identity: Identity, listener: _socket.socket, spare: _socket.socket | None = None) -> None:
    """Serve until containerd says Shutdown and no container is left, or until SIGTERM.

    `spare` is the child that waits for the first Create: see `begin`.
    """
    try:
        shim = _Shim(identity, listener, spare)
        subreaper.become()
        child.hold_code()
        gc.freeze()  # what is here now is here for good: a fork then copies fewer pages
        gc.enable()
        log.debug(f"serving `{identity.path}`")
        shim.loop.run()
        shim.close()
        shim.linger()
    except Exception as error:
        _report(error)
        raise


class _Shim:
    """The parts, and how they end together."""

    def __init__(self, identity: Identity, listener: _socket.socket, spare: _socket.socket | None = None) -> None:
        self.path = identity.path
        self.loop = Loop(_report)
        self.children = Children(self.loop, self.end)
        self.publisher = Publisher(self.loop, identity.namespace, log.warn)
        if identity.ttrpc_address:
            self.publisher.over_ttrpc(identity.ttrpc_address)
        elif identity.publish_binary:
            self.publisher.by_binary(self.children, identity.publish_binary, identity.grpc_address)
        self.operations = Operations(self.loop, self.children, spare)
        pod = Pod(self.operations, self.publisher)
        lives = Lives(
            self.loop,
            self.children,
            self.operations,
            self.publisher,
            pod,
            identity.namespace,
            identity.path,
        )
        self.service = Service(pod, lives, self.publisher, self.shut_down)
        self.server = Server(self.loop, {TASK_SERVICE: self.service.methods()}, _report)
        self.server.listen(listener)
        self._looks = int(_DRAIN_SECONDS / _LOOK_SECONDS)
        self.loop.later(_USE_SECONDS, self.look_for_use)

    def look_for_use(self, accepted: int = -1) -> None:
        """End where nothing is served, and nobody has come since the last look, when `accepted` had come.

        A containerd that is killed between a shim's start and its first Create, or between the last Delete and
        Shutdown, does not think of the shim again.
        """
        deserted = self.service.is_deserted()
        if deserted and accepted == self.server.accepted:
            self.end()
        else:
            accepted = self.server.accepted if deserted else -1
            self.loop.later(_USE_SECONDS, lambda: self.look_for_use(accepted))

    def shut_down(self) -> None:
        """End, without the socket from now on: the next container of that name gets a shim of its own."""
        self._remove_socket()
        self.loop.later(0, self.end)

    def _remove_socket(self) -> None:
        """Remove the socket, once: another shim may have its own at the same path afterwards."""
        if self.path:
            try:
                os.unlink(self.path)
            except OSError:
                pass
        self.path = ""

    def end(self) -> None:
        """Stop once every operation is through, and every event and answer is taken, or after five seconds.

        The last container may be deleted, as its end was told, before the Kill that brought it is answered.
        """
        self._looks -= 1
        if self._looks <= 0 or (self.publisher.idle and not self.children.expecting and not self.server.unsent):
            self.loop.stop()
        else:
            self.loop.later(_LOOK_SECONDS, self.end)

    def close(self) -> None:
        """Close what others connect to, and are connected to."""
        self._remove_socket()
        self.server.close()
        self.publisher.close()
        self.operations.close()

    def linger(self) -> None:
        """Run on without the socket, for loggers that have not ended: the timers of their streams see to it."""
        if self.service.is_deserted():
            self._looks = int((TERM_SECONDS + 1) / _LOOK_SECONDS)
            self._look_for_loggers()
            self.loop.run()

    def _look_for_loggers(self) -> None:
        self._looks -= 1
        if self.children.lingering and self._looks > 0:
            self.loop.later(_LOOK_SECONDS, self._look_for_loggers)
        else:
            self.loop.later(0, self.loop.stop)


def _report(error: Exception) -> None:
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    log.warn(f"internal error: {type(error).__name__}: {error}{where}")
