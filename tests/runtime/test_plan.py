"""The plan: what a loop device adds to its device rules, and what a guest module is told of the streams."""

from __future__ import annotations

import pytest

from urunc.oci import cgroup_path
from urunc.oci import spec as specs
from urunc.runtime import plan, plan_machine
from urunc.runtime.plan import Facts, Plan
from urunc.runtime.plan_devices import Node
from urunc.vm.machine import KernelInfo, Machine, Streams

DOCUMENT = {"ociVersion": "1.0.2", "root": {"path": "r"}, "process": {"args": ["a"], "cwd": "/"}, "linux": {}}
NULL = Node(path="null", major=1, minor=3)
LOOP = Node(path="disk0", major=7, minor=42, kind="b")


@pytest.mark.parametrize("systemd", [False, True])
def test_a_loop_device_opens_itself_and_no_other(systemd: bool) -> None:
    document = {**DOCUMENT, "linux": {"resources": {"devices": [{"allow": False, "access": "rwm"}]}}}
    made = Plan(
        id="web",
        rootfs="/r",
        guest="unikraft",
        monitor="spt",
        namespaces=(),
        joins=(),
        cgroup=cgroup_path.parse("system.slice:urunc:web" if systemd else "/web", systemd=systemd),
        machine=Machine(name="web", arch="x86_64", memory_mib=16, kernel=KernelInfo(format="raw")),
        nodes=(NULL,),
    )
    changed = plan.allow(made, specs.parse(document), 1, (LOOP,))
    numbers = [(rule.allow, rule.kind, rule.major, rule.minor, rule.access) for rule in changed.device_rules[1:]]
    assert not changed.device_rules[0].allow
    assert numbers == [(True, "c", 1, 3, "rw"), (True, "b", 7, 42, "rw")]
    told = [value for name, _type, value in changed.cgroup_properties if name == "DeviceAllow"]
    assert bool(told) == systemd
    assert not systemd or ("/dev/block/7:42", "rw") in told[-1]  # type: ignore[operator]


PORTS = Streams(stdin="port", stdout="port")


@pytest.mark.parametrize(
    ("streams", "lacks", "told"),
    [
        (PORTS, (), PORTS),
        (PORTS, ("9p",), PORTS),
        (PORTS.replace(merged=True), ("virtio_console",), Streams()),
        (PORTS.replace(stdin="null"), ("virtio_console",), Streams(stdin="null")),
        (Streams(), ("virtio_console",), Streams()),
    ],
)
def test_a_kernel_without_ports_has_its_streams_on_the_console(
    streams: Streams, lacks: tuple[str, ...], told: Streams
) -> None:
    facts = Facts(
        arch="x86_64",
        cpus=1,
        kvm="none",
        cgroup_version=1,
        own_network=True,
        kernel=KernelInfo(format="raw"),
        binary="/usr/bin/qemu-system-x86_64",
        streams=streams,
        lacks=lacks,
    )
    assert plan_machine.guest_context(specs.parse(DOCUMENT), facts, "q35", "tcg").streams == told
