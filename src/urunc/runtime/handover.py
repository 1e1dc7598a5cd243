"""What an engine asks of `create` beside the container: the console's master end, a pidfd, a file with the pid."""

from __future__ import annotations

import os

from ..linux import atomic, proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .options import Options
    from .store import Container


def give_terminal(options: Options, master: int, take_terminal: Callable[[int], None] | None) -> None:
    """Send the console's master end to `--console-socket`, or give a copy to who stays. Raises HostError."""
    if options.console_socket:
        from . import console

        console.send_master(options.console_socket, master)
    elif take_terminal:
        take_terminal(os.dup(master))


def send_pidfd(socket: str, container: Container) -> None:
    """Send a pidfd of init, which will be the monitor, to whoever listens at `--pidfd-socket`. Raises HostError."""
    from . import console

    pidfd = proc.open_process(container.pid, container.start_time)
    try:
        console.send_descriptor(socket, pidfd, "pidfd")
    finally:
        os.close(pidfd)


def write_pid_file(path: str, pid: int) -> None:
    """Write the pid file whole: the engine may read it at any moment. Raises OSError."""
    atomic.write(path, b"%d" % pid, 0o644)
