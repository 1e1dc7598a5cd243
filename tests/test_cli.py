"""The command line: what it means, what it prints, where it ends. The verbs themselves are tested in tests/cli."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from urunc import cli, flags, log, usage, verbs
from urunc.errors import StateError, UsageError

Run = Callable[..., "subprocess.CompletedProcess[str]"]

FAKE_RUNC = """#!/bin/sh
for arg in "$@"; do printf '%s\\n' "$arg"; done > "$FAKE_OUT"
exit 9
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """The file into which a runc of ours writes its arguments, one a line."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/runc"
    program.write_text(FAKE_RUNC)
    program.chmod(0o755)
    return tmp_path / "runc-arguments"


@pytest.fixture
def urunc(runtime: Path, tmp_path: Path) -> Run:
    """Run urunc with the fake runc, where the test has one, and no other, and with a state root of its own."""

    def run(*args: str, **more: Any) -> subprocess.CompletedProcess[str]:
        env = {"PATH": f"{tmp_path}/bin", "FAKE_OUT": f"{tmp_path}/runc-arguments", "URUNC_CONFIG_FILE": ""}
        env |= more.pop("env", {})
        argv = [str(runtime), "--root", f"{tmp_path}/state", *args]
        return subprocess.run(argv, capture_output=True, text=True, env=env, check=False, **more)

    return run


VERB = (("bundle b", "DIR", ""), ("force f", "", ""), ("count", "N", ""), ("pid-file", "FILE", ""))


@pytest.mark.parametrize(
    ("args", "values", "left"),
    [
        ([], {}, []),
        (["--bundle", "x", "id"], {"bundle": "x"}, ["id"]),
        (["--bundle=x=y", "id"], {"bundle": "x=y"}, ["id"]),
        (["-bundle", "x", "-b=z"], {"bundle": "z"}, []),
        (["--b", "x"], {"bundle": "x"}, []),
        (["-b", "--force"], {"bundle": "--force"}, []),
        (["--bundle="], {"bundle": ""}, []),
        (["id", "--force"], {"force": True}, ["id"]),
        (["-f=false", "id"], {"force": False}, ["id"]),
        (["--force=T"], {"force": True}, []),
        (["--force", "true"], {"force": True}, ["true"]),
        (["--", "--force", "id"], {}, ["--force", "id"]),
        (["id", "--", "-f"], {}, ["id", "-f"]),
        (["-", "id"], {}, ["-", "id"]),
        (["--count", "12"], {"count": 12}, []),
        (["--pid-file", "p"], {"pid_file": "p"}, []),
    ],
)
def test_flags_are_read_as_go_reads_them(args: list[str], values: dict[str, Any], left: list[str]) -> None:
    assert cli.parse(args, VERB) == (values, left)


def test_flags_first_end_at_the_first_argument() -> None:
    assert cli.parse(["-f", "id", "-x", "--force"], VERB, flags_first=True) == (
        {"force": True},
        ["id", "-x", "--force"],
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--bogus"], "unknown flag `--bogus`"),
        (["-bogus=1"], "unknown flag `-bogus`"),
        (["--bundle"], "flag `--bundle` needs a value"),
        (["--force=maybe"], "switch `--force` is true or false, not `maybe`"),
        (["--count", "x"], "flag `--count` needs a whole number, not `x`"),
        (["--count", "-1"], "flag `--count` needs a whole number, not `-1`"),
        (["--count", "9" * 20], "flag `--count` needs a whole number"),
        (["---force"], "unknown flag `---force`"),
        (["--=x"], "unknown flag `--`"),
    ],
)
def test_a_wrong_flag_is_an_error(args: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        cli.parse(args, VERB, verb="kill")
    assert caught.value.message.startswith(message)
    assert caught.value.hint == "see `urunc kill --help`"


def test_every_verb_has_an_action_and_no_flag_stands_twice() -> None:
    assert verbs.TABLE.keys() == flags.VERBS.keys()
    for _, _, table in [("", "", flags.GLOBALS), *flags.VERBS.values()]:
        names = [name for flag in table for name in flag[0].split()]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("verb", [None, *flags.VERBS])
def test_help_shows_every_flag_with_exit_status_0(urunc: Run, verb: str | None) -> None:
    done = urunc("--help") if verb is None else urunc(verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    table = flags.GLOBALS if verb is None else flags.VERBS[verb][2]
    assert all(f"--{flag[0].split()[0]}" in done.stdout for flag in table)
    assert done.stdout == (urunc() if verb is None else urunc("help", verb)).stdout


def test_the_version_is_what_engines_parse(urunc: Run) -> None:
    for flag in ("--version", "-v"):
        first, *more = urunc(flag).stdout.splitlines()
        assert first.split()[:2] == ["urunc", "version"]
        assert "spec: 1.3.0" in more


def test_the_commit_is_what_make_install_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "__file__", f"{tmp_path}/usage.py")
    assert "commit" not in usage.version()
    (tmp_path / "commit").write_text("abc123\n")
    assert usage.version().splitlines()[1] == "commit: abc123"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["bogus"], "urunc: `bogus` is not a verb (see `urunc --help`)"),
        (["state"], "urunc: `state` takes `ID`, not 0 arguments (see `urunc state --help`)"),
        (["kill", "a", "9", "9"], "urunc: `kill` takes `ID [SIGNAL]`, not 3 arguments"),
        (["list", "a"], "urunc: `list` takes no argument, not 1 argument"),
        (["start", "--bogus", "a"], "urunc: unknown flag `--bogus` (see `urunc start --help`)"),
        (["--bogus", "state", "a"], "urunc: unknown flag `--bogus` (see `urunc --help`)"),
        (["help", "bogus"], "urunc: `bogus` is not a verb"),
        (["list", "-f", "xml"], "urunc: format `xml` is unknown (table or json)"),
        (["state", "../a"], "urunc: invalid container id"),
        (["create", "a/b"], "urunc: invalid container id"),
        (["start", ""], "urunc: invalid container id"),
        (["delete", "."], "urunc: invalid container id"),
        (["--root", "/", "state", "a"], "urunc: `--root` is not to be `/`"),
        (["--root", "//", "state", "a"], "urunc: `--root` is not to be `/`"),
        (["--root", "//tmp/..", "state", "a"], "urunc: `--root` is not to be `/`"),
        (["--rootless", "perhaps", "create", "a"], "urunc: `--rootless` is true, false or auto, not `perhaps`"),
        (["--log-format", "xml", "state", "a"], "urunc: log format `xml` is unknown (text or json)"),
        (["--log", "/nowhere/log", "state", "a"], "urunc: cannot open the log `/nowhere/log`"),
    ],
)
def test_a_wrong_command_line_is_one_line_on_stderr(urunc: Run, args: list[str], message: str) -> None:
    done = urunc(*args)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


NOT_HANDED_ON = flags.NEW | flags.OWN | {"list", "features", "spec", "check"}


@pytest.mark.parametrize("verb", sorted(flags.VERBS.keys() - NOT_HANDED_ON))
def test_a_container_that_is_not_ours_is_the_delegates_for_every_verb(urunc: Run, fake: Path, verb: str) -> None:
    done = urunc("--systemd-cgroup", "--rootless=true", verb, "web")
    assert done.returncode == 9, done.stderr
    root = f"{fake.parent}/state"
    assert fake.read_text().splitlines() == ["--root", root, "--systemd-cgroup", "--rootless=true", verb, "web"]


@pytest.mark.parametrize(
    "args",
    [
        ["exec", "--process", "/p.json", "--detach", "--pid-file", "/pid", "web"],
        ["exec", "-t", "-u", "1:1", "web", "ls", "--color", "-l"],
        ["exec", "-e", "A=1", "--env", "B=2", "web", "--", "sh"],
        ["kill", "--all", "web", "9"],
        ["kill", "web", "-9"],
        ["ps", "--format", "json", "web"],
        ["ps", "web", "-aux", "--sort=pid"],
        ["update", "--resources", "-", "web"],
        ["update", "--pids-limit", "-1", "web"],
        ["events", "--stats", "web"],
        ["checkpoint", "--image-path", "/i", "--leave-running", "web"],
        ["restore", "--bundle", "/b", "--image-path", "/i", "-d", "web"],
        ["delete", "--force", "web"],
        ["delete", "web", "--force"],
        ["--criu", "/c", "pause", "web"],
    ],
)
def test_the_delegates_command_line_is_unchanged(urunc: Run, fake: Path, args: list[str]) -> None:
    done = urunc(*args)
    assert done.returncode == 9, done.stderr
    assert fake.read_text().splitlines()[2:] == args


def test_the_configuration_names_the_delegate(urunc: Run, fake: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text((tmp_path / "bin/runc").read_text().replace("exit 9", "exit 8"))
    (tmp_path / "other").chmod(0o755)
    (tmp_path / "config.toml").write_text(f'[runtime]\ndelegate = "{tmp_path}/other"\n')
    assert urunc("state", "web", env={"URUNC_CONFIG_FILE": f"{tmp_path}/config.toml"}).returncode == 8


def test_without_a_delegate_a_strange_container_does_not_exist(urunc: Run) -> None:
    done = urunc("state", "web")
    assert (done.returncode, done.stderr) == (1, "urunc: container `web` does not exist\n")
    assert urunc("delete", "web").returncode == 1
    assert urunc("delete", "--force", "web").returncode == 0


def container_of_ours(tmp_path: Path) -> None:
    (tmp_path / "state/web").mkdir(parents=True)
    (tmp_path / "state/web/lock").touch()


@pytest.mark.parametrize(("verb", "why"), [("exec", "one process"), ("checkpoint", "CRIU"), ("restore", "CRIU")])
def test_what_a_unikernel_cannot_do_is_said(urunc: Run, fake: Path, tmp_path: Path, verb: str, why: str) -> None:
    container_of_ours(tmp_path)
    done = urunc(verb, "web")
    assert done.returncode == 1
    assert done.stderr.startswith(f"urunc: `{verb}` is not for `web`: ")
    assert why in done.stderr
    assert not fake.exists()


def test_a_signal_that_is_none(urunc: Run, tmp_path: Path) -> None:
    container_of_ours(tmp_path)
    done = urunc("kill", "web", "FOO")
    assert done.stderr == "urunc: unknown signal `FOO` (give a number, or a name such as TERM)\n"


def test_the_logs_last_line_is_the_cause_and_stderr_has_it_too(urunc: Run, tmp_path: Path) -> None:
    log_file = tmp_path / "log.json"
    for _ in range(2):
        done = urunc("--log", str(log_file), "--log-format", "json", "start", "web")
        assert (done.returncode, done.stderr) == (1, "urunc: container `web` does not exist\n")
    lines = [json.loads(line) for line in log_file.read_text().splitlines()]
    assert [line["msg"] for line in lines] == ["container `web` does not exist"] * 2
    assert lines[-1]["level"] == "error"


def test_an_internal_error_is_one_line_and_a_traceback_only_with_debug(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(call: object) -> int:
        raise ZeroDivisionError("a bug")

    monkeypatch.setitem(verbs.TABLE, "list", fail)
    assert cli.main(["urunc", "list"]) == 1
    assert capfd.readouterr().err == "urunc: internal error: ZeroDivisionError: a bug\n"
    assert cli.main(["urunc", "--debug", "list"]) == 1
    assert "Traceback" in capfd.readouterr().err
    log._lowest = 2


def test_an_interrupt_is_quiet(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupt(call: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(verbs.TABLE, "list", interrupt)
    assert cli.main(["urunc", "list"]) == 130
    assert capfd.readouterr().err == ""


def test_a_reader_that_leaves_and_a_full_disk(runtime: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([runtime, "features"], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([runtime, "features"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"urunc: cannot write to stdout: no space left on device\n")


def test_closed_standard_descriptors_are_not_reused(runtime: Path, tmp_path: Path) -> None:
    script = f'exec "{runtime}" --root "{tmp_path}/state" --log "{tmp_path}/log" state ../x <&- >&- 2>&-'
    assert subprocess.run(["/bin/sh", "-c", script], check=False).returncode == 1
    assert (tmp_path / "log").read_text().count("\n") == 1


def call(*args: str, common: dict[str, Any] | None = None, **given: Any) -> verbs.Call:
    return verbs.Call(["urunc"], common or {}, given, list(args))


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = call("web", bundle="b/../c", pid_file="pid", console_socket="/s", preserve_fds=2).options()
    assert (options.bundle, options.pid_file) == (f"{tmp_path}/c", f"{tmp_path}/pid")
    assert (options.console_socket, options.preserve_fds, options.dry_run) == ("/s", 2, False)
    assert call("web").options().bundle == str(tmp_path)
    assert call("web", common={"root": "r"}).root == f"{tmp_path}/r"


def test_a_dry_run_is_for_create_alone(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["urunc", "run", "--dry-run", "web"]) == 1
    assert "unknown flag `--dry-run`" in capfd.readouterr().err


def test_an_impossible_id_is_refused_before_anything_is_read() -> None:
    with pytest.raises(StateError, match="invalid container id"):
        call("a b").options()


@pytest.mark.parametrize("given", ["", "auto", "T", "0"])
def test_rootless_is_a_boolean_or_auto(given: str) -> None:
    call(common={"rootless": given}).globals()
    with pytest.raises(UsageError, match=f"not `{given}x`"):
        call(common={"rootless": f"{given}x"}).globals()


def test_a_relative_path_where_the_current_directory_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for words in (("--root", "state", "list"), ("--root", "/r", "create", "web"), ("--root", "/r", "spec")):
        assert cli.main(["urunc", *words]) == 1
        assert capfd.readouterr().err == "urunc: the current directory is gone (give absolute paths)\n"


def test_the_state_root_is_a_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert verbs.default_root() == "/run/urunc"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert verbs.default_root() == "/run/user/1000/urunc"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert verbs.default_root() == "/run/urunc"


def test_spec_writes_a_bundle_once(urunc: Run, tmp_path: Path) -> None:
    assert urunc("spec", "--guest", "mirage", "--monitor", "spt", cwd=tmp_path).returncode == 0
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["annotations"]["com.urunc.unikernel.unikernelType"] == "mirage"
    again = urunc("spec", "--bundle", str(tmp_path))
    assert (again.returncode, "exists already" in again.stderr) == (1, True)
    assert "linux on qemu" in urunc("spec", "--guest", "linux", "--monitor", "spt").stderr


def test_an_empty_list(urunc: Run, tmp_path: Path) -> None:
    assert urunc("list").stdout.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert json.loads(urunc("list", "--format", "json").stdout) == []
    assert urunc("list", "-q").stdout == ""


def test_check_on_a_host_without_monitors(urunc: Run) -> None:
    done = urunc("check", "--format", "json", env={"PATH": "/nowhere"})
    assert (done.returncode, done.stderr) == (1, "")
    found = json.loads(done.stdout)
    assert found["ok"] is False
    assert {pair["ok"] for pair in found["pairs"]} == {False}
    assert "install qemu-system-x86, or set monitors.qemu.path" in found["todo"]
    text = urunc("check", env={"PATH": "/nowhere"})
    assert (text.returncode, text.stderr) == (1, "")
    assert "install qemu-system-x86, or set monitors.qemu.path" in text.stdout


@pytest.mark.root
def test_check_with_a_monitor_and_with_a_bad_configuration(urunc: Run, tmp_path: Path) -> None:
    (tmp_path / "monitor").write_text("#!/bin/sh\necho version 1.2\n")
    (tmp_path / "monitor").chmod(0o755)
    config = tmp_path / "config.toml"
    config.write_text(f'[monitors.spt]\npath = "{tmp_path}/monitor"\n')
    done = urunc("check", "--format=json", env={"PATH": "/nowhere", "URUNC_CONFIG_FILE": str(config)})
    assert (done.returncode, done.stderr) == (0, "")
    assert "spt" in {pair["monitor"] for pair in json.loads(done.stdout)["pairs"] if pair["ok"]}
    config.write_text("[nothing]\n")
    done = urunc("check", env={"URUNC_CONFIG_FILE": str(config)})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"urunc: {config}:1")
