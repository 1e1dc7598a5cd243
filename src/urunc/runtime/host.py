"""What this host has: monitors with all the files they open, whether KVM is real, CPUs, the TSC's frequency.

Effects. What costs a process or a vCPU is asked once and kept in `cache` (a folder of the state directory that only
root can write), keyed by what would change the answer: a file's inode, size and time, or the boot id.
"""

from __future__ import annotations

import os

from .. import jsonio
from ..errors import HostError
from ..record import Record
from ..vm import monitors
from ..vm.machine import Bind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..oci.config import MonitorConfig
    from ..vm.machine import Capabilities

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROBE_SECONDS = 2.0


class Found(Record):
    """A monitor on this host. `binds` holds the binary itself, its libraries and the files that it opens itself."""

    binary: str  # inside the monitor's root too: every bind is at its own path
    version: tuple[int, ...] = ()
    binds: tuple[Bind, ...] = ()


def find_monitor(name: str, config: MonitorConfig, arch: str) -> str:
    """Return the path of the monitor's binary: the configured one, else from PATH. Raises HostError."""
    can = monitors.load(name).CAPABILITIES
    if config.path:
        if not _is_program(config.path):
            raise HostError(f"monitors.{name}.path: `{config.path}` is not a program that can be run")
        return config.path
    wanted = dict(can.binaries).get(arch)
    if wanted is None:
        raise HostError(f"monitor `{name}` does not run on {arch}")
    for folder in os.environ.get("PATH", DEFAULT_PATH).split(":"):
        path = os.path.join(folder, wanted)
        if folder.startswith("/") and _is_program(path):
            return path
    raise HostError(
        f"monitor `{name}` is not installed: there is no `{wanted}` on PATH",
        hint=f"install {can.package}, or set monitors.{name}.path",
    )


def probe_monitor(name: str, config: MonitorConfig, arch: str, cache: str) -> Found:
    """Find the monitor, its version and every file that it needs in its root. Cached; raises HostError."""
    binary = find_monitor(name, config, arch)
    can = monitors.load(name).CAPABILITIES

    def probe() -> dict[str, Any]:
        files = list(dict.fromkeys((binary, *_support(can, binary, arch, config.data_path))))
        programs = [path for path in files if _is_elf(path)]
        libraries = dict.fromkeys(library for path in programs for library in _libraries(path))
        return {"version": list(_version(binary)), "files": [*files, *libraries]}

    key = f"monitor-{name}-{arch}"
    data = _cached_by_files(cache, key, [binary, config.data_path], probe)
    binds = tuple(Bind(source=path, target=path) for path in data["files"])
    return Found(
        binary=binary,
        version=tuple(data["version"]),
        binds=binds,
    )


def library_closure(path: str, cache: str) -> tuple[Bind, ...]:
    """Return binds of the program or library `path`, its dynamic loader and all libraries. Cached; raises HostError."""
    key = "closure" + path.replace("/", "-")
    data = _cached_by_files(cache, key, [path], lambda: {"files": [path, *_libraries(path)]})
    return tuple(Bind(source=name, target=name) for name in data["files"])


def kvm_state(cache: str) -> str:
    """Return "none", "real", or "software": a /dev/kvm that emulates its guests and runs only plain integer code.

    Found by running a vCPU through one SSE instruction, in a child process; kept until the next boot.
    """
    try:
        descriptor = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return "none"
    os.close(descriptor)
    answer: str = _cached_by_boot(cache, "kvm", _probe_kvm)
    return answer


def tsc_khz(cache: str) -> int:
    """Return the frequency of the host's time stamp counter in kHz, 0 where it cannot be measured."""
    answer: int = _cached_by_boot(cache, "tsc", lambda: _in_child(_measure_tsc, 0))
    return answer


