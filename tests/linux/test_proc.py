from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inchild import run_in
from urunc.linux import libc, ns, proc

PR_SET_DUMPABLE = 4


@pytest.fixture
def sleeper() -> object:
    process = subprocess.Popen(["/bin/sleep", "60"])
    yield process
    process.kill()
    process.wait()


def _started(pid: int) -> int:
    started = proc.start_time(pid)
    assert started is not None
    return started


@pytest.mark.parametrize("name", ["a b", ") (", ")) R 1 2", "(", ""])
def test_start_time_whatever_the_name(name: str) -> None:
    def body() -> tuple[int | None, int | None]:
        before = proc.start_time(os.getpid())
        Path("/proc/self/comm").write_text(name)
        return before, proc.start_time(os.getpid())

    before, after = run_in((), body)
    assert before == after
    assert before is not None


def test_a_zombie_is_gone() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert proc.start_time(child) is None
    os.waitpid(child, 0)
    assert proc.start_time(child) is None


def test_children(sleeper: subprocess.Popen[bytes]) -> None:
    assert sleeper.pid in proc.children(os.getpid())
    assert proc.children(sleeper.pid) == []
    assert proc.children(2**22 + 1) == [], "no such process"


def test_boot_id() -> None:
    assert proc.boot_id() == proc.boot_id()
    assert len(proc.boot_id()) == 36


def test_a_stranger_with_the_same_pid_is_not_signalled(sleeper: subprocess.Popen[bytes]) -> None:
    started = _started(sleeper.pid)
    with pytest.raises(ProcessLookupError):
        proc.send_signal(sleeper.pid, started - 1, signal.SIGKILL)
    assert proc.wait_gone(sleeper.pid, started - 1, 0)
    assert not proc.wait_gone(sleeper.pid, started, 0)
    assert sleeper.poll() is None


def test_a_strangers_files_are_not_opened(sleeper: subprocess.Popen[bytes]) -> None:
    started = proc.start_time(sleeper.pid)
    assert started
    fd = proc.open_file(sleeper.pid, started, "ns/net")
    assert os.fstat(fd).st_ino == os.stat(f"/proc/{sleeper.pid}/ns/net").st_ino
    os.close(fd)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ProcessLookupError):
        proc.open_file(sleeper.pid, started - 1, "ns/net")
    assert os.listdir("/proc/self/fd") == before
    sleeper.kill()
    sleeper.wait()
    with pytest.raises(ProcessLookupError):
        proc.open_file(sleeper.pid, started, "ns/net")


def test_signal_and_wait(sleeper: subprocess.Popen[bytes]) -> None:
    started = _started(sleeper.pid)
    proc.send_signal(sleeper.pid, started, 0)
    proc.send_signal(sleeper.pid, started, signal.SIGTERM)
    assert proc.wait_gone(sleeper.pid, started, 10)
    with pytest.raises(ProcessLookupError):  # a zombie by now, or reaped
        proc.send_signal(sleeper.pid, started, signal.SIGTERM)
    assert sleeper.wait() == -signal.SIGTERM


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigkill", 9),
        ("9", 9),
        ("0", 0),
        ("64", 64),
        ("RTMIN", signal.SIGRTMIN),
        ("RTMIN+3", signal.SIGRTMIN + 3),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("rtmax-1", signal.SIGRTMAX - 1),
        ("PWR", 30),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert proc.parse_signal(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "SIG", "NOPE", "65", "-1", "1.5", " 9", "TERM+1", "RTMIN+", "RTMIN+99", "RTMAX+1", "_DFL", "SIG_IGN", "٣"],
)
def test_no_signals(text: str) -> None:
    with pytest.raises(ValueError, match="unknown signal"):
        proc.parse_signal(text)


@given(st.text(max_size=12))
def test_any_text_is_a_signal_or_a_value_error(text: str) -> None:
    try:
        assert 0 <= proc.parse_signal(text) <= signal.SIGRTMAX
    except ValueError:
        pass


def test_whether_a_limit_could_be_set() -> None:
    """Nothing of it stays."""

    def body() -> tuple[list[bool], tuple[int, int]]:
        import resource

        resource.setrlimit(resource.RLIMIT_NPROC, (50, 60))
        answers = [proc.may_set_rlimit("RLIMIT_NPROC", hard) for hard in (0, 50, 60)]
        answers += [proc.may_set_rlimit("RLIMIT_NPROC", hard, raising=False) for hard in (60, 61, 2**64 - 1)]
        proc.may_set_rlimit("RLIMIT_NPROC", 61)
        libc.capset_none()
        answers += [proc.may_set_rlimit("RLIMIT_NPROC", hard) for hard in (60, 61, 2**64 - 1)]
        return answers, resource.getrlimit(resource.RLIMIT_NPROC)

    answers, limits = run_in((), body)
    assert answers == [True, True, True, True, False, False, True, False, False]
    assert limits == (50, 60)


