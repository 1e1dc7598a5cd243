"""What each verb does with its flags: one short function each, which imports what it needs and nothing more.

A container without a folder of ours belongs to the delegate (runc), and so does the whole command line. Only
`create` and `run` look at the bundle, to say whose a new container is; that is `lifecycle`'s.
"""

from __future__ import annotations

import os

from . import output
from .errors import HostError, StateError, UsageError
from .runtime.store import check_id, folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from .runtime.options import Globals, Options

    Flags: TypeAlias = dict[str, Any]
    Action: TypeAlias = Callable[[Globals, Flags, list[str]], int]

_WHY_NOT = {
    "exec": "a unikernel has one process, and no second can be started in it",
    "checkpoint": "the container is a virtual machine monitor, which CRIU cannot save",
    "restore": "the container is a virtual machine monitor, which CRIU cannot restore",
    "pause": "urunc does not pause unikernels yet",
    "resume": "urunc does not pause unikernels yet",
    "update": "urunc does not change the limits of a unikernel yet",
    "events": "urunc does not report events of unikernels yet",
}


def is_ours(root: str, name: str) -> bool:
    """Return whether urunc holds that container. A killed `create` leaves a lock without a record: ours as well."""
    return os.path.lexists(f"{folder(root, name)}/lock")


def delegate(verb: str, context: Globals, flags: Flags, name: str) -> int:
    """Hand the call to the delegate, which does not return; answer as it would where there is none."""
    from .runtime import delegate as other
    from .runtime import settings

    program = settings.load(f"{context.root}/.cache").delegate
    if other.find(program):
        other.exec_delegate(program, context.argv)
    if verb == "delete" and flags.get("force"):
        return 0
    raise StateError(f"container `{name}` does not exist")


def create(context: Globals, flags: Flags, args: list[str]) -> int:
    """Create a container, or hand its creation to the delegate."""
    from .runtime import lifecycle

    lifecycle.create(context, _options(flags, args[0]))
    return 0


def run(context: Globals, flags: Flags, args: list[str]) -> int:
    """Create and start a container. The status is the container's own, 0 with --detach."""
    from .runtime import lifecycle

    return lifecycle.run(context, _options(flags, args[0]))


def start(context: Globals, flags: Flags, args: list[str]) -> int:
    """Start a created container."""
    from .runtime import lifecycle

    lifecycle.start(context.root, args[0])
    return 0


def state(context: Globals, flags: Flags, args: list[str]) -> int:
    """Print the state document (runtime.md, "State")."""
    from .jsonio import indented
    from .runtime import lifecycle

    output.write(indented(lifecycle.state(context.root, args[0])) + "\n")
    return 0


def kill(context: Globals, flags: Flags, args: list[str]) -> int:
    """Send a signal to a container."""
    from .runtime import lifecycle

    signum = signal_number(args[1] if len(args) > 1 and args[1] else "TERM")
    lifecycle.kill(context.root, args[0], signum, flags.get("all", False))
    return 0


def delete(context: Globals, flags: Flags, args: list[str]) -> int:
    """Delete a container."""
    from .runtime import lifecycle

    lifecycle.delete(context.root, args[0], flags.get("force", False))
    return 0


def list_containers(context: Globals, flags: Flags, args: list[str]) -> int:
    """Print the containers below the state root."""
    form = _format(flags)
    from . import tables
    from .runtime import lifecycle

    states = lifecycle.list_states(context.root)
    output.write(tables.ids(states) if flags.get("quiet") else tables.containers(states, form))
    return 0


def ps(context: Globals, flags: Flags, args: list[str]) -> int:
    """Print the processes of a container, as host process ids."""
    form = _format(flags)
    from . import tables
    from .runtime import lifecycle

    output.write(tables.processes(lifecycle.ps(context.root, args[0]), form, args[1:]))
    return 0


def features(context: Globals, flags: Flags, args: list[str]) -> int:
    """Print the features document."""
    from .jsonio import indented
    from .runtime.features import document

    output.write(indented(document(), "    ") + "\n")
    return 0


def spec(context: Globals, flags: Flags, args: list[str]) -> int:
    """Write config.json into a bundle."""
    from .runtime import template

    template.write(
        os.path.abspath(flags.get("bundle") or "."),
        template.document(
            guest=flags.get("guest", "linux"),
            monitor=flags.get("monitor", "qemu"),
            kernel=flags.get("kernel", "/kernel"),
            initrd=flags.get("initrd", ""),
            user_namespace=flags.get("rootless", False),
        ),
    )
    return 0


def _refusal(verb: str) -> Action:
    def refuse(context: Globals, flags: Flags, args: list[str]) -> int:
        raise StateError(f"cannot {verb} `{args[0]}`: {_WHY_NOT[verb]}")

    return refuse


TABLE: dict[str, Action] = {
    "create": create,
    "start": start,
    "run": run,
    "state": state,
    "kill": kill,
    "delete": delete,
    "list": list_containers,
    "ps": ps,
    "features": features,
    "spec": spec,
    **{verb: _refusal(verb) for verb in _WHY_NOT},
}


def signal_number(name: str) -> int:
    """Return the number of a signal given as `9`, `KILL`, `SIGKILL` or `RTMIN+3`. Raise UsageError for no signal."""
    if TYPE_CHECKING:
        import signal as _signal
    else:
        import _signal

    text = name.upper().removeprefix("SIG")
    base, sign, offset = text[:5], text[5:6], text[6:]
    if name.isascii() and name.isdecimal():
        number = int(name[:4])
    elif base in ("RTMIN", "RTMAX") and sign in ("+", "-") and offset.isascii() and offset.isdecimal():
        number = getattr(_signal, f"SIG{base}") + int(sign + offset[:4])
    else:
        number = getattr(_signal, f"SIG{text}", -1) if text.isalnum() else -1
    if not 0 <= number <= _signal.SIGRTMAX:
        raise UsageError(f"`{name}` is not a signal", hint="give a number, or a name such as TERM")
    return int(number)


def _format(flags: Flags) -> str:
    form: str = flags.get("format", "table")
    if form not in ("table", "json"):
        raise UsageError(f"format `{form}` is unknown", hint="table or json")
    return form


def _options(flags: Flags, name: str) -> Options:
    from .runtime.options import Options

    return Options(
        id=name,
        bundle=_bundle(flags.get("bundle", "")),
        pid_file=_absolute(flags.get("pid_file")),
        console_socket=_absolute(flags.get("console_socket")),
        pidfd_socket=_absolute(flags.get("pidfd_socket")),
        **{
            key: flags[key]
            for key in ("no_pivot", "no_new_keyring", "preserve_fds", "dry_run", "detach", "keep", "no_subreaper")
            if key in flags
        },
    )


def _bundle(path: str) -> str:
    try:
        return os.path.abspath(path or ".")
    except FileNotFoundError:
        raise HostError("the current directory is gone", hint="give the bundle with --bundle") from None


def _absolute(path: str | None) -> str | None:
    return os.path.abspath(path) if path else None


__all__ = ["TABLE", "check_id", "delegate", "is_ours", "signal_number"]
