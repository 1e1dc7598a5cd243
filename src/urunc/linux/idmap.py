"""A user namespace's id maps, from outside of it (user_namespaces(7)): written once init has made it, or read."""

from __future__ import annotations

import os

from ..errors import KernelError, SpecError, UruncError, describe, reason
from . import ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

    Line = tuple[int, int, int]
    """Id inside, id on the host, count."""

_JOINED = b"+"


def write_maps(pid: int, uids: Iterable[Line], gids: Iterable[Line]) -> None:
    """Write both maps of the process's user namespace. Raises KernelError with the kernel's reason."""
    for name, lines in (("uid_map", uids), ("gid_map", gids)):
        text = "".join(f"{inside} {host} {size}\n" for inside, host, size in lines)
        try:
            with open(f"/proc/{pid}/{name}", "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise KernelError(
                f"cannot write the {name} `{text.strip()}`: {reason(error)}", errno=error.errno or 0
            ) from None


def read_maps(path: str) -> tuple[list[Line], list[Line]]:
    """Return the uid and gid maps of the user namespace at `path`, in the ids of the caller's. Raises SpecError.

    A map is shown by /proc of a process in the namespace alone: a child joins it and waits. Raises KernelError where
    that child comes to grief.
    """
    joined, joined_end = os.pipe()
    end, end_end = os.pipe()
    child = os.fork()
    if child == 0:
        _join_and_wait(path, joined_end, (end, end_end))
    os.close(joined_end)
    os.close(end)
    try:
        answer = os.read(joined, 4096)
        if answer != _JOINED:
            raise _failure(path, answer)
        return _read_map(child, "uid_map"), _read_map(child, "gid_map")
    except OSError as error:
        raise KernelError(f"{_cannot_read(path)}: {describe(error)}", errno=error.errno or 0) from None
    finally:
        os.close(joined)
        os.close(end_end)
        os.waitpid(child, 0)


def _cannot_read(path: str) -> str:
    return f"cannot read the id maps of the user namespace `{path}`"


def _failure(path: str, answer: bytes) -> UruncError:
    if answer:
        return SpecError(answer.decode("utf-8", "replace"))
    return KernelError(f"{_cannot_read(path)}: the process that joined it was ended")


def _join_and_wait(path: str, answer: int, wait: tuple[int, int]) -> NoReturn:
    try:
        os.close(wait[1])
        ns.join(path, "user")
        os.write(answer, _JOINED)
        os.read(wait[0], 1)
    except UruncError as error:
        os.write(answer, error.message.encode("utf-8", "backslashreplace"))
    except BaseException as error:
        what = describe(error) if isinstance(error, OSError) else f"{type(error).__name__} {error}"
        os.write(answer, f"{_cannot_read(path)}: {what}".encode("utf-8", "backslashreplace"))
    finally:
        os._exit(0)


def _read_map(pid: int, name: str) -> list[Line]:
    with open(f"/proc/{pid}/{name}", encoding="utf-8") as file:
        rows = [line.split() for line in file]
    return [(int(inside), int(host), int(count)) for inside, host, count in rows]
