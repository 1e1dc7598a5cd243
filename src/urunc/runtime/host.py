"""What this host has: monitors with all the files they open, whether KVM is real, CPUs, the TSC's frequency, an init.

Effects. What costs a process or a vCPU is asked once, by `probe`, and kept in `cache` (a folder of the state
directory), keyed by what would change the answer: a file's inode, size and time, or the boot id.
"""

from __future__ import annotations

import os

from .. import __version__, jsonio
from ..errors import HostError
from ..linux import kept, proc
from ..record import Record
from ..vm import monitors
from ..vm.machine import Bind
from .settings import DEFAULT_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..oci.config import MonitorConfig


_MAX_ANSWER = 1 << 20  # bytes of what is kept: the paths of some sixty files


class Found(Record):
    """A monitor on this host. `binds` holds the binary itself, its libraries and the files that it opens itself."""

    binary: str  # inside the monitor's root too: every bind is at its own path
    version: tuple[int, ...] = ()
    binds: tuple[Bind, ...] = ()


def find_monitor(name: str, config: MonitorConfig, arch: str) -> str:
    """Return the path of the monitor's binary for machines of that architecture. Raises HostError.

    It is the configured one, else from PATH; for another architecture than the host's beside the configured one first.
    """
    can = monitors.load(name).CAPABILITIES
    foreign = arch != os.uname().machine
    if config.path and not foreign:
        if not _is_program(config.path):
            raise HostError(f"monitors.{name}.path: `{config.path}` is not a program that can be run")
        return config.path
    wanted = dict(can.binaries).get(arch)
    if wanted is None:
        raise HostError(f"monitor `{name}` does not run on {arch}")
    beside = os.path.dirname(config.path)  # what is configured is the host's own; the others come with it
    for folder in (beside, *os.environ.get("PATH", DEFAULT_PATH).split(":")):
        path = os.path.join(folder, wanted)
        if folder.startswith("/") and _is_program(path):
            return path
    package = dict(can.other_packages).get(arch, can.package)
    if foreign:
        raise HostError(
            f"the kernel is for {arch}, and monitor `{name}` for that is not installed: there is no `{wanted}` on PATH",
            hint=f"install {package}, or build the kernel for {os.uname().machine}",
        )
    raise HostError(
        f"monitor `{name}` is not installed: there is no `{wanted}` on PATH",
        hint=f"install {package}, or set monitors.{name}.path",
    )


def probe_monitor(name: str, config: MonitorConfig, arch: str, cache: str) -> Found:
    """Find the monitor, its version and every file that it needs in its root. Cached; raises HostError."""
    binary = find_monitor(name, config, arch)
    can = monitors.load(name).CAPABILITIES

    def ask() -> dict[str, Any]:
        from . import probe

        files = probe.files(can, binary, arch, config.data_path)
        return {"version": list(probe.version(binary)), "files": files}

    key = f"monitor-{name}-{arch}"
    data = _cached_by_files(cache, key, [binary, config.data_path], ask)
    binds = tuple(Bind(source=path, target=path) for path in data["files"])
    return Found(binary=binary, version=tuple(data["version"]), binds=binds)


def kvm_state(cache: str) -> str:
    """Return "none", "real", or "software": a /dev/kvm that emulates its guests and runs only plain integer code.

    Found by running a vCPU through one SSE instruction, in a child process; kept until the next boot.
    """
    try:
        descriptor = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return "none"
    os.close(descriptor)

    def ask() -> str:
        from . import probe

        return probe.kvm()

    answer: str = _cached_by_boot(cache, "kvm", ask)
    return answer


def tsc_khz(cache: str) -> int:
    """Return the frequency of the host's time stamp counter in kHz, 0 where it cannot be measured."""

    def ask() -> int:
        from . import probe

        return probe.tsc_khz()

    answer: int = _cached_by_boot(cache, "tsc", ask)
    return answer


def read_guest_init(arch: str) -> bytes:
    """Return urunc's own init for Linux guests of that architecture: it is installed beside the library.

    Raises HostError.
    """
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    foreign = arch != os.uname().machine
    name = f"urunc-init-{arch}" if foreign else "urunc-init"
    for path in (f"{here}/../guest/{name}", f"{here}/../../guest/build/{name}"):
        try:
            with open(path, "rb") as file:
                return file.read()
        except FileNotFoundError:
            continue
    how = "run `make install`, or `make guest` in a checkout"
    if foreign:
        raise HostError(
            f"urunc's init for Linux guests of {arch} is not installed",
            hint=f"install a compiler for it, {arch}-linux-gnu-gcc with its C library's headers, and {how}",
        )
    raise HostError("urunc's init for Linux guests is not installed", hint=how)


def cpu_count() -> int:
    """Return the number of CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _cached_by_files(cache: str, key: str, inputs: list[str], probe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return `probe()`'s answer, from the cache while `inputs` and the folders of the files it lists are unchanged.

    A folder changes when a file in it is replaced, as any installer does, or is removed, or a new one comes.
    """
    known = _read(cache, key)
    if known is not None and known.get("inputs") == inputs:
        answer: dict[str, Any] = known["answer"]
        if known.get("stamps") == _stamps(inputs, answer["files"]):
            return answer
    answer = probe()
    _write(cache, key, {"inputs": inputs, "answer": answer, "stamps": _stamps(inputs, answer["files"])})
    return answer


def _stamps(inputs: list[str], files: list[str]) -> list[list[int]] | None:
    folders = dict.fromkeys(path.rpartition("/")[0] for path in files)
    stamps = []
    for path in (*filter(None, inputs), *folders):
        try:
            stat = os.stat(path)
        except OSError:
            return None
        stamps.append([stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns])
    return stamps


def _cached_by_boot(cache: str, key: str, probe: Callable[[], Any]) -> Any:
    boot = proc.boot_id()
    known = _read(cache, key)
    if known is not None and known.get("boot") == boot:
        return known["answer"]
    answer = probe()
    _write(cache, key, {"boot": boot, "answer": answer})
    return answer


def _read(cache: str, key: str) -> dict[str, Any] | None:
    """Return what is kept, None where it cannot be used: another version of urunc may have asked for something else."""
    content = kept.read(cache, key, _MAX_ANSWER)
    if content is None:
        return None
    try:
        known = jsonio.loads(content)
    except ValueError:
        return None
    return known if isinstance(known, dict) and known.get("urunc") == __version__ else None


def _write(cache: str, key: str, value: dict[str, Any]) -> None:
    kept.write(cache, key, jsonio.dumps({**value, "urunc": __version__}))
