"""Children: their ends are told once, to the right one, early or late."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from urunc.shim.child import execute
from urunc.shim.children import Children
from urunc.shim.loop import Loop

Serve = Callable[[Callable[[], object]], None]
NULL = (-1, -1, -1)


def test_an_end_is_told_with_status_and_time(children: Children, serve_until: Serve) -> None:
    ends: list[tuple[int, int]] = []
    pid = children.fork(lambda: os._exit(7), NULL, ())
    children.watch(pid, lambda status, when: ends.append((status, when)))
    serve_until(lambda: ends)
    assert ends[0][0] == 7
    assert ends[0][1] > 1_600_000_000 * 10**9


def test_a_signal_is_128_and_more(children: Children, serve_until: Serve) -> None:
    ends: list[int] = []
    pid = children.fork(lambda: os.kill(os.getpid(), signal.SIGKILL), NULL, ())
    children.watch(pid, lambda status, _when: ends.append(status))
    serve_until(lambda: ends)
    assert ends == [137]


def test_a_body_that_raises_ends_with_1(children: Children, serve_until: Serve) -> None:
    def body() -> None:
        raise ValueError

    ends: list[int] = []
    children.watch(children.fork(body, NULL, ()), lambda status, _when: ends.append(status))
    serve_until(lambda: ends)
    assert ends == [1]


def test_an_end_before_anybody_asked_is_kept_while_one_may_ask(children: Children, serve_until: Serve) -> None:
    ends: list[int] = []
    children.expect()
    pid = children.fork(lambda: os._exit(3), NULL, ())
    serve_until(lambda: children._early)
    children.watch(pid, lambda status, _when: ends.append(status))
    children.expect_no_more()
    assert ends == []
    serve_until(lambda: ends)
    assert ends == [3]


def test_what_is_done_at_an_end_and_fails_does_not_hide_the_next(
    children: Children, serve_until: Serve, errors: list[Exception]
) -> None:
    ends: list[int] = []

    def fail(_status: int, _when: int) -> None:
        raise ValueError("broken")

    children.watch(children.fork(lambda: None, NULL, ()), fail)
    serve_until(lambda: errors)
    errors.clear()
    children.watch(children.fork(lambda: None, NULL, ()), lambda status, _when: ends.append(status))
    serve_until(lambda: ends)


def test_strangers_are_reaped_and_forgotten(children: Children, serve_until: Serve) -> None:
    pid = children.fork(lambda: os._exit(0), NULL, ())
    serve_until(lambda: not os.path.exists(f"/proc/{pid}"))
    assert children._early == {}


def test_a_child_has_no_descriptor_but_the_given(children: Children, serve_until: Serve) -> None:
    reader, writer = os.pipe()
    spare = os.open("/dev/null", os.O_RDONLY)

    def body() -> None:
        os.write(1, " ".join(sorted(os.listdir("/proc/self/fd"))).encode())

    children.fork(body, (-1, writer, -1), ())
    os.close(writer)
    os.close(spare)
    found = os.read(reader, 4096).split()
    os.close(reader)
    assert found == [b"0", b"1", b"2", b"3"]  # 3 is the folder that is being listed


def test_a_program_gets_default_signals(children: Children) -> None:
    reader, writer = os.pipe()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    children.fork(lambda: execute(["/bin/grep", "SigIgn", "/proc/self/status"]), (-1, writer, -1), ())
    os.close(writer)
    line = os.read(reader, 4096)
    os.close(reader)
    assert int(line.split()[1], 16) == 0


def test_a_termination_signal_is_told(loop: Loop, serve_until: Serve) -> None:
    told: list[bool] = []
    children = Children(loop, lambda: told.append(True))
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        serve_until(lambda: told)
    finally:
        children.close()


@pytest.mark.parametrize("number", [signal.SIGCHLD, signal.SIGTERM, signal.SIGINT])
def test_the_signals_are_given_back(loop: Loop, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    Children(loop, lambda: None).close()
    assert signal.getsignal(number) == before
