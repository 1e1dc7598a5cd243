"""Which device nodes a monitor gets, and what the cgroup lets it open."""

from __future__ import annotations

import pytest

from urunc.oci import spec as specs
from urunc.runtime import plan_devices
from urunc.runtime.plan_devices import Node
from urunc.vm import monitors
from urunc.vm.storage import DiskSource

ALWAYS = {"null", "zero", "urandom"}


@pytest.mark.parametrize(
    ("monitor", "accel", "vhost", "more"),
    [
        ("qemu", "tcg", False, set()),
        ("qemu", "kvm", False, {"kvm"}),
        ("qemu", "kvm", True, {"kvm", "vhost-net"}),
        ("firecracker", "kvm", True, {"kvm", "net/tun"}),
        ("spt", "tcg", False, {"net/tun"}),
    ],
)
def test_a_monitor_gets_what_it_opens_and_no_more(monitor: str, accel: str, vhost: bool, more: set[str]) -> None:
    nodes = plan_devices.monitor_nodes(monitors.load(monitor).CAPABILITIES, accel, 1234, 2345, vhost=vhost)
    assert {node.path for node in nodes} == ALWAYS | more
    assert {(node.uid, node.gid, node.mode, node.kind) for node in nodes} == {(1234, 2345, 0o600, "c")}


def test_a_disk_that_is_opened_by_its_node_has_one() -> None:
    disks = (
        DiskSource(path="/disk0", source="/image", by="fd"),
        DiskSource(path="/dev/disk1", source="/dev/sda", device=True, number=(8, 0), by="node"),
        DiskSource(path="/dev/disk2", source="/image", by="loop"),  # which device that is, nobody knows yet
    )
    assert plan_devices.disk_nodes(disks, 1, 2) == (Node(path="disk1", major=8, minor=0, kind="b", uid=1, gid=2),)


def test_the_cgroup_lets_the_nodes_be_opened_and_not_made() -> None:
    document = {"ociVersion": "1.0.2", "root": {"path": "r"}, "process": {"args": ["a"], "cwd": "/"}}
    rules = plan_devices.rules(specs.parse(document), (Node(path="kvm", major=10, minor=232),))
    assert not rules[0].allow
    assert [(rule.kind, rule.major, rule.minor, rule.access) for rule in rules[1:]] == [("c", 10, 232, "rw")]
