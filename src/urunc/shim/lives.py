"""How the processes of a pod come and go: Create, Start, Exec and Delete, and what has to wait meanwhile.

Each is an operation, answered once that is through; the event that tells of it follows.
"""

from __future__ import annotations

import os

from .. import jsonio, log
from ..errors import UruncError, reason
from . import codes, io, messages, options, places
from .child import Job
from .codes import StatusError
from .messages import CREATED, RUNNING
from .oom import OomWatch
from .places import DEFAULT_ROOT, Place
from .process import Container, Process
from .wire import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .children import Children
    from .events import Publisher
    from .loop import Loop
    from .operation import Done, Operations, Outcome
    from .pod import Pod
    from .ttrpc import Call, Handler
    from .wire import Values


class Lives:
    """The calls that make and end the processes of `pod`, whose shim listens at `socket`."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        operations: Operations,
        publisher: Publisher,
        pod: Pod,
        namespace: str,
        socket: str,
    ) -> None:
        self._loop, self._children = loop, children
        self._operations, self._publisher, self._pod = operations, publisher, pod
        self._namespace, self._socket = namespace, socket
        self.changing: dict[str, list[Callable[[], None]]] = {}
        """The containers that are being created or deleted, each with the calls that wait for it."""

    def once_changed(self, handler: Handler) -> Handler:
        """Have a call wait while its container is being created, or deleted.

        What was begun during a delete might come to the next container of that id. And a client's input may end before
        a create is through. Were its CloseIO then answered that there is no such container, the process would wait for
        the end of its input for ever.
        """

        def serve(values: Values, call: Call) -> Values | None:
            waiting = self.changing.get(values["id"])
            if waiting is None:
                return handler(values, call)
            waiting.append(lambda: call.serve(serve, values))
            return None

        return serve

    # --- create

    def create(self, values: Values, call: Call) -> None:
        """Serve Create."""
        name = values["id"]
        if name in self._pod.containers or name in self.changing:
            raise StatusError(codes.ALREADY_EXISTS, f"container `{name}` exists")
        if values["checkpoint"]:
            raise StatusError(codes.UNIMPLEMENTED, f"cannot restore `{name}`: urunc has no checkpoints")
        place = self._place(values)
        streams = self._open_streams(values, place, "create")
        self.changing[name] = []
        job = Job(verb="create", place=place, arguments=(values["rootfs"], values["terminal"]), strict=streams.strict)

        def done(outcome: Outcome) -> None:
            waiting = self.changing.pop(name)
            self._created(values, call, place, Process("", values, streams), outcome)
            for serve in waiting:
                serve()

        self._run_with(self._operations.run, job, streams, done)

    def _place(self, values: Values) -> Place:
        try:
            asked = options.read(values["options"])
        except UruncError as error:
            raise codes.of_error(error, "create") from None
        place = Place(
            id=values["id"],
            bundle=values["bundle"],
            root=f"{asked.root or DEFAULT_ROOT}/{self._namespace}",
            delegate=asked.binary if os.path.basename(asked.binary) != "urunc" else "",
            systemd=asked.systemd,
            no_pivot=asked.no_pivot,
            no_new_keyring=asked.no_new_keyring,
            config=asked.config,
            io_uid=asked.io_uid,
            io_gid=asked.io_gid,
        )
        try:
            places.save_place(place)
        except OSError as error:
            message = f"cannot write into the bundle `{place.bundle}`: {reason(error)}"
            raise StatusError(codes.UNKNOWN, message) from None
        return place

    def _open_streams(self, values: Values, place: Place, verb: str) -> io.Streams:
        owner = io.Owner(self._namespace, place.id, place.io_uid, place.io_gid)
        try:
            return io.open_streams(self._loop, self._children, values, owner)
        except UruncError as error:
            raise codes.of_error(error, verb) from None

    def _created(self, values: Values, call: Call, place: Place, init: Process, outcome: Outcome) -> None:
        if outcome.error is not None:
            init.release()
            refuse(call, place.id, outcome.error, "create")
            return
        init.pid = outcome.values["pid"]
        call.answer({"pid": init.pid})
        if outcome.values.get("delegate", place.delegate) != place.delegate:
            place = self._with_delegate(place, outcome.values["delegate"])
        container = Container(place, init, outcome.values)
        self._pod.containers[place.id] = container
        if init.streams is not None and outcome.fd >= 0:
            init.streams.attach(outcome.fd)
        if outcome.values["stop"] == "control":
            container.open_port(self._loop)
        container.oom = OomWatch(self._loop, container.cgroup, lambda: self._tell_oom(container))
        self._publisher.publish(
            "/tasks/create",
            {
                "container_id": place.id,
                "bundle": place.bundle,
                "rootfs": values["rootfs"],
                "io": init.asked,
                "pid": init.pid,
            },
        )
        self._children.watch(init.pid, lambda status, when: self._pod.init_ended(container, status, when))

    def _with_delegate(self, place: Place, delegate: str) -> Place:
        """Keep which program has made a container: that one knows it, whatever the configuration says next."""
        place = place.replace(delegate=delegate)
        try:
            places.save_place(place)
        except OSError as error:
            log.warn(f"cannot write into the bundle `{place.bundle}`: {reason(error)}")
        return place

    def _tell_oom(self, container: Container) -> None:
        self._publisher.publish("/tasks/oom", {"container_id": container.id})

    # --- start and exec

    def start(self, values: Values, call: Call) -> None:
        """Serve Start, of a container's first process or of one that Exec has named."""
        container, process = self._pod.process(values)
        if process.status != CREATED or process.starting:
            raise StatusError(
                codes.FAILED_PRECONDITION, f"cannot start `{_name(container, process)}`: it was started already"
            )
        process.starting = True
        if process.exec_id:
            self._start_exec(container, process, call)
            return
        job = Job(verb="start", place=container.place)
        self._pod.operate(container, job, lambda outcome: self._started(container, process, call, outcome))

    def _started(self, container: Container, process: Process, call: Call, outcome: Outcome) -> None:
        process.starting = False
        if outcome.error is not None:
            refuse(call, container.id, outcome.error, "exec" if process.exec_id else "start")
        else:
            process.status = RUNNING
            call.answer({"pid": process.pid})
            values = {"container_id": container.id, "pid": process.pid}
            if process.exec_id:
                self._publisher.publish("/tasks/exec-started", {**values, "exec_id": process.exec_id})
            else:
                self._publisher.publish("/tasks/start", values)
        self._pod.tell_early_end(container, process)

    def exec(self, values: Values, call: Call) -> Values:
        """Serve Exec, which names a process of an ordinary container; Start makes it."""
        container, exec_id = self._pod.container(values), values["exec_id"]
        if container.place.ours:
            raise StatusError(
                codes.UNIMPLEMENTED,
                f"cannot exec in `{container.id}`: a unikernel has one process, and no second can be started in it",
            )
        if not exec_id:
            raise StatusError(codes.INVALID_ARGUMENT, f"cannot exec in `{container.id}`: the process has no id")
        if exec_id in container.execs:
            raise StatusError(codes.ALREADY_EXISTS, f"container `{container.id}` has a process `{exec_id}`")
        if container.is_paused:
            raise StatusError(codes.FAILED_PRECONDITION, f"cannot exec in `{container.id}`: container is paused")
        try:
            spec = jsonio.loads(values["spec"]["value"] if values["spec"] else b"")
        except ValueError as error:
            raise StatusError(codes.INVALID_ARGUMENT, f"the process to exec is not JSON: {error}") from None
        if not isinstance(spec, dict):
            raise StatusError(codes.INVALID_ARGUMENT, "the process to exec is not a JSON object")
        container.execs[exec_id] = Process(exec_id, values, spec=spec)
        self._publisher.publish("/tasks/exec-added", {"container_id": container.id, "exec_id": exec_id})
        return {}

    def _start_exec(self, container: Container, process: Process, call: Call) -> None:
        try:
            streams = self._open_streams(process.asked, container.place, "exec")
        except StatusError:
            process.starting = False
            raise
        process.take_streams(streams)
        arguments = (process.spec, process.asked["terminal"])
        job = Job(verb="execute", place=container.place, arguments=arguments, strict=streams.strict)

        def done(outcome: Outcome) -> None:
            if outcome.error is None:
                process.pid = outcome.values["pid"]
                if outcome.fd >= 0:
                    streams.attach(outcome.fd)
                self._children.watch(process.pid, lambda *end: self._pod.ended(container, process, *end))
            self._started(container, process, call, outcome)

        def run(job: Job, done: Done, **options: Any) -> None:
            self._pod.operate(container, job, done, **options)

        self._run_with(run, job, streams, done)

    def _run_with(self, run: Callable[..., None], job: Job, streams: io.Streams, done: Done) -> None:
        """Run an operation that has these streams."""
        run(job, done, stdio=streams.stdio, ready=streams.ready, bundle=job.place.bundle)
        streams.close_child()

    # --- delete

    def delete(self, values: Values, call: Call) -> Values | None:
        """Serve Delete, of a container or of what Exec has named."""
        container, process = self._pod.process(values)
        if process.starting or (process.pid and process.status == RUNNING):
            raise StatusError(codes.FAILED_PRECONDITION, f"cannot delete `{_name(container, process)}`: it is running")
        if process.exec_id:
            process.release()
            del container.execs[process.exec_id]
            return {"pid": process.pid, **process.exit_values()}
        job = Job(verb="delete", place=container.place, arguments=(False,))

        def done(outcome: Outcome) -> None:
            waiting = self.changing.pop(container.id)
            self._deleted(container, call, outcome)
            for serve in waiting:
                serve()

        self.changing[container.id] = []
        container.when_idle(lambda: self._operations.run(job, done))
        return None

    def _deleted(self, container: Container, call: Call, outcome: Outcome) -> None:
        init = container.init
        if outcome.error is not None and not codes.is_gone(outcome.error):
            refuse(call, container.id, outcome.error, "delete")
            return
        del self._pod.containers[container.id]
        container.close()
        answer = {"pid": init.pid, **init.exit_values()}
        encoded = encode(messages.DELETE_RESPONSE, answer)
        places.note_deleted(
            container.place.bundle, encoded, "" if self._pod.containers or self.changing else self._socket
        )
        call.answer(answer)
        self._publisher.publish("/tasks/delete", {"container_id": container.id, **answer})


def refuse(call: Call, name: str, error: UruncError, verb: str) -> None:
    """Answer that a verb of the runtime failed."""
    status = codes.of_error(error, verb)
    log.warn(f"{verb} `{name}`: {error}")
    call.fail(status.code, status.message)


def _name(container: Container, process: Process) -> str:
    """Return what a process is called in an error."""
    return process.exec_id or container.id
