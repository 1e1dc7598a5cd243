"""Seccomp profiles: checked, compiled by the host's libseccomp, cached, and really in force in a child."""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgroups import run
from urunc.errors import HostError, SpecError
from urunc.linux import libc, libseccomp, seccomp, seccomp_profile
from urunc.oci import parse_linux

ARCH = os.uname().machine
ALLOW = {"action": "SCMP_ACT_ALLOW"}
ERRNO = {"action": "SCMP_ACT_ERRNO"}
EVERYTHING_BUT: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW"}


def deny(*names: str, **more: Any) -> dict[str, Any]:
    return {**EVERYTHING_BUT, "syscalls": [{"names": list(names), **ERRNO, **more}]}


def in_force(profile: dict[str, Any], check: Any) -> None:
    """Run the check in a child under the profile's filter."""
    program = seccomp.compile(profile, ARCH)
    assert program is not None

    def inside() -> None:
        libc.set_no_new_privs()
        seccomp.install(program, seccomp.filter_flags(profile))
        check()

    run(inside)


def refused(call: Any) -> int:
    """Return the errno of a call that fails."""
    try:
        call()
    except OSError as error:
        return error.errno or 0
    raise AssertionError("it was allowed")


def test_a_denied_call_is_eperm_and_the_others_go_on(tmp_path: Path) -> None:
    def check() -> None:
        assert refused(lambda: os.mkdir(tmp_path / "a")) == errno.EPERM
        (tmp_path / "b").touch()

    in_force(deny("mkdir", "mkdirat"), check)
    assert (tmp_path / "b").exists()


def test_the_errno_is_the_profiles(tmp_path: Path) -> None:
    def check() -> None:
        assert refused(lambda: os.mkdir(tmp_path / "a")) == errno.EXDEV

    in_force(deny("mkdir", "mkdirat", errnoRet=errno.EXDEV), check)


@pytest.mark.parametrize(
    ("condition", "denied", "granted"),
    [
        ({"op": "SCMP_CMP_EQ", "value": 7}, [7], [8]),
        ({"op": "SCMP_CMP_NE", "value": 7}, [8], [7]),
        ({"op": "SCMP_CMP_LT", "value": 7}, [6], [7, 8]),
        ({"op": "SCMP_CMP_LE", "value": 7}, [6, 7], [8]),
        ({"op": "SCMP_CMP_GT", "value": 7}, [8], [6, 7]),
        ({"op": "SCMP_CMP_GE", "value": 7}, [7, 8], [6]),
        ({"op": "SCMP_CMP_MASKED_EQ", "value": 6, "valueTwo": 4}, [4, 5, 12], [6, 2]),
        ({"op": "SCMP_CMP_EQ", "value": 7, "valueTwo": None}, [7], [8]),
    ],
)
def test_conditions_on_an_argument(condition: dict[str, Any], denied: list[int], granted: list[int]) -> None:
    """By getpgid(2) on numbers of no process: ESRCH where the filter lets it through."""
    base = 1 << 22  # above every pid, and none of its bits are in the conditions
    value = condition["value"] + (0 if condition["op"] == "SCMP_CMP_MASKED_EQ" else base)

    def check() -> None:
        for number in denied:
            assert refused(lambda number=number: os.getpgid(base + number)) == errno.EPERM
        for number in granted:
            assert refused(lambda number=number: os.getpgid(base + number)) == errno.ESRCH

    in_force(deny("getpgid", args=[{"index": 0, **condition, "value": value}]), check)


def test_two_conditions_on_one_argument_are_either_and_on_two_are_both() -> None:
    base = 1 << 22
    either = [{"index": 0, "op": "SCMP_CMP_EQ", "value": base + number} for number in (1, 2)]

    def check_either() -> None:
        assert refused(lambda: os.getpgid(base + 1)) == refused(lambda: os.getpgid(base + 2)) == errno.EPERM
        assert refused(lambda: os.getpgid(base + 3)) == errno.ESRCH

    in_force(deny("getpgid", args=either), check_either)
    both = [{"index": 0, "op": "SCMP_CMP_EQ", "value": base + 1}, {"index": 1, "op": "SCMP_CMP_EQ", "value": 5}]

    def check_both() -> None:
        assert refused(lambda: os.setpgid(base + 1, 5)) == errno.EPERM
        assert refused(lambda: os.setpgid(base + 1, 6)) == errno.ESRCH

    in_force(deny("setpgid", args=both), check_both)


