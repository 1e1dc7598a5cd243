"""What a refused container must look like: one clear error, and nothing of the container."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundles import Bundle
from driver import Cli


def assert_refused(cli: Cli, name: str, *words: str) -> str:
    """Assert that exactly one error was logged, as its last line, with these words in it; return its message."""
    errors = [line for line in cli.log_lines() if line["level"] == "error"]
    assert len(errors) == 1, errors
    assert cli.log_lines()[-1] == errors[0]
    message = str(errors[0]["msg"])
    assert "Traceback" not in cli.console(name) + message
    for word in words:
        assert word in message
    return message


def try_create(cli: Cli, name: str, folder: Path) -> None:
    """Create from a folder as it is; it must fail, and there must be no container then."""
    assert cli.to_file(name, "create", f"--bundle={folder}", name, check=False, timeout=30) != 0
    assert name not in cli("list", "--quiet").stdout.split()


def refuse(cli: Cli, bundle: Bundle, *words: str) -> str:
    """Create, which must fail with one short error that holds the words; return it."""
    try_create(cli, "bad", bundle.write())
    message = assert_refused(cli, "bad", *words)
    assert len(message) < 1000
    assert message.isprintable()
    assert "internal" not in message
    return message


@contextmanager
def swapping(place: Path, folder: Path, *names: str) -> Iterator[None]:
    """Have what is at `place` be each of the folder's files in turn, as fast as a process can, while the body runs.

    A link is linked itself, so it may lead anywhere.
    """
    swapper = os.fork()
    if swapper == 0:
        try:
            while True:
                for name in names:
                    os.link(folder / name, folder / "next", follow_symlinks=False)
                    os.rename(folder / "next", place)
        finally:
            os._exit(1)
    try:
        yield
        assert os.waitpid(swapper, os.WNOHANG) == (0, 0), "nothing was swapped any more"
    finally:
        os.kill(swapper, signal.SIGKILL)
        os.waitpid(swapper, 0)
