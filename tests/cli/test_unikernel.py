"""The test guest as a container: what it is told, its console, how it ends."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable

import pytest

from bundles import Bundle
from driver import ROOT, Cli
from world import wait_for

pytestmark = pytest.mark.root


def test_arguments_and_memory_reach_the_guest(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel("app", "one", "two")
    bundle.config["linux"]["resources"]["memory"] = {"limit": 192 << 20}
    cli.create("guest", bundle)
    assert cli.console("guest") == ""
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    assert "-- one two" in console
    memory = int(console.split("memory: ")[1].split()[0])
    assert 64 <= memory < 192


def test_annotations_in_base64(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel()
    for key, value in list(bundle.config["annotations"].items()):
        bundle.config["annotations"][key] = base64.b64encode(value.encode()).decode()
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "ready")


def test_annotations_of_the_image_alone(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel()
    (bundle.rootfs / "urunc.json").write_text(json.dumps(bundle.config["annotations"]))
    bundle.config["annotations"] = {}
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "ready")


def test_an_absolute_root_path(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel()
    bundle.config["root"]["path"] = str(bundle.rootfs)
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "ready")


@pytest.mark.parametrize(("words", "status"), [(("poweroff",), 0), (("exit", "0"), 0)], ids=["power-off", "exit 0"])
def test_run_gives_the_guests_end_as_status(
    cli: Cli, make_unikernel: Callable[..., Bundle], words: tuple[str, ...], status: int
) -> None:
    bundle = make_unikernel("app", *words)
    assert cli.to_file("guest", "run", f"--bundle={bundle.write()}", "guest", check=False) == status
    assert "cmdline:" in cli.console("guest")
    assert cli("list", "--quiet").stdout == ""


@pytest.mark.parametrize("signal", ["TERM", "INT"])
def test_a_stop_signal_ends_the_guest(cli: Cli, make_unikernel: Callable[..., Bundle], signal: str) -> None:
    cli.create("guest", make_unikernel())
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    cli("kill", "guest", signal)
    cli.wait_status("guest", "stopped", 10)


def test_a_stop_signal_at_once_after_start_is_heard(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    """As process 1 of its namespace, a monitor that has not set its handlers yet ignores TERM."""
    bundle = make_unikernel()
    for number in range(5):
        cli.create(f"guest{number}", bundle)
        cli("start", f"guest{number}")
        cli("kill", f"guest{number}", "TERM")
        cli.wait_status(f"guest{number}", "stopped", 10)
        cli("delete", f"guest{number}")  # the next one has the same cgroup


def test_standard_input_is_the_guests_console(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel()
    with cli.console_file("guest").open("wb") as console:
        runner = subprocess.Popen(
            cli.argv("run", f"--bundle={bundle.write()}", "guest"),
            stdin=subprocess.PIPE,
            stdout=console,
            stderr=console,
            env=cli.env,
        )
        try:
            cli.wait_console("guest", "ready")
            assert runner.stdin is not None
            runner.stdin.write(b"hello there\n")
            runner.stdin.flush()
            cli.wait_console("guest", "console: hello there")
            runner.stdin.write(b"poweroff\n")
            runner.stdin.close()
            assert runner.wait(20) == 0
        finally:
            runner.kill()
            runner.wait()


def test_a_flood_on_the_console_does_not_stop_the_runtime(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    cli.create("guest", make_unikernel("app", "flood"))
    cli("start", "guest")
    cli.wait_console("guest", "flood 1000")
    cli.end("guest")


@pytest.mark.parametrize("guest", ["unikraft", "linux"])
def test_dry_run_prints_the_plan_and_does_nothing(cli: Cli, make_unikernel: Callable[..., Bundle], guest: str) -> None:
    bundle = make_unikernel("app", "one", guest=guest)
    done = cli("create", "--dry-run", f"--bundle={bundle.write()}", "guest")
    assert json.loads(done.stdout)["guest"] == guest
    assert "qemu-system-x86_64" in done.stdout
    assert cli("list", "--quiet").stdout == ""


def test_the_image_is_not_written(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel()
    bundle.write()
    before = {path: path.lstat().st_mtime_ns for path in bundle.folder.rglob("*")}
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    cli.end("guest")
    before.pop(bundle.folder / "config.json")
    after = {path: path.lstat().st_mtime_ns for path in bundle.folder.rglob("*")}
    after.pop(bundle.folder / "config.json")
    assert after == before


@pytest.mark.parametrize("machine", ["q35", "microvm"])
def test_the_machine_is_the_configurations(cli: Cli, make_unikernel: Callable[..., Bundle], machine: str) -> None:
    cli.config.write_text(f'[monitors.qemu]\naccel = "tcg"\nmachine = "{machine}"\ndefault_memory_mb = 64\n')
    cli.create("guest", make_unikernel())
    cli("start", "guest")
    assert "memory: 64 MiB" in cli.wait_console("guest", "ready")
    command = cli.world.path(f"/proc/{cli.state('guest')['pid']}/cmdline").read_bytes().decode()
    assert machine in command


def test_software_emulation_is_said(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    """Without a configuration QEMU takes KVM where a virtual CPU runs in hardware, and else the log says what it is."""
    cli.config.write_text("")
    cli.create("guest", make_unikernel())
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    command = cli.world.path(f"/proc/{cli.state('guest')['pid']}/cmdline").read_bytes().decode()
    warned = any("emulates the CPU in software" in line["msg"] for line in cli.log_lines())
    assert warned == ("tcg" in command)


def test_a_process_of_another_does_not_answer_to_the_id(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    """A container whose monitor was killed from outside is stopped, and kill signals nobody."""
    cli.create("guest", make_unikernel())
    cli("start", "guest")
    cli.world.run("kill", "-KILL", str(cli.state("guest")["pid"]))
    wait_for("stopped", lambda: cli.status("guest") == "stopped")
    assert cli("kill", "guest", "KILL", check=False).returncode != 0
    cli("delete", "guest")


def test_a_start_that_hangs_in_a_hook_is_deleted_by_force(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel()
    bundle.add_busybox()
    bundle.hook("startContainer", "/busybox", "sleep", "1000")
    cli.create("guest", bundle)
    starting = subprocess.Popen(cli.argv("start", "guest"), env=cli.env, stderr=subprocess.DEVNULL)
    wait_for("the hook runs", lambda: any("sleep 1000" in line for _, line in cli.world.processes()), 10)
    cli("delete", "--force", "guest")
    assert starting.wait(10) == 1


def test_a_create_that_is_killed_in_a_hook_takes_the_hook_along(
    cli: Cli, make_unikernel: Callable[..., Bundle]
) -> None:
    bundle = make_unikernel()
    bundle.hook("createRuntime", "/bin/sleep", "1000")
    with cli.console_file("guest").open("wb") as console:
        creating = subprocess.Popen(
            cli.argv("create", f"--bundle={bundle.write()}", "guest"), env=cli.env, stdout=console, stderr=console
        )
    wait_for("the hook runs", lambda: any("sleep 1000" in line for _, line in cli.world.processes()), 10)
    cli("delete", "--force", "guest")
    creating.wait(10)


def test_debug_tells_the_monitors_command_line(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel("wait", "here")
    cli.to_file("guest", "--debug", "create", f"--bundle={bundle.write()}", "guest")
    (line,) = (line for line in cli.log_lines() if line["level"] == "debug")
    assert line["msg"].startswith("the monitor's command line: /usr/bin/qemu-system-x86_64 ")
    assert "wait" in line["msg"] and "-- here" in line["msg"]


def test_a_container_of_another_version_is_deleted_whole(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    cli.create("guest", make_unikernel())
    cli("start", "guest")
    record = cli.world.path(f"{ROOT}/guest/record.json")
    record.write_text(record.read_text().replace('"version":1,', '"version":99,'))
    assert cli("state", "guest", check=False).returncode == 1
    assert cli.last_error() == "the record of `guest` was written by another version of urunc"
    cli("delete", "--force", "guest")
    assert not [line for _, line in cli.world.processes() if "qemu" in line]


def test_what_a_create_left_before_it_claimed_the_id_is_ours_to_delete(
    cli: Cli, make_unikernel: Callable[..., Bundle]
) -> None:
    cli.create("other", make_unikernel())
    cli.world.path(f"{ROOT}/.guest.new").mkdir()
    cli("delete", "--force", "guest")
    assert not cli.world.path(f"{ROOT}/.guest.new").exists()