def test_a_call_younger_than_the_profile_is_enosys() -> None:
    """An allow list denies by EPERM what it leaves out, but what is younger than it answers ENOSYS."""
    calls = ["read", "write", "exit_group", "close", "munmap", "mmap", "openat", "brk", "futex", "prctl", "seccomp"]
    # `rseq` is from 4.18, below openat2 (5.6) in every table.
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": [*calls, "rseq", "fstat", "lseek", "rt_sigreturn", "newfstatat"], **ALLOW}],
    }

    def check() -> None:
        younger = refused(lambda: libc.openat2(-100, "/", os.O_PATH))
        denied = refused(lambda: os.getpgid(0))
        assert (younger, denied) == (errno.ENOSYS, errno.EPERM)

    in_force(profile, check)


def test_an_unknown_call_is_left_out() -> None:
    assert seccomp.compile(deny("no_such_call"), ARCH) == seccomp.compile({**EVERYTHING_BUT, "syscalls": []}, ARCH)


def test_other_architectures_are_added() -> None:
    names = {"x86_64": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_X86_64"], "aarch64": ["SCMP_ARCH_ARM"]}
    alone = seccomp.compile(deny("mkdir"), ARCH)
    more = seccomp.compile({**deny("mkdir"), "architectures": names[ARCH]}, ARCH)
    assert alone is not None
    assert more is not None
    assert len(more) > len(alone)


def test_nothing_to_filter() -> None:
    assert seccomp.compile({}, ARCH) is None
    assert seccomp.compile({"syscalls": None, "flags": []}, ARCH) is None


def test_flags() -> None:
    assert seccomp.filter_flags({}) == 4
    assert seccomp.filter_flags({"flags": []}) == 0
    assert seccomp.filter_flags({"flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]}) == 2


@pytest.mark.parametrize(
    ("profile", "path"),
    [
        ({"defaultAction": "ALLOW"}, "linux.seccomp.defaultAction"),
        ({"syscalls": [{"names": ["read"], **ALLOW}]}, "linux.seccomp.defaultAction"),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "linux.seccomp.defaultAction"),
        ({**EVERYTHING_BUT, "listenerPath": "/run/a.sock"}, "linux.seccomp.listenerPath"),
        ({**EVERYTHING_BUT, "flags": ["X"]}, "linux.seccomp.flags"),
        ({**EVERYTHING_BUT, "architectures": ["x86"]}, "linux.seccomp.architectures"),
        ({**EVERYTHING_BUT, "syscalls": [{"names": [], **ERRNO}]}, "linux.seccomp.syscalls[0].names"),
        ({**EVERYTHING_BUT, "syscalls": [{"names": [""], **ERRNO}]}, "linux.seccomp.syscalls[0].names"),
        (deny("read", action="SCMP_ACT_NOTIFY"), "linux.seccomp.syscalls[0].action"),
        (deny("read", errnoRet=70000), "linux.seccomp.syscalls[0].action"),
        (deny("read", action="SCMP_ACT_KILL", errnoRet=1), "linux.seccomp.syscalls[0].action"),
        (deny("read", args=[{"index": 6, "op": "SCMP_CMP_EQ", "value": 1}]), "linux.seccomp.syscalls[0].args[0].index"),
        (deny("read", args=[{"index": 0, "op": "EQ", "value": 1}]), "linux.seccomp.syscalls[0].args[0].op"),
        (
            deny("read", args=[{"index": 0, "op": "SCMP_CMP_EQ", "value": -1}]),
            "linux.seccomp.syscalls[0].args[0].value",
        ),
    ],
)
def test_a_bad_profile_is_refused_by_its_path(profile: dict[str, Any], path: str) -> None:
    with pytest.raises(SpecError) as caught:
        seccomp.compile(profile, ARCH)
    assert caught.value.message.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("default", "rules", "refused"),
    [
        ("SCMP_ACT_ERRNO", [(["read"], "SCMP_ACT_ALLOW", False)], ["write"]),
        ("SCMP_ACT_ERRNO", [(["read", "write"], "SCMP_ACT_LOG", False)], []),
        ("SCMP_ACT_ERRNO", [(["read", "write"], "SCMP_ACT_ALLOW", True)], []),
        ("SCMP_ACT_ALLOW", [(["read"], "SCMP_ACT_KILL", False)], ["read"]),
        ("SCMP_ACT_ALLOW", [(["read"], "SCMP_ACT_KILL", True)], []),
        ("SCMP_ACT_TRACE", [], ["read", "write"]),
    ],
)
def test_what_nobody_can_do_without(default: str, rules: list[tuple[list[str], str, bool]], refused: list[str]) -> None:
    """A rule with a condition may let it through, or not: that is for the monitor to find out."""
    condition = {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}
    listed = [
        {"names": names, "action": action, "args": [condition] * conditional} for names, action, conditional in rules
    ]
    profile = {"defaultAction": default, "syscalls": listed}
    if refused:
        with pytest.raises(SpecError, match=f"linux.seccomp: {', '.join(refused)} refused"):
            seccomp.compile(profile, ARCH, ("read", "write"))
    else:
        seccomp.compile(profile, ARCH, ("read", "write"))


def test_config_json_is_read_with_the_same_names() -> None:
    assert set(parse_linux._ACTIONS) == {*seccomp_profile.ACTIONS, "SCMP_ACT_NOTIFY"}
    assert set(parse_linux._OPERATORS) == set(seccomp_profile.OPERATORS)


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libseccomp, "_library", None)
    monkeypatch.setattr(libseccomp, "SONAME", "libseccomp-not-here.so.2")
    with pytest.raises(HostError) as caught:
        seccomp.compile(EVERYTHING_BUT, ARCH)
    assert caught.value.hint == "install libseccomp2"


