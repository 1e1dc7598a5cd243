"""containerd.task.v2.Task: what containerd asks of the containers of one pod.

A handler answers from what the shim knows, or starts an operation and answers when it is through. The events go
out in the order of the things they tell. Behaves as containerd's own shim, status codes included.
"""

from __future__ import annotations

import os

from .. import jsonio, log
from ..errors import UruncError, reason
from ..linux import cgroup
from . import codes, io, messages, options, work
from .codes import StatusError
from .messages import RUNNING, TASK_METHODS
from .oom import OomWatch
from .places import DEFAULT_ROOT, Place, read_delegate, save_place
from .pod import Pod
from .process import Container, Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .children import Children
    from .events import Publisher
    from .loop import Loop
    from .operation import Body, Done, Operations, Outcome
    from .ttrpc import Call, Handler, Methods
    from .wire import Values

_SIGKILL = 9
_NOT_FOR_GUESTS = (0, _SIGKILL, 18, 19)
"""Signals that the monitor itself gets: the question whether it is there, KILL, CONT and STOP."""


class Service:
    """The service of one pod. `on_shutdown` is called once the last is gone and containerd says Shutdown."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        operations: Operations,
        publisher: Publisher,
        namespace: str,
        delegate: str,
        on_shutdown: Callable[[], None],
    ) -> None:
        self._loop, self._children = loop, children
        self._operations, self._publisher = operations, publisher
        self._namespace, self._delegate = namespace, delegate
        self._on_shutdown = on_shutdown
        self._pod = Pod(operations, publisher)
        self._changing: dict[str, list[Callable[[], None]]] = {}
        """The containers that are being created or deleted, each with the calls that wait for it."""

    def methods(self) -> Methods:
        """Return the service's table for the server."""
        handlers = {
            "State": self._state,
            "Start": self._start,
            "Delete": self._delete,
            "Pids": self._pids,
            "Pause": self._pause,
            "Resume": self._resume,
            "Checkpoint": self._checkpoint,
            "Kill": self._kill,
            "Exec": self._exec,
            "ResizePty": self._resize,
            "CloseIO": self._close_io,
            "Update": self._update,
            "Wait": self._wait,
            "Stats": self._stats,
        }
        served = {name: self._once_changed(handler) for name, handler in handlers.items()}
        served |= {"Create": self._create, "Connect": self._connect, "Shutdown": self._shutdown}
        return {name: (*TASK_METHODS[name], handler) for name, handler in served.items()}

    def is_deserted(self) -> bool:
        """Return whether there is no container but such as have ended and whose bundles are gone."""
        containers = self._pod.containers.values()
        return not self._changing and all(
            container.init.ended and not os.path.exists(container.place.bundle) for container in containers
        )

    def _once_changed(self, handler: Handler) -> Handler:
        """Have a call wait while its container is being created, or deleted.

        What was begun during a delete might come to the next container of that id. And a client's input may end before
        a create is through. Were its CloseIO then answered that there is no such container, the process would wait for
        the end of its input for ever.
        """

        def serve(values: Values, call: Call) -> Values | None:
            waiting = self._changing.get(values["id"])
            if waiting is None:
                return handler(values, call)
            waiting.append(lambda: call.serve(serve, values))
            return None

        return serve

    # --- what is answered at once

    def _state(self, values: Values, call: Call) -> Values:
        container, process = self._pod.process(values)
        return container.state(process)

    def _connect(self, values: Values, call: Call) -> Values:
        container = self._pod.containers.get(values["id"])
        return {"shim_pid": os.getpid(), "task_pid": container.init.pid if container else 0}

    def _pids(self, values: Values, call: Call) -> Values:
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
        if not self._pod.containers and not self._changing:
            self._loop.later(0, self._on_shutdown)
        return {}

    # --- create

    def _create(self, values: Values, call: Call) -> None:
        name = values["id"]
        if name in self._pod.containers or name in self._changing:
            raise StatusError(codes.ALREADY_EXISTS, f"container `{name}` exists")
        if values["checkpoint"]:
            raise StatusError(codes.UNIMPLEMENTED, f"cannot restore `{name}`: urunc has no checkpoints")
        place = self._place(values)
        streams = self._open_streams(values, place, "create")
        self._changing[name] = []
        mounts, terminal = values["rootfs"], values["terminal"]

        def done(outcome: Outcome) -> None:
            waiting = self._changing.pop(name)
            self._created(values, call, place, Process("", values, streams), outcome)
            for serve in waiting:
                serve()

        self._run_with(self._operations.run, place, streams, lambda: work.create(place, mounts, terminal), done)

    def _place(self, values: Values) -> Place:
        try:
            asked = options.read(values["options"])
            delegate = read_delegate(asked.config) if asked.config else self._delegate
        except UruncError as error:
            raise codes.of_error(error, "create") from None
        place = Place(
            id=values["id"],
            bundle=values["bundle"],
            root=f"{asked.root or DEFAULT_ROOT}/{self._namespace}",
            delegate=asked.binary if asked.binary and os.path.basename(asked.binary) != "urunc" else delegate,
            systemd=asked.systemd,
            no_pivot=asked.no_pivot,
            no_new_keyring=asked.no_new_keyring,
            config=asked.config,
            io_uid=asked.io_uid,
            io_gid=asked.io_gid,
        )
        try:
            save_place(place)
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
            self._refuse(call, place.id, outcome.error, "create")
            return
        container = Container(place, init, outcome.values)
        init.pid = outcome.values["pid"]
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
        call.answer({"pid": init.pid})
        self._children.watch(init.pid, lambda status, when: self._pod.init_ended(container, status, when))

    def _tell_oom(self, container: Container) -> None:
        self._publisher.publish("/tasks/oom", {"container_id": container.id})

    # --- start and exec

    def _start(self, values: Values, call: Call) -> None:
        container, process = self._pod.process(values)
        if process.status != messages.CREATED or process.starting:
            raise StatusError(
                codes.FAILED_PRECONDITION, f"cannot start `{_name(container, process)}`: it was started already"
            )
        process.starting = True
        if process.exec_id:
            self._start_exec(container, process, call)
            return
        place = container.place
        self._pod.operate(
            container, lambda: work.start(place), lambda outcome: self._started(container, process, call, outcome)
        )

    def _started(self, container: Container, process: Process, call: Call, outcome: Outcome) -> None:
        process.starting = False
        if outcome.error is not None:
            self._refuse(call, container.id, outcome.error, "exec" if process.exec_id else "start")
        else:
            process.status = RUNNING
            values = {"container_id": container.id, "pid": process.pid}
            if process.exec_id:
                self._publisher.publish("/tasks/exec-started", {**values, "exec_id": process.exec_id})
            else:
                self._publisher.publish("/tasks/start", values)
            call.answer({"pid": process.pid})
        self._pod.tell_early_end(container, process)

    def _exec(self, values: Values, call: Call) -> Values:
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
        place, spec, terminal = container.place, process.spec, process.asked["terminal"]
        try:
            streams = self._open_streams(process.asked, container.place, "exec")
        except StatusError:
            process.starting = False
            raise
        process.take_streams(streams)

        def done(outcome: Outcome) -> None:
            if outcome.error is None:
                process.pid = outcome.values["pid"]
                if outcome.fd >= 0:
                    streams.attach(outcome.fd)
                self._children.watch(process.pid, lambda *end: self._pod.ended(container, process, *end))
            self._started(container, process, call, outcome)

        def run(body: Body, done: Done, **options: Any) -> None:
            self._pod.operate(container, body, done, **options)

        self._run_with(run, place, streams, lambda: work.execute(place, spec, terminal), done)

    def _run_with(self, run: Callable[..., None], place: Place, streams: io.Streams, body: Body, done: Done) -> None:
        """Run an operation that has these streams, and begins once their logger, where one is, is ready."""

        def begin() -> tuple[dict[str, Any], int]:
            if streams.ready >= 0:
                io.await_logger(streams.ready, streams.strict)
            return body()

        run(begin, done, stdio=streams.stdio, keep=(streams.ready,), bundle=place.bundle)
        streams.close_child()

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
        place, everything = container.place, values["all"]
        process.kills += 1

        def done(outcome: Outcome) -> None:
            self._finish(outcome, call, container, "kill")
            process.kills -= 1
            self._pod.tell_early_end(container, process)

        self._pod.operate(container, lambda: work.kill(place, signum, everything), done)
        return None

    def _pause(self, values: Values, call: Call) -> None:
        self._freeze(values, call, "pause", paused=True)

    def _resume(self, values: Values, call: Call) -> None:
        self._freeze(values, call, "resume", paused=False)

    def _freeze(self, values: Values, call: Call, verb: str, *, paused: bool) -> None:
        container = self._pod.container(values)
        place = container.place
        if container.init.status == messages.CREATED:
            raise StatusError(codes.FAILED_PRECONDITION, f"cannot {verb} `{container.id}`: it is not started")

        def done() -> None:
            container.paused = paused
            self._publisher.publish("/tasks/paused" if paused else "/tasks/resumed", {"container_id": container.id})

        self._run(call, container, verb, lambda: work.freeze(place, verb), done)

    def _update(self, values: Values, call: Call) -> None:
        container = self._pod.container(values)
        place, resources = container.place, values["resources"]
        if resources is None:
            raise StatusError(codes.INVALID_ARGUMENT, f"cannot update `{container.id}`: no resources are given")
        self._run(call, container, "update", lambda: work.update(place, resources["value"]))

    def _run(
        self,
        call: Call,
        container: Container,
        verb: str,
        body: Body,
        done: Callable[[], None] = lambda: None,
    ) -> None:
        """Run an operation whose answer is empty."""

        self._pod.operate(container, body, lambda outcome: self._finish(outcome, call, container, verb, done))

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
            self._refuse(call, container.id, outcome.error, verb)
            return
        done()
        call.answer({})

    # --- delete

    def _delete(self, values: Values, call: Call) -> Values | None:
        container, process = self._pod.process(values)
        if process.starting or (process.pid and process.status == RUNNING):
            raise StatusError(codes.FAILED_PRECONDITION, f"cannot delete `{_name(container, process)}`: it is running")
        if process.exec_id:
            process.release()
            del container.execs[process.exec_id]
            return {"pid": process.pid, **process.exit_values()}
        place = container.place

        def done(outcome: Outcome) -> None:
            waiting = self._changing.pop(container.id)
            self._deleted(container, call, outcome)
            for serve in waiting:
                serve()

        self._changing[container.id] = []
        container.when_idle(lambda: self._operations.run(lambda: work.delete(place, force=False), done))
        return None

    def _deleted(self, container: Container, call: Call, outcome: Outcome) -> None:
        init = container.init
        if outcome.error is not None and not codes.is_gone(outcome.error):
            self._refuse(call, container.id, outcome.error, "delete")
            return
        del self._pod.containers[container.id]
        container.close()
        values = {"container_id": container.id, "pid": init.pid, **init.exit_values()}
        self._publisher.publish("/tasks/delete", values)
        call.answer({"pid": init.pid, **init.exit_values()})

    def _refuse(self, call: Call, name: str, error: UruncError, verb: str) -> None:
        status = codes.of_error(error, verb)
        log.warn(f"{verb} `{name}`: {error}")
        call.fail(status.code, status.message)


def _name(container: Container, process: Process) -> str:
    return process.exec_id or container.id
