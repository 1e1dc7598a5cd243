"""`create`, as a list of calls: from the claimed id to an init that waits for `start`.

The order is the design: every step's undo is in the record before the step is done, init makes nothing whose
name the record does not hold, and a failure anywhere clears everything. The network is looked at, and the
Launch made, here and not in init: the parent still has the host's rights, whatever user namespace init is in.
"""

from __future__ import annotations

import os
from _signal import SIGKILL  # type: ignore[import-not-found]
from errno import EMFILE

from .. import log
from ..errors import HostError, KernelError, SpecError, UruncError, UsageError, describe
from ..linux import atomic, cgroup, cgroup_files, libc, ns, proc
from . import assemble, first_record, go_message, handover, image, inherit, init, status, store, streams
from . import channel as wire
from . import plan as plans
from .inherit import Descriptors
from .store import Container
from .timeline import Timeline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..oci.spec import IdMap
    from ..vm.storage import Device
    from .channel import Channel, Message
    from .load import Request
    from .options import Options
    from .plan_devices import Node

_OPEN_FILES = 256  # three times as many as a create with QEMU takes


def create(
    root: str, options: Options, request: Request, take_terminal: Callable[[int], None] | None = None
) -> Container:
    """Make the container, up to an init that waits for `start`. Raises what failed, with nothing left behind.

    `take_terminal` gets the console's master end, which is then the caller's, where no console socket does.
    """
    if request.config.log_level:
        log.set_level(request.config.log_level)
    if os.geteuid() != 0:
        raise HostError(
            "only root can create a virtual machine's sandbox: there is no rootless urunc",
            hint="the monitor itself need not be root: see process.user",
        )
    _check_console(options, request, stays=take_terminal is not None)
    _check_preserved(options.preserve_fds)
    if not request.spec.process.terminal:
        streams.part()
    container = first_record.make(request, options)
    with store.claim(root, container):
        return _Creation(root, request, options, container, take_terminal).run()


def _check_console(options: Options, request: Request, *, stays: bool) -> None:
    terminal = request.spec.process.terminal
    if terminal and not options.console_socket and not stays:
        raise SpecError("process.terminal: a terminal needs --console-socket where urunc does not stay")
    if options.console_socket and not terminal:
        raise SpecError("process.terminal: --console-socket is given, but no terminal is asked for")


def _check_preserved(count: int) -> None:
    """Raise UsageError where a descriptor of --preserve-fds is not there, or urunc's own: init would hold its lock."""
    for fd in range(3, 3 + count):
        try:
            inherited = os.get_inheritable(fd)  # as none of urunc's own is
        except OSError:
            inherited = False
        if not inherited:
            raise UsageError(f"flag `--preserve-fds`: descriptor {fd} of {count} is not open")


