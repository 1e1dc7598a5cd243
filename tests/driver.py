"""Calls of an OCI runtime by its command line, as an engine makes them."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from world import World, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bundles import Bundle

ROOT = "/run/test-state"
PATIENCE = 60
CONFIG = '[monitors.qemu]\naccel = "tcg"\n'


class Cli:
    """Calls of the runtime. Every call has the same state directory; the log is JSON, as containerd asks for."""

    def __init__(self, world: World, binary: Path, folder: Path) -> None:
        self.world = world
        self.binary = binary
        self.log = folder / "log.json"
        self.config = folder / "config.toml"
        self.config.write_text(CONFIG)
        self.consoles = folder / "consoles"
        self.consoles.mkdir()

    def argv(self, *arguments: str | Path, under: Sequence[str] = ()) -> list[str]:
        """Return the command line inside the world; `under` is one that starts what follows it."""
        options = (f"--root={ROOT}", f"--log={self.log}", "--log-format=json")
        return self.world.argv([*under, self.binary, *options, *arguments])

    @property
    def env(self) -> dict[str, str]:
        """The environment of every call."""
        return {**os.environ, "URUNC_CONFIG_FILE": str(self.config)}

    def __call__(
        self, *arguments: str | Path, check: bool = True, timeout: float = 60, stdin: IO[str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one verb to its end, its outputs read as text. Not for `create` and `run`, whose output lives on."""
        done = subprocess.run(
            self.argv(*arguments),
            check=False,
            capture_output=True,
            text=True,
            stdin=stdin or subprocess.DEVNULL,
            timeout=timeout,
            env=self.env,
        )
        if check:
            assert done.returncode == 0, (
                f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}{self.last_error()}"
            )
        return done

    def to_file(
        self, name: str, *arguments: str | Path, check: bool = True, timeout: float = 60, under: Sequence[str] = ()
    ) -> int:
        """Run one verb whose standard output and error go on in the container; return the exit status."""
        with self.console_file(name).open("ab") as console:
            done = subprocess.run(
                self.argv(*arguments, under=under),
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                timeout=timeout,
                env=self.env,
            )
        if check:
            assert done.returncode == 0, f"{arguments}: {done.returncode}\n{self.console(name)}{self.last_error()}"
        return done.returncode

    def console_file(self, name: str) -> Path:
        """Return the file that holds what the container printed."""
        return self.consoles / name

    def console(self, name: str) -> str:
        """Return what the container printed so far."""
        file = self.console_file(name)
        return file.read_text(errors="replace") if file.exists() else ""

    def create(self, name: str, bundle: Bundle, *options: str | Path, check: bool = True, timeout: float = 60) -> int:
        """Write the bundle and create the container; its console goes to a file. Return the exit status."""
        arguments = ("create", f"--bundle={bundle.write()}", *options, name)
        return self.to_file(name, *arguments, check=check, timeout=timeout)

    def run(self, name: str, bundle: Bundle) -> tuple[int, str]:
        """Run a container to its own end; return exit status and console, whose lines end as the guest wrote them."""
        status = self.to_file(name, "run", f"--bundle={bundle.write()}", name, check=False, timeout=120)
        return status, self.console(name).replace("\r\n", "\n")

    def state(self, name: str) -> dict[str, Any]:
        """Return the state document."""
        document: dict[str, Any] = json.loads(self("state", name).stdout)
        return document

    def status(self, name: str) -> str:
        """Return the status."""
        return str(self.state(name)["status"])

    def ps(self, name: str) -> list[int]:
        """Return the container's processes."""
        pids: list[int] = json.loads(self("ps", "--format=json", name).stdout)
        return pids

    def limit(self, bundle: Bundle, controller: str, v1: str, v2: str) -> str:
        """Return what a limit's file in the bundle's cgroup holds, whatever the version."""
        path = bundle.config["linux"]["cgroupsPath"]
        place = f"/sys/fs/cgroup/{controller}{path}/{v1}" if controller else ""
        if not self.world.path(place).exists():
            place = f"/sys/fs/cgroup{path}/{v2}"
        return self.world.path(place).read_text().strip()

    def wait_status(self, name: str, status: str, seconds: float = 30) -> None:
        """Wait for a status."""
        wait_for(f"{name} is {status}", lambda: self.status(name) == status, seconds)

    def wait_console(self, name: str, text: str, seconds: float = 30) -> str:
        """Wait until the container printed `text`; return all that it printed."""
        try:
            wait_for(f"`{text}` on the console", lambda: text in self.console(name), seconds)
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{self.console(name)}{self.last_error()}") from None
        return self.console(name)

    def end(self, name: str) -> None:
        """Kill and delete the container."""
        self("kill", name, "KILL", check=False)
        self.wait_status(name, "stopped")
        self("delete", name)

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the log's lines."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines() if line]

    def last_error(self) -> str:
        """Return the message of the log's last line, "" where there is none. It is what containerd shows its user."""
        lines = self.log_lines()
        return str(lines[-1]["msg"]) if lines else ""


@contextmanager
def running(cli: Cli, bundle: Bundle, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Have `urunc run` run a container with these streams; it has ended when the body is left, or is killed."""
    argv = cli.argv("run", f"--bundle={bundle.write()}", "guest")
    runner = subprocess.Popen(argv, **{"stderr": subprocess.PIPE, **streams}, env=cli.env)
    try:
        yield runner
    finally:
        runner.terminate()
        try:
            runner.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            cli("delete", "--force", "guest", check=False)
            runner.kill()
            runner.communicate()
            raise


def printed(cli: Cli, bundle: Bundle, stdin: int | IO[bytes], data: bytes | None = None) -> bytes:
    """Return what the container prints, of which its end must be a good one."""
    with running(cli, bundle, stdin=stdin, stdout=subprocess.PIPE) as runner:
        out, errors = runner.communicate(data, timeout=PATIENCE)
    assert runner.returncode == 0, (out, errors)
    return out
