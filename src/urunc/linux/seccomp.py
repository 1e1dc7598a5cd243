"""Compile the bundle's seccomp profile to a BPF program, by libseccomp where the host has it.

Implements config-linux.md, "Seccomp", for a filter on the monitor: the process is QEMU or a Solo5 tender, so
there is no agent to notify, and `SCMP_ACT_NOTIFY` is refused. The parent compiles, the child only installs
(`libc.seccomp_install`). A profile of Docker's size takes libseccomp longer than all the rest of a create, so
the result is kept in a cache, keyed by the profile.

libseccomp is used through `_ctypes` (see `libc`): its tables of system calls are what a program needs, and
nothing of that is worth writing again.
"""

from __future__ import annotations

import errno
import os
from _blake2 import blake2b  # hashlib loads OpenSSL; this one is built in
from _struct import pack

from ..errors import HostError, KernelError, SpecError
from ..record import Record
from . import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_AT = "linux.seccomp"

_PLAIN_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,  # the thread, as libseccomp has it
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_NUMBERED_ACTIONS = {"SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_TRACE": 0x7FF00000}
# The names of these four are what a profile may hold (`urunc features`).
ACTIONS = (*_PLAIN_ACTIONS, *_NUMBERED_ACTIONS)
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # one thread installs the filter and executes the monitor: nothing to sync
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 0,  # about notifications, of which there are none
}
ARCHITECTURES = {  # the specification's name: libseccomp's
    "SCMP_ARCH_X86": b"x86",
    "SCMP_ARCH_X86_64": b"x86_64",
    "SCMP_ARCH_X32": b"x32",
    "SCMP_ARCH_ARM": b"arm",
    "SCMP_ARCH_AARCH64": b"aarch64",
    "SCMP_ARCH_MIPS": b"mips",
    "SCMP_ARCH_MIPS64": b"mips64",
    "SCMP_ARCH_MIPS64N32": b"mips64n32",
    "SCMP_ARCH_MIPSEL": b"mipsel",
    "SCMP_ARCH_MIPSEL64": b"mipsel64",
    "SCMP_ARCH_MIPSEL64N32": b"mipsel64n32",
    "SCMP_ARCH_PPC": b"ppc",
    "SCMP_ARCH_PPC64": b"ppc64",
    "SCMP_ARCH_PPC64LE": b"ppc64le",
    "SCMP_ARCH_RISCV64": b"riscv64",
    "SCMP_ARCH_S390": b"s390",
    "SCMP_ARCH_S390X": b"s390x",
    "SCMP_ARCH_PARISC": b"parisc",
    "SCMP_ARCH_PARISC64": b"parisc64",
    "SCMP_ARCH_LOONGARCH64": b"loongarch64",
}
_AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_ATTRIBUTE_OPTIMIZE = 8
_X32_BIT = 1 << 30
_MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_SONAME = "libseccomp.so.2"
_HINT = "install libseccomp2"


class Condition(Record):
    """A condition on one argument of a system call (`args`): libseccomp's struct scmp_arg_cmp."""

    index: int
    operator: int
    value: int
    value_two: int


class Rule(Record):
    """What to do on one system call, by name."""

    name: str
    action: int
    conditions: tuple[Condition, ...] = ()


class Profile(Record):
    """A checked `linux.seccomp`, in the kernel's and libseccomp's numbers."""

    default_action: int
    architectures: tuple[bytes, ...] = ()
    rules: tuple[Rule, ...] = ()


def filter_flags(profile: dict[str, Any]) -> int:
    """Return the SECCOMP_FILTER_FLAG_* for seccomp(2). Without `flags` the default is SPEC_ALLOW, as runc's."""
    names = profile.get("flags")
    if names is None:
        return FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    flags = 0
    for name in names:
        flags |= _known(FLAGS, name, f"{_AT}.flags")
    return flags


def compile(profile: dict[str, Any], arch: str) -> bytes | None:
    """Return the program (struct sock_filter, one after the other) of a decoded `linux.seccomp`, or None for no filter.

    `arch` is this machine's: x86_64 or aarch64. Raises SpecError for a bad profile, HostError without libseccomp.
    """
    parsed = parse(profile)
    return _compile(parsed, arch) if parsed else None


def compile_cached(profile: dict[str, Any], arch: str, directory: str) -> bytes | None:
    """Do as `compile`, with a cache in `directory`, which is made where it does not exist.

    An entry is used only if it is whole, ours, and nobody else can write to it. It is found by the profile as it is
    written, before anything is checked: what was compiled once was checked then.
    """
    name = _cache_name(profile, arch)
    program = _read_cached(directory, name)
    if program is None:
        program = compile(profile, arch)
        if program is not None:
            _write_cached(directory, name, program)
    return program


def install(program: bytes, flags: int = FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]) -> None:
    """Filter this process, for good; `flags` are those of `filter_flags`. Raise OSError.

    Needs no_new_privs, or CAP_SYS_ADMIN.
    """
    libc.seccomp_install(program, flags)