def cpu_count() -> int:
    """Return the number of CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))


# Files and libraries


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _is_elf(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def _support(can: Capabilities, binary: str, arch: str, data_path: str) -> list[str]:
    import glob  # only where the cache misses

    prefix = os.path.dirname(os.path.realpath(os.path.dirname(binary))).rstrip("/")
    found = [data_path] if data_path else []
    for pattern in can.support:
        found += sorted(glob.glob(pattern.format(prefix=prefix, arch=arch)))
    return found


def _libraries(path: str) -> list[str]:
    """Return the dynamic loader and the libraries that it would load for `path`; nothing for a static program."""
    loader = _interpreter(path)
    if loader is None:
        return []
    status, output, error = _run([loader, "--list", path])
    if status != 0:
        if b"statically linked" in output + error or b"not a dynamic executable" in output + error:
            return []
        reason = (error or output).decode("utf-8", "replace").strip()
        raise HostError(f"cannot list the libraries of `{path}`: {reason}")
    libraries = [loader]
    for line in output.decode("utf-8", "surrogateescape").splitlines():
        # "libc.so.6 => /lib/../libc.so.6 (0x..)", "/lib64/ld-linux-x86-64.so.2 (0x..)", "linux-vdso.so.1 (0x..)"
        words = line.split(" => ")[-1].split()
        if line.rstrip().endswith("not found"):
            raise HostError(f"`{path}` cannot be run: {line.strip()}")
        if words and words[0].startswith("/"):
            libraries.append(words[0])
    # libraries outside the loader's own folders are found only by this file
    if os.path.exists("/etc/ld.so.cache"):
        libraries.append("/etc/ld.so.cache")
    return list(dict.fromkeys(libraries))


def _interpreter(path: str) -> str | None:
    """Return PT_INTERP of a program. A shared library has none: it gets this interpreter's own loader."""
    from _struct import unpack_from

    with open(path, "rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:5] != b"\x7fELF\x02":
            return None
        table = unpack_from("<Q", head, 32)[0]
        size, count = unpack_from("<HH", head, 54)
        file.seek(table)
        segments = file.read(size * count)
        kinds = [unpack_from("<I", segments, index * size)[0] for index in range(count)]
        if 3 in kinds:  # PT_INTERP
            base = kinds.index(3) * size
            file.seek(unpack_from("<Q", segments, base + 8)[0])
            return file.read(unpack_from("<Q", segments, base + 32)[0]).rstrip(b"\0").decode()
    if 2 not in kinds or path == "/proc/self/exe":  # PT_DYNAMIC
        return None
    return _interpreter("/proc/self/exe")


def _version(binary: str) -> tuple[int, ...]:
    """Return the version that `--version` names, () where it names none."""
    _, output, error = _run([binary, "--version"])
    for word in (output + error).decode("utf-8", "replace").split():
        numbers = word.lstrip("vV").split("-")[0].split("(")[0].split(".")
        if len(numbers) > 1 and all(number.isdecimal() for number in numbers):
            return tuple(int(number) for number in numbers)
    return ()


def _run(argv: list[str]) -> tuple[int, bytes, bytes]:
    """Run a program to its end; return its status and what it wrote. Only where the cache misses."""
    import subprocess

    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env={"PATH": DEFAULT_PATH}, check=False)
    return done.returncode, done.stdout, done.stderr


# The cache


def _cached_by_files(cache: str, key: str, inputs: list[str], probe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return `probe()`'s answer, from the cache while `inputs` and all files it lists are what they were."""
    known = _read(cache, key)
    if known is not None and known.get("inputs") == inputs:
        answer: dict[str, Any] = known["answer"]
        if known.get("stamps") == _stamps(answer["files"]):
            return answer
    answer = probe()
    _write(cache, key, {"inputs": inputs, "answer": answer, "stamps": _stamps(answer["files"])})
    return answer


def _stamps(files: list[str]) -> list[list[int]] | None:
    stamps = []
    for path in files:
        try:
            stat = os.stat(path)
        except OSError:
            return None
        stamps.append([stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns])
    return stamps


def _cached_by_boot(cache: str, key: str, probe: Callable[[], Any]) -> Any:
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        boot = file.read().strip()
    known = _read(cache, key)
    if known is not None and known.get("boot") == boot:
        return known["answer"]
    answer = probe()
    _write(cache, key, {"boot": boot, "answer": answer})
    return answer


def _read(cache: str, key: str) -> dict[str, Any] | None:
    try:
        with open(os.path.join(cache, key), "rb") as file:
            known = jsonio.loads(file.read())
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) else None


