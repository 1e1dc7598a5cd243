"""Run OCI hooks (config.md, "POSIX-platform Hooks"): strange programs, so nothing that they do may hang or harm urunc.

Where and when hooks run is decided by `create`, `init` and `teardown`. Init calls this module after pivot_root, so that
nothing is imported but at its top.
"""

from __future__ import annotations

import os
import select
import time

from .. import jsonio
from ..errors import HookError, reason
from ..linux import proc
from ..oci.spec import Hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any, NoReturn
else:
    import _signal

_KEPT_BYTES = 4096
"""How much of a hook's output is kept: its end, which says why it failed."""

_LONGEST_POLL = 86400.0  # seconds: poll(2) counts milliseconds in an int

_IN_BUNDLE = frozenset({"prestart", "createRuntime"})
_FROM_IMAGE = frozenset({"startContainer"})


def from_data(data: dict[str, Any]) -> Hook:
    """Return the Hook that `Hook.to_data` made this of."""
    env = data.get("env")
    return Hook(
        path=data["path"],
        args=tuple(data.get("args") or ()),
        env=None if env is None else tuple(env),
        timeout=data.get("timeout"),
    )


def run_hooks(
    hooks: tuple[Hook, ...],
    state: dict[str, Any],
    *,
    kind: str,
    prepare: Callable[[], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> None:
    """Run the hooks in their listed order, each with the container's state document on stdin.

    `kind` is the specification's name, such as "createRuntime". `prepare` runs in the child just before the hook
    is executed (it enters the container's root). The first failure raises HookError; where `warn` is given it is
    called with each failure instead, and the rest still run, as poststop asks for (runtime.md, "Lifecycle" 13).

    A hook has the environment that it names. Without one it has urunc's own, as with runc, except a hook out of
    the image (startContainer), which has none. It leads a session of its own, which is killed when the timeout
    (seconds) is over; it has no descriptor but 0, 1 and 2. What it leaves running in the background stays.
    """
    if not hooks:
        return
    document = jsonio.dumps(state)
    for hook in hooks:
        failure = _run(hook, document, _folder(kind, state), prepare, from_image=kind in _FROM_IMAGE)
        if failure is None:
            continue
        message = f"{kind} hook `{hook.path}`: {failure}"
        if warn is None:
            raise HookError(message)
        warn(message)


def _folder(kind: str, state: dict[str, Any]) -> str:
    """Return the hook's working directory: the bundle where runc has gone there, else where we are."""
    return str(state.get("bundle") or ".") if kind in _IN_BUNDLE else "."


def _run(
    hook: Hook, document: bytes, folder: str, prepare: Callable[[], None] | None, *, from_image: bool
) -> str | None:
    """Run one hook to its end. Return why it failed, None where it did not."""
    environment = dict(item.partition("=")[::2] for item in hook.env or ())
    if hook.env is None and not from_image:
        environment = dict(os.environ)
    deadline = None if hook.timeout is None else time.monotonic() + hook.timeout
    stdin = os.memfd_create("state", os.MFD_CLOEXEC)  # a file, so that a hook that never reads it blocks nobody
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.write(stdin, document)
        os.lseek(stdin, 0, 0)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become(hook, environment, folder, stdin, writer, prepare, parent)
        os.close(writer)
        writer = -1
        return _wait(hook, pid, reader, deadline)
    finally:
        for fd in (stdin, reader, writer):
            if fd >= 0:
                os.close(fd)


def _become(
    hook: Hook,
    environment: dict[str, str],
    folder: str,
    stdin: int,
    output: int,
    prepare: Callable[[], None] | None,
    parent: int,
) -> NoReturn:
    """Turn the forked child into the hook. What goes wrong is written where the hook's own complaints go."""
    try:
        proc.die_with_parent()  # a killed urunc leaves no hook at work on a container that nobody holds
        if os.getppid() != parent:
            os._exit(127)
        os.setsid()
        os.set_blocking(output, True)
        os.dup2(stdin, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        proc.close_at_exec(3)  # before `prepare`, whose seccomp filter may refuse it
        if prepare:
            prepare()
        for signum in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGCHLD, _signal.SIGINT):
            _signal.signal(signum, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        os.execve(hook.path, hook.args or (hook.path,), environment)  # noqa: S606
    except BaseException as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        os.write(2, f"cannot be executed: {why}".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(127)


def _wait(hook: Hook, pid: int, reader: int, deadline: float | None) -> str | None:
    """Wait until the hook's process ends, whoever else still holds its output. Return why it failed, None if not."""
    pidfd = -1
    try:
        pidfd = os.pidfd_open(pid)
        output = _collect(pidfd, reader, deadline)
        if output is None:
            return f"did not end within its timeout of {hook.timeout} s"
        _, status = os.waitpid(pid, 0)
        pid = 0
        return _describe(status, output)
    finally:
        if pid:
            _kill(pid)
        if pidfd >= 0:
            os.close(pidfd)


def _collect(pidfd: int, reader: int, deadline: float | None) -> bytes | None:
    """Return the end of what a hook writes until its process ends, None where that is not before the deadline."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(reader, select.POLLIN)
    output = b""
    ended = False
    while not ended:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return None
        events = dict(poll.poll(None if left is None else min(left, _LONGEST_POLL) * 1000))
        ended = pidfd in events
        if reader in events:
            output, open_still = _read(reader, output)
            if not open_still:
                poll.unregister(reader)
    return output


def _read(reader: int, output: bytes) -> tuple[bytes, bool]:
    """Return the end of the output so far, and whether more may come."""
    try:
        chunk = os.read(reader, 65536)
    except BlockingIOError:
        return output, True
    return (output + chunk)[-_KEPT_BYTES:], bool(chunk)


def _kill(pid: int) -> None:
    """Kill the hook and its whole session's process group, and reap it."""
    for send in (os.killpg, os.kill):
        try:
            send(pid, _signal.SIGKILL)
        except ProcessLookupError:
            pass
    os.waitpid(pid, 0)


def _describe(status: int, output: bytes) -> str | None:
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return None
    lines = output.decode("utf-8", "replace").strip().splitlines()
    how = f"exit status {code}" if code > 0 else f"killed by signal {-code}"
    return f"{how}: {lines[-1].strip()}" if lines else how