def parse(profile: dict[str, Any]) -> Profile | None:
    """Return the checked profile, None where it filters nothing. Raise SpecError, which starts with the JSON path."""
    filter_flags(profile)
    if not profile.get("defaultAction") and not profile.get("syscalls"):
        return None
    for key in ("listenerPath", "listenerMetadata"):
        if profile.get(key):
            raise SpecError(f"{_AT}.{key}: a monitor has no agent that answers notifications")
    rules: list[Rule] = []
    for index, entry in enumerate(profile.get("syscalls") or ()):
        rules += _rules(entry, f"{_AT}.syscalls[{index}]")
    return Profile(
        default_action=_action(
            profile.get("defaultAction", ""), profile.get("defaultErrnoRet"), f"{_AT}.defaultAction"
        ),
        architectures=tuple(
            _known(ARCHITECTURES, name, f"{_AT}.architectures") for name in profile.get("architectures") or ()
        ),
        rules=tuple(rules),
    )


def _known(table: dict[str, Any], name: str, path: str) -> Any:
    if name not in table:
        raise SpecError(f"{path}: unknown `{name}`")
    return table[name]


def _action(name: str, errno_ret: int | None, path: str) -> int:
    if name == "SCMP_ACT_NOTIFY":
        raise SpecError(f"{path}: SCMP_ACT_NOTIFY: a monitor has no agent that answers notifications")
    if name in _NUMBERED_ACTIONS:
        number = errno.EPERM if errno_ret is None else errno_ret
        if not 0 <= number <= 0xFFFF:
            raise SpecError(f"{path}: errno {number} does not fit 16 bits")
        return _NUMBERED_ACTIONS[name] | number
    if errno_ret is not None and name in _PLAIN_ACTIONS:
        raise SpecError(f"{path}: {name} takes no errno")
    return int(_known(_PLAIN_ACTIONS, name, path))


def _rules(entry: dict[str, Any], path: str) -> list[Rule]:
    """Return one rule a name, or one a condition where two conditions are on one argument: then either is enough."""
    action = _action(entry.get("action", ""), entry.get("errnoRet"), f"{path}.action")
    conditions = tuple(_condition(arg, f"{path}.args[{index}]") for index, arg in enumerate(entry.get("args") or ()))
    names = entry.get("names") or ()
    if not names or not all(names):
        raise SpecError(f"{path}.names: no system call is named")
    if len({condition.index for condition in conditions}) < len(conditions):
        return [Rule(name=name, action=action, conditions=(one,)) for name in names for one in conditions]
    return [Rule(name=name, action=action, conditions=conditions) for name in names]


def _condition(arg: dict[str, Any], path: str) -> Condition:
    index, value, value_two = arg.get("index", 0), arg.get("value", 0), arg.get("valueTwo", 0)
    if not 0 <= index <= 5:
        raise SpecError(f"{path}.index: a system call has no argument {index}")
    if not (0 <= value < 2**64 and 0 <= value_two < 2**64):
        raise SpecError(f"{path}.value: does not fit 64 bits")
    operator = _known(OPERATORS, arg.get("op", ""), f"{path}.op")
    return Condition(index=index, operator=operator, value=value, value_two=value_two)


class _Library:
    """libseccomp's functions. One a process: loading it costs more than calling it."""

    def __init__(self) -> None:
        import _ctypes

        class Word(_ctypes._SimpleCData):  # type: ignore[type-arg]  # not subscriptable when run
            _type_ = "P"

        class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]
            _type_ = "i"

        class Function(_ctypes.CFuncPtr):
            _flags_ = _ctypes.FUNCFLAG_CDECL
            _restype_ = Int

        class Maker(_ctypes.CFuncPtr):
            _flags_ = _ctypes.FUNCFLAG_CDECL
            _restype_ = Word

        try:
            handle = _ctypes.dlopen(_SONAME, 0)
        except OSError as error:
            raise HostError(f"cannot compile the seccomp profile: {error}", hint=_HINT) from None

        def find(name: str, kind: Any, count: int) -> Callable[..., Any]:
            function = kind(_ctypes.dlsym(handle, f"seccomp_{name}"))
            function.argtypes = (Word,) * count
            return function  # type: ignore[no-any-return]

        self.init = find("init", Maker, 1)
        self.release = find("release", Maker, 1)
        self.arch_resolve_name = find("arch_resolve_name", Function, 1)
        self.arch_add = find("arch_add", Function, 2)
        self.attr_set = find("attr_set", Function, 3)
        self.syscall_resolve_name = find("syscall_resolve_name", Function, 1)
        self.rule_add_array = find("rule_add_array", Function, 5)
        self.export_bpf = find("export_bpf", Function, 2)


_library: _Library | None = None


def _load() -> _Library:
    global _library
    if _library is None:
        _library = _Library()
    return _library


def _compile(profile: Profile, arch: str) -> bytes:
    library = _load()
    context = library.init(profile.default_action)
    if not context:
        raise SpecError(f"{_AT}.defaultAction: libseccomp refuses it")
    try:
        _fill(library, context, profile)
        program = _unknown_calls(library, profile, arch) + _export(library, context)
    finally:
        library.release(context)
    if len(program) > _MOST_INSTRUCTIONS * 8:
        raise SpecError(f"{_AT}: the filter has {len(program) // 8} instructions, the kernel takes 4096")
    return program


