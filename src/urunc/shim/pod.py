"""The containers of a pod, and how the ends of their processes are told: after all that came before them.

Must not know what containerd asks: that is `task`.
"""

from __future__ import annotations

from _signal import SIGKILL  # type: ignore[import-not-found]

from .child import Job
from .codes import NOT_FOUND, StatusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .events import Publisher
    from .operation import Done, Operations, Outcome
    from .process import Container, Process
    from .wire import Values


class Pod:
    """The containers by their ids. What ends is told to containerd by `publisher`, and to whoever waits."""

    def __init__(self, operations: Operations, publisher: Publisher) -> None:
        self.containers: dict[str, Container] = {}

        self._operations, self._publisher = operations, publisher

    def container(self, values: Values) -> Container:
        """Return the container that a request names. Raises StatusError."""
        container = self.containers.get(values["id"])
        if container is None:
            raise StatusError(NOT_FOUND, f"container `{values['id']}` is not created")
        return container

    def process(self, values: Values) -> tuple[Container, Process]:
        """Return the container and the process that a request names. Raises StatusError."""
        container = self.container(values)
        process = container.process(values["exec_id"])
        if process is None:
            raise StatusError(NOT_FOUND, f"container `{container.id}` has no process `{values['exec_id']}`")
        return container, process

    def init_ended(self, container: Container, status: int, when: int) -> None:
        """Take the end of a container's first process: exit status, and nanoseconds since the epoch."""
        if container.port is not None:
            container.port.read()
            status = container.port.status(status)
            container.port.close()
        if not container.place.ours and not container.init.starting:
            self._end_others(container)
        if any(process.pid and not process.ended for process in container.execs.values()):
            container.deferred_end = (status, when)
            return
        self.ended(container, container.init, status, when)

    def _end_others(self, container: Container) -> None:
        """Without a process namespace of its own, a container's other processes do not end with its first one."""
        from ..linux import cgroup

        if cgroup.pids(container.cgroup):
            self.operate(container, Job(verb="kill", place=container.place, arguments=(SIGKILL, True)), _ignore)

    def operate(self, container: Container, job: Job, done: Done, **options: Any) -> None:
        """Run an operation on a container, which is not deleted before its end."""

        def finished(outcome: Outcome) -> None:
            try:
                done(outcome)
            finally:
                container.finish()

        container.begin()
        self._operations.run(job, finished, **options)

    def ended(self, container: Container, process: Process, status: int, when: int) -> None:
        """Take the end of any process. One that comes during its start or a Kill is told after that."""
        if process.starting or process.kills:
            process.early_end = (status, when)
            return
        if not process.exec_id:
            self._last_look(container)
        process.end(status, when)
        if self.containers.get(container.id) is container:  # one deleted before its start is not told any more
            self._tell_exit(container, process)
        for call in process.waiting:
            call.answer(process.exit_values())
        process.waiting.clear()
        if not process.exec_id:
            self._operations.prepare("delete", ours=container.place.ours)
        if process.exec_id and container.deferred_end is not None:
            end, container.deferred_end = container.deferred_end, None
            self.init_ended(container, *end)

    def tell_early_end(self, container: Container, process: Process) -> None:
        """Tell of an end that came before the answer that had to go first, unless another has to."""
        if process.early_end is not None and not process.starting and not process.kills:
            end, process.early_end = process.early_end, None
            self.ended(container, process, *end)

    def _tell_exit(self, container: Container, process: Process) -> None:
        self._publisher.publish(
            "/tasks/exit",
            {
                "container_id": container.id,
                "id": process.exec_id or container.id,
                "pid": process.pid,
                **process.exit_values(),
            },
        )

    def _last_look(self, container: Container) -> None:
        """Tell of a death for want of memory before the end itself, which may be noticed first."""
        if container.oom is not None:
            container.oom.look()
            container.oom.close()
            container.oom = None


def _ignore(_outcome: Outcome) -> None:
    """Nobody waits for this."""
