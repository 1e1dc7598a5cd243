"""The monitor's sandbox: whose it is, what it may, what reaches it and what does not."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bundles import Bundle, Netns, ping
from driver import CONFIG, ROOT, Cli
from world import World, wait_for

pytestmark = pytest.mark.root


def test_the_monitor_is_the_containers_process(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    cli.create("guest", make_unikernel())
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    pid = cli.state("guest")["pid"]
    command = cli.world.path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    assert b"qemu" in command[0]
    status = cli.world.path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert fields["NoNewPrivs"] == "1"
    assert [int(fields[f"Cap{kind}"], 16) for kind in ("Prm", "Eff", "Inh", "Bnd", "Amb")] == [0] * 5
    below = [command for _, command in cli.world.processes() if "qemu-system" in command]
    assert len(below) == 1


@pytest.mark.parametrize("count", [1, 97])
def test_preserved_descriptors_reach_the_monitor(
    cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns, count: int
) -> None:
    """However many they are: init's own must be out of their way, and out of the way of the monitor's."""
    opened = f'for n in {{3..{count + 2}}}; do eval "exec $n</dev/zero"; done; exec "$@"'
    bundle = make_unikernel()
    bundle.namespace("network", netns.path)  # for a tap: the more descriptors the better
    arguments = ("create", f"--bundle={bundle.write()}", f"--preserve-fds={count}", "guest")
    cli.to_file("guest", *arguments, under=("bash", "-c", opened, "bash"))
    assert cli.status("guest") == "created"
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    pid = cli.state("guest")["pid"]
    links = {fd: cli.world.run("readlink", f"/proc/{pid}/fd/{fd}").stdout for fd in range(3, count + 3)}
    cli.end("guest")
    assert set(links.values()) == {"/dev/zero\n"}


@pytest.mark.parametrize("count", [2, 999_999_999])
def test_preserved_descriptors_must_be_there(cli: Cli, make_unikernel: Callable[..., Bundle], count: int) -> None:
    """One of urunc's own in their place, such as the container's lock, would be kept by init."""
    assert cli.create("guest", make_unikernel(), f"--preserve-fds={count}", check=False, timeout=20) == 1
    assert f"descriptor 3 of {count} is not open" in cli.last_error()
    assert cli("list", "--quiet").stdout == ""


def test_a_user_other_than_root(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel()
    bundle.config["process"]["user"] = {"uid": 1234, "gid": 2345, "additionalGids": [3456]}
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "ready")
    status = cli.world.path(f"/proc/{cli.state('guest')['pid']}/status").read_text()
    assert "Uid:\t1234\t1234\t1234\t1234" in status
    assert "Gid:\t2345\t2345\t2345\t2345" in status


@pytest.mark.parametrize("by_path", [False, True], ids=["network of its own", "network by path"])
def test_a_user_namespace(cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns, by_path: bool) -> None:
    """The host's root is nobody there, and the container's root is an ordinary user of the host."""
    bundle = make_unikernel()
    mapping = [{"containerID": 0, "hostID": 100_000, "size": 65536}]
    bundle.config["linux"].update(uidMappings=mapping, gidMappings=mapping)
    bundle.config["linux"]["namespaces"].append({"type": "user"})
    if by_path:
        bundle.namespace("network", netns.path)
    cli.create("guest", bundle)
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    place = cli.world.path(f"/proc/{cli.state('guest')['pid']}")
    assert "Uid:\t100000\t100000\t100000\t100000" in (place / "status").read_text()
    assert (place / "ns/user").readlink() != cli.world.path("/proc/1/ns/user").readlink()
    if by_path:
        assert f"ip: {netns.address}" in console
        assert ping(cli.world, netns.address)
    cli.end("guest")


def test_the_memory_limit_is_exactly_the_specifications(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    """It holds guest and monitor together."""
    bundle = make_unikernel()
    bundle.config["linux"]["resources"]["memory"] = {"limit": 128 << 20}
    cli.create("guest", bundle)
    limits = [
        path / name
        for path in cli.world.cgroups()
        for name in ("memory.limit_in_bytes", "memory.max")
        if path.name == "c0" and (path / name).exists()
    ]
    assert [int(limit.read_text()) for limit in limits] == [128 << 20]
    cli("start", "guest")
    cli.wait_console("guest", "ready")


def test_vhost_net_is_there_where_it_is_asked_for(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    """A node in the monitor's root and nothing more: QEMU itself does without where the kernel has no vhost-net."""
    cli.config.write_text(CONFIG + "vhost = true\n")
    cli.create("guest", make_unikernel("app"))
    node = cli.world.path(f"/proc/{cli.state('guest')['pid']}/root/dev/vhost-net").stat()
    assert (os.major(node.st_rdev), os.minor(node.st_rdev)) == (10, 238)
    cli("start", "guest")
    cli.wait_console("guest", "ready")