def _fill(library: _Library, context: int, profile: Profile) -> None:
    for name in profile.architectures:
        token = library.arch_resolve_name(name) & 0xFFFFFFFF
        result = library.arch_add(context, token) if token else -errno.EINVAL
        if result not in (0, -errno.EEXIST):
            raise SpecError(f"{_AT}.architectures: libseccomp does not know `{name.decode()}`")
    if len(profile.rules) > 32:
        # A binary tree in place of a list; with no rules libseccomp up to 2.5.4 gets it wrong, so not always.
        library.attr_set(context, _ATTRIBUTE_OPTIMIZE, 2)
    for rule in profile.rules:
        if rule.action != profile.default_action:  # such a rule says nothing, and libseccomp refuses it
            _add(library, context, rule)


def _add(library: _Library, context: int, rule: Rule) -> None:
    number = library.syscall_resolve_name(rule.name.encode())
    if number == -1:
        return  # younger than this libseccomp, or of another architecture: the default action is its answer
    conditions = b"".join(pack("IIQQ", one.index, one.operator, one.value, one.value_two) for one in rule.conditions)
    result = library.rule_add_array(context, rule.action, number, len(rule.conditions), conditions)
    if result < 0:
        raise SpecError(
            f"{_AT}.syscalls: libseccomp refuses the rule for `{rule.name}`: {os.strerror(-result).lower()}"
        )


def _export(library: _Library, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        result = library.export_bpf(context, fd)
        if result < 0:
            reason = os.strerror(-result).lower()
            raise KernelError(f"cannot export the seccomp filter: {reason}", errno=-result)
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def _unknown_calls(library: _Library, profile: Profile, arch: str) -> bytes:
    """Return a prologue that answers ENOSYS to calls younger than the profile, as runc does.

    A profile denies what it does not list with EPERM, which a C library takes for an answer; from ENOSYS it falls
    back to the older call. "Younger" is a number above the greatest that the profile names. Only for
    the machine's own architecture: that is what a monitor is.
    """
    permissive = profile.default_action in (_PLAIN_ACTIONS["SCMP_ACT_ALLOW"], _PLAIN_ACTIONS["SCMP_ACT_LOG"])
    if permissive or profile.default_action & 0x7FFF0000 == _NUMBERED_ACTIONS["SCMP_ACT_TRACE"]:
        return b""
    last = max((library.syscall_resolve_name(rule.name.encode()) for rule in profile.rules), default=0)
    if last <= 0 or arch not in _AUDIT_ARCHITECTURES:
        return b""
    return b"".join(
        (
            _statement(0x20, 4),  # load the architecture
            _jump(0x15, _AUDIT_ARCHITECTURES[arch], 0, 4),  # another: to the filter
            _statement(0x20, 0),  # load the number of the call
            _jump(0x45, _X32_BIT, 2, 0),  # an x32 call: to the filter
            _jump(0x25, last, 0, 1),  # not above the last: to the filter
            _statement(0x06, _NUMBERED_ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS),
        )
    )


def _statement(code: int, value: int) -> bytes:
    return _jump(code, value, 0, 0)


def _jump(code: int, value: int, if_true: int, if_false: int) -> bytes:
    return pack("HBBI", code, if_true, if_false, value)


_MAGIC = b"urunc seccomp 1\n"
_DIGEST = 32


def _cache_name(profile: dict[str, Any], arch: str) -> str:
    """Return the cache's file name: the same profile, machine and libseccomp give the same name."""
    key = f"{arch} {_library_identity()} {profile!r}"
    return "seccomp-" + blake2b(key.encode(), digest_size=16).hexdigest()


def _library_identity() -> str:
    """Return what changes when libseccomp is upgraded (it then knows more calls), without loading it."""
    for folder in (f"/usr/lib/{os.uname().machine}-linux-gnu", "/usr/lib64", "/usr/lib", "/lib"):
        try:
            found = os.stat(f"{folder}/{_SONAME}")
        except OSError:
            continue
        return f"{found.st_ino}:{found.st_mtime_ns}:{found.st_size}"
    return "elsewhere"


def _read_cached(directory: str, name: str) -> bytes | None:
    """Return the program, None where there is none that can be trusted."""
    try:
        fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_mode & 0o177777 != 0o100600:
            return None
        content = os.read(fd, _MOST_INSTRUCTIONS * 8 + 1024)
    finally:
        os.close(fd)
    program = content[len(_MAGIC) + _DIGEST :]
    if content != _sealed(program) or not program or len(program) % 8 or len(program) > _MOST_INSTRUCTIONS * 8:
        return None
    return program


def _sealed(program: bytes) -> bytes:
    return _MAGIC + blake2b(program, digest_size=_DIGEST).digest() + program


def _write_cached(directory: str, name: str, program: bytes) -> None:
    """Put the program into the cache, whole or not at all. A cache that cannot be written is no error."""
    temporary = f"{directory}/.{name}.{os.getpid()}"
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, _sealed(program))
        finally:
            os.close(fd)
        os.rename(temporary, f"{directory}/{name}")
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass
