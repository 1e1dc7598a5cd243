"""The least memory that `create` takes for a Linux guest is enough for it to come up."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from bundles import Bundle
from driver import Cli
from guest import linux_guest

pytestmark = [pytest.mark.root, pytest.mark.slow]

MIB = 1 << 20


@pytest.mark.parametrize("compressed", [False, True], ids=["vmlinux", "bzImage"])
def test_the_least_memory_of_a_linux_guest(cli: Cli, make_small_linux: Callable[..., Bundle], compressed: bool) -> None:
    bundle = make_small_linux("echo up; exit 0")
    if compressed:
        (kernel,) = (path for path in bundle.rootfs.rglob("vmlinux*"))
        kernel.write_bytes(linux_guest.find_kernel().read_bytes())
    memory = bundle.config["linux"]["resources"].setdefault("memory", {})
    memory["limit"] = 96 * MIB
    assert cli("create", f"--bundle={bundle.write()}", "guest", check=False).returncode == 1
    least = re.search(r"give at least (\d+) MiB", cli.console("guest") + cli.last_error())
    assert least, cli.last_error()
    memory["limit"] = int(least[1]) * MIB
    status = cli.to_file("guest", "run", f"--bundle={bundle.write()}", "guest", check=False, timeout=120)
    assert (status, "up" in cli.console("guest")) == (0, True), f"{least[0]}: {cli.console('guest')}"
