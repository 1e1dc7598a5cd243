"""The test guest as a container: what it is told, its console, its network, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bundles import BUSYBOX, Bundle, Netns
from driver import CONFIG, ROOT, Cli
from world import World, wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def netns(world: World) -> Iterator[Netns]:
    """A namespace with eth0 in it; after the test it must hold exactly what it held before."""
    with Netns(world, "test") as made:
        yield made


def ping(world: World, address: str) -> bool:
    """Whether the address answers."""
    return world.run("ping", "-c1", "-W1", address, check=False).returncode == 0


UDP = """
import socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(3)
s.sendto(b"x" * count, (host, port))
print(len(s.recv(65535)))
"""


def udp_echo(world: World, address: str, size: int = 10) -> int:
    """Send a datagram to the echo port; return the size of the answer."""
    return int(world.run("/usr/bin/python3", "-IS", "-c", UDP, address, "7", str(size)).stdout)


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


def test_annotations_in_base64(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    import base64

    bundle = make_unikernel()
    for key, value in list(bundle.config["annotations"].items()):
        bundle.config["annotations"][key] = base64.b64encode(value.encode()).decode()
    cli.create("guest", bundle)
    cli("start", "guest")
    cli.wait_console("guest", "ready")


def test_annotations_of_the_image_alone(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    import json

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


def test_the_guest_takes_the_interfaces_place(cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns) -> None:
    bundle = make_unikernel()
    bundle.namespace("network", netns.path)
    cli.create("guest", bundle)
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    assert f"ip: {netns.address}" in console
    assert ping(cli.world, netns.address)
    assert udp_echo(cli.world, netns.address) == 10
    page = cli.world.run("curl", "-sf", "--max-time", "5", f"http://{netns.address}/").stdout
    assert page
    cli.end("guest")


def test_a_killed_create_and_a_failed_one_leave_the_namespace_alone(
    cli: Cli, make_unikernel: Callable[..., Bundle], netns: Netns
) -> None:
    bundle = make_unikernel()
    bundle.namespace("network", netns.path)
    bundle.hook("createContainer", "/bin/false")
    assert cli.create("guest", bundle, check=False) != 0


@pytest.mark.parametrize("name", ["net1", "ens3", "a.b-c", "eth0@", "tunl0"])
def test_odd_interface_names(cli: Cli, make_unikernel: Callable[..., Bundle], world: World, name: str) -> None:
    with Netns(world, "odd", ifname=name) as netns:
        bundle = make_unikernel()
        bundle.namespace("network", netns.path)
        cli.create("guest", bundle)
        cli("start", "guest")
        cli.wait_console("guest", f"ip: {netns.address}")
        assert ping(world, netns.address)
        cli.end("guest")


def test_mtu_1400_is_told_and_kept(cli: Cli, make_unikernel: Callable[..., Bundle], world: World) -> None:
    with Netns(world, "mtu", mtu=1400) as netns:
        bundle = make_unikernel()
        bundle.namespace("network", netns.path)
        cli.create("guest", bundle)
        cli("start", "guest")
        assert "mtu 1400" in cli.wait_console("guest", "ready")
        assert udp_echo(world, netns.address, 1372) == 1372
        cli.end("guest")


def test_a_slash_32_with_a_gateway_off_the_link(cli: Cli, make_unikernel: Callable[..., Bundle], world: World) -> None:
    """As Calico leaves it: the address alone, the route to 169.254.1.1, proxy ARP on the other end."""
    with Netns(world, "calico") as netns:
        ip = ("ip", "-n", netns.name)
        world.run(*ip, "address", "flush", "dev", "eth0")
        world.run(*ip, "address", "add", f"{netns.address}/32", "dev", "eth0")
        world.run(*ip, "route", "add", "169.254.1.1", "dev", "eth0", "scope", "link")
        world.run(*ip, "route", "add", "default", "via", "169.254.1.1", "dev", "eth0")
        world.run("ip", "address", "add", "169.254.1.1/32", "dev", netns.peer)
        netns.remember()
        bundle = make_unikernel()
        bundle.namespace("network", netns.path)
        cli.create("guest", bundle)
        cli("start", "guest")
        console = cli.wait_console("guest", "ready")
        assert f"netdev.ip={netns.address}/32:169.254.1.1" in console
        assert ping(world, netns.address)
        cli.end("guest")


@pytest.mark.parametrize("both", [False, True], ids=["IPv6 alone", "both families"])
def test_ipv6_for_a_guest_that_has_none(
    cli: Cli, make_unikernel: Callable[..., Bundle], world: World, both: bool
) -> None:
    with Netns(world, "six") as netns:
        ip = ("ip", "-n", netns.name)
        world.run(*ip, "address", "add", "fd77::2/64", "dev", "eth0", "nodad")
        if not both:
            world.run(*ip, "address", "del", f"{netns.address}/24", "dev", "eth0")
        netns.remember()
        bundle = make_unikernel()
        bundle.namespace("network", netns.path)
        assert (cli.create("guest", bundle, check=False) == 0) == both
        if both:
            assert "IPv6 addresses: those of eth0 are left out" in cli.log.read_text()
            cli("start", "guest")
            cli.wait_console("guest", f"ip: {netns.address}")
            cli.end("guest")
        else:
            assert "eth0 has IPv6 addresses alone, and the guest `unikraft`" in cli.last_error()


def test_an_empty_namespace_gives_no_nic(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    cli.create("guest", make_unikernel())
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    assert "nic0" not in console
    assert "netdev.ip" not in console


def test_without_a_namespace_of_its_own_the_host_is_left_alone(
    cli: Cli, make_unikernel: Callable[..., Bundle], world: World
) -> None:
    """`--network host`: a guest cannot share the host's interfaces, and taking them would cut the host off."""
    before = world.links()
    for path in (None, "/proc/1/ns/net"):
        bundle = make_unikernel()
        bundle.namespace("network", path)
        assert cli.create("guest", bundle, check=False) != 0
        assert "network" in cli.last_error()
        assert world.links() == before


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


@pytest.mark.parametrize("machine", ["q35", "microvm"])
def test_the_machine_is_the_configurations(cli: Cli, make_unikernel: Callable[..., Bundle], machine: str) -> None:
    cli.config.write_text(f'[monitors.qemu]\naccel = "tcg"\nmachine = "{machine}"\ndefault_memory_mb = 64\n')
    cli.create("guest", make_unikernel())
    cli("start", "guest")
    assert "memory: 64 MiB" in cli.wait_console("guest", "ready")
    command = cli.world.path(f"/proc/{cli.state('guest')['pid']}/cmdline").read_bytes().decode()
    assert machine in command


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


def test_a_container_that_is_refused_the_cgroup_of_another_leaves_that_alone(
    cli: Cli, make_unikernel: Callable[..., Bundle], world: World
) -> None:
    first = make_unikernel()
    cli.create("first", first)
    cli("start", "first")
    cli.wait_console("first", "ready")
    for path in (first.config["linux"]["cgroupsPath"], f"/{world.cgroup}"):
        second = make_unikernel()
        second.config["linux"]["cgroupsPath"] = path
        assert cli.create("second", second, check=False) != 0
        assert "not empty" in cli.last_error()
        time.sleep(0.2)  # a kill would show by now
        assert cli.status("first") == "running"


def test_a_start_that_hangs_in_a_hook_is_deleted_by_force(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel()
    (bundle.rootfs / "busybox").write_bytes(BUSYBOX.read_bytes())
    (bundle.rootfs / "busybox").chmod(0o755)
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