def test_rlimits() -> None:
    def body() -> tuple[tuple[int, int], ...]:
        import resource

        proc.set_rlimits((("RLIMIT_NOFILE", 100, 200), ("RLIMIT_CORE", 0, 0)))
        return resource.getrlimit(resource.RLIMIT_NOFILE), resource.getrlimit(resource.RLIMIT_CORE)

    assert run_in((), body) == ((100, 200), (0, 0))


def test_an_unlimited_limit_stays_one() -> None:
    def body() -> tuple[int, int]:
        import resource

        limits = resource.getrlimit(resource.RLIMIT_CPU)
        proc.set_rlimits((("RLIMIT_CPU", 2**64 - 1, 2**64 - 1),))
        return limits

    assert run_in((), body) == (-1, -1)


def test_a_limit_that_cannot_be_set_is_named() -> None:
    def body() -> None:
        with pytest.raises(OSError, match="cannot set RLIMIT_NOFILE: invalid argument"):
            proc.set_rlimits((("RLIMIT_NOFILE", 200, 100),))

    run_in((), body)


def test_the_monitor_starts_with_default_signals() -> None:
    def body() -> str:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
        proc.reset_signals()
        read, write = os.pipe()
        os.dup2(write, 1)
        os.close(write)
        if os.fork() == 0:
            os.execv("/bin/cat", ["cat", "/proc/self/status"])  # noqa: S606
        os.close(1)
        with open(read) as file:
            return file.read()

    status = dict(line.split(":\t", 1) for line in run_in((), body).splitlines() if ":\t" in line)
    assert int(status["SigIgn"], 16) == 0
    assert int(status["SigBlk"], 16) == 0


def test_only_the_named_descriptors_stay() -> None:
    def body() -> list[int]:
        first, second = os.pipe()
        third = os.dup(first)
        folder = os.open("/proc/self/fd", os.O_RDONLY)
        proc.close_all_but((folder, third, 1, third))
        listed = {int(name) for name in os.listdir(folder)}
        still = []
        for fd in listed | {first, second}:
            try:
                os.fstat(fd)
                still.append(fd)
            except OSError:
                pass
        os._exit(0 if sorted(still) == sorted({1, third, folder}) else 1)
        return still

    child = os.fork()
    if child == 0:
        body()
    assert os.waitpid(child, 0)[1] == 0


def test_descriptors_that_close_at_execve() -> None:
    child = os.fork()
    if child == 0:
        pipe = os.pipe()
        for fd in pipe:
            os.set_inheritable(fd, True)
        proc.close_at_exec(max(pipe))
        os._exit([os.get_inheritable(fd) for fd in pipe] != [True, False])
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.root
def test_become() -> None:
    def body() -> tuple[object, ...]:
        proc.become(1234, 2345, (7, 8))
        return os.getresuid(), os.getresgid(), os.getgroups()

    assert run_in((), body) == ((1234,) * 3, (2345,) * 3, [7, 8])


@pytest.mark.root
def test_become_keeps_groups_when_told() -> None:
    def body() -> list[int]:
        os.setgroups([9])
        proc.become(1, 1, None)
        return os.getgroups()

    assert run_in((), body) == [9]


@pytest.mark.root
def test_become_where_setgroups_is_denied() -> None:
    def body() -> tuple[int, int]:
        proc.become(1000, 1000)
        libc.prctl(PR_SET_DUMPABLE, 1)  # or /proc/self is root's
        ns.unshare(("user",))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text("0 1000 1")
        Path("/proc/self/gid_map").write_text("0 1000 1")
        with pytest.raises(PermissionError, match="supplementary groups"):
            proc.become(0, 0, (0,))
        proc.become(0, 0, ())
        return os.getuid(), os.getgid()

    assert run_in((), body) == (0, 0)


def test_a_child_ends_with_its_parent() -> None:
    read, write = os.pipe()
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from urunc.linux import proc\n"
        "ready, told = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    proc.die_with_parent()\n"
        "    os.write(told, b'x')\n"
        "    import time; time.sleep(60)\n"
        "os.read(ready, 1)\n"
    )
    source = str(Path(proc.__file__).parents[2])
    subprocess.run([sys.executable, "-IS", "-c", program, source], pass_fds=(write,), check=True)
    os.close(write)
    with open(read, "rb") as file:
        assert file.read() == b""  # the child held the other end; it is gone well before its sleep ends


def test_oom_score_adj() -> None:
    def body() -> str:
        proc.set_oom_score_adj(500)
        return Path("/proc/self/oom_score_adj").read_text()

    assert run_in((), body) == "500\n"


def test_catches_tells_a_handler_from_the_default() -> None:
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: None); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert proc.catches(child.pid, signal.SIGTERM)
        assert not proc.catches(child.pid, signal.SIGUSR1)
        child.communicate()
    assert not proc.catches(child.pid, signal.SIGTERM)
