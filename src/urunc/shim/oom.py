"""The kernel's word that a container ran out of memory."""

from __future__ import annotations

import os
import select

from ..linux import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import Loop


class OomWatch:
    """Tells of every time the kernel finds the cgroup out of memory: by eventfd on v1, by poll on v2."""

    def __init__(self, loop: Loop, paths: dict[str, str], told: Callable[[], None]) -> None:
        self._loop, self._told = loop, told
        self._fds: list[int] = []
        self._events = -1  # memory.events on v2
        self._seen = 0
        try:
            if cgroup.version_of(paths) == 2:
                self._watch_v2(f"{paths['']}/memory.events")
            elif "memory" in paths:
                self._watch_v1(paths["memory"])
        except OSError:
            self.close()  # without the controller, or with the cgroup gone, there is nothing to tell

    def look(self) -> None:
        """Tell now what the loop would tell next."""
        for fd in self._fds[1:]:
            try:
                os.eventfd_read(fd)
            except BlockingIOError:
                continue
            self._told()
        if self._events >= 0:
            self._look_v2()

    def close(self) -> None:
        """Stop watching."""
        self._events = -1
        for fd in self._fds:
            self._loop.forget(fd)
            os.close(fd)
        self._fds.clear()

    def _watch_v1(self, place: str) -> None:
        control = os.open(f"{place}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        self._fds.append(control)
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._fds.append(event)
        with open(f"{place}/cgroup.event_control", "w", encoding="ascii") as file:
            file.write(f"{event} {control}")
        self._loop.watch(event, select.EPOLLIN, lambda _mask: self._happened_v1(event, place))

    def _happened_v1(self, event: int, place: str) -> None:
        os.eventfd_read(event)
        if os.path.exists(place):  # the kernel also tells of the cgroup's end
            self._told()
        else:
            self.close()

    def _watch_v2(self, path: str) -> None:
        self._events = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._fds.append(self._events)
        self._seen = self._count(self._events)
        self._loop.watch(self._events, select.EPOLLPRI, lambda _mask: self._look_v2())

    def _look_v2(self) -> None:
        try:
            count = self._count(self._events)
        except OSError:
            self.close()
            return
        if count > self._seen:
            self._told()
        self._seen = count

    @staticmethod
    def _count(events: int) -> int:
        for line in os.pread(events, 4096, 0).splitlines():
            name, _, number = line.partition(b" ")
            if name == b"oom_kill":
                return int(number)
        return 0
