"""What each verb does with its flags: one short function each, which imports what it needs and nothing more.

A container without a folder of ours belongs to the delegate (runc), and so does the whole command line. Only
`create` and `run` look at the bundle, to say whose a new container is; that is `lifecycle`'s.
"""

from __future__ import annotations

import os

from . import booleans
from .errors import HostError, StateError, UsageError, reason
from .runtime.store import DEFAULT_ROOT, cache, check_id, folder, unclaimed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from .runtime.options import Globals, Options

    Action: TypeAlias = Callable[["Call"], int]

_WHY_NOT = {
    "exec": "a unikernel has one process, and no second can be started in it",
    "checkpoint": "the container is a virtual machine monitor, which CRIU cannot save",
    "restore": "the container is a virtual machine monitor, which CRIU cannot restore",
}


class Call:
    """One command line, taken apart: `common` are the flags before the verb, `flags` those behind it."""

    def __init__(self, argv: list[str], common: dict[str, Any], flags: dict[str, Any], args: list[str]) -> None:
        self.argv, self.common, self.flags, self.args = argv, common, flags, args
        self.root = _absolute(common["root"]) if "root" in common else default_root()
        if self.root == "/":
            raise UsageError("`--root` is not to be `/`")

    def globals(self) -> Globals:
        """Return what `create` and `run` must know of the flags before the verb. Raises UsageError."""
        from .runtime.options import Globals

        rootless = self.common.get("rootless", "") or "auto"
        if rootless != "auto" and booleans.parse(rootless) is None:
            raise UsageError(f"`--rootless` is true, false or auto, not `{rootless}`")
        return Globals(root=self.root, systemd_cgroup=self.common.get("systemd_cgroup", False), argv=tuple(self.argv))

    def options(self) -> Options:
        """Return the flags and the argument of `create` and `run`. Raises StateError for an impossible id."""
        from .runtime.options import Options

        check_id(self.args[0])
        return Options(
            id=self.args[0],
            bundle=_absolute(self.flags.get("bundle") or "."),
            pid_file=self._file("pid_file"),
            console_socket=self._file("console_socket"),
            pidfd_socket=self._file("pidfd_socket"),
            **{name: self.flags[name] for name in _PLAIN if name in self.flags},
        )

    def _file(self, name: str) -> str | None:
        path = self.flags.get(name)
        return _absolute(path) if path else None


_PLAIN = ("no_pivot", "no_new_keyring", "preserve_fds", "dry_run", "detach", "keep")


def default_root() -> str:
    """Return /run/urunc for root, a place in a user's own runtime directory for others, as runc chooses."""
    user_dir = os.environ.get("XDG_RUNTIME_DIR")
    if user_dir and os.geteuid() != 0:
        return os.path.join(_absolute(user_dir), "urunc")
    return DEFAULT_ROOT


def _absolute(path: str) -> str:
    try:
        found = os.path.abspath(path)  # which keeps two slashes at the start (POSIX lets them mean anything)
        return found.replace("//", "/", 1) if found.startswith("//") else found
    except FileNotFoundError:
        raise HostError("the current directory is gone", hint="give absolute paths") from None


def write(text: str) -> None:
    """Write the text to stdout. Raises HostError; a reader that has left ends the process, as SIGPIPE would."""
    data = memoryview(text.encode("utf-8", "surrogateescape"))
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        raise SystemExit(141) from None
    except OSError as error:
        raise HostError(f"cannot write to stdout: {reason(error)}") from None


def is_ours(call: Call) -> bool:
    """Return whether urunc holds that container. What a killed `create` left, claimed or not yet, is ours as well."""
    name = call.args[0]
    return os.path.lexists(f"{folder(call.root, name)}/lock") or os.path.lexists(f"{call.root}/{unclaimed(name)}")


def delegate(verb: str, call: Call) -> int:
    """Hand the call to the delegate, which does not return; answer as it would where there is none.

    Raises StateError: a delegate that is not installed has no such container.
    """
    from .runtime import delegate as other
    from .runtime import settings

    program = settings.load(cache(call.root)).delegate
    if other.find(program):
        other.exec_delegate(program, tuple(call.argv))
    if verb == "delete" and call.flags.get("force"):
        return 0
    raise StateError(f"container `{call.args[0]}` does not exist")


def create(call: Call) -> int:
    """Create a container, or hand its creation to the delegate; with --dry-run print what would be done."""
    from .runtime import lifecycle

    common, options = call.globals(), call.options()
    if options.dry_run:
        from .jsonio import indented

        write(indented(lifecycle.dry_run(common, options)) + "\n")
    else:
        lifecycle.create(common, options)
    return 0


def run(call: Call) -> int:
    """Create and start a container. The status is the container's own, 0 with --detach."""
    from .runtime import lifecycle

    return lifecycle.run(call.globals(), call.options())


def start(call: Call) -> int:
    """Start a created container."""
    from .runtime import lifecycle

    lifecycle.start(call.root, call.args[0])
    return 0


