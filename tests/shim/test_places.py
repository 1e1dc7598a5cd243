"""What is kept in a bundle: who holds it, and that its container is deleted."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from urunc.shim import places
from urunc.shim.places import Place
from world import wait_for

ENTRY = Path(places.__file__).parents[3] / "bin/shim.in"


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(places, "AWAIT_SECONDS", 0.05)
    monkeypatch.setattr(places, "KILL_SECONDS", 10.0)
    (tmp_path / places.PLACE_FILE).touch()
    return tmp_path


@pytest.fixture
def hold(bundle: Path) -> Iterator[Callable[..., int]]:
    """Start a process that holds the bundle, as an operation does, and return its pid once it does."""
    pids: list[int] = []

    def start(*, named: bool) -> int:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                held = places.hold(str(bundle))
                if named:
                    places.name_holder(held)
                os.write(writer, b"x")
                time.sleep(60)
            finally:
                os._exit(1)
        pids.append(pid)
        os.close(writer)
        assert os.read(reader, 1) == b"x"
        os.close(reader)
        return pid

    yield start
    for pid in pids:
        end(pid)


def end(pid: int) -> None:
    """End a child, where the test has not."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


class TestSavePlace:
    def test_it_is_read_back_whichever_was_longer(self, tmp_path: Path) -> None:
        for delegate in ("", "/usr/local/sbin/crun", "runc", ""):
            place = Place(id="web", bundle=str(tmp_path), root="/r", delegate=delegate)
            places.save_place(place)
            assert places.load_place(str(tmp_path)) == place

    def test_what_was_there_stays_until_the_new_one_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As where the shim is killed between."""
        place = Place(id="web", bundle=str(tmp_path), root="/r")
        places.save_place(place)

        def fail(_fd: int, _data: bytes) -> int:
            raise OSError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", fail)
            with pytest.raises(OSError, match="killed"):
                places.save_place(place.replace(delegate="runc"))
        assert places.load_place(str(tmp_path)) == place

    def test_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "write", lambda _fd, data: len(data) - 1)
        with pytest.raises(OSError, match="No space left"):
            places.save_place(Place(id="web", bundle=str(tmp_path), root="/r"))


def test_an_operation_that_takes_too_long_is_killed(bundle: Path, hold: Callable[..., int]) -> None:
    pid = hold(named=True)
    places.await_operation(str(bundle))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_what_it_waits_for_is_killed_first(bundle: Path) -> None:
    """As a hook of runc's: then the operation ends by itself, once runc has undone what it did."""
    pid = os.fork()
    if pid == 0:
        try:
            places.name_holder(places.hold(str(bundle)))
            hooked = "sleep 60; echo undone > undone; exit 3"
            os._exit(subprocess.run(["/bin/sh", "-c", hooked], cwd=bundle, check=False).returncode)
        finally:
            os._exit(1)
    left: list[tuple[int, int]] = []
    try:
        left += wait_for("the hook's sleep", lambda: (below := places._descendants(pid))[1:] and below)
        places.await_operation(str(bundle))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
        assert (bundle / "undone").exists()
    finally:
        for below, started in left or places._descendants(pid):
            places._kill(below, started)
        end(pid)


def test_who_has_not_said_its_name_is_not_killed(
    bundle: Path, hold: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "KILL_SECONDS", 0.05)
    pid = hold(named=False)
    places.await_operation(str(bundle))
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)


def test_one_that_ends_before_its_pid_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    monkeypatch.setattr(places, "_find_holder", lambda _fd: ended.pid)
    assert not places._kill_holder(-1)


def test_one_whose_pid_is_anothers_by_then(hold: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    pid = hold(named=False)
    found = iter((pid, 0))
    monkeypatch.setattr(places, "_find_holder", lambda _fd: next(found))
    assert not places._kill_holder(-1)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)


class TestDeleted:
    """What the entry point's shell prints without Python, where the shim has noted that nothing is left."""

    ANSWER = bytes(range(256))

    @pytest.fixture
    def ask(self, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
        entry = tmp_path_factory.mktemp("bin") / "shim"
        entry.write_text(ENTRY.read_text().replace("@PYTHON@ -IS", "echo asked Python"))
        entry.chmod(0o755)

        def run(*argv: str) -> bytes:
            argv = argv or ("-namespace", "n", "-bundle", str(bundle), "-id", "web", "delete")
            return subprocess.run([entry, *argv], cwd=bundle, stdout=subprocess.PIPE, timeout=10, check=True).stdout

        return run

    def test_nothing_is_left(self, bundle: Path, ask: Callable[..., bytes]) -> None:
        places.note_deleted(str(bundle), self.ANSWER, "")
        assert ask() == self.ANSWER

    def test_the_shim_has_ended(self, bundle: Path, ask: Callable[..., bytes]) -> None:
        places.note_deleted(str(bundle), self.ANSWER, str(bundle / "socket"))
        assert ask() == self.ANSWER

    def test_the_shim_was_killed_before_its_end(self, bundle: Path, ask: Callable[..., bytes]) -> None:
        places.note_deleted(str(bundle), self.ANSWER, str(bundle / "socket"))
        (bundle / "socket").touch()
        assert ask().startswith(b"asked Python")

    def test_another_container_of_that_name_was_begun(self, bundle: Path, ask: Callable[..., bytes]) -> None:
        places.note_deleted(str(bundle), self.ANSWER, "")
        (bundle / places.PLACE_FILE).touch()
        assert ask().startswith(b"asked Python")

    def test_nothing_was_noted(self, ask: Callable[..., bytes]) -> None:
        assert ask().startswith(b"asked Python")

    def test_another_bundle_is_asked_for(self, bundle: Path, ask: Callable[..., bytes]) -> None:
        places.note_deleted(str(bundle), self.ANSWER, "")
        assert ask("-namespace", "n", "-bundle", "/elsewhere", "-id", "web", "delete").startswith(b"asked Python")

    @pytest.mark.parametrize("argv", [("-v",), ("-namespace", "n", "-id", "a b", "start"), ("-info",)])
    def test_whatever_else_is_pythons(self, ask: Callable[..., bytes], argv: tuple[str, ...]) -> None:
        assert ask(*argv).endswith(" ".join(argv).encode() + b"\n")
