"""The container's first process: from the fork in `create` to execve(monitor).

Nothing is decided here, and nothing is imported once the root is pivoted: what init needs stands at the top of this
file, or is loaded by `create` before the fork (`load_hooks`, the console). Its orders come from the plan (by fork)
and the Launch (by the `go` message). A failure travels to `create` as one message, after `ready` to `start`; init
itself never writes to a log.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os

from .. import jsonio
from ..errors import KernelError, SpecError, reason
from ..linux import libc, mounts, ns, proc
from . import channel as wire
from . import monitor_root
from .init_words import STARTED
from .plan import Plan
from .timeline import Timeline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from ..oci.spec import Spec
    from .channel import Channel


class Orders:
    """What init inherits by the fork."""

    def __init__(
        self,
        *,
        spec: Spec,
        plan: Plan,
        channel: Channel,
        listener: int,
        waiting: int,
        dev_tree: int,
        files: list[tuple[str, int]],
        trees: list[tuple[str, int]],
        rootfs_tree: int,
        terminal: int,
        new_keyring: bool,
        filter_program: bytes | None,
    ) -> None:
        self.spec = spec
        self.plan = plan
        self.channel = channel
        self.listener = listener  # where `start` will connect
        self.waiting = waiting  # the file whose lock says: not yet executed
        self.dev_tree = dev_tree  # detached tmpfs with the monitor's device nodes
        self.files = files  # of the monitor: (target in its root, detached mount that has no attributes yet)
        self.trees = trees  # (target in the monitor's root, detached mount)
        self.rootfs_tree = rootfs_tree  # detached read-only clone of the rootfs, -1 without startContainer hooks
        self.terminal = terminal  # the console's slave end, -1 without a terminal
        self.new_keyring = new_keyring
        self.filter_program = filter_program  # seccomp, None without a profile

    def descriptors(self) -> list[int]:
        """Return every descriptor that init must keep."""
        mine = [self.channel.socket.fileno(), self.listener, self.waiting, self.dev_tree]
        mine += [fd for _target, fd in (*self.files, *self.trees)]
        mine += [fd for fd in (self.rootfs_tree, self.terminal) if fd >= 0]
        first = self.plan.machine.first_fd
        return mine + list(range(first))


def run(orders: Orders) -> NoReturn:
    """Be the container's first process. Never returns: ends in execve, or in _exit after sending the error."""
    speaker = orders.channel
    timeline = Timeline("init/begin")
    try:
        proc.close_all_but(orders.descriptors())
        _enter_namespaces(orders)
        _become_first(orders)
        timeline.done("init/namespaces")
        connection = _prepare(orders, timeline)
    except BaseException as error:
        _fail_create(speaker, error)
    try:
        _launch(orders, *connection)
    except BaseException as error:
        _fail_start(connection[0], error)


def _fail_create(speaker: Channel, error: BaseException) -> NoReturn:
    try:
        speaker.send("error", wire.error_data(error))
    finally:
        os._exit(1)


def _fail_start(connection: _socket.socket, error: BaseException) -> NoReturn:
    try:
        connection.sendall(jsonio.dumps(wire.error_data(error)))
    finally:
        os._exit(1)


def born_into(plan: Plan) -> tuple[str, ...]:
    """Return the new namespaces that `create` makes before the fork, which spares init one of its own.

    That is the pid namespace, where nothing that init does must come before it.
    """
    kinds = {*plan.namespaces, *(kind for kind, _path in plan.joins)}
    return ("pid",) if "pid" in plan.namespaces and not kinds & {"user", "time"} else ()


def _enter_namespaces(orders: Orders) -> None:
    """Join what is given by path, then make the rest; the user namespace first and alone.

    A namespace given by path belongs to the host's user namespace as a rule, so it is joined before the new
    user namespace takes the right to do so away. The id maps can be written only once that one is there, and
    the others must be made inside it.
    """
    plan = orders.plan
    _set_oom_score_adj(orders.spec.process.oom_score_adj)
    ns.join_all(plan.joins)
    if "user" in plan.namespaces:
        ns.unshare(("user",))
        orders.channel.send("user")
        _receive(orders.channel)  # maps
    if "user" in plan.namespaces or any(kind == "user" for kind, _path in plan.joins):
        proc.become(0, 0, None)
    # a joined mount namespace is others' too: copy it
    ns.unshare({*plan.namespaces, "mount"} - {"user", "cgroup", *born_into(plan)})
    if "time" in plan.namespaces:
        ns.set_time_offsets(orders.spec.time_offsets)


