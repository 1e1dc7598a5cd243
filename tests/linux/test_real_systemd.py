"""The systemd driver against a real systemd. Runs where the host was booted with one (see scripts/systemd-machine)."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import bundles
from cgroups import MIB, eater, end_of, sleeper
from urunc.errors import HostError
from urunc.linux import cgroup, cgroup_files, cgroup_layout, freezer, systemd
from urunc.oci import cgroup_path, device_rules, resources, scope
from urunc.oci.cgroup_path import CgroupPath
from urunc.oci.spec import DeviceRule, Resources
from world import wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not Path(systemd.SYSTEMD_SOCKET).exists(), reason="this host was not booted with systemd"),
]
count = itertools.count()

LIMITS = Resources(
    memory_limit=64 * MIB, memory_swap=64 * MIB, pids_limit=7, cpu_quota=33300, cpu_period=100000, cpus="0"
)
RULES = device_rules.settle([DeviceRule(allow=True, kind="c", major=1, minor=3)])


@pytest.fixture(params=["system.slice", "urunc_test-pod.slice"])
def place(request: pytest.FixtureRequest) -> Iterator[CgroupPath]:
    found = cgroup_path.parse(f"{request.param}:urunc-test:{os.getpid()}-{next(count)}", systemd=True)
    yield found
    paths = cgroup_layout.paths(cgroup_layout.detect(), found)
    cgroup.kill_all(paths)
    cgroup.leave(paths, found.unit)
    assert not any(os.path.exists(directory) for directory in paths.values())
    assert not is_loaded(found)


def properties(place: CgroupPath, pid: int, limits: Resources = LIMITS) -> tuple[scope.Property, ...]:
    version = cgroup_layout.detect().version
    own = scope.own_properties(place, (pid,), version)
    return own + scope.limit_properties(limits, version, RULES)


def enter(place: CgroupPath, pid: int) -> dict[str, str]:
    """Do what create does, in its order."""
    paths = cgroup_layout.paths(cgroup_layout.detect(), place)
    version = cgroup_files.version_of(paths)
    cgroup.enter(paths, place, pid, properties(place, pid))
    cgroup_files.apply(paths, resources.writes(scope.rounded_quota(LIMITS), version))
    cgroup_files.apply_devices(paths, RULES, version)
    cgroup.join(paths, pid)
    return paths


def shown(place: CgroupPath, *names: str) -> dict[str, str]:
    """Return properties as systemd has them."""
    command = ["systemctl", "show", place.unit, *(f"--property={name}" for name in names)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in text.splitlines())


def is_loaded(place: CgroupPath) -> bool:
    return shown(place, "LoadState") != {"LoadState": "not-found"}


def text(path: str) -> str:
    return Path(path).read_text(encoding="ascii").strip()


def limits_in_files(paths: dict[str, str]) -> list[str]:
    if cgroup_files.version_of(paths) == 2:
        files = ["memory.max", "memory.swap.max", "pids.max", "cpu.max", "cpuset.cpus"]
        return [text(f"{paths['']}/{file}") for file in files if os.path.exists(f"{paths['']}/{file}")]
    files = ["memory/memory.limit_in_bytes", "pids/pids.max", "cpu/cpu.cfs_quota_us", "cpuset/cpuset.cpus"]
    return [text(f"{paths[name]}/{file}") for name, file in (word.split("/") for word in files) if name in paths]


def test_a_scope_holds_the_process_and_its_limits(place: CgroupPath) -> None:
    with sleeper() as pid:
        paths = enter(place, pid)
        assert cgroup.pids(paths) == [pid]
        assert all(line.endswith(place.path) for line in text(f"/proc/{pid}/cgroup").splitlines() if "memory" in line)
        memory = str(64 * MIB)
        got = limits_in_files(paths)
        assert got[0] == memory
        assert "7" in got
        assert "34000 100000" in got if cgroup_files.version_of(paths) == 2 else "34000" in got
        names = ("Slice", "Delegate", "TasksMax", "ActiveState", "DevicePolicy", "CPUQuotaPerSecUSec")
        assert shown(place, *names) == {
            "Slice": place.slice,
            "Delegate": "yes",
            "TasksMax": "7",
            "ActiveState": "active",
            "DevicePolicy": "strict",
            "CPUQuotaPerSecUSec": "340ms",
        }


def test_a_reload_of_systemd_changes_no_limit(place: CgroupPath) -> None:
    with sleeper() as pid:
        paths = enter(place, pid)
        before = limits_in_files(paths)
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        assert limits_in_files(paths) == before
        assert cgroup.pids(paths) == [pid]


def test_devices_stay_denied_after_a_reload(place: CgroupPath) -> None:
    reading, writing = os.pipe()

    def open_on_signal() -> None:
        def look(*_: object) -> None:
            found = []
            for name in ("null", "zero"):
                try:
                    os.close(os.open(f"/dev/{name}", os.O_RDONLY))
                    found.append(name)
                except PermissionError:
                    pass
            os.write(writing, ",".join(found).encode())

        signal.signal(signal.SIGUSR1, look)
        os.write(writing, b"ready")

    with sleeper(open_on_signal) as pid:
        assert os.read(reading, 99) == b"ready"
        enter(place, pid)
        for command in ([], ["systemctl", "daemon-reload"]):
            if command:
                subprocess.run(command, check=True)
            os.kill(pid, signal.SIGUSR1)
            assert os.read(reading, 99) == b"null"
    os.close(reading)
    os.close(writing)


def test_memory_over_the_limit_is_counted(place: CgroupPath) -> None:
    with eater(128 * MIB) as (pid, tell), sleeper() as other:
        paths = enter(place, pid)
        cgroup.join(paths, other)  # so that the scope does not end with the process
        tell()
        assert end_of(pid) == -signal.SIGKILL
        assert cgroup_files.oom_count(paths) == 1


def test_freeze_kill_and_leave(place: CgroupPath) -> None:
    with sleeper() as pid:
        paths = enter(place, pid)
        freezer.freeze(paths)
        assert freezer.is_frozen(paths)
        cgroup.kill_all(paths)
        assert end_of(pid) == -signal.SIGKILL
        cgroup.leave(paths, place.unit)
        assert not any(os.path.exists(directory) for directory in paths.values())
        assert not is_loaded(place)
        cgroup.leave(paths, place.unit)


def test_limits_change_at_run_time(place: CgroupPath) -> None:
    with sleeper() as pid:
        paths = enter(place, pid)
        version = cgroup_files.version_of(paths)
        more = Resources(memory_limit=96 * MIB, memory_swap=96 * MIB, pids_limit=9)
        systemd.set_properties(place.unit, scope.limit_properties(more, version))
        cgroup_files.apply(paths, resources.writes(more, version))
        assert shown(place, "TasksMax") == {"TasksMax": "9"}
        assert limits_in_files(paths)[0] == str(96 * MIB)


def test_two_scopes_of_one_name_are_an_error(place: CgroupPath) -> None:
    with sleeper() as first, sleeper() as second:
        paths = enter(place, first)
        with pytest.raises(HostError, match="already"):
            cgroup.enter(paths, place, second, properties(place, second))
        assert cgroup.pids(paths) == [first]


def test_a_property_that_systemd_does_not_know_is_an_error(place: CgroupPath) -> None:
    with sleeper() as pid:
        paths = cgroup_layout.paths(cgroup_layout.detect(), place)
        odd = (*properties(place, pid), ("NoSuchThing", "s", "x"))
        with pytest.raises(HostError, match="NoSuchThing"):
            cgroup.enter(paths, place, pid, odd)


def test_a_scope_of_a_dead_process_is_an_error(place: CgroupPath) -> None:
    with sleeper() as pid:
        pass
    paths = cgroup_layout.paths(cgroup_layout.detect(), place)
    with pytest.raises(HostError, match="systemd does not start"):
        cgroup.enter(paths, place, pid, properties(place, pid))


def test_the_bus_does_as_well_as_systemds_own_socket(place: CgroupPath, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path(systemd.BUS_SOCKET).exists():
        pytest.skip("no system bus")
    monkeypatch.setattr(systemd, "SYSTEMD_SOCKET", "/nowhere")
    with sleeper() as pid:
        paths = enter(place, pid)
        assert cgroup.pids(paths) == [pid]


def test_a_scope_that_ends_by_itself_is_left_without_error(place: CgroupPath) -> None:
    with sleeper() as pid:
        paths = enter(place, pid)
    wait_for("the end of the scope", lambda: not is_loaded(place), 10)
    cgroup.leave(paths, place.unit)
    cgroup.leave(paths, place.unit)


# A whole container, by the command line


def test_a_unikernel_lives_in_a_scope(runtime: Path, testguest: Path, tmp_path: Path, place: CgroupPath) -> None:
    bundle = bundles.unikernel(
        tmp_path / "bundle", testguest, "hello", cgroup=f"{place.slice}:{place.prefix}:{place.name}"
    )
    bundle.config["linux"]["resources"].update(
        memory={"limit": 192 * MIB}, pids={"limit": 99}, cpu={"quota": 150000, "period": 100000}
    )
    bundle.config["annotations"]["org.systemd.property.CollectMode"] = "'inactive-or-failed'"
    (tmp_path / "config.toml").write_text('[monitors.qemu]\naccel = "tcg"\n')
    console = tmp_path / "console"

    def urunc(*arguments: str) -> str:
        with console.open("ab") as stream:
            done = subprocess.run(
                [runtime, f"--root={tmp_path / 'state'}", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream if arguments[0] == "--systemd-cgroup" else subprocess.PIPE,
                stderr=stream,
                check=False,
                env={**os.environ, "URUNC_CONFIG_FILE": str(tmp_path / "config.toml")},
            )
        assert done.returncode == 0, f"{arguments}\n{console.read_text()}"
        return (done.stdout or b"").decode()

    urunc("--systemd-cgroup", "create", f"--bundle={bundle.write()}", "web")
    try:
        urunc("start", "web")
        wait_for("the guest is up", lambda: "ready" in console.read_text(errors="replace"), 60)
        pid = json.loads(urunc("state", "web"))["pid"]
        paths = cgroup_layout.paths(cgroup_layout.detect(), place)
        assert pid in cgroup.pids(paths)
        assert shown(place, "Slice", "TasksMax", "CPUQuotaPerSecUSec", "CollectMode") == {
            "Slice": place.slice,
            "TasksMax": "99",
            "CPUQuotaPerSecUSec": "1.500000s",
            "CollectMode": "inactive-or-failed",
        }
        assert limits_in_files(paths)[0] == str(192 * MIB)
    finally:
        urunc("delete", "--force", "web")
    assert not any(os.path.exists(directory) for directory in paths.values())
    assert not is_loaded(place)
