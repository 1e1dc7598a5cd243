"""What the shim knows of a container and of its processes: ids, status, streams, and who waits for the end."""

from __future__ import annotations

import os

from .. import log
from ..errors import StateError, reason
from . import codes, messages
from .codes import StatusError
from .messages import CREATED, PAUSED, RUNNING, STOPPED, timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .guest import GuestPort
    from .io import Streams
    from .loop import Loop
    from .oom import OomWatch
    from .places import Place
    from .ttrpc import Call
    from .wire import Values

_STREAMS = ("stdin", "stdout", "stderr", "terminal")


class Process:
    """The first process of a container (`exec_id` is ""), or one that exec started. A request gives its streams."""

    def __init__(self, exec_id: str, request: Values, streams: Streams | None = None, spec: Any = None) -> None:
        self.exec_id = exec_id
        self.asked = {name: request[name] for name in _STREAMS}
        self.streams = streams
        self.spec = spec
        self.pid = 0
        self.status = CREATED
        self.exit_status = 0
        self.exited_at = 0  # nanoseconds since the epoch
        self.waiting: list[Call] = []
        self.starting = False
        self.kills = 0
        """How many Kills are under way. At the end, the CRI plug-in deletes and hangs up, be they answered or not."""
        self._stdin_closed = False
        self.early_end: tuple[int, int] | None = None
        """An end that came while the start, or a Kill, was still under way: that is answered first."""

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.status == STOPPED

    def take_streams(self, streams: Streams) -> None:
        """Have its streams, which an exec has only once it is started. Its input may have ended before that."""
        self.streams = streams
        if self._stdin_closed:
            streams.close_stdin()

    def close_stdin(self) -> None:
        """Let it see the end of its input."""
        self._stdin_closed = True
        if self.streams is not None:
            self.streams.close_stdin()

    def kill(self, signum: int) -> None:
        """Signal it: one that exec started, a child of ours that is not reaped yet, so its pid is its own.

        Raises StatusError.
        """
        if not self.pid:
            raise StatusError(codes.FAILED_PRECONDITION, f"cannot kill `{self.exec_id}`: it is not started")
        try:
            os.kill(self.pid, signum)
        except ProcessLookupError:
            raise StatusError(codes.NOT_FOUND, "process already finished") from None
        except OSError as error:
            raise StatusError(codes.INVALID_ARGUMENT, f"cannot kill `{self.exec_id}`: {reason(error)}") from None

    def end(self, status: int, when: int) -> None:
        """Note the end, and let go of the streams."""
        self.status, self.exit_status, self.exited_at = STOPPED, status, when
        if self.streams is not None:
            self.streams.process_ended()

    def exit_values(self) -> Values:
        """Return the fields that tell of the end; the time is None while it runs."""
        return {
            "exit_status": self.exit_status,
            "exited_at": timestamp(self.exited_at) if self.exited_at else None,
        }

    def release(self) -> None:
        """Close the streams, whatever is unread."""
        if self.streams is not None:
            self.streams.close()
            self.streams = None


class Container:
    """A container of the pod."""

    def __init__(self, place: Place, init: Process, facts: dict[str, Any]) -> None:
        self.id = place.id
        self.place = place.replace(ours=facts["ours"])
        self.cgroup: dict[str, str] = facts["cgroup"]
        self.init = init
        self.execs: dict[str, Process] = {}
        self.paused = False
        self.port: GuestPort | None = None
        self.oom: OomWatch | None = None
        self.deferred_end: tuple[int, int] | None = None
        """The first process's end, while an exec's is still to be told: the container's is told last."""
        self._operations = 0
        self._on_idle: Callable[[], None] | None = None

    @property
    def is_paused(self) -> bool:
        """Whether it runs and is paused: one that was killed so is stopped."""
        return self.paused and self.init.status == RUNNING

    def process(self, exec_id: str) -> Process | None:
        """Return the first process, or that of an exec; None where there is none of that id."""
        return self.execs.get(exec_id) if exec_id else self.init

    def begin(self) -> None:
        """Note an operation on it, which has an end: see `finish`."""
        self._operations += 1

    def finish(self) -> None:
        """Note the end of an operation."""
        self._operations -= 1
        if not self._operations and self._on_idle is not None:
            on_idle, self._on_idle = self._on_idle, None
            on_idle()

    def when_idle(self, do: Callable[[], None]) -> None:
        """Do something once no operation on it is under way."""
        if self._operations:
            self._on_idle = do
        else:
            do()

    def open_port(self, loop: Loop) -> None:
        """Open the port by which the guest's init is spoken to."""
        from .guest import GuestPort  # few guests have one

        try:
            self.port = GuestPort(loop, f"{self.place.root}/{self.id}")
        except StateError as error:
            log.warn(f"`{self.id}`: {error}")

    def signal_guest(self, signum: int) -> None:
        """Have the guest's init, which there is, signal the application. Raises StatusError."""
        assert self.port is not None  # noqa: S101
        try:
            self.port.send_signal(signum)
        except StateError as error:
            raise StatusError(codes.UNKNOWN, f"OCI runtime kill failed: {error}") from None

    def resize_guest(self, height: int, width: int) -> None:
        """Tell the guest's init, where there is one, the size of its terminal."""
        try:
            if self.port is not None:
                self.port.resize(height, width)
        except StateError as error:  # it has just ended, or does not listen; its terminal is then as good as it was
            log.debug(str(error))

    def close(self) -> None:
        """Let go of the streams of every process, the guest's port and the watch for want of memory."""
        for process in (self.init, *self.execs.values()):
            process.release()
        if self.port is not None:
            self.port.close()
        if self.oom is not None:
            self.oom.close()

    def state(self, process: Process) -> Values:
        """Return the StateResponse."""
        status = PAUSED if self.paused and process.status == RUNNING else process.status
        return {
            "id": process.exec_id or self.id,
            "bundle": self.place.bundle,
            "pid": process.pid,
            "status": status,
            "exec_id": process.exec_id,
            **process.asked,
            **process.exit_values(),
        }

    def processes(self, pids: list[int]) -> list[Values]:
        """Return the pids as ProcessInfo, those of execs with their ids."""
        known = {process.pid: process.exec_id for process in self.execs.values() if not process.ended}
        return [
            {"pid": pid, "info": messages.pack(messages.PROCESS_DETAILS, {"exec_id": known[pid]})}
            if pid in known
            else {"pid": pid}
            for pid in pids
        ]
