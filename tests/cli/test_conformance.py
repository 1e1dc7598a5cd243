"""What the runtime specification says of every container, and that no other test has: see docs/runtime-spec.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import linuxes
from bundles import Bundle, ping
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
    """config.md, `scheduler` and `ioPriority`: of the process, and inherited."""
    bundle = make_unikernel("app")
    bundle.config["process"]["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    bundle.config["process"]["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
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
    cli.end("guest")


@pytest.mark.skipif(not Path("/proc/self/numa_maps").exists(), reason="this kernel has no NUMA")
def test_the_monitors_memory_is_where_it_is_asked_for(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    """config-linux.md, "Memory policy"."""
    bundle = make_unikernel("app")
    bundle.config["linux"]["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0"}
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    memory = cli.world.run("cat", f"/proc/{cli.state('guest')['pid']}/numa_maps").stdout
    assert re.search(r"^\w+ bind:0 ", memory, re.MULTILINE)
    cli.end("guest")


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("process", "scheduler", {"policy": "SCHED_FIFO", "priority": 1, "flags": ["SCHED_FLAG_KEEP_POLICY"]}),
        ("linux", "memoryPolicy", {"mode": "MPOL_BIND", "nodes": "1023"}),
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


def test_the_monitor_is_what_its_process_was_to_be(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    """config.md, "Process", "User" and "Linux Process", as the kernel shows them of the process that runs in the end.

    Seccomp and time offsets of config-linux.md too.
    """
    bundle = make_unikernel("app")
    bundle.config["process"].update(
        user={"uid": 1234, "gid": 2345, "additionalGids": [3456], "umask": 0o27},
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
        capabilities={kind: ["CAP_KILL", "CAP_NET_ADMIN"] for kind in ("bounding", "effective", "permitted")},
        noNewPrivileges=False,
        oomScoreAdj=500,
    )
    bundle.config["hostname"], bundle.config["domainname"] = "guest-host", "guest-domain"
    bundle.config["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}],
    }
    bundle.config["linux"]["namespaces"].append({"type": "time"})
    bundle.config["linux"]["timeOffsets"] = {"boottime": {"secs": 1000, "nanosecs": 5}}
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    place = f"/proc/{cli.state('guest')['pid']}"

    def read(name: str) -> str:
        return cli.world.run("cat", f"{place}/{name}").stdout

    status = dict(line.split(":\t") for line in read("status").splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["1234"] * 4
    assert status["Gid"].split() == ["2345"] * 4
    assert status["Groups"].split() == ["3456"]
    assert status["Umask"] == "0027"
    assert {status[f"Cap{kind}"].strip("0") for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {""}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    limits = {line[:25].strip(): line[25:].split()[:2] for line in read("limits").splitlines()}
    assert limits["Max open files"] == ["100", "200"]
    assert limits["Max core file size"] == ["0", "0"]
    assert read("oom_score_adj") == "500\n"
    assert ["boottime", "1000", "5"] in [line.split() for line in read("timens_offsets").splitlines()]
    names = cli.world.run("nsenter", f"--uts={place}/ns/uts", "uname", "-n").stdout
    assert names == "guest-host\n"
    cli.end("guest")


def test_config_json_is_read_once(cli: Cli, make_unikernel: Callable[..., Bundle], tmp_path: Path) -> None:
    """runtime.md, "Lifecycle" 2: nothing runs before `start`, and what config.json says later does not matter."""
    bundle = make_unikernel("app", "as", "created")
    bundle.hook("poststop", "/bin/touch", str(tmp_path / "stopped"))
    cli.create("guest", bundle)
    bundle.config["process"]["args"] = ["app", "as", "changed"]
    bundle.config["hooks"] = {"poststart": [{"path": "/bin/false"}]}
    bundle.config["annotations"]["of"] = "later"
    bundle.write()
    assert cli.console("guest").strip() == ""
    cli("start", "guest")
    assert "as created" in cli.wait_console("guest", "ready")
    assert "of" not in cli.state("guest").get("annotations", {})
    (bundle.folder / "config.json").unlink()
    cli.end("guest")
    assert (tmp_path / "stopped").exists()


@pytest.fixture
def wire(world: World) -> Iterator[str]:
    """A device `nic0` of the host's, whose other end has an address; give the address beside it, which `nic0` has."""
    for command in (
        "ip link add nic0 type veth peer name far0",
        "ip address add 10.78.0.2/24 dev nic0",
        "ip address add 10.78.0.1/24 dev far0",
        "ip link set far0 up",
    ):
        world.run(*command.split())
    yield "10.78.0.2"
    world.run("ip", "link", "delete", "far0", check=False)


def test_a_network_device_of_the_host_is_the_guests(
    cli: Cli, make_unikernel: Callable[..., Bundle], world: World, wire: str
) -> None:
    """config-linux.md, "Network Devices": moved, renamed, with its address, up; and the guest takes its place."""
    bundle = make_unikernel("app")
    bundle.config["linux"]["netDevices"] = {"nic0": {"name": "eth0"}}
    cli.create("guest", bundle)
    assert "nic0" not in world.run("ip", "-br", "link").stdout
    cli("start", "guest")
    assert f"ip: {wire}" in cli.wait_console("guest", "ready")
    assert ping(world, wire)
    cli.end("guest")


@pytest.mark.parametrize(("hook", "state"), [("prestart", "down"), ("createContainer", "up")])
def test_a_failed_create_gives_a_network_device_back(
    cli: Cli, make_unikernel: Callable[..., Bundle], world: World, wire: str, hook: str, state: str
) -> None:
    world.run("ip", "link", "set", "nic0", state)
    bundle = make_unikernel("app")
    bundle.config["linux"]["netDevices"] = {"nic0": {"name": "eth0"}}
    bundle.hook(hook, "/bin/false")
    assert cli.create("bad", bundle, check=False) == 1
    shown = world.run("ip", "-br", "address", "show", "nic0").stdout.split()
    assert shown[1] == state.upper()
    assert f"{wire}/24" in shown
