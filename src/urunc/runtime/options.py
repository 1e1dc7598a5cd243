"""What the command line asks for, as records: the one joint between `cli` and `lifecycle`."""

from __future__ import annotations

from ..record import Record


class Globals(Record):
    """The flags that stand before the verb, and what the delegate needs to take the call over."""

    root: str  # state directory, absolute
    systemd_cgroup: bool = False
    argv: tuple[str, ...] = ()  # the whole command line as given, argv[0] included


class Options(Record):
    """The flags and argument of `create` and `run`. Paths are absolute, None where not given."""

    id: str
    bundle: str
    pid_file: str | None = None
    console_socket: str | None = None
    pidfd_socket: str | None = None
    no_pivot: bool = False
    no_new_keyring: bool = False
    preserve_fds: int = 0
    dry_run: bool = False
    detach: bool = False
    keep: bool = False
