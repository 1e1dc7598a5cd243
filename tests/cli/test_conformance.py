"""What the runtime specification says of every container, and that no other test has: see docs/runtime-spec.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import linuxes
from bundles import Bundle
from driver import Cli
from world import World

pytestmark = pytest.mark.root

SCRIPT = """
for link in fd stdin stdout stderr; do echo "/dev/$link -> $(readlink /dev/$link)"; done
for node in null zero full random urandom tty ptmx; do test -c /dev/$node && echo "node $node"; done
while read -r _ point kind _; do echo "mount $point $kind"; done < /proc/mounts
echo "boot $(cat /proc/sys/kernel/random/boot_id)"
exit 0
"""


@pytest.mark.slow
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


def test_every_thread_of_the_monitor_is_scheduled_as_asked(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    """config.md, `scheduler` and `ioPriority`; config-linux.md, "Memory policy": of the process, and inherited."""
    bundle = make_unikernel("app")
    bundle.config["process"]["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    bundle.config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    bundle.config["linux"]["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0"}
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    pid = cli.state("guest")["pid"]
    threads = cli.world.run("ls", f"/proc/{pid}/task").stdout.split()
    assert len(threads) > 1
    for thread in threads:
        assert "SCHED_BATCH" in cli.world.run("chrt", "-p", thread).stdout
        assert cli.world.run("ionice", "-p", thread).stdout == "best-effort: prio 6\n"
        assert cli.world.run("cat", f"/proc/{pid}/task/{thread}/stat").stdout.rpartition(")")[2].split()[16] == "7"
    memory = Path(f"/proc/{pid}/numa_maps")
    if Path("/proc/self/numa_maps").exists():
        assert re.search(r"^\w+ bind:0 ", cli.world.run("cat", str(memory)).stdout, re.MULTILINE)
    cli.end("guest")


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("process", "scheduler", {"policy": "SCHED_DEADLINE", "runtime": 5, "deadline": 4, "period": 3}),
        ("linux", "memoryPolicy", {"mode": "MPOL_DEFAULT", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
    ],
)
def test_scheduling_that_the_kernel_refuses(
    cli: Cli, make_unikernel: Callable[..., Bundle], section: str, name: str, value: dict[str, object]
) -> None:
    bundle = make_unikernel("app")
    bundle.config[section][name] = value
    assert cli.create("bad", bundle, check=False) == 1
    assert f"{section}.{name}: cannot be set: invalid argument" in cli.last_error()
    assert "bad" not in cli("list", "--quiet").stdout.split()
