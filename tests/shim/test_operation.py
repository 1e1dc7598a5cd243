"""Operations: what comes back from the child, and what when none comes; children that are forked ahead."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from urunc.errors import ImageError, KernelError
from urunc.linux import libc, proc
from urunc.shim import child, operation, work
from urunc.shim.child import Job
from urunc.shim.children import Children
from urunc.shim.loop import Loop
from urunc.shim.operation import Operations, Outcome
from urunc.shim.places import Place

Serve = Callable[[Callable[[], object]], None]
Body = Callable[..., Any]
PLACE = Place(id="web", bundle="/b", root="/r", delegate="runc")


@pytest.fixture
def operations(loop: Loop, children: Children) -> Iterator[Operations]:
    operations = Operations(loop, children)
    yield operations
    operations.close()


@pytest.fixture(params=["forked", "forked ahead"])
def run(
    request: pytest.FixtureRequest, operations: Operations, serve_until: Serve, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Run a job that does as `body`, to its end, either way."""

    def run_(body: Body, *arguments: Any, **options: Any) -> Outcome:
        monkeypatch.setattr(work, "start", body)
        if request.param == "forked ahead":
            operations.prepare("start", ours=True)
        return finish(operations, serve_until, *arguments, **options)

    return run_


def finish(operations: Operations, serve_until: Serve, *arguments: Any, **options: Any) -> Outcome:
    outcomes: list[Outcome] = []
    operations.run(Job(verb="start", place=PLACE, arguments=arguments), outcomes.append, **options)
    serve_until(lambda: outcomes)
    return outcomes[0]


def test_values_come_back(run: Callable[..., Outcome]) -> None:
    outcome = run(lambda place, number: ({"pid": number, "id": place.id}, -1), 7)
    assert (outcome.values, outcome.error, outcome.fd) == ({"pid": 7, "id": "web"}, None, -1)


def test_a_descriptor_comes_back(run: Callable[..., Outcome]) -> None:
    def body(_place: Place) -> tuple[dict[str, Any], int]:
        reader, writer = os.pipe()
        os.write(writer, b"from the child")
        return {}, reader

    outcome = run(body)
    assert os.read(outcome.fd, 100) == b"from the child"
    assert not os.get_inheritable(outcome.fd)
    os.close(outcome.fd)


def test_an_error_comes_back_as_what_it_was(run: Callable[..., Outcome]) -> None:
    def body(_place: Place) -> tuple[dict[str, Any], int]:
        raise ImageError("kernel `/k` is missing", hint="build it")

    error = run(body).error
    assert type(error) is ImageError
    assert str(error) == "kernel `/k` is missing (build it)"


def test_any_other_exception_is_an_internal_error(run: Callable[..., Outcome]) -> None:
    error = run(lambda _place: {}["x"]).error
    assert type(error) is KernelError
    assert "internal error: KeyError" in str(error)


def test_a_killed_child(run: Callable[..., Outcome]) -> None:
    outcome = run(lambda _place: os.kill(os.getpid(), signal.SIGKILL))
    assert "was killed" in str(outcome.error)


def test_a_fork_that_fails(operations: Operations, serve_until: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fail)
    operations.prepare("start", ours=True)
    assert "cannot fork" in str(finish(operations, serve_until).error)


