from __future__ import annotations

import errno
import os
import platform
import subprocess
import sys
from _struct import pack

import pytest

from inchild import run_in
from urunc.linux import libc, proc

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(libc.__file__)))


def test_the_error_names_the_call_and_its_object() -> None:
    with pytest.raises(FileNotFoundError, match=r"mount: no such file or directory: '/nowhere'"):
        libc.mount("none", "/nowhere", "tmpfs", 0)


def test_a_nul_in_a_path_does_not_name_another_file() -> None:
    with pytest.raises(OSError, match="NUL") as caught:
        libc.openat2(libc.AT_FDCWD, "/etc\0/passwd", os.O_RDONLY)
    assert caught.value.errno == errno.EINVAL


def test_nothing_is_loaded_before_the_first_call() -> None:
    program = (
        "import sys; from urunc.linux import libc\n"
        "assert '_ctypes' not in sys.modules\n"
        "libc.load(); libc.load()\n"
        "assert '_ctypes' in sys.modules and 'ctypes' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-IS", "-c", f"import sys; sys.path.insert(0, {SOURCE!r})\n{program}"], check=True)


def test_wide_and_negative_arguments_arrive_whole() -> None:
    libc.close_range(1 << 20, 0xFFFFFFFF)  # an int of 32 bits would turn the end into -1 and fail
    with pytest.raises(OSError, match="setns: bad file descriptor"):
        libc.setns(-1, 0)


def _capabilities() -> dict[str, int]:
    with open("/proc/self/status") as file:
        return {line[:6]: int(line.split()[1], 16) for line in file if line.startswith("Cap")}


@pytest.mark.root
@pytest.mark.parametrize("uid", [0, 1000])
def test_no_capability_is_left(uid: int) -> None:
    def body() -> dict[str, int]:
        libc.drop_bounding_set()
        proc.become(uid, uid)
        libc.capset_none()
        return _capabilities()

    assert run_in((), body) == dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), 0)


@pytest.mark.root
def test_a_bounding_set_that_cannot_be_dropped_is_an_error() -> None:
    def body() -> None:
        proc.become(1000, 1000)
        with pytest.raises(PermissionError, match="prctl"):
            libc.capset_none()

    run_in((), body)


@pytest.mark.root
def test_domain_name() -> None:
    def body() -> str:
        libc.setdomainname("guests.example")
        with open("/proc/sys/kernel/domainname") as file:
            return file.read()

    assert run_in(("uts",), body) == "guests.example\n"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter is written for x86_64")
def test_a_seccomp_filter_filters() -> None:
    def body() -> int | None:
        load_number, jump_equal, answer = 0x20, 0x15, 0x06
        program = (
            pack("HBBI", load_number, 0, 0, 0)
            + pack("HBBI", jump_equal, 0, 1, 171)  # setdomainname
            + pack("HBBI", answer, 0, 0, 0x00050000 | 42)
            + pack("HBBI", answer, 0, 0, 0x7FFF0000)
        )
        libc.set_no_new_privs()
        libc.seccomp_install(program)
        try:
            libc.setdomainname("x")
        except OSError as error:
            return error.errno
        return None

    assert run_in((), body) == 42


def test_close_range_closes_or_marks() -> None:
    first, second = os.pipe()
    os.set_inheritable(first, True)
    libc.close_range(first, first, libc.CLOSE_RANGE_CLOEXEC)
    assert not os.get_inheritable(first)
    libc.close_range(first, first)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first)
    os.close(second)


@pytest.mark.root
def test_a_new_session_keyring_is_another() -> None:
    def body() -> tuple[int, int]:
        libc.new_session_keyring()
        first = libc._call("keyctl", 0, -3, 0)  # KEYCTL_GET_KEYRING_ID of the session's
        libc.new_session_keyring()
        return first, libc._call("keyctl", 0, -3, 0)

    first, second = run_in((), body)
    assert first != second


@pytest.mark.root
def test_scheduling() -> None:
    def body() -> list[object]:
        libc.sched_setattr(os.SCHED_RR, 0, 0, 3, (0, 0, 0))
        first = [os.sched_getscheduler(0), os.sched_getparam(0).sched_priority]
        libc.sched_setattr(os.SCHED_OTHER, 0, -5, 0, (0, 0, 0))
        libc.ioprio_set(2 << 13 | 5)
        with pytest.raises(OSError, match="sched_setattr: invalid argument"):
            libc.sched_setattr(os.SCHED_OTHER, 0, 0, 3, (0, 0, 0))
        with pytest.raises(OSError, match="ioprio_set: invalid argument"):
            libc.ioprio_set(5 << 13)
        return [*first, os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)]

    assert run_in((), body) == [os.SCHED_RR, 3, os.SCHED_OTHER, -5]


@pytest.mark.skipif(not os.path.exists("/proc/self/numa_maps"), reason="this kernel has no memory policies")
def test_a_memory_policy() -> None:
    def body() -> bool:
        libc.set_mempolicy(2, (0,))
        with open("/proc/self/numa_maps", encoding="ascii") as file:
            bound = " bind:0 " in file.read()
        libc.set_mempolicy(0, ())
        with pytest.raises(OSError, match="set_mempolicy: invalid argument"):
            libc.set_mempolicy(2, (1000,))
        with open("/proc/self/numa_maps", encoding="ascii") as file:
            return bound and " bind:0 " not in file.read()

    assert run_in((), body) is True