def _set_oom_score_adj(value: int | None) -> None:
    if value is None:
        return
    try:
        proc.set_oom_score_adj(value)
    except OSError as error:
        message = f"process.oomScoreAdj: cannot set {value}: {reason(error)}"
        raise KernelError(message, errno=error.errno or 0, hint="lowering it takes CAP_SYS_RESOURCE") from None


def _become_first(orders: Orders) -> None:
    """Fork into the pid namespace where init was not born in it; tell `create` the pid that the kernel sees."""
    kinds = {*orders.plan.namespaces, *(kind for kind, _path in orders.plan.joins)}
    if (kinds - {*born_into(orders.plan)}) & {"pid", "time"} and _fork(orders.plan):
        os._exit(0)
    fcntl.flock(_out_of_the_way(orders.waiting, orders.plan), fcntl.LOCK_EX)
    os.setsid()
    orders.channel.send("ns")


def _fork(plan: Plan) -> int:
    try:
        return os.fork()
    except OSError as error:
        path = dict(plan.joins).get("pid")
        if error.errno != errno.ENOMEM or not path:
            raise
        message = f"linux.namespaces: the first process of the pid namespace `{path}` has ended"
        raise SpecError(message) from None


def _receive(speaker: Channel) -> wire.Message:
    """Return the next message: which it must be, the channel's sequence says."""
    message = speaker.receive()
    if message is None:
        os._exit(1)  # `create` is gone: there is nobody to tell, and nothing may go on without its record
    return message


def _prepare(orders: Orders, timeline: Timeline) -> tuple[_socket.socket, dict[str, Any], list[int]]:
    """Do what `create` waits for, say ready, and wait for `start`. Return its connection and the Launch."""
    speaker, plan = orders.channel, orders.plan
    _receive(speaker)  # joined
    if "cgroup" in plan.namespaces:
        ns.unshare(("cgroup",))
    timeline.done("init/joined")
    order = _receive(speaker)  # go
    timeline.done("init/orders")
    launch = jsonio.loads(_read_memfd(order.fds[0]))
    fds = order.fds[1:]
    if orders.new_keyring:
        _leave_session_keyring()
    _set_names(orders)
    monitor_root.build(orders, launch)
    timeline.done("init/root")
    if launch["create_container"]:
        _run_hooks(launch["create_container"], launch["state"], "createContainer")
    timeline.done("init/hooks")
    mounts.enter_root(".") if plan.no_pivot else mounts.pivot(".")
    if orders.terminal >= 0:
        _take_terminal(orders.terminal)
    _set_scheduling(orders.spec)
    timeline.done("init/pivot")
    speaker.send("ready", {"timeline": timeline.ages()})
    speaker.close()
    return _await_start(orders), launch, fds


def _leave_session_keyring() -> None:
    """The monitor must not read the keys of whoever called urunc (`--no-new-keyring` keeps them)."""
    try:
        libc.new_session_keyring()
    except OSError as error:
        if error.errno != errno.ENOSYS:  # a kernel without keys has none to read
            raise


def _read_memfd(fd: int) -> bytes:
    with open(fd, "rb") as file:
        file.seek(0)
        return file.read()


def load_hooks(spec: Spec) -> None:
    """Import what runs the container's own hooks, where there are any: `create` does, before the fork."""
    if spec.hooks.create_container or spec.hooks.start_container:
        from . import hooks  # noqa: F401


def _run_hooks(
    data: list[dict[str, Any]], state: dict[str, Any], kind: str, prepare: Callable[[], None] | None = None
) -> None:
    from . import hooks

    hooks.run_hooks(tuple(hooks.from_data(item) for item in data), state, kind=kind, prepare=prepare)


