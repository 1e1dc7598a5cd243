"""A BPF program of a checked seccomp profile, by the host's libseccomp.

It is used through `_ctypes` (see `libc`): its tables of system calls are what a program needs, and nothing of that
is worth writing again. Imported only where a profile has to be compiled.
"""

from __future__ import annotations

import errno
import os
from _struct import pack

from ..errors import HostError, KernelError, SpecError
from .seccomp import MOST_INSTRUCTIONS, SONAME
from .seccomp_profile import AT, NUMBERED_ACTIONS, PLAIN_ACTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .seccomp_profile import Profile, Rule

_AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ATTRIBUTE_OPTIMIZE = 8
_X32_BIT = 1 << 30
_HINT = "install libseccomp2"


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
            handle = _ctypes.dlopen(SONAME, 0)
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


def compile(profile: Profile, arch: str) -> bytes:
    """Return the program (struct sock_filter, one after the other) for this machine: x86_64 or aarch64.

    Raises SpecError where libseccomp refuses the profile, HostError where there is no libseccomp, KernelError.
    """
    library = _load()
    context = library.init(profile.default_action)
    if not context:
        raise SpecError(f"{AT}.defaultAction: libseccomp refuses it")
    try:
        _fill(library, context, profile)
        program = _unknown_calls(library, profile, arch) + _export(library, context)
    finally:
        library.release(context)
    if len(program) > MOST_INSTRUCTIONS * 8:
        raise SpecError(f"{AT}: the filter has {len(program) // 8} instructions, the kernel takes 4096")
    return program


def _fill(library: _Library, context: int, profile: Profile) -> None:
    for name in profile.architectures:
        token = library.arch_resolve_name(name) & 0xFFFFFFFF
        result = library.arch_add(context, token) if token else -errno.EINVAL
        if result not in (0, -errno.EEXIST):
            raise SpecError(f"{AT}.architectures: libseccomp does not know `{name.decode()}`")
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
        raise SpecError(f"{AT}.syscalls: libseccomp refuses the rule for `{rule.name}`: {os.strerror(-result).lower()}")


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
    permissive = profile.default_action in (PLAIN_ACTIONS["SCMP_ACT_ALLOW"], PLAIN_ACTIONS["SCMP_ACT_LOG"])
    if permissive or profile.default_action & 0x7FFF0000 == NUMBERED_ACTIONS["SCMP_ACT_TRACE"]:
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
            _statement(0x06, NUMBERED_ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS),
        )
    )


def _statement(code: int, value: int) -> bytes:
    return _jump(code, value, 0, 0)


def _jump(code: int, value: int, if_true: int, if_false: int) -> bytes:
    return pack("HBBI", code, if_true, if_false, value)
