"""The kernel's word that a cgroup ran out of memory: an eventfd on v1, a file that polls on v2. Waits for nothing."""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self


class Oom:
    """A descriptor to poll, and what it has to tell. A context manager.

    `fd` is -1 where there is nothing to be told of: no memory controller, no such cgroup (any more).
    """

    def __init__(self, paths: dict[str, str]) -> None:
        """Begin to listen to the cgroup at these paths (see `cgroup_files`)."""
        self.fd = -1
        self.mask = select.POLLIN
        self._control = -1  # memory.oom_control on v1
        self._place = paths.get("", paths.get("memory", ""))
        self._seen = 0
        try:
            if "" in paths:
                self._open_v2()
            elif self._place:
                self._open_v1()
        except OSError:
            self.close()

    def _open_v1(self) -> None:
        self._control = os.open(f"{self._place}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        with open(f"{self._place}/cgroup.event_control", "w", encoding="utf-8") as file:
            file.write(f"{self.fd} {self._control}")

    def _open_v2(self) -> None:
        self.mask = select.POLLPRI
        self.fd = os.open(f"{self._place}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        self._seen = self._count()

    def take(self) -> int:
        """Return how often the kernel found no memory since the last call. `is_over` is to be asked afterwards."""
        if self.fd < 0:
            return 0
        if self._control >= 0:
            try:
                return os.eventfd_read(self.fd) if os.path.exists(self._place) else 0
            except BlockingIOError:
                return 0
        try:
            before, self._seen = self._seen, self._count()
        except OSError:
            return 0
        return max(0, self._seen - before)

    def is_over(self) -> bool:
        """Return whether the cgroup is gone: v1 tells of that as if it were out of memory."""
        return self.fd < 0 or not os.path.exists(self._place)

    def _count(self) -> int:
        for line in os.pread(self.fd, 4096, 0).splitlines():
            name, _, number = line.partition(b" ")
            if name == b"oom_kill":
                return int(number)
        return 0

    def close(self) -> None:
        """Stop listening. May be called more than once."""
        for fd in (self.fd, self._control):
            if fd >= 0:
                os.close(fd)
        self.fd = self._control = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
