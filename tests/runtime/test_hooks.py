"""Hooks: order, stdin, environment, failure, timeout, and programs that do their worst."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from urunc.errors import HookError
from urunc.oci.spec import Hook
from urunc.runtime import hooks

STATE = {"ociVersion": "1.2.0", "id": "web", "status": "creating", "pid": 7, "bundle": "/", "annotations": {}}


def shell(script: str, **more: object) -> Hook:
    return Hook(path="/bin/sh", args=("sh", "-c", script), **more)  # type: ignore[arg-type]


def run(*listed: Hook, kind: str = "createRuntime", **more: object) -> None:
    hooks.run_hooks(listed, STATE, kind=kind, **more)  # type: ignore[arg-type]


def open_descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def test_hooks_run_in_their_listed_order_with_the_state_on_stdin(tmp_path: Path) -> None:
    run(shell(f"cat > {tmp_path}/state"), shell(f"echo a >> {tmp_path}/order"), shell(f"echo b >> {tmp_path}/order"))
    assert json.loads((tmp_path / "state").read_text()) == STATE
    assert (tmp_path / "order").read_text() == "a\nb\n"


def test_a_large_state_reaches_a_hook_whole_and_bothers_one_that_does_not_read(tmp_path: Path) -> None:
    state = {**STATE, "annotations": {"key": "x" * 500_000}}
    hooks.run_hooks((shell("true"), shell(f"cat > {tmp_path}/state")), state, kind="poststart")
    assert json.loads((tmp_path / "state").read_text()) == state


def test_the_environment_is_what_the_hook_names(tmp_path: Path) -> None:
    run(Hook(path="/usr/bin/env", args=("env",), env=("A=1=2", "B=")), shell("true"))
    run(shell(f"/usr/bin/env > {tmp_path}/named", env=("A=1=2", "B=")))
    assert {line for line in (tmp_path / "named").read_text().splitlines() if line[:2] in ("A=", "B=")} == {
        "A=1=2",
        "B=",
    }
    assert "HOME=" not in (tmp_path / "named").read_text()


def test_without_an_environment_a_hook_of_the_host_has_ours_and_one_of_the_image_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("URUNC_SECRET", "here")
    for kind in ("createRuntime", "startContainer"):
        run(shell(f"/usr/bin/env > {tmp_path}/{kind}"), kind=kind)
    assert "URUNC_SECRET=here" in (tmp_path / "createRuntime").read_text()
    assert "URUNC_SECRET" not in (tmp_path / "startContainer").read_text()


def test_the_first_argument_is_the_hooks_to_choose(tmp_path: Path) -> None:
    run(Hook(path="/bin/sh", args=("other name", "-c", f"tr '\\0' '\\n' < /proc/$$/cmdline > {tmp_path}/argv")))
    assert (tmp_path / "argv").read_text().splitlines()[0] == "other name"


def test_no_argument_means_the_path() -> None:
    run(Hook(path="/bin/true"))


@pytest.mark.parametrize(
    ("hook", "reason"),
    [
        (shell("echo one; echo the cause >&2; exit 3"), "`/bin/sh`: exit status 3: the cause"),
        (shell("exit 1"), "`/bin/sh`: exit status 1"),
        (shell("kill -9 $$"), "`/bin/sh`: killed by signal 9"),
        (Hook(path="/nonexistent/hook"), "`/nonexistent/hook`: exit status 127: cannot be executed: no such file or"),
        (Hook(path="/etc/passwd"), "`/etc/passwd`: exit status 127: cannot be executed: permission denied"),
        (Hook(path="/bin/true", env=("=x",)), "`/bin/true`: exit status 127: cannot be executed: "),
    ],
)
def test_a_failure_is_one_sentence_with_the_cause_last(hook: Hook, reason: str) -> None:
    with pytest.raises(HookError) as caught:
        run(hook, kind="createContainer")
    assert str(caught.value).startswith(f"createContainer hook {reason}")
    assert "\n" not in str(caught.value)


def test_a_failure_stops_the_rest(tmp_path: Path) -> None:
    with pytest.raises(HookError):
        run(shell("exit 1"), shell(f"touch {tmp_path}/ran"))
    assert not (tmp_path / "ran").exists()


def test_a_failure_that_is_only_a_warning_does_not_stop_the_rest(tmp_path: Path) -> None:
    said: list[str] = []
    run(shell("exit 1"), shell(f"touch {tmp_path}/ran"), kind="poststop", warn=said.append)
    assert said == ["poststop hook `/bin/sh`: exit status 1"]
    assert (tmp_path / "ran").exists()


def test_a_timeout_kills_the_hook_and_its_children(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path}/child; sleep 1000"
    with pytest.raises(HookError, match="did not end within its timeout of 1 s"):
        run(shell(script, timeout=1))
    child = int((tmp_path / "child").read_text())
    assert is_gone(child)


def is_gone(pid: int) -> bool:
    for _ in range(200):
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True
        if status.rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.01)
    return False


def test_a_huge_timeout_is_taken() -> None:
    run(shell("true", timeout=10**12))


def test_endless_output_is_read_and_its_end_kept() -> None:
    script = "head -c 50000000 /dev/zero | tr '\\0' 'x'; echo; echo the end; exit 1"
    with pytest.raises(HookError, match=r"exit status 1: the end$"):
        run(shell(script))


def test_a_child_in_the_background_that_holds_the_output_delays_nobody(tmp_path: Path) -> None:
    run(shell(f"sleep 1000 & echo $! > {tmp_path}/child"))
    child = int((tmp_path / "child").read_text())
    os.kill(child, signal.SIGKILL)  # it still ran: the hook's end is not the end of what it started


def test_a_hook_that_closes_its_output_is_waited_for(tmp_path: Path) -> None:
    run(shell(f"exec >&- 2>&-; sleep 0.2; touch {tmp_path}/done"))
    assert (tmp_path / "done").exists()


def test_a_hook_leads_a_session_and_has_three_descriptors(tmp_path: Path) -> None:
    leak = os.open("/dev/null", os.O_RDONLY)
    os.dup2(leak, 50, inheritable=True)
    try:
        run(shell(f"cat /proc/$$/stat > {tmp_path}/stat; exec ls /proc/self/fd > {tmp_path}/fds"))
    finally:
        os.close(leak)
        os.close(50)
    assert (tmp_path / "fds").read_text().split() == ["0", "1", "2", "3"]  # 3 is the folder that ls reads
    fields = (tmp_path / "stat").read_text().rpartition(")")[2].split()
    assert fields[2] == fields[3] == (tmp_path / "stat").read_text().split()[0]


def test_signals_are_as_a_program_expects_them(tmp_path: Path) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        run(shell(f"cat /proc/self/status > {tmp_path}/status"))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    status = dict(line.split(":\t") for line in (tmp_path / "status").read_text().splitlines() if line[:3] == "Sig")
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) & (1 << (signal.SIGPIPE - 1)) == 0


def test_prepare_runs_in_the_child_and_its_failure_is_the_hooks(tmp_path: Path) -> None:
    def go() -> None:
        os.chdir(tmp_path)

    before = os.getcwd()
    run(shell("pwd > here"), prepare=go)
    assert (tmp_path / "here").read_text().strip() == str(tmp_path)
    assert os.getcwd() == before

    def fail() -> None:
        raise OSError(2, "No such file or directory")

    with pytest.raises(HookError, match="cannot be executed: no such file or directory"):
        run(shell("true"), prepare=fail)


@pytest.mark.parametrize(("kind", "in_bundle"), [("prestart", True), ("createRuntime", True), ("poststop", False)])
def test_the_working_directory_is_the_bundle_where_runc_stands_in_it(
    tmp_path: Path, kind: str, in_bundle: bool
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    hooks.run_hooks((shell(f"pwd > {tmp_path}/pwd"),), {**STATE, "bundle": str(bundle)}, kind=kind)
    assert (tmp_path / "pwd").read_text().strip() == (str(bundle) if in_bundle else os.getcwd())


def test_a_hook_cannot_change_what_the_next_one_reads(tmp_path: Path) -> None:
    run(shell("echo garbage >&0 || true"), shell(f"cat > {tmp_path}/state"))
    assert json.loads((tmp_path / "state").read_text()) == STATE


def test_nothing_is_left_open() -> None:
    before = open_descriptors()
    run(shell("true"))
    with pytest.raises(HookError):
        run(shell("exit 1"), shell("true"))
    assert open_descriptors() == before


def test_a_hook_survives_its_way_through_the_record() -> None:
    for hook in (Hook(path="/x"), Hook(path="/x", args=("x", "y"), env=(), timeout=3), Hook(path="/x", env=("A=1",))):
        assert hooks.from_data(hook.to_data()) == hook
