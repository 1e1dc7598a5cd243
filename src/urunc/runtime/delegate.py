"""Hand a call to the runtime of ordinary containers (runc), unchanged: this process becomes it.

Whose a container is, is decided elsewhere: by its record for a container that exists, by `oci.app` for a new one.
"""

from __future__ import annotations

import os
import sys

from ..errors import HostError, reason
from .settings import DEFAULT_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import NoReturn
else:
    import _signal


def find(program: str) -> str | None:
    """Return the path of the delegate, looked up on PATH where it has no slash; None where it is not there.

    urunc itself is passed over on PATH: some hosts install it under runc's name, in a folder before runc's. So is a
    folder that is not absolute: where an engine calls urunc, that may be a bundle.
    """
    if "/" in program:
        return program if os.access(program, os.X_OK) else None
    for folder in os.environ.get("PATH", DEFAULT_PATH).split(":"):
        path = os.path.join(folder, program)
        if folder.startswith("/") and os.access(path, os.X_OK) and os.path.isfile(path) and not _is_urunc(path):
            return path
    return None


def what_to_do(program: str) -> str:
    """Return the hint for a host without the delegate."""
    return f"install {program}, or set delegate in [runtime] of the configuration"


def exec_delegate(program: str, argv: tuple[str, ...]) -> NoReturn:
    """Become the delegate, with the whole command line and environment as they were given to us.

    `program` is a path or a name, `argv` begins with our own name, in whose place the delegate's goes. Raises
    HostError where the delegate is missing, is urunc itself, or cannot be executed.
    """
    path = find(program)
    if path is None:
        raise HostError(
            f"cannot find `{program}`, which runs the containers that are not unikernels",
            hint=what_to_do(program),
        )
    if _is_urunc(path):
        raise HostError(f"the delegate `{path}` is urunc itself", hint="set delegate in [runtime] to runc")
    for signum in (_signal.SIGPIPE, _signal.SIGXFSZ):  # Python ignores them, and execve keeps that
        _signal.signal(signum, _signal.SIG_DFL)
    try:
        os.execv(path, (path, *argv[1:]))  # noqa: S606
    except OSError as error:
        raise HostError(f"cannot run the delegate `{path}`: {reason(error)}") from None


def _is_urunc(path: str) -> bool:
    try:
        return os.path.samefile(path, sys.argv[0])
    except OSError:
        return False
