"""`linux.cgroupsPath`: which cgroup it names, and who makes that.

Implements the runtime specification, config-linux.md, "Cgroups Path".
Must not know where a cgroup file system is mounted: that is `linux.cgroup_layout`.
"""

from __future__ import annotations

from ..errors import SpecError
from ..record import Record
from .node import clean_path, show


class CgroupPath(Record):
    """Where the container's cgroup is, and who makes it.

    `path` is below the hierarchy's mount point where it starts with `/`, else below the runtime's own cgroup.
    With the systemd driver it is the scope's place, and `slice` and `unit` name what systemd is asked for.
    """

    driver: str  # cgroupfs or systemd
    path: str
    slice: str = ""
    prefix: str = ""
    name: str = ""

    @property
    def unit(self) -> str:
        """The scope's name, such as `docker-1234.scope`."""
        return f"{self.prefix}-{self.name}.scope"


def parse(text: str, *, systemd: bool) -> CgroupPath:
    """Return what `linux.cgroupsPath` means. The form decides: `slice:prefix:name` is systemd, else cgroupfs.

    `systemd` (`--systemd-cgroup`) only allows the slice to be left out: `:prefix:name` is then in
    `system.slice`. Raises SpecError. `text` must not be empty: then the caller takes `default`.
    """
    parts = text.split(":")
    if len(parts) == 3 and (parts[0].endswith(".slice") or (systemd and not parts[0])):
        return _scope(*parts)
    if "\0" in text or "\n" in text:
        raise SpecError(f"linux.cgroupsPath: {show(text)} is not a path")
    path = clean_path(text)
    if path == "/":
        raise SpecError(f"linux.cgroupsPath: {show(text)} is the root cgroup")
    return CgroupPath(driver="cgroupfs", path=path if text.startswith("/") else path[1:])


def default(container_id: str, *, systemd: bool) -> CgroupPath:
    """Return the cgroup of a container whose spec names none: one named by its id, as runc does."""
    if systemd:
        return _scope("", "urunc", container_id)
    return CgroupPath(driver="cgroupfs", path=container_id)


def expand_slice(name: str) -> str:
    """Return a slice's place in the hierarchy: `a-b.slice` is `/a.slice/a-b.slice`, `-.slice` is `/`.

    Raises SpecError where it is no slice's name.
    """
    stem = name.removesuffix(".slice")
    if stem == "-":
        return "/"
    words = stem.split("-")
    if stem == name or not all(words) or not _is_unit_name(name):
        raise SpecError(f"linux.cgroupsPath: `{name}` is not a slice")
    return "".join(f"/{'-'.join(words[: count + 1])}.slice" for count in range(len(words)))


def _scope(slice_name: str, prefix: str, name: str) -> CgroupPath:
    scope = CgroupPath(driver="systemd", path="", slice=slice_name or "system.slice", prefix=prefix, name=name)
    if not name or not _is_unit_name(scope.unit):
        raise SpecError(f"linux.cgroupsPath: `{scope.unit}` is not a unit name")
    if name.endswith(".slice"):
        raise SpecError(f"linux.cgroupsPath: `{name}` is a slice, a container is a scope")
    return scope.replace(path=expand_slice(scope.slice).rstrip("/") + "/" + scope.unit)


def _is_unit_name(name: str) -> bool:
    return len(name) <= 255 and name.isascii() and all(char.isalnum() or char in ":-_.\\@" for char in name)
