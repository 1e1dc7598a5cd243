"""What `host` asks this machine once: the files a monitor opens, its version, whether KVM is real, the TSC's frequency.

Loaded only where the cache misses, so it may import what it likes. It runs programs and machine code, and knows
nothing of the cache.
"""

from __future__ import annotations

import ctypes
import fcntl
import glob
import mmap
import os
import select
import subprocess
import time
from _struct import pack, pack_into, unpack_from

from ..errors import HostError
from .settings import DEFAULT_PATH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..vm.machine import Capabilities

_PROBE_SECONDS = 2.0


def files(can: Capabilities, binary: str, arch: str, data_path: str) -> list[str]:
    """Return every file that a monitor opens: the binary, its data and firmware, all libraries. Raises HostError."""
    own = list(dict.fromkeys((binary, *_support(can, binary, arch, data_path))))
    loaded = dict.fromkeys(library for path in own if _is_elf(path) for library in libraries(path))
    return [*own, *loaded]


def _is_elf(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def _support(can: Capabilities, binary: str, arch: str, data_path: str) -> list[str]:
    prefix = os.path.dirname(os.path.realpath(os.path.dirname(binary))).rstrip("/")
    found = [data_path] if data_path else []
    for pattern in can.support:
        found += sorted(glob.glob(pattern.format(prefix=prefix, arch=arch)))
    return found


def libraries(path: str) -> list[str]:
    """Return the dynamic loader and the libraries that it would load for `path`; nothing for a static program.

    Raises HostError where it would not find one.
    """
    loader = _interpreter(path)
    if loader is None:
        return []
    status, output, error = run([loader, "--list", path])
    if status != 0:
        if b"statically linked" in output + error or b"not a dynamic executable" in output + error:
            return []
        reason = (error or output).decode("utf-8", "replace").strip()
        raise HostError(f"cannot list the libraries of `{path}`: {reason}")
    found = [loader]
    for line in output.decode("utf-8", "surrogateescape").splitlines():
        # "libc.so.6 => /lib/../libc.so.6 (0x..)", "/lib64/ld-linux-x86-64.so.2 (0x..)", "linux-vdso.so.1 (0x..)"
        words = line.split(" => ")[-1].split()
        if line.rstrip().endswith("not found"):
            raise HostError(f"`{path}` cannot be run: {line.strip()}")
        if words and words[0].startswith("/"):
            found.append(words[0])
    # libraries outside the loader's own folders are found only by this file
    if os.path.exists("/etc/ld.so.cache"):
        found.append("/etc/ld.so.cache")
    return list(dict.fromkeys(found))


def _interpreter(path: str) -> str | None:
    """Return PT_INTERP of a program. A shared library has none: it gets this interpreter's own loader."""
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


def version(binary: str) -> tuple[int, ...]:
    """Return the version that `--version` names, () where it names none."""
    _, output, error = run([binary, "--version"])
    for word in (output + error).decode("utf-8", "replace").split():
        numbers = word.lstrip("vV").split("-")[0].split("(")[0].split(".")
        if len(numbers) > 1 and all(number.isdecimal() for number in numbers):
            return tuple(int(number) for number in numbers)
    return ()


def run(argv: list[str]) -> tuple[int, bytes, bytes]:
    """Run a program to its end; return its status and what it wrote."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env={"PATH": DEFAULT_PATH}, check=False)
    return done.returncode, done.stdout, done.stderr


def _in_child(work: Callable[[], int]) -> int:
    """Return what `work` returns in a child process; 0 where that dies or takes longer than two seconds."""
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
    return int(answer or b"0")


def kvm(device: str = "/dev/kvm") -> str:
    """Return "none" where the device is no KVM, else "real", or "software": a vCPU trips over one SSE instruction.

    It takes a child to try.
    """
    if not _is_kvm(device):
        return "none"
    return "real" if _in_child(_run_vcpu) else "software"


def tsc_khz() -> int:
    """Return the frequency of the time stamp counter in kHz, 0 where it cannot be measured."""
    return _in_child(_measure_tsc)


_KVM_API_VERSION = 12
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


def _is_kvm(device: str) -> bool:
    try:
        with open(device, "r+b", buffering=0) as file:
            return fcntl.ioctl(file, _KVM_GET_API_VERSION, 0) == _KVM_API_VERSION
    except OSError:
        return False


def _run_vcpu() -> int:
    """Run a vCPU in real mode through an SSE instruction; return 1 where it came to the port write behind it."""
    if os.uname().machine != "x86_64":
        return 1
    kvm = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
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
    if os.uname().machine != "x86_64":
        return 0
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(_RDTSC_CODE)
    rdtsc = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    ticks, start = rdtsc(), time.monotonic_ns()
    time.sleep(0.05)
    ticks, elapsed = rdtsc() - ticks, time.monotonic_ns() - start
    return int(ticks * 1_000_000 // elapsed)
