"""Write a user namespace's id maps from outside of it (user_namespaces(7)): the parent does, once init has made it."""

from __future__ import annotations

from ..errors import KernelError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Line = tuple[int, int, int]
    """Id inside, id on the host, count."""


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
