"""`update`: what a change needs to be whole, what it may not be, and taking a failed one back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import containers
from urunc.errors import HostError, KernelError, SpecError
from urunc.linux import systemd
from urunc.oci.spec import Resources
from urunc.runtime import store, update
from urunc.runtime.store import Container
from urunc.runtime.update import Now

MIB = 1 << 20
NAME = "web"


def container(**fields: Any) -> Container:
    return containers.container(**{**containers.process(), "memory_mib": 176, "overhead_mib": 80, **fields})


class V2:
    """A v2 cgroup made of plain files, and a record of a container in it."""

    def __init__(self, folder: Path, **fields: Any) -> None:
        self.folder = folder / "cgroup"
        self.folder.mkdir()
        self.root = str(folder / "state")
        for name, text in (("cpu.max", "50000 200000"), ("memory.max", str(256 * MIB)), ("memory.swap.max", "max")):
            (self.folder / name).write_text(f"{text}\n")
        (self.folder / "pids.max").write_text("max\n")
        (self.folder / "cgroup.controllers").write_text("cpu memory pids\n")
        store.claim(self.root, container(cgroup={"": str(self.folder)}, **fields)).release()

    def read(self, name: str) -> str:
        return (self.folder / name).read_text().splitlines()[0]


def test_the_other_half_of_a_pair_is_what_is_in_force() -> None:
    now = Now(cpu_quota=50_000, cpu_period=200_000, memory_limit=256 * MIB)
    assert update.complete(Resources(cpu_quota=70_000), now).cpu_period == 200_000
    assert update.complete(Resources(cpu_period=100_000), now).cpu_quota == 50_000
    assert update.complete(Resources(cpu_period=100_000), Now()).cpu_quota == -1
    assert update.complete(Resources(memory_swap=512 * MIB), now).memory_limit == 256 * MIB
    assert update.complete(Resources(memory_swap=-1), now).memory_limit is None
    assert update.complete(Resources(pids_limit=5), now) == Resources(pids_limit=5)


def test_memory_above_memory_and_swap_together() -> None:
    now = Now(memory_limit=256 * MIB, memory_swap=300 * MIB)
    with pytest.raises(SpecError, match="400 MiB are more than memory and swap together may be, 300 MiB"):
        update.complete(Resources(memory_limit=400 * MIB), now)
    assert update.complete(Resources(memory_limit=-1), now).memory_limit == -1
    assert update.complete(Resources(memory_limit=400 * MIB, memory_swap=400 * MIB), now).memory_limit == 400 * MIB


def test_memory_below_the_guests_and_its_monitors() -> None:
    with pytest.raises(SpecError) as caught:
        update.check(container(), Resources(memory_limit=256 * MIB - 1))
    assert "the guest has 176 MiB" in caught.value.message
    assert "the monitor needs 80 MiB" in caught.value.message
    assert caught.value.hint == "give at least 256 MiB"
    for limit in (256 * MIB, 1024 * MIB, -1, None):
        update.check(container(), Resources(memory_limit=limit))


def test_threads_below_the_monitors_need() -> None:
    with pytest.raises(SpecError, match=r"resources\.pids\.limit: 10 are too few"):
        update.check(container(), Resources(pids_limit=10))
    update.check(container(), Resources(pids_limit=-1))


def test_what_is_in_force_on_both_versions(tmp_path: Path) -> None:
    v2 = V2(tmp_path)
    assert update.look({"": str(v2.folder)}) == Now(cpu_quota=50_000, cpu_period=200_000, memory_limit=256 * MIB)
    assert update.look({}) == Now()
    v1 = tmp_path / "v1"
    v1.mkdir()
    for name, text in (
        ("cpu.cfs_quota_us", "-1"),
        ("cpu.cfs_period_us", "100000"),
        ("memory.limit_in_bytes", "9223372036854771712"),
        ("memory.memsw.limit_in_bytes", str(512 * MIB)),
    ):
        (v1 / name).write_text(f"{text}\n")
    assert update.look({"cpu": str(v1), "memory": str(v1)}) == Now(memory_swap=512 * MIB)


def test_the_files_are_written(tmp_path: Path) -> None:
    v2 = V2(tmp_path)
    update.update(v2.root, NAME, Resources(memory_limit=300 * MIB, cpu_quota=70_000, pids_limit=100))
    assert v2.read("memory.max") == str(300 * MIB)
    assert v2.read("cpu.max") == "70000 200000"
    assert v2.read("pids.max") == "100"


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        ({"memory_limit": 299 * MIB}, "resources.memory.limit: "),
        ({"memory_limit": 300 * MIB}, "resources.memory.limit: "),
        ({"memory_limit": 301 * MIB}, ""),
        ({"memory_limit": -1, "memory_swap": -1}, ""),
        ({"cpu_quota": 70_000}, ""),
    ],
)
def test_a_limit_is_compared_with_what_is_in_use_where_that_is_asked_for(
    tmp_path: Path, asked: dict[str, int], refused: str
) -> None:
    """config-linux.md, "Memory": checkBeforeUpdate MUST reject a limit below what is in use."""
    v2 = V2(tmp_path)
    (v2.folder / "memory.current").write_text(f"{300 * MIB}\n")
    change = Resources(memory_check_before_update=True, **asked)
    if not refused:
        update.update(v2.root, NAME, change)
        return
    with pytest.raises(SpecError, match=refused):
        update.update(v2.root, NAME, change)
    assert v2.read("memory.max") == str(256 * MIB)
    update.update(v2.root, NAME, change.replace(memory_check_before_update=False))
    assert v2.read("memory.max") == str(change.memory_limit)


def test_usage_that_cannot_be_read_refuses_nothing(tmp_path: Path) -> None:
    v2 = V2(tmp_path)
    update.update(v2.root, NAME, Resources(memory_check_before_update=True, memory_limit=300 * MIB))
    assert v2.read("memory.max") == str(300 * MIB)


def test_a_change_that_fails_half_way_is_taken_back(tmp_path: Path) -> None:
    v2 = V2(tmp_path)
    (v2.folder / "pids.max").unlink()  # written last
    with pytest.raises(KernelError, match=r"pids\.max"):
        update.update(v2.root, NAME, Resources(memory_limit=300 * MIB, cpu_quota=70_000, pids_limit=100))
    assert v2.read("memory.max") == str(256 * MIB)
    assert v2.read("cpu.max") == "50000 200000"


def test_systemd_is_told_as_well_and_its_refusal_takes_the_files_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(systemd, "set_properties", lambda unit, properties: told.append((unit, properties)))
    v2 = V2(tmp_path, scope="urunc-web.scope")
    update.update(v2.root, NAME, Resources(memory_limit=300 * MIB, cpu_quota=70_001))
    ((unit, properties),) = told
    assert unit == "urunc-web.scope"
    assert ("MemoryMax", "t", 300 * MIB) in properties
    assert ("CPUQuotaPerSecUSec", "t", 360_000) in properties
    assert v2.read("cpu.max") == "72000 200000"  # rounded as systemd rounds

    def refuse(unit: str, properties: Any) -> None:
        raise HostError("systemd does not change it")

    monkeypatch.setattr(systemd, "set_properties", refuse)
    with pytest.raises(HostError, match="does not change"):
        update.update(v2.root, NAME, Resources(memory_limit=400 * MIB))
    assert v2.read("memory.max") == str(300 * MIB)
