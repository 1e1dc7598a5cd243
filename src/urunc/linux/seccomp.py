"""The seccomp filter of the monitor: compiled from the bundle's profile, kept in a cache, installed.

The parent compiles, the child only installs (`libc.seccomp_install`). A profile of Docker's size takes libseccomp
longer than all the rest of a create, so the result is kept in a cache, keyed by the profile: what checks a profile
(`seccomp_profile`) and compiles it (`libseccomp`) is imported where it is not there yet.
"""

from __future__ import annotations

import os
from _blake2 import blake2b  # hashlib loads OpenSSL; this one is built in

from ..errors import SpecError
from . import kept, libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # one thread installs the filter and executes the monitor: nothing to sync
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 0,  # about notifications, of which there are none
}

MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS
SONAME = "libseccomp.so.2"
_MAGIC = b"urunc seccomp 1\n"
_DIGEST = 32


def filter_flags(profile: dict[str, Any]) -> int:
    """Return the SECCOMP_FILTER_FLAG_* for seccomp(2). Without `flags` it is SPEC_ALLOW (as runc). Raises SpecError."""
    names = profile.get("flags")
    if names is None:
        return FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    flags = 0
    for name in names:
        if name not in FLAGS:
            raise SpecError(f"linux.seccomp.flags: unknown `{name}`")
        flags |= FLAGS[name]
    return flags


def compile(profile: dict[str, Any], arch: str, needs: tuple[str, ...] = ()) -> bytes | None:
    """Return the program (struct sock_filter, one after the other) of a decoded `linux.seccomp`, or None for no filter.

    `arch` is this machine's: x86_64 or aarch64. `needs` are system calls without which nothing could be done under it.
    Raises SpecError for a bad profile, and one that refuses those; HostError without libseccomp.
    """
    from . import libseccomp, seccomp_profile

    filter_flags(profile)
    parsed = seccomp_profile.parse(profile)
    if not parsed:
        return None
    refused = seccomp_profile.refused(parsed, needs)
    if refused:
        raise SpecError(
            f"linux.seccomp: {', '.join(refused)} refused, without which no monitor starts",
            hint="make the profile from the engine's default one",
        )
    return libseccomp.compile(parsed, arch)


def compile_cached(profile: dict[str, Any], arch: str, directory: str, needs: tuple[str, ...] = ()) -> bytes | None:
    """Do as `compile`, with a cache in `directory`, which is made where it does not exist.

    An entry is found by the profile as it is written, before anything is checked: what was compiled once was checked
    then.
    """
    name = _cache_name(profile, arch)
    program = _read_cached(directory, name)
    if program is None:
        program = compile(profile, arch, needs)
        if program is not None:
            kept.write(directory, name, _sealed(program))
    return program


def install(program: bytes, flags: int = FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]) -> None:
    """Filter this process, for good; `flags` are those of `filter_flags`. Raises OSError.

    Needs no_new_privs, or CAP_SYS_ADMIN.
    """
    libc.seccomp_install(program, flags)


def _cache_name(profile: dict[str, Any], arch: str) -> str:
    """Return the cache's file name: the same profile, machine and libseccomp give the same name."""
    key = f"{arch} {_library_identity()} {profile!r}"
    return "seccomp-" + blake2b(key.encode(), digest_size=16).hexdigest()


def _library_identity() -> str:
    """Return what changes when libseccomp is upgraded (it then knows more calls), without loading it."""
    for folder in (f"/usr/lib/{os.uname().machine}-linux-gnu", "/usr/lib64", "/usr/lib", "/lib"):
        try:
            found = os.stat(f"{folder}/{SONAME}")
        except OSError:
            continue
        return f"{found.st_ino}:{found.st_mtime_ns}:{found.st_size}"
    return "elsewhere"


def _read_cached(directory: str, name: str) -> bytes | None:
    """Return the program, None where there is none that can be trusted."""
    content = kept.read(directory, name, MOST_INSTRUCTIONS * 8 + 1024) or b""
    program = content[len(_MAGIC) + _DIGEST :]
    if content != _sealed(program) or not program or len(program) % 8 or len(program) > MOST_INSTRUCTIONS * 8:
        return None
    return program


def _sealed(program: bytes) -> bytes:
    return _MAGIC + blake2b(program, digest_size=_DIGEST).digest() + program