def test_no_descriptor_for_what_it_sends(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the shim is at its limit: the kernel then leaves a descriptor out, without a word."""
    monkeypatch.setattr(operation._socket, "CMSG_SPACE", lambda length: 0)
    assert "no descriptor left" in str(run(lambda _place: ({}, os.dup(0))).error)


def test_the_child_has_the_given_streams_and_no_more(run: Callable[..., Outcome]) -> None:
    reader, writer = os.pipe()

    def body(_place: Place) -> tuple[dict[str, Any], int]:
        os.write(1, b"as output")
        there = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return {os.path.basename(fd): os.readlink(fd) for fd in there if os.path.lexists(fd)}, -1

    outcome = run(body, stdio=(-1, writer, -1))
    os.close(writer)
    assert os.read(reader, 100) == b"as output"
    os.close(reader)
    found = outcome.values
    assert (found["0"], found["2"]) == ("/dev/null", "/dev/null")
    assert [name.partition(":")[0] for fd, name in found.items() if int(fd) > 2] == ["socket"]


def test_the_child_has_what_modules_are_loaded_by(
    operations: Operations, serve_until: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()

    class Finder:
        def hold(self) -> list[int]:
            return [reader]

        def find_spec(self, *_: object) -> None:
            return None

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    monkeypatch.setattr(child, "_code", frozenset())
    monkeypatch.setattr(work, "start", lambda _place: ({"there": os.path.exists(f"/proc/self/fd/{reader}")}, -1))
    assert finish(operations, serve_until).values == {"there": False}
    child.hold_code()
    assert finish(operations, serve_until).values == {"there": True}
    os.close(reader)
    os.close(writer)


def test_it_holds_the_bundle(run: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "shim.json").touch()

    def body(_place: Place) -> tuple[dict[str, Any], int]:
        links = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        return {"held": f"{tmp_path}/shim.json" in links}, -1

    assert run(body, bundle=str(tmp_path)).values == {"held": True}


def test_it_waits_for_the_logger(run: Callable[..., Outcome]) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"xy")
    assert run(lambda _place: ({"ready": True}, -1), ready=reader).values == {"ready": True}
    os.close(writer)
    assert os.read(reader, 100) == b"y"
    os.close(reader)


class TestForkedAhead:
    def test_one_for_another_verb_is_not_taken(self, operations: Operations, serve_until: Serve) -> None:
        operations.prepare("delete", ours=True)
        assert "does not exist" in str(finish(operations, serve_until).error)
        assert operations._spare is not None
        operations.close()

    def test_one_that_has_ended_is_not_missed(
        self, operations: Operations, children: Children, serve_until: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(work, "prepare", lambda _verb, ours: os._exit(1))
        monkeypatch.setattr(work, "start", lambda _place: ({"here": 1}, -1))
        operations.prepare("start", ours=True)
        assert operations._spare is not None
        assert operations._spare.recv(1) == b""
        assert finish(operations, serve_until).values == {"here": 1}

    def test_a_job_too_large_for_a_message_goes_by_a_fork(
        self, operations: Operations, serve_until: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(work, "start", lambda _place, text: ({"length": len(text)}, -1))
        operations.prepare("start", ours=True)
        assert finish(operations, serve_until, "x" * child.MAX_JOB).values == {"length": child.MAX_JOB}

    def test_one_that_nobody_wants_ends(
        self, operations: Operations, serve_until: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(operation, "SPARE_SECONDS", 0.0)
        alive, held = os.pipe()
        monkeypatch.setattr(child.log, "descriptor", lambda: held)
        operations.prepare("start", ours=True)
        os.close(held)
        serve_until(lambda: operations._spare is None)
        assert os.read(alive, 1) == b"", "it has closed what it held"
        os.close(alive)


def a_monitor(_place: Place) -> tuple[dict[str, Any], int]:
    """Make a process that waits, as the body of an operation; `by` is who did."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    return {"pid": pid, "started": proc.start_time(pid), "ours": True, "by": os.getpid()}, -1


class TestStays:
    """The child that has made a container waits for its start."""

    @pytest.fixture(autouse=True)
    def subreaper(self) -> Iterator[None]:
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
        yield
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 0)

    @pytest.fixture
    def create(
        self, operations: Operations, serve_until: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., Outcome]:
        """Make a container by `body`; `work.start` will tell who does it."""

        def create_(body: Body, **options: Any) -> Outcome:
            monkeypatch.setattr(work, "create", body)
            monkeypatch.setattr(work, "start", lambda _place: ({"by": os.getpid()}, -1))
            outcomes: list[Outcome] = []
            operations.run(Job(verb="create", place=PLACE), outcomes.append, **options)
            serve_until(lambda: outcomes)
            return outcomes[0]

        return create_

    def test_it_does_the_start_and_ends(
        self, create: Callable[..., Outcome], operations: Operations, children: Children, serve_until: Serve
    ) -> None:
        made = create(lambda _place: ({"pid": 1, "ours": False, "by": os.getpid()}, -1))
        ends: list[int] = []
        children.watch(made.values["by"], lambda status, _when: ends.append(status))
        assert finish(operations, serve_until).values == {"by": made.values["by"]}
        assert operations._spare is None
        serve_until(lambda: ends)
        assert ends == [0]

    def test_it_does_no_others_start(
        self, create: Callable[..., Outcome], operations: Operations, serve_until: Serve
    ) -> None:
        made = create(lambda _place: ({"pid": 1, "ours": False, "by": os.getpid()}, -1))
        outcomes: list[Outcome] = []
        operations.run(Job(verb="start", place=PLACE.replace(id="other")), outcomes.append)
        serve_until(lambda: outcomes)
        assert outcomes[0].values["by"] not in (made.values["by"], os.getpid())
        assert finish(operations, serve_until).values == {"by": made.values["by"]}

    def test_it_lets_go_of_what_the_container_has(
        self, create: Callable[..., Outcome], operations: Operations, serve_until: Serve, tmp_path: Path
    ) -> None:
        (tmp_path / "shim.json").touch()
        reader, writer = os.pipe()
        made = create(
            lambda _place: ({"pid": 1, "ours": False}, os.dup(1)), stdio=(-1, writer, -1), bundle=str(tmp_path)
        )
        for fd in (made.fd, writer):
            os.close(fd)
        assert os.read(reader, 1) == b"", "though it has not ended"
        os.close(reader)
        with open(tmp_path / "shim.json", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert operations._spare is not None

    def test_one_that_made_nothing_does_not(self, create: Callable[..., Outcome], operations: Operations) -> None:
        assert create(lambda _place: {}["x"]).error is not None
        assert operations._spare is None

    def test_the_end_of_a_monitor_before_its_start_is_told_and_the_start_goes_by_a_fork(
        self, create: Callable[..., Outcome], operations: Operations, children: Children, serve_until: Serve
    ) -> None:
        made = create(a_monitor).values
        ends: list[int] = []
        children.watch(made["pid"], lambda status, _when: ends.append(status))
        os.kill(made["pid"], signal.SIGKILL)
        serve_until(lambda: ends)
        assert ends == [128 + 9]
        assert operations._spare is not None
        assert finish(operations, serve_until).values["by"] not in (made["by"], os.getpid())

    def test_a_stranger_with_the_pid_of_a_monitor_that_has_ended_is_not_waited_for(
        self, create: Callable[..., Outcome], operations: Operations, children: Children, serve_until: Serve
    ) -> None:
        """As where create forks twice: the monitor was the shim's child then, which may have reaped it."""
        made = create(lambda _place: ({"pid": 1, "started": -1, "ours": True, "by": os.getpid()}, -1))
        ends: list[int] = []
        children.watch(made.values["by"], lambda status, _when: ends.append(status))
        serve_until(lambda: ends)
        assert ends == [0]
        assert finish(operations, serve_until).values["by"] not in (made.values["by"], os.getpid())

    def test_a_start_that_came_before_that_end_is_not_lost(
        self, create: Callable[..., Outcome], operations: Operations, serve_until: Serve
    ) -> None:
        made = create(a_monitor).values
        os.kill(made["by"], signal.SIGSTOP)
        os.kill(made["pid"], signal.SIGKILL)
        outcomes: list[Outcome] = []
        operations.run(Job(verb="start", place=PLACE), outcomes.append)
        os.kill(made["by"], signal.SIGCONT)
        serve_until(lambda: outcomes)
        assert outcomes[0].values == {"by": made["by"]}


def test_the_end_of_what_it_made_is_not_missed(
    loop: Loop, children: Children, serve_until: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grandchild that ends before the operation's outcome is known is still told, as the shim is a subreaper."""
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
    ends: list[int] = []
    try:

        def body(_place: Place) -> tuple[dict[str, Any], int]:
            pid = os.fork()
            if pid == 0:
                os._exit(9)
            return {"pid": pid}, -1

        monkeypatch.setattr(work, "start", body)
        Operations(loop, children).run(
            Job(verb="start", place=PLACE),
            lambda outcome: children.watch(outcome.values["pid"], lambda status, _when: ends.append(status)),
        )
        serve_until(lambda: ends)
    finally:
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 0)
    assert ends == [9]
