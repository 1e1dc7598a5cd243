"""The statuses that answer a call: google.rpc.Code, and which of them says which error of the runtime.

containerd goes by the code, its user reads the message: both are as containerd's own shim has them.
"""

from __future__ import annotations

from ..errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..errors import UruncError

UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
ALREADY_EXISTS = 6
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
UNIMPLEMENTED = 12
INTERNAL = 13


class StatusError(Exception):
    """What a handler raises to answer with a status: a google.rpc.Code and a message for the user."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def of_error(error: UruncError, verb: str) -> StatusError:
    """Return the status that says this error of a verb of the runtime."""
    if verb == "kill" and isinstance(error, StateError):
        gone = "not running" in error.message or "already finished" in error.message or is_gone(error)
        if gone:
            return StatusError(NOT_FOUND, f"process already finished: {error}")
    code = FAILED_PRECONDITION if isinstance(error, StateError) and verb in ("start", "pause", "resume") else UNKNOWN
    return StatusError(code, f"OCI runtime {verb} failed: {error}")


def is_gone(error: UruncError) -> bool:
    """Return whether the error says that the runtime knows no such container."""
    return "does not exist" in error.message
