"""What may stand on the command line, as data: verbs, their flags, their help. Names and meanings are runc's.

A flag is (names, value, help): names are long first, `value` is what its value is called in the help, "" for a
switch, "N" for a whole number. The verbs that urunc itself does not have are here with runc's flags, for the
container's id must be found before the call can be handed on unchanged.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Flag: TypeAlias = tuple[str, str, str]
    Verb: TypeAlias = tuple[str, str, tuple[Flag, ...]]

GLOBALS: tuple[Flag, ...] = (
    ("root", "DIR", "where the state of containers is kept (default: /run/urunc)"),
    ("log", "FILE", "where the log goes (default: stderr)"),
    ("log-format", "FORMAT", "text (default) or json"),
    ("debug", "", "log more, and show where an internal error comes from"),
    ("systemd-cgroup", "", "let systemd make the cgroup where the form of cgroupsPath leaves that open"),
    ("rootless", "BOOL", "accepted for runc's sake: true, false or auto"),
    ("criu", "PATH", "accepted for runc's sake"),
    ("version v", "", "print the version"),
    ("help h", "", "print this help"),
)

HELP: Flag = ("help h", "", "print this help")

_BUNDLE: Flag = ("bundle b", "DIR", "the bundle (default: the current directory)")
_PID_FILE: Flag = ("pid-file", "FILE", "write the container's process id to this file")
_CONSOLE: Flag = ("console-socket", "SOCKET", "unix socket that receives the terminal's master end")
_DETACH: Flag = ("detach d", "", "return once the container runs")
_PIVOT: Flag = ("no-pivot", "", "do not use pivot_root, for a root on a ramdisk")
_SUBREAPER: Flag = ("no-subreaper", "", "accepted for runc's sake: urunc stays to wait for the monitor")
_FORMAT: Flag = ("format f", "FORMAT", "table (default) or json")

_CREATE: tuple[Flag, ...] = (
    _BUNDLE,
    _CONSOLE,
    ("pidfd-socket", "SOCKET", "unix socket that receives a pidfd of the container's process"),
    _PID_FILE,
    _PIVOT,
    ("no-new-keyring", "", "keep the caller's session keyring"),
    ("preserve-fds", "N", "keep N descriptors, from 3 on, for the container's process"),
)

_CRIU: tuple[Flag, ...] = (
    ("image-path", "DIR", ""),
    ("work-path", "DIR", ""),
    ("tcp-established", "", ""),
    ("ext-unix-sk", "", ""),
    ("shell-job", "", ""),
    ("file-locks", "", ""),
    ("manage-cgroups-mode", "MODE", ""),
    ("empty-ns", "NAMESPACE", ""),
    ("auto-dedup", "", ""),
    ("lazy-pages", "", ""),
)

VERBS: dict[str, Verb] = {
    "create": (
        "ID",
        "create a container from a bundle",
        (*_CREATE, ("dry-run", "", "print what would be done, and do nothing")),
    ),
    "start": ("ID", "start a created container", ()),
    "run": (
        "ID",
        "create and start a container",
        (*_CREATE, _DETACH, ("keep", "", "do not delete the container when it has ended"), _SUBREAPER),
    ),
    "state": ("ID", "print the state of a container", ()),
    "kill": (
        "ID [SIGNAL]",
        "send a signal (default: TERM)",
        (("all a", "", "succeed where the container is stopped"),),
    ),
    "delete": ("ID", "delete a stopped container", (("force f", "", "kill it first where it is not stopped"),)),
    "list": (
        "",
        "list urunc's own containers (`runc list` shows those that were handed to it)",
        (_FORMAT, ("quiet q", "", "print ids only")),
    ),
    "ps": ("ID [PS-OPTIONS]", "list the processes of a container", (_FORMAT,)),
    "timeline": (
        "ID",
        "print what each step of a container's start took",
        (("format f", "FORMAT", "table (default), json, or trace for ui.perfetto.dev"),),
    ),
    "features": ("", "print what urunc supports, as the runtime specification's features document", ()),
    "check": ("", "say what this host can run, and what to install for the rest", (_FORMAT,)),
    "spec": (
        "",
        "write a config.json for a unikernel",
        (
            _BUNDLE,
            ("guest", "NAME", "kind of unikernel (default: linux)"),
            ("monitor", "NAME", "virtual machine monitor (default: qemu)"),
            ("kernel", "PATH", "the kernel in the rootfs (default: /kernel)"),
            ("initrd", "PATH", "the initrd in the rootfs (default: none)"),
            ("rootless", "", "with a user namespace that maps the caller to root"),
        ),
    ),
    "exec": (
        "ID COMMAND [ARGS]",
        "not for unikernels: they have one process",
        (
            _CONSOLE,
            ("pidfd-socket", "SOCKET", ""),
            ("cwd", "DIR", ""),
            ("env e", "NAME=VALUE", ""),
            ("tty t", "", ""),
            ("user u", "UID[:GID]", ""),
            ("additional-gids g", "GID", ""),
            ("process p", "FILE", ""),
            _DETACH,
            _PID_FILE,
            ("process-label", "LABEL", ""),
            ("apparmor", "PROFILE", ""),
            ("no-new-privs", "", ""),
            ("cap c", "CAPABILITY", ""),
            ("preserve-fds", "N", ""),
            ("cgroup", "PATH", ""),
            ("ignore-paused", "", ""),
        ),
    ),
    "checkpoint": (
        "ID",
        "not for unikernels: the monitor's memory is the guest",
        (
            *_CRIU,
            ("parent-path", "DIR", ""),
            ("leave-running", "", ""),
            ("tcp-skip-in-flight", "", ""),
            ("link-remap", "", ""),
            ("status-fd", "FD", ""),
            ("page-server", "ADDRESS:PORT", ""),
            ("pre-dump", "", ""),
        ),
    ),
    "restore": (
        "ID",
        "not for unikernels",
        (
            *_CRIU,
            _CONSOLE,
            _BUNDLE,
            _DETACH,
            _PID_FILE,
            _SUBREAPER,
            _PIVOT,
            ("lsm-profile", "TYPE:NAME", ""),
            ("lsm-mount-context", "CONTEXT", ""),
        ),
    ),
    "pause": ("ID", "stop a container from running, for a while", ()),
    "resume": ("ID", "let a paused container run again", ()),
    "update": (
        "ID",
        "change the limits of a container; the guest keeps its memory and vCPUs",
        (
            ("resources r", "FILE", "JSON of linux.resources, - for stdin; the other flags are then ignored"),
            ("memory", "SIZE", "memory limit, such as 512m; -1 for none"),
            ("memory-reservation", "SIZE", "memory that is taken last when the host runs short"),
            ("memory-swap", "SIZE", "memory and swap together; -1 for no limit"),
            ("cpu-period", "NUMBER", "cpu period in microseconds"),
            ("cpu-quota", "NUMBER", "cpu time in each period, in microseconds; -1 for no limit"),
            ("cpu-burst", "NUMBER", "cpu time that may be saved up for a burst, in microseconds"),
            ("cpu-share", "NUMBER", "weight against other containers, 2 to 262144"),
            ("cpu-idle", "NUMBER", "1: run only when nothing else does"),
            ("cpu-rt-period", "NUMBER", "realtime period in microseconds (cgroup v1)"),
            ("cpu-rt-runtime", "NUMBER", "realtime in each period, in microseconds (cgroup v1)"),
            ("cpuset-cpus", "LIST", "cpus to run on, such as 0-2,7"),
            ("cpuset-mems", "LIST", "memory nodes to take memory from"),
            ("pids-limit", "NUMBER", "processes and threads of the monitor; -1 for no limit"),
            ("blkio-weight", "NUMBER", "block I/O weight, 10 to 1000"),
            ("kernel-memory", "SIZE", "ignored"),
            ("kernel-memory-tcp", "SIZE", "ignored"),
            ("l3-cache-schema", "TEXT", "not for unikernels"),
            ("mem-bw-schema", "TEXT", "not for unikernels"),
        ),
    ),
    "events": (
        "ID",
        "print what a container uses, and when it runs out of memory, as JSON",
        (("interval", "DURATION", "time between two figures (default: 5s)"), ("stats", "", "print the figures once")),
    ),
}
"""verb: (arguments, summary, flags)."""

NEW = frozenset({"create", "run"})
"""Verbs whose container has no record yet: the life cycle itself says whether the delegate takes it."""

OWN = frozenset({"timeline"})
"""Verbs with an id that runc does not have: they are not the delegate's, whoever the container's is."""

FLAGS_FIRST = frozenset({"exec", "ps", "kill"})
"""Verbs whose flags end at the id: what follows belongs to the command, to ps(1), or is a signal."""