def test_a_capability_that_is_none_is_a_warning(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel("app")
    bundle.config["process"]["capabilities"] = {"bounding": ["CAP_KILL", "CAP_FLY"]}
    cli.create("guest", bundle)
    warned = [line["msg"] for line in cli.log_lines() if line["level"] == "warning"]
    assert "process.capabilities holds unknown names: CAP_FLY" in warned


def test_a_container_that_is_refused_the_cgroup_of_another_leaves_that_alone(
    cli: Cli, make_unikernel: Callable[..., Bundle], world: World
) -> None:
    first = make_unikernel()
    cli.create("first", first)
    cli("start", "first")
    cli.wait_console("first", "ready")
    pid = cli.state("first")["pid"]
    for path in (first.config["linux"]["cgroupsPath"], f"/{world.cgroup}"):
        second = make_unikernel()
        second.config["linux"]["cgroupsPath"] = path
        assert cli.create("second", second, check=False) != 0
        assert "not empty" in cli.last_error()
        assert pid in json.loads(cli("ps", "--format=json", "first").stdout)
        assert cli.status("first") == "running"


def test_two_files_of_one_name_that_only_root_may_read(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel()
    name = "n" * 255
    for folder in ("a", "b"):
        (bundle.rootfs / folder).mkdir()
        (bundle.rootfs / folder / name).write_bytes(next((bundle.rootfs / "unikernel").iterdir()).read_bytes())
        (bundle.rootfs / folder / name).chmod(0o000)
    bundle.annotate(binary=f"/a/{name}", initrd=f"/b/{name}")
    bundle.config["process"]["user"] = {"uid": 1234, "gid": 1235}
    cli.create("guest", bundle)
    cli("start", "guest")
    assert "initrd: none" not in cli.wait_console("guest", "ready")


@contextmanager
def namespace_holder(cli: Cli, *options: str) -> Iterator[int]:
    """Give the pid, inside the world, of a process with namespaces of its own."""
    holder = subprocess.Popen(cli.world.argv(["unshare", *options, "sleep", "7777"]))
    pid = wait_for("the holder", lambda: [pid for pid, line in cli.world.processes() if line == "sleep 7777"])[0]
    try:
        yield pid
    finally:
        cli.world.run("kill", str(pid))
        holder.wait()


def test_a_user_namespace_by_path_says_who_the_monitor_is_outside(
    cli: Cli, make_unikernel: Callable[..., Bundle]
) -> None:
    """Device nodes and copies of what only root may read are the mapped user's, as with maps in config.json."""
    with namespace_holder(cli, "--user") as pid:
        for name in ("uid_map", "gid_map"):
            cli.world.path(f"/proc/{pid}/{name}").write_text("0 300000 65536")
        bundle = make_unikernel()
        bundle.namespace("user", f"/proc/{pid}/ns/user")
        bundle.config["process"]["user"] = {"uid": 5, "gid": 6}
        next((bundle.rootfs / "unikernel").iterdir()).chmod(0o400)
        cli.create("guest", bundle)
        cli("start", "guest")
        cli.wait_console("guest", "ready")
        status = cli.world.path(f"/proc/{cli.state('guest')['pid']}/root/dev/null").stat()
        assert (status.st_uid, status.st_gid) == (300005, 300006)
        cli.end("guest")


def test_a_pid_namespace_whose_first_process_has_ended_is_named(
    cli: Cli, make_unikernel: Callable[..., Bundle], world: World
) -> None:
    world.run("touch", "/run/dead")
    world.run("unshare", "--pid=/run/dead", "--fork", "true")
    bundle = make_unikernel()
    bundle.namespace("pid", "/run/dead")
    assert cli.create("guest", bundle, check=False) != 0
    assert "`/run/dead` has ended" in cli.last_error()
    world.run("umount", "/run/dead")
    world.run("rm", "/run/dead")


@pytest.mark.parametrize("closed", ["<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_standard_descriptors_that_are_closed(cli: Cli, make_unikernel: Callable[..., Bundle], closed: str) -> None:
    """The monitor finds something at each of them: else it would take its own next file for its console."""
    bundle = make_unikernel()
    arguments = (cli.binary, f"--root={ROOT}", "create", f"--bundle={bundle.write()}", "guest")
    cli.world.run(
        "sh", "-c", f'exec "$@" </dev/null >{cli.console_file("guest")} 2>&1 {closed}', "sh", *arguments, env=cli.env
    )
    cli("start", "guest")
    descriptors = cli.world.path(f"/proc/{cli.state('guest')['pid']}/fd")
    wait_for("the monitor has its descriptors", lambda: len(list(descriptors.iterdir())) > 5)
    open_files = {name: os.readlink(descriptors / name) for name in "012"}
    assert set(open_files.values()) <= {"/dev/null", str(cli.console_file("guest"))}
    assert cli.status("guest") == "running"
