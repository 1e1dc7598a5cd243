"""Real QEMU machines under TCG for the guests' tests: start one, talk to it, always end it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

GUEST = Path(__file__).resolve().parents[2] / "guest"
QEMU = "qemu-system-x86_64"
PATIENCE = 60.0  # seconds that a step may take on a busy machine; a passing test never waits for it


def want_programs() -> None:
    """Skip where QEMU or a compiler is missing; build guest/ otherwise."""
    for program in (QEMU, "gcc", "make"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    subprocess.run(["make", "-s", "-C", str(GUEST)], check=True)


class Qemu:
    """A running QEMU whose console is a pair of pipes. A context manager: leaving it kills and reaps the monitor."""

    def __init__(self, machine: str, kernel: Path | str, append: str, *arguments: str, fds: tuple[int, ...] = ()):
        self.argv = [
            *(QEMU, "-M", machine, "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none"),
            *("-chardev", "stdio,id=c0,signal=off", "-serial", "chardev:c0", "-accel", "tcg", "-no-reboot"),
            *("-device", "isa-debug-exit,iobase=0x501,iosize=2"),
            *("-kernel", str(kernel), "-append", append, *arguments),
        ]
        self.fds = fds
        self.output = b""

    def __enter__(self) -> Qemu:
        self.process = subprocess.Popen(
            self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=self.fds
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()

    def type(self, text: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def _read(self) -> bool:
        """Take what the console has; False at its end."""
        assert self.process.stdout is not None
        data = self.process.stdout.read()
        self.output += data or b""
        return data != b""

    def wait_for(self, text: bytes) -> bytes:
        """Read the console until `text` is there; return all of it so far."""
        return self._until(lambda: text in self.output, repr(text))

    def wait(self) -> int:
        """Read the console to its end; return QEMU's exit status."""
        self._until(lambda: self.process.poll() is not None, "the end")
        self._read()
        return self.process.returncode

    def _until(self, done, what: str) -> bytes:
        limit = time.monotonic() + PATIENCE
        while not done():
            open_still = self._read()
            if done():
                break
            assert time.monotonic() < limit, f"no {what} from the guest in {self.output!r}"
            assert open_still or self.process.poll() is None or done(), f"ended without {what}: {self.output!r}"
            time.sleep(0.01)
        return self.output

    def lines(self) -> list[str]:
        return self.output.decode(errors="surrogateescape").split("\n")


def connect(path: Path) -> socket.socket:
    """Connect to a unix socket that QEMU is about to listen on."""
    limit = time.monotonic() + PATIENCE
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(PATIENCE)
        try:
            connection.connect(str(path))
            return connection
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            assert time.monotonic() < limit, f"nobody listens on {path}"
            time.sleep(0.01)