class _Creation:
    """One `create` at work: what its steps share."""

    def __init__(
        self,
        root: str,
        request: Request,
        options: Options,
        container: Container,
        take_terminal: Callable[[int], None] | None,
    ) -> None:
        self.root, self.place = root, store.folder(root, container.id)
        self.request, self.options = request, options
        self.spec, self.plan = request.spec, request.plan
        self.container = container
        self.take_terminal = take_terminal
        self.timeline = Timeline("begin", request.began)
        self.speaker: Channel | None = None
        self.master = -1
        self.network = -1  # init's namespace, once it was opened
        self.child = 0  # what was forked; init's own pid, after a second fork, is in the record
        self.held = Descriptors()  # what keeps the disks' devices there
        self.disks: dict[str, int] = {}  # path in the monitor's root -> descriptor
        self.hooks_began = False
        self.pid_file_written = False

    def run(self) -> Container:
        """Do every step. On a failure clear what was done and raise it."""
        try:
            for message in self.plan.warnings:
                log.warn(message)
            for message in self.plan.messages:
                log.info(message)
            self._steps()
        except BaseException as error:
            self._give_up()
            raise self._explained(error) from None
        finally:
            self._close()
        return self.container

    def _steps(self) -> None:
        self.timeline.done("plan")
        speaker = self._fork()
        self.timeline.done("fork")
        self._write_id_maps(speaker)
        self._join(speaker)
        self.timeline.done("join")
        if self.spec.net_devices:
            self._take_net_devices()
        self._run_runtime_hooks()
        self.timeline.done("hooks")
        self._go(speaker)
        self.timeline.done("network")
        self.timeline.take(self._expect(speaker, "ready").data.get("timeline", []))
        self.timeline.done("root")
        self._hand_over()

    def _fork(self) -> Channel:
        """Fork init; what only it needs is closed here at once."""
        libc.load()
        init.load_hooks(self.spec)
        inherited = Descriptors()
        self.speaker, theirs = wire.pair(user_namespace="user" in self.plan.namespaces)
        try:
            self.master, slave = inherit.open_terminal(self.request, inherited)
            nodes = self._open_images() if self.plan.disks else ()
            orders = inherit.open_all(
                self.request,
                self.place,
                theirs,
                slave,
                store.cache(self.root),
                inherited,
                new_keyring=not self.options.no_new_keyring,
                nodes=nodes,
            )
            if self.plan.device:
                self._take_device(self.plan.device)
            with ns.for_next_child(init.born_into(self.plan)):
                self.child = os.fork()
                if self.child == 0:
                    init.run(orders)
        finally:
            theirs.close()
            inherited.close()
        return self.speaker

    def _open_images(self) -> tuple[Node, ...]:
        from . import storage

        rootfs = image.open_rootfs(self.plan.rootfs)
        try:
            self.disks = storage.open_images(rootfs, self.plan, self.held)
        finally:
            os.close(rootfs)
        nodes = storage.loop_nodes(self.plan, self.disks)
        if nodes:
            self.plan = plans.allow(self.plan, self.spec, self.request.facts.cgroup_version, nodes)
        return nodes

    def _take_device(self, device: Device) -> None:
        """Take the rootfs's device for the guest: init must not exist yet, whose mount namespace would hold it too."""
        from . import storage

        self.disks[self.plan.disks[0].path] = storage.take_device(self.plan, device, self.held)
        self.timeline.done("device")

    def _expect(self, speaker: Channel, kind: str) -> Message:
        message = speaker.receive()
        if message is None:
            raise self._ended(f"it was `{kind}`")
        return message

    def _ended(self, before: str) -> KernelError:
        return KernelError(f"init ended before {before}{self._how_it_ended()}")

    def _how_it_ended(self) -> str:
        """Return why a dead init died, as far as the kernel tells."""
        if cgroup_files.oom_count(self.container.cgroup):
            return ": out of memory within linux.resources.memory.limit"
        return ""

    def _write_id_maps(self, speaker: Channel) -> None:
        if "user" not in self.plan.namespaces:
            return
        from ..linux import idmap

        pid = self._expect(speaker, "user").pid
        idmap.write_maps(pid, _lines(self.plan.uid_maps), _lines(self.plan.gid_maps))
        speaker.send("maps")

    def _join(self, speaker: Channel) -> None:
        """Put init into the cgroup and its pid into the record, before it may do anything that costs or lasts."""
        pid = self._expect(speaker, "ns").pid
        self.container = self.container.replace(pid=pid, start_time=proc.start_time(pid) or 0)
        self._enter_cgroup(pid)
        store.save(self.root, self.container)
        if self.child != pid:
            os.waitpid(self.child, 0)  # the middle process ended after its fork
            self.child = 0
        speaker.send("joined")

    def _enter_cgroup(self, pid: int) -> None:
        paths, plan, version = self.container.cgroup, self.plan, self.request.facts.cgroup_version
        properties: tuple[tuple[str, str, object], ...] = ()
        if self.container.scope:
            from ..oci import scope

            properties = scope.own_properties(plan.cgroup, (pid,), version) + plan.cgroup_properties
        cgroup.enter(paths, plan.cgroup, pid, properties, self.container.mark)
        self.timeline.done("cgroup")
        cgroup_files.apply(paths, plan.cgroup_writes)
        cgroup_files.apply_devices(paths, plan.device_rules, version)
        cgroup.join(paths, pid)

    def _take_net_devices(self) -> None:
        """Move devices of the host into init's network namespace, which stays as long as they may have to come back."""
        from . import net_devices

        namespace = self._init_network()
        devices = net_devices.find(self.spec.net_devices, namespace)
        network_id = ns.identity(f"/proc/self/fd/{namespace}")
        self.container = self.container.replace(network_id=network_id, net_devices=devices)
        store.save(self.root, self.container)
        for known in net_devices.move_in(devices, namespace):
            self.container = self.container.replace(net_devices=known)
            store.save(self.root, self.container)

    def _init_network(self) -> int:
        """Return init's network namespace, open, and never that of whoever has its pid after it. Raises KernelError."""
        if self.network < 0:
            try:
                namespace = proc.open_file(self.container.pid, self.container.start_time, "ns/net")
            except ProcessLookupError:
                raise self._ended("its network was looked at") from None
            self.network = self.held.add(namespace)
        return self.network

    def _give_back_net_devices(self) -> None:
        from . import net_devices

        try:
            net_devices.move_back(self.container.net_devices, self.network)
        except (UruncError, OSError) as error:
            log.warn(f"giving network devices back after the failed create: {error}")
        else:
            self.container = self.container.replace(net_devices=())  # `teardown` has none to give back

    def _state(self) -> dict[str, Any]:
        return status.document(self.container, status.CREATING)

    def _run_runtime_hooks(self) -> None:
        self.hooks_began = True
        listed = self.spec.hooks
        if not listed.prestart and not listed.create_runtime:
            return
        from . import hooks

        hooks.run_hooks(listed.prestart, self._state(), kind="prestart")
        hooks.run_hooks(listed.create_runtime, self._state(), kind="createRuntime")

    def _go(self, speaker: Channel) -> None:
        """Look at the network that the hooks left, make the Launch, and send init on."""
        held = Descriptors()
        try:
            network, taps = assemble.attach_network(self.request, self._init_network)
            for fd in taps.values():
                held.add(fd)
            machine = assemble.finish_machine(self.request, network)
            launch = assemble.make_launch(self.request, machine)
            if machine.boot.initrd_tail:
                inherit.write_initrd_tail(self.place, machine.boot)
            orders = held.add(go_message.orders(launch, self._state(), self.spec.hooks))
            fds = go_message.descriptors(launch, self.place, taps, self.disks, held)
            speaker.send("go", fds=(orders, *fds))
        finally:
            held.close()

    def _hand_over(self) -> None:
        """Give the engine what it asked for, and write the record that says: created."""
        options = self.options
        if self.master >= 0:
            handover.give_terminal(options, self.master, self.take_terminal)
        if options.pidfd_socket:
            handover.send_pidfd(options.pidfd_socket, self.container)
        if options.pid_file:
            handover.write_pid_file(options.pid_file, self.container.pid)
            self.pid_file_written = True
        self.timeline.done("created")
        self.container = self.container.replace(creator=(0, 0), timeline=self.timeline.record())
        store.save(self.root, self.container)

    def _explained(self, error: BaseException) -> BaseException:
        if not isinstance(error, OSError):
            return error
        hint = None
        if error.errno == EMFILE:  # each file of the monitor's root is one, until init has it
            hint = f"let whoever calls urunc have {_OPEN_FILES} open files (RLIMIT_NOFILE)"
        why = describe(error)
        return KernelError(f"cannot create `{self.options.id}`: {why}", errno=error.errno or 0, hint=hint)

    def _give_up(self) -> None:
        """Clear what was done. What cannot be cleared is logged: the first error is the one to show."""
        from . import teardown

        if self.container.net_devices:
            self._give_back_net_devices()
        if self.speaker:
            self.speaker.close()  # at whose end-of-file an init that is in no cgroup and no record yet ends
        if self.child:
            _end_child(self.child)
        if self.pid_file_written and self.options.pid_file:
            atomic.discard(self.options.pid_file)
        if self.plan.device:
            self._close_disks()  # none can be mounted again before
        try:
            teardown.clear(self.root, self.container)
        except (UruncError, OSError) as error:
            log.warn(f"clearing up after the failed create: {error}")
        if self.hooks_began:
            teardown.run_poststop(self.container)

    def _close_disks(self) -> None:
        """Close the device that only the guest is to have; a loop device stays, held open for its mount."""
        for path in [disk.path for disk in self.plan.disks if disk.rootfs]:
            if path in self.disks:
                os.close(self.disks.pop(path))

    def _close(self) -> None:
        self._close_disks()
        self.held.close()
        if self.speaker:
            self.speaker.close()
        if self.master >= 0:
            os.close(self.master)


def _lines(maps: tuple[IdMap, ...]) -> list[tuple[int, int, int]]:
    return [(line.container_id, line.host_id, line.size) for line in maps]


def _end_child(pid: int) -> None:
    try:
        os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