def _set_names(orders: Orders) -> None:
    if "uts" not in orders.plan.namespaces:
        return
    if orders.spec.hostname:
        _socket.sethostname(orders.spec.hostname)
    if orders.spec.domainname:
        libc.setdomainname(orders.spec.domainname)


def _take_terminal(slave: int) -> None:
    from . import console  # which has opened it, in `create`

    console.attach(slave)


def _set_scheduling(spec: Spec) -> None:
    """Set what the monitor's threads inherit, and startContainer hooks; no policy with SCHED_FLAG_RESET_ON_FORK.

    Before `ready`, so that what the kernel refuses is an error of `create`.
    """
    process, memory, name = spec.process, spec.memory_policy, ""
    try:
        if process.scheduler is not None:
            name, one = "process.scheduler", process.scheduler
            times = (one.runtime, one.deadline, one.period)
            libc.sched_setattr(one.policy, one.flags, one.nice, one.priority, times)
        if process.io_priority is not None:
            name = "process.ioPriority"
            libc.ioprio_set(process.io_priority)
        if memory is not None:
            name = "linux.memoryPolicy"
            libc.set_mempolicy(memory.mode, memory.nodes)
    except OSError as error:
        hint = "it may take CAP_SYS_NICE, also outside of a new user namespace" if error.errno == errno.EPERM else None
        raise KernelError(f"{name}: cannot be set: {reason(error)}", errno=error.errno or 0, hint=hint) from None


def _await_start(orders: Orders) -> _socket.socket:
    server = _socket.socket(fileno=orders.listener)
    fd, _address = server._accept()  # type: ignore[attr-defined]  # what socket.accept is made of
    server.close()
    return _socket.socket(fileno=_out_of_the_way(fd, orders.plan))


def _launch(orders: Orders, connection: _socket.socket, launch: dict[str, Any], fds: list[int]) -> NoReturn:
    """Run the startContainer hooks, give up every privilege, and execute the monitor."""
    plan = orders.plan
    if orders.rootfs_tree >= 0:
        state = {**launch["state"], "status": "created"}
        _run_hooks(launch["start_container"], state, "startContainer", lambda: _become_hook(orders))
    _place_descriptors(fds, plan.machine.first_fd)
    _give_up_rights(orders)
    proc.reset_signals()
    _filter_calls(orders)
    connection.sendall(STARTED)
    argv = launch["argv"]
    env = dict(item.split("=", 1) for item in launch["env"])
    try:
        os.execve(argv[0], argv, env)  # noqa: S606  # the point of it all
    except OSError as error:
        raise KernelError(f"cannot execute the monitor `{argv[0]}`: {reason(error)}") from None


def _become_hook(orders: Orders) -> None:
    """A startContainer hook is a program of the image, so it has no more rights than the container's process."""
    os.fchdir(orders.rootfs_tree)
    os.chroot(".")
    _give_up_rights(orders)
    _filter_calls(orders)


def _give_up_rights(orders: Orders) -> None:
    """Take the process's limits, umask and user, and give up every capability for good."""
    process, user = orders.spec.process, orders.spec.process.user
    proc.set_rlimits((limit.kind, limit.soft, limit.hard) for limit in process.rlimits)
    os.umask(user.umask if user.umask is not None else 0o022)
    libc.drop_bounding_set()
    proc.become(user.uid, user.gid, user.groups)
    libc.capset_none()
    libc.set_no_new_privs()


def _filter_calls(orders: Orders) -> None:
    if orders.filter_program is not None:
        from ..linux import seccomp  # which has compiled the program, in `create`

        seccomp.install(orders.filter_program, seccomp.filter_flags(orders.spec.seccomp or {}))


def _place_descriptors(fds: list[int], first: int) -> None:
    """Move the Launch's descriptors to their numbers; everything else closes at execve."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, first + len(fds)) for fd in fds]
    for index, fd in enumerate(high):
        os.dup2(fd, first + index, inheritable=True)
    proc.close_at_exec(first + len(fds))


def _out_of_the_way(fd: int, plan: Plan) -> int:
    """Return `fd` under a number that no descriptor of a Launch will have."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, plan.machine.first_fd + wire.MAX_FDS)
    os.close(fd)
    return moved