def _write(cache: str, key: str, value: dict[str, Any]) -> None:
    """Keep an answer. A cache that cannot be written costs time and nothing else."""
    path = os.path.join(cache, key)
    fresh = f"{path}.{os.getpid()}"
    try:
        os.makedirs(cache, mode=0o700, exist_ok=True)
        with open(fresh, "wb") as file:
            file.write(jsonio.dumps(value))
        os.rename(fresh, path)
    except OSError:
        _remove(fresh)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


# KVM and the TSC: machine code, in a child that may hang or die


def _in_child(work: Callable[[], int], failed: int) -> int:
    """Return what `work` returns in a child process; `failed` where that dies or takes longer than two seconds."""
    import select

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, str(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        ready, _, _ = select.select([reader], [], [], _PROBE_SECONDS)
        answer = os.read(reader, 32) if ready else b""
    finally:
        os.close(reader)
        os.kill(child, 9)
        os.waitpid(child, 0)
    return int(answer) if answer else failed


def _probe_kvm() -> str:
    return "real" if _in_child(_run_vcpu, 0) else "software"


_KVM_GET_API_VERSION = 0xAE00
_KVM_CREATE_VM = 0xAE01
_KVM_GET_VCPU_MMAP_SIZE = 0xAE04
_KVM_CREATE_VCPU = 0xAE41
_KVM_SET_USER_MEMORY_REGION = 0x4020AE46
_KVM_RUN = 0xAE80
_KVM_SET_REGS = 0x4090AE82
_KVM_GET_SREGS = 0x8138AE83
_KVM_SET_SREGS = 0x4138AE84
_EXIT_IO = 2
# mov eax, cr4; or ax, 0x200 (OSFXSR); mov cr4, eax; addps xmm0, xmm0; mov al, "K"; out 0x10, al; hlt
_SSE_CODE = bytes.fromhex("0f20e0 0d0002 0f22e0 0f58c0 b04b e610 f4")


def _run_vcpu() -> int:
    """Run a vCPU in real mode through an SSE instruction; return 1 where it came to the port write behind it."""
    import ctypes
    import fcntl
    import mmap
    from _struct import pack, pack_into, unpack_from

    if os.uname().machine != "x86_64":
        return 1
    kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    if fcntl.ioctl(kvm, _KVM_GET_API_VERSION, 0) != 12:
        return 0
    machine = fcntl.ioctl(kvm, _KVM_CREATE_VM, 0)
    memory = mmap.mmap(-1, 0x2000)
    memory[0x1000 : 0x1000 + len(_SSE_CODE)] = _SSE_CODE
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(machine, _KVM_SET_USER_MEMORY_REGION, pack("<IIQQQ", 0, 0, 0, 0x2000, address))
    vcpu = fcntl.ioctl(machine, _KVM_CREATE_VCPU, 0)
    shared = mmap.mmap(vcpu, fcntl.ioctl(kvm, _KVM_GET_VCPU_MMAP_SIZE, 0))
    sregs = bytearray(312)
    fcntl.ioctl(vcpu, _KVM_GET_SREGS, sregs)
    pack_into("<QIH", sregs, 0, 0, 0xFFFF, 0)  # struct kvm_segment: cs has base 0, selector 0
    fcntl.ioctl(vcpu, _KVM_SET_SREGS, bytes(sregs))
    regs = bytearray(144)
    pack_into("<QQ", regs, 128, 0x1000, 2)  # rip, rflags
    fcntl.ioctl(vcpu, _KVM_SET_REGS, bytes(regs))
    fcntl.ioctl(vcpu, _KVM_RUN, 0)
    reason = unpack_from("<I", shared, 8)[0]
    if reason != _EXIT_IO:
        return 0
    offset = unpack_from("<Q", shared, 32 + 8)[0]
    return int(shared[offset : offset + 1] == b"K")


# rdtsc; shl rdx, 32; or rax, rdx; ret
_RDTSC_CODE = bytes.fromhex("0f31 48c1e220 4809d0 c3")


def _measure_tsc() -> int:
    """Count the TSC over 50 ms of the monotonic clock."""
    import ctypes
    import mmap
    import time

    if os.uname().machine != "x86_64":
        return 0
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(_RDTSC_CODE)
    rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    ticks, start = rdtsc(), time.monotonic_ns()
    time.sleep(0.05)
    ticks, elapsed = rdtsc() - ticks, time.monotonic_ns() - start
    return int(ticks * 1_000_000 // elapsed)
