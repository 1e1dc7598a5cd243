"""What the runtime specification says that every container has, and a Linux guest has by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

import linuxes
from bundles import Bundle
from driver import Cli
from world import World

pytestmark = [pytest.mark.root, pytest.mark.slow]

SCRIPT = """
for link in fd stdin stdout stderr; do echo "/dev/$link -> $(readlink /dev/$link)"; done
for node in null zero full random urandom tty ptmx; do test -c /dev/$node && echo "node $node"; done
while read -r _ point kind _; do echo "mount $point $kind"; done < /proc/mounts
echo "boot $(cat /proc/sys/kernel/random/boot_id)"
exit 0
"""


def test_links_devices_and_file_systems_are_the_guests_own(
    cli: Cli, is_runc: bool, tmp_path: Path, world: World
) -> None:
    """runtime-linux.md, "Dev symbolic links"; config-linux.md, "Default Filesystems", "Default Devices"; masked paths.

    What is masked, read-only or labelled would be the host's /proc and /sys, and no guest has those.
    """
    if is_runc:
        pytest.skip("runc has no unikernels")
    bundle = linuxes.add_initrd(Bundle(tmp_path / "bundle", ("/bin/sh", "-c", SCRIPT), cgroup=f"/{world.cgroup}/own"))
    bundle.config["linux"].update(
        maskedPaths=["/proc/sys/kernel/random"],
        readonlyPaths=["/proc/sys"],
        mountLabel="system_u:object_r:container_file_t:s0",
    )
    status, console = cli.run("guest", bundle)
    assert status == 0, console
    lines = console.splitlines()
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        assert f"/dev/{name} -> /proc/self/fd{target}" in lines
    assert {f"node {name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx")} <= set(lines)
    for mount in ("/proc proc", "/sys sysfs", "/dev/pts devpts", "/dev/shm tmpfs"):
        assert f"mount {mount}" in lines
    (boot,) = (line.removeprefix("boot ") for line in lines if line.startswith("boot "))
    assert len(boot) == 36
    assert boot != Path("/proc/sys/kernel/random/boot_id").read_text().strip()
