"""Operations: what comes back from the child, and what when none comes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from urunc.errors import ImageError, KernelError
from urunc.shim.children import Children
from urunc.shim.loop import Loop
from urunc.shim.operation import Operations, Outcome

Serve = Callable[[Callable[[], object]], None]


@pytest.fixture
def run(loop: Loop, children: Children, serve_until: Serve) -> Callable[..., Outcome]:
    """Run an operation to its end."""
    operations = Operations(loop, children)

    def run_(body: Callable[[], Any], **options: Any) -> Outcome:
        outcomes: list[Outcome] = []
        operations.run(body, outcomes.append, **options)
        serve_until(lambda: outcomes)
        return outcomes[0]

    return run_


def test_values_come_back(run: Callable[..., Outcome]) -> None:
    outcome = run(lambda: ({"pid": 7, "cgroup": {"": "/x"}}, -1))
    assert (outcome.values, outcome.error, outcome.fd) == ({"pid": 7, "cgroup": {"": "/x"}}, None, -1)


def test_a_descriptor_comes_back(run: Callable[..., Outcome]) -> None:
    def body() -> tuple[dict[str, Any], int]:
        reader, writer = os.pipe()
        os.write(writer, b"from the child")
        return {}, reader

    outcome = run(body)
    assert os.read(outcome.fd, 100) == b"from the child"
    assert not os.get_inheritable(outcome.fd)
    os.close(outcome.fd)


def test_an_error_comes_back_as_what_it_was(run: Callable[..., Outcome]) -> None:
    def body() -> tuple[dict[str, Any], int]:
        raise ImageError("kernel `/k` is missing", hint="build it")

    error = run(body).error
    assert type(error) is ImageError
    assert str(error) == "kernel `/k` is missing (build it)"


def test_any_other_exception_is_an_internal_error(run: Callable[..., Outcome]) -> None:
    error = run(lambda: {}["x"]).error  # type: ignore[typeddict-item]
    assert type(error) is KernelError
    assert "internal error: KeyError" in str(error)


def test_a_killed_child(run: Callable[..., Outcome]) -> None:
    outcome = run(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert "was killed" in str(outcome.error)


def test_a_fork_that_fails(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fail)
    assert "cannot fork" in str(run(lambda: ({}, -1)).error)


def test_no_descriptor_for_what_it_sends(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the shim is at its limit: the kernel then leaves a descriptor out, without a word."""
    monkeypatch.setattr("urunc.shim.operation._socket.CMSG_SPACE", lambda length: 0)
    assert "no descriptor left" in str(run(lambda: ({}, os.dup(0))).error)


def test_the_child_has_the_given_streams(run: Callable[..., Outcome]) -> None:
    reader, writer = os.pipe()

    def body() -> tuple[dict[str, Any], int]:
        os.write(1, b"as output")
        return {"null": os.readlink("/proc/self/fd/0")}, -1

    outcome = run(body, stdio=(-1, writer, -1))
    os.close(writer)
    assert os.read(reader, 100) == b"as output"
    assert outcome.values == {"null": "/dev/null"}
    os.close(reader)


def test_the_end_of_what_it_made_is_not_missed(
    loop: Loop, children: Children, run: Callable[..., Outcome], serve_until: Serve
) -> None:
    """A grandchild that ends before the operation's outcome is known is still told, as the shim is a subreaper."""
    from urunc.linux import libc

    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    ends: list[int] = []
    try:

        def body() -> tuple[dict[str, Any], int]:
            pid = os.fork()
            if pid == 0:
                os._exit(9)
            return {"pid": pid}, -1

        operations = Operations(loop, children)
        operations.run(
            body, lambda outcome: children.watch(outcome.values["pid"], lambda status, _when: ends.append(status))
        )
        serve_until(lambda: ends)
    finally:
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 0)
    assert ends == [9]