# The cache


def compiled_anew(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the compilations from here on."""
    counted: list[int] = []
    real = libseccomp.compile

    def count(profile: seccomp_profile.Profile, arch: str) -> bytes:
        counted.append(1)
        return real(profile, arch)

    monkeypatch.setattr(libseccomp, "compile", count)
    return counted


def entry(cache: Path) -> Path:
    (found,) = cache.iterdir()
    return found


def test_a_profile_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = compiled_anew(monkeypatch)
    cache = tmp_path / "cache"
    first = seccomp.compile_cached(deny("mkdir"), ARCH, str(cache))
    assert seccomp.compile_cached(deny("mkdir"), ARCH, str(cache)) == first == seccomp.compile(deny("mkdir"), ARCH)
    assert len(counted) == 2
    assert stat.S_IMODE(entry(cache).stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    seccomp.compile_cached(deny("rmdir"), ARCH, str(cache))
    assert len(counted) == 3
    assert len(list(cache.iterdir())) == 2


def spoil_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def spoil_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def spoil_empty(path: Path) -> None:
    path.write_bytes(b"")


def spoil_mode(path: Path) -> None:
    path.chmod(0o622)


def spoil_link(path: Path) -> None:
    other = path.with_name("other")
    path.rename(other)
    path.symlink_to(other)


def spoil_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def spoil_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize(
    "spoil", [spoil_truncate, spoil_flip, spoil_empty, spoil_mode, spoil_link, spoil_folder, spoil_fifo]
)
def test_a_spoiled_entry_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any) -> None:
    good = seccomp.compile_cached(deny("mkdir"), ARCH, str(tmp_path))
    spoil(entry(tmp_path))
    counted = compiled_anew(monkeypatch)
    assert seccomp.compile_cached(deny("mkdir"), ARCH, str(tmp_path)) == good
    assert counted == [1]


def test_a_cache_that_cannot_be_written_is_no_error() -> None:
    assert seccomp.compile_cached(deny("mkdir"), ARCH, "/proc/nowhere") == seccomp.compile(deny("mkdir"), ARCH)


# Hostile input

names = st.sampled_from(["read", "mkdir", "clone", "no_such", "socket"])
arguments = st.fixed_dictionaries(
    {
        "index": st.integers(-1, 7),
        "op": st.sampled_from([*seccomp_profile.OPERATORS, "SCMP_CMP_X"]),
        "value": st.integers(-1, 2**64),
    },
    optional={"valueTwo": st.integers(0, 2**64 - 1)},
)
entries = st.fixed_dictionaries(
    {
        "names": st.lists(names, max_size=3),
        "action": st.sampled_from(["SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL", "SCMP_ACT_NOTIFY"]),
    },
    optional={"errnoRet": st.integers(-1, 70000), "args": st.lists(arguments, max_size=7)},
)


@given(st.lists(entries, max_size=5))
def test_any_profile_is_a_program_or_an_error(listed: list[dict[str, Any]]) -> None:
    try:
        program = seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": listed}, ARCH)
    except SpecError:
        return
    assert program is not None
    assert len(program) % 8 == 0
    code, _, _, _ = struct.unpack("HBBI", program[-8:])
    assert code == 0x06  # every program ends in an answer
