"""One facility of this host, and the ways to try whether it is there: none leaves anything behind."""

from __future__ import annotations

import os

from ..errors import UruncError, reason
from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Facility(Record):
    """Something of the host that is not a monitor, and what it is `used` for.

    Where a `needed` one is not ok, nothing can run.
    """

    name: str
    used: str
    ok: bool
    what: str
    hint: str | None = None
    needed: bool = False


def tried(name: str, used: str, problem: str, *, works: str, hint: str) -> Facility:
    """Return what was tried: `problem` is why it failed, "" where it `works`; the `hint` is for the failure."""
    return Facility(name=name, used=used, ok=not problem, what=problem or works, hint=hint if problem else None)


def try_in_child(work: Callable[[], object]) -> str:
    """Return why `work` failed in a child process, "" where it did not; what it made is gone with the child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            os.write(writer, why_not(error).encode()[:4096])
        finally:
            os._exit(0)
    os.close(writer)
    try:
        with open(reader, "rb") as answer:
            text = answer.read().decode("utf-8", "replace")
    finally:
        _, code = os.waitpid(child, 0)
    return text or ("the attempt was killed" if code else "")


def try_to_open(path: str) -> str:
    """Return why a device cannot be opened, "" where it can."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{path}: {reason(error)}"
    return ""


def why_not(error: BaseException) -> str:
    """Return what an attempt failed with, for `Facility.what`."""
    if isinstance(error, UruncError):
        return error.message
    return reason(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
