"""How a Linux guest's end becomes the status of `run`: its application's, a power-off's, a panic's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bundles import Bundle
from driver import CONFIG, Cli

pytestmark = [pytest.mark.root, pytest.mark.slow]

PANIC = "echo c > /proc/sysrq-trigger"
POWER_OFF = "/bin/busybox poweroff -f"
RESET = "/bin/busybox reboot -f"


@pytest.mark.parametrize(
    ("machine", "script", "status"),
    [
        ("q35", "exit 7", 7),
        ("q35", POWER_OFF, 0),
        ("q35", RESET, 0),
        ("q35", PANIC, 1),
        ("microvm", "exit 7", 7),
        ("microvm", RESET, 134),  # no device tells of a panic, so that this may have been one
        ("microvm", PANIC, 134),
    ],
)
def test_the_end_is_a_status(
    cli: Cli, make_small_linux: Callable[..., Bundle], machine: str, script: str, status: int
) -> None:
    cli.config.write_text(CONFIG + f'machine = "{machine}"\n')
    bundle = make_small_linux(f"echo up; {script}; sleep 60")
    ended = cli.to_file("guest", "run", f"--bundle={bundle.write()}", "guest", check=False)
    assert "up" in cli.console("guest")
    assert ended == status
