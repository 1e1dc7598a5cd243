"""The kernel's word that a container ran out of memory, watched by the shim's loop."""

from __future__ import annotations

from ..linux.oom import Oom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop


class OomWatch:
    """Tells of every time the kernel finds the cgroup out of memory."""

    def __init__(self, loop: Loop, paths: dict[str, str], told: Callable[[], None]) -> None:
        self._loop, self._told = loop, told
        self._oom = Oom(paths)
        if self._oom.fd >= 0:
            loop.watch(self._oom.fd, self._oom.mask, lambda _mask: self.look())

    def look(self) -> None:
        """Tell now what the loop would tell next."""
        for _ in range(self._oom.take()):
            self._told()
        if self._oom.is_over():
            self.close()

    def close(self) -> None:
        """Stop watching."""
        if self._oom.fd >= 0:
            self._loop.forget(self._oom.fd)
        self._oom.close()
