"""The control files of a cgroup: read and written, the container's limits among them. v1, v2 and hybrid.

`paths` everywhere is a dict from controller to absolute directory, which the container's record keeps. On v2 it
has the one key "". On v1 every mounted controller is in it, and `unified` where a v2 tree is mounted beside.
Must not know what a limit means: `oci.resources` makes the writes, `oci.device_rules` settles the rules.
"""

from __future__ import annotations

import errno
import os

from ..errors import HostError, KernelError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    Paths = dict[str, str]

    class Write(Protocol):
        """What is read of an `oci.resources.CgroupWrite`."""

        @property
        def controller(self) -> str: ...  # noqa: D102
        @property
        def file(self) -> str: ...  # noqa: D102
        @property
        def value(self) -> str: ...  # noqa: D102
        @property
        def optional(self) -> bool: ...  # noqa: D102
        @property
        def fallback(self) -> Write | None: ...  # noqa: D102

    class Rule(Protocol):
        """What is read of an `oci.spec.DeviceRule`."""

        @property
        def allow(self) -> bool: ...  # noqa: D102
        @property
        def kind(self) -> str: ...  # noqa: D102
        @property
        def major(self) -> int | None: ...  # noqa: D102
        @property
        def minor(self) -> int | None: ...  # noqa: D102
        @property
        def access(self) -> str: ...  # noqa: D102


def version_of(paths: Paths) -> int:
    """Return 2 where these are the paths of a v2 host, else 1."""
    return 2 if "" in paths else 1


def directory_of(paths: Paths, controller: str) -> str | None:
    """Return where the controller's files are, None where it is not mounted."""
    return paths.get("" if version_of(paths) == 2 else controller)


def read_file(path: str) -> str:
    """Return a file's text. Raises KernelError naming the file."""
    try:
        return read_raw(path)
    except OSError as error:
        raise kernel_error(f"cannot read `{path}`", error) from None


def read_raw(path: str) -> str:
    """Return a file's text. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode("utf-8", "surrogateescape")


def write_file(path: str, value: str) -> None:
    """Write a value. Raises KernelError naming value and file."""
    try:
        write_raw(path, value)
    except OSError as error:
        raise kernel_error(f"cannot write `{value}` to `{path}`", error) from None


def write_raw(path: str, value: str) -> None:
    """Write a value. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.write(fd, value.encode("utf-8", "surrogateescape"))  # one write: the kernel parses each by itself
    finally:
        os.close(fd)


def keyed(path: str) -> dict[str, int]:
    """Return a file of `name number` lines, {} where it does not exist."""
    try:
        lines = read_raw(path).splitlines()
    except OSError:
        return {}
    return {name: int(number) for name, _, number in (line.partition(" ") for line in lines) if number.isdigit()}


def oom_count(paths: Paths) -> int:
    """Return how many processes the kernel killed for want of memory; 0 where it cannot be known."""
    directory = directory_of(paths, "memory")
    if directory is None:
        return 0
    file = "memory.events" if version_of(paths) == 2 else "memory.oom_control"
    return keyed(f"{directory}/{file}").get("oom_kill", 0)


def apply(paths: Paths, writes: Iterable[Write]) -> None:
    """Write the limits, in order. Raises KernelError naming file and value, HostError for a missing controller.

    Some limits bound each other (memory and swap, quota and period): which may be written first depends on
    what they are now. A write refused for that reason is done once more after the rest.
    """
    late = []
    for write in writes:
        try:
            _apply_one(paths, write)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EBUSY):
                raise _refused(paths, write, error) from None
            late.append(write)
    for write in late:
        try:
            _apply_one(paths, write)
        except OSError as error:
            raise _refused(paths, write, error) from None


def _apply_one(paths: Paths, write: Write) -> None:
    directory = directory_of(paths, write.controller)
    if directory is None:
        if write.optional:
            return
        raise HostError(f"cannot set `{write.file}`: the {write.controller} controller is not mounted")
    try:
        write_raw(f"{directory}/{write.file}", write.value)
    except FileNotFoundError:
        if write.fallback is not None:
            _apply_one(paths, write.fallback)
        elif not write.optional:
            raise


def _refused(paths: Paths, write: Write, error: OSError) -> KernelError | HostError:
    directory = directory_of(paths, write.controller) or ""
    if error.errno == errno.ENOENT and version_of(paths) == 2:
        have = read_file(f"{directory}/cgroup.controllers").split()
        if write.controller not in (*have, "cgroup"):
            return HostError(f"cannot set `{write.file}`: the {write.controller} controller is not enabled")
    usage = ""
    if error.errno == errno.EBUSY and write.controller == "memory":
        file = "memory.current" if version_of(paths) == 2 else "memory.usage_in_bytes"
        usage = f" with {read_file(f'{directory}/{file}').strip()} bytes in use"
    return kernel_error(f"cannot set `{write.file}` to `{write.value}` in cgroup `{directory}`{usage}", error)


def apply_devices(paths: Paths, rules: Iterable[Rule], version: int) -> None:
    """Deny or allow all devices as the first rule says, then the exceptions: settled rules only.

    v1 writes devices.deny and devices.allow, v2 attaches an eBPF program. Raises KernelError.
    """
    if version == 2:
        from . import devices_bpf

        devices_bpf.attach(paths[""], devices_bpf.assemble(rules))
        return
    for rule in rules:
        numbers = ":".join("*" if number is None else str(number) for number in (rule.major, rule.minor))
        text = "a" if rule.kind == "a" else f"{rule.kind} {numbers} {rule.access}"
        write_file(f"{paths['devices']}/devices.{'allow' if rule.allow else 'deny'}", text)


def kernel_error(what: str, error: OSError) -> KernelError:
    """Return the error that says what could not be done, and the kernel's reason."""
    return KernelError(f"{what}: {reason(error)}", errno=error.errno or 0)
