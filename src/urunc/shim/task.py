"""containerd.task.v2.Task: what containerd asks of the containers of one pod.

A handler answers from what the shim knows, or starts an operation and answers when it is through; those that make or
end a process are in `lives`. The events go out in the order of the things they tell. Behaves as containerd's own
shim, status codes included.
"""

from __future__ import annotations

import os
from _signal import SIGCONT, SIGKILL, SIGSTOP  # type: ignore[import-not-found]

from . import codes
from .child import Job
from .codes import StatusError
from .lives import refuse
from .messages import CREATED, RUNNING, TASK_METHODS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .events import Publisher
    from .lives import Lives
    from .operation import Outcome
    from .pod import Pod
    from .process import Container
    from .ttrpc import Call, Methods
    from .wire import Values

_NOT_FOR_GUESTS = (0, SIGKILL, SIGCONT, SIGSTOP)
"""Signals that the monitor itself gets: the question whether it is there, KILL, CONT and STOP."""


class Service:
    """The service of one pod. `on_shutdown` is called once the last is gone and containerd says Shutdown."""

    def __init__(self, pod: Pod, lives: Lives, publisher: Publisher, on_shutdown: Callable[[], None]) -> None:
        self._pod, self._lives, self._publisher, self._on_shutdown = pod, lives, publisher, on_shutdown

    def methods(self) -> Methods:
        """Return the service's table for the server."""
        handlers = {
            "State": self._state,
            "Start": self._lives.start,
            "Delete": self._lives.delete,
            "Pids": self._pids,
            "Pause": self._pause,
            "Resume": self._resume,
            "Checkpoint": self._checkpoint,
            "Kill": self._kill,
            "Exec": self._lives.exec,
            "ResizePty": self._resize,
            "CloseIO": self._close_io,
            "Update": self._update,
            "Wait": self._wait,
            "Stats": self._stats,
        }
        served = {name: self._lives.once_changed(handler) for name, handler in handlers.items()}
        served |= {"Create": self._lives.create, "Connect": self._connect, "Shutdown": self._shutdown}
        return {name: (*TASK_METHODS[name], handler) for name, handler in served.items()}

    def is_deserted(self) -> bool:
        """Return whether there is no container but such as have ended and whose bundles are gone."""
        containers = self._pod.containers.values()
        return not self._lives.changing and all(
            container.init.ended and not os.path.exists(container.place.bundle) for container in containers
        )

    # --- what is answered at once

    def _state(self, values: Values, call: Call) -> Values:
        container, process = self._pod.process(values)
        return container.state(process)

    def _connect(self, values: Values, call: Call) -> Values:
        container = self._pod.containers.get(values["id"])
        return {"shim_pid": os.getpid(), "task_pid": container.init.pid if container else 0}

    def _pids(self, values: Values, call: Call) -> Values:
        from ..linux import cgroup

        container = self._pod.container(values)
        return {"processes": container.processes(cgroup.pids(container.cgroup))}

    def _stats(self, values: Values, call: Call) -> Values:
        from . import usage

        return {"stats": usage.read(self._pod.container(values).cgroup)}

    def _resize(self, values: Values, call: Call) -> Values:
        container, process = self._pod.process(values)
        if process.streams is not None:
            process.streams.resize(values["width"], values["height"])
        if process is container.init:
            container.resize_guest(values["height"] & 0xFFFF, values["width"] & 0xFFFF)
        return {}

    def _close_io(self, values: Values, call: Call) -> Values:
        _, process = self._pod.process(values)
        if values["stdin"]:
            process.close_stdin()
        return {}

    def _checkpoint(self, values: Values, call: Call) -> Values:
        container = self._pod.container(values)
        raise StatusError(codes.UNIMPLEMENTED, f"cannot checkpoint `{container.id}`: urunc has no checkpoints")

    def _wait(self, values: Values, call: Call) -> Values | None:
        _, process = self._pod.process(values)
        if process.ended:
            return process.exit_values()
        process.waiting.append(call)
        call.on_cancel = lambda: process.waiting.remove(call)
        return None

    def _shutdown(self, values: Values, call: Call) -> Values:
        if not self._pod.containers and not self._lives.changing:
            self._on_shutdown()
        return {}

    # --- signals, pause, update

    def _kill(self, values: Values, call: Call) -> Values | None:
        container, process = self._pod.process(values)
        signum = values["signal"]
        if process.ended:
            raise StatusError(codes.NOT_FOUND, "process already finished")
        if process.exec_id:
            process.kill(signum)
            return {}
        if container.port is not None and process.status == RUNNING and signum not in _NOT_FOR_GUESTS:
            container.signal_guest(signum)
            return {}
        job = Job(verb="kill", place=container.place, arguments=(signum, values["all"]))
        process.kills += 1

        def done(outcome: Outcome) -> None:
            self._finish(outcome, call, container, "kill")
            process.kills -= 1
            self._pod.tell_early_end(container, process)

        self._pod.operate(container, job, done)
        return None

    def _pause(self, values: Values, call: Call) -> None:
        self._freeze(values, call, "pause", paused=True)

    def _resume(self, values: Values, call: Call) -> None:
        self._freeze(values, call, "resume", paused=False)

    def _freeze(self, values: Values, call: Call, verb: str, *, paused: bool) -> None:
        container = self._pod.container(values)
        if container.init.status == CREATED:
            raise StatusError(codes.FAILED_PRECONDITION, f"cannot {verb} `{container.id}`: it is not started")

        def done() -> None:
            container.paused = paused
            self._publisher.publish("/tasks/paused" if paused else "/tasks/resumed", {"container_id": container.id})

        self._run(call, container, Job(verb=verb, place=container.place), done)

    def _update(self, values: Values, call: Call) -> None:
        container = self._pod.container(values)
        resources = values["resources"]
        if resources is None:
            raise StatusError(codes.INVALID_ARGUMENT, f"cannot update `{container.id}`: no resources are given")
        try:
            text = resources["value"].decode()
        except UnicodeDecodeError as error:
            raise StatusError(codes.INVALID_ARGUMENT, f"the resources to update to are not JSON: {error}") from None
        self._run(call, container, Job(verb="update", place=container.place, arguments=(text,)))

    def _run(self, call: Call, container: Container, job: Job, done: Callable[[], None] = lambda: None) -> None:
        """Run an operation whose answer is empty."""
        self._pod.operate(container, job, lambda outcome: self._finish(outcome, call, container, job.verb, done))

    def _finish(
        self,
        outcome: Outcome,
        call: Call,
        container: Container,
        verb: str,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        """Answer for an operation whose answer is empty."""
        if outcome.error is not None:
            refuse(call, container.id, outcome.error, verb)
            return
        done()
        call.answer({})