def state(call: Call) -> int:
    """Print the state document (runtime.md, "State")."""
    from .jsonio import indented
    from .runtime import lifecycle

    write(indented(lifecycle.state(call.root, call.args[0])) + "\n")
    return 0


def kill(call: Call) -> int:
    """Send a signal to a container. Raises UsageError for one that there is not."""
    from .linux.proc import parse_signal
    from .runtime import lifecycle

    try:
        signum = parse_signal("".join(call.args[1:]) or "TERM")
    except ValueError as error:
        raise UsageError(str(error), hint="give a number, or a name such as TERM") from None
    lifecycle.kill(call.root, call.args[0], signum, everything=call.flags.get("all", False))
    return 0


def delete(call: Call) -> int:
    """Delete a container."""
    from .runtime import lifecycle

    lifecycle.delete(call.root, call.args[0], force=call.flags.get("force", False))
    return 0


def pause(call: Call) -> int:
    """Stop a container from running, for a while."""
    from .runtime import pause as freezer

    freezer.pause(call.root, call.args[0])
    return 0


def resume(call: Call) -> int:
    """Let a paused container run again."""
    from .runtime import pause as freezer

    freezer.resume(call.root, call.args[0])
    return 0


def update(call: Call) -> int:
    """Change the limits of a container. With --resources, the other flags are ignored, as by runc."""
    from .runtime import limits
    from .runtime import update as change

    source = call.flags.get("resources")
    wanted = limits.read(source) if source else limits.from_flags(call.flags)
    change.update(call.root, call.args[0], wanted)
    return 0


def events(call: Call) -> int:
    """Print what a container uses, once or again and again, and that it ran out of memory; one JSON object a line."""
    from .jsonio import dumps
    from .runtime import events as source

    seconds = source.parse_interval(call.flags.get("interval") or "5s")
    if call.flags.get("stats"):
        write(dumps(source.stats(call.root, call.args[0])).decode() + "\n")
        return 0
    for event in source.follow(call.root, call.args[0], seconds):
        write(dumps(event).decode() + "\n")
    return 0


def list_containers(call: Call) -> int:
    """Print the containers below the state root."""
    form = _format(call)
    from . import tables
    from .runtime import lifecycle

    states = lifecycle.list_states(call.root)
    write(tables.ids(states) if call.flags.get("quiet") else tables.containers(states, form))
    return 0


def ps(call: Call) -> int:
    """Print the processes of a container, as host process ids."""
    form = _format(call)
    from . import tables
    from .runtime import lifecycle

    write(tables.processes(lifecycle.ps(call.root, call.args[0]), form, call.args[1:]))
    return 0


def timeline(call: Call) -> int:
    """Print what each step of the container's start took."""
    form = _format(call, ("table", "json", "trace"))
    from .jsonio import dumps, indented
    from .runtime import steps

    name = call.args[0]
    found = steps.of(call.root, name)
    if form == "trace":
        write(dumps(steps.to_trace(name, found)).decode() + "\n")
    elif form == "json":
        write(indented(steps.to_data(name, found)) + "\n")
    else:
        from . import tables

        write(tables.steps(steps.to_data(name, found)))
    return 0


def features(call: Call) -> int:
    """Print the features document."""
    from .jsonio import indented
    from .runtime.features import document

    write(indented(document(), "    ") + "\n")
    return 0


def check(call: Call) -> int:
    """Print what this host can run. The status is 0 if at least one guest can run on one monitor."""
    form = _format(call)
    from . import tables
    from .runtime import check as looking
    from .runtime import settings

    kept = cache(call.root)
    found = looking.check(kept, settings.load(kept))
    write(tables.report(looking.to_data(found), form))
    return 0 if found.ok else 1


def spec(call: Call) -> int:
    """Write config.json into a bundle."""
    from .runtime import template

    template.write(
        _absolute(call.flags.get("bundle") or "."),
        template.document(
            guest=call.flags.get("guest", "linux"),
            monitor=call.flags.get("monitor", "qemu"),
            kernel=call.flags.get("kernel", "/kernel"),
            initrd=call.flags.get("initrd", ""),
            user_namespace=call.flags.get("rootless", False),
        ),
    )
    return 0


def _refusal(verb: str) -> Action:
    def refuse(call: Call) -> int:
        raise StateError(f"`{verb}` is not for `{call.args[0]}`: {_WHY_NOT[verb]}")

    return refuse


TABLE: dict[str, Action] = {
    "create": create,
    "start": start,
    "run": run,
    "state": state,
    "kill": kill,
    "delete": delete,
    "pause": pause,
    "resume": resume,
    "update": update,
    "events": events,
    "list": list_containers,
    "ps": ps,
    "timeline": timeline,
    "features": features,
    "check": check,
    "spec": spec,
    **{verb: _refusal(verb) for verb in _WHY_NOT},
}


def _format(call: Call, known: tuple[str, ...] = ("table", "json")) -> str:
    form: str = call.flags.get("format", "table")
    if form not in known:
        raise UsageError(f"format `{form}` is unknown", hint=f"{', '.join(known[:-1])} or {known[-1]}")
    return form
