"""What becomes of the engine's resolv.conf."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import vmcases
from urunc.errors import KernelError
from urunc.runtime.assemble import make_launch, resolv_conf
from urunc.runtime.plan_devices import Node
from urunc.vm.machine import Root

KVM = Node(path="kvm", major=10, minor=232)


def test_a_monitor_has_the_devices_that_the_plan_gives_it() -> None:
    machine = vmcases.make_machine("linux", "firecracker", vmcases.NETWORKS["none"], Root())

    def launch(*nodes: Node) -> None:
        plan = SimpleNamespace(monitor="firecracker", nodes=nodes)
        facts = SimpleNamespace(binary="/usr/bin/firecracker", version=(1, 16), data_path="")
        make_launch(SimpleNamespace(plan=plan, facts=facts), machine)  # type: ignore[arg-type]

    launch(KVM)
    with pytest.raises(KernelError, match="wants the devices kvm, which the plan does not give it"):
        launch()


DOCKERS = b"nameserver 127.0.0.11\noptions ndots:0\n"  # on a network that a user made
HOSTS = b"# systemd-resolved\nnameserver 127.0.0.53\nnameserver 10.0.0.53\nsearch a.test\n"


@pytest.mark.parametrize(
    "content",
    [
        b"nameserver 10.0.0.53\noptions ndots:5\n",
        b"nameserver 10.0.0.53\nnameserver 10.0.0.53",
    ],
)
def test_one_whose_servers_can_be_reached_stays_as_it_is(content: bytes) -> None:
    assert resolv_conf(content, ("9.9.9.9",)) == content


def test_servers_that_cannot_be_reached_are_replaced_and_the_rest_stays() -> None:
    assert resolv_conf(DOCKERS, ("9.9.9.9",)) == b"options ndots:0\nnameserver 9.9.9.9\n"
    assert resolv_conf(HOSTS, ("10.0.0.53",)) == b"# systemd-resolved\nsearch a.test\nnameserver 10.0.0.53\n"
    assert resolv_conf(DOCKERS, ()) == b"options ndots:0\n"


def test_without_any_server_it_gets_the_configurations() -> None:
    assert resolv_conf(b"search a.test\n", ("9.9.9.9",)) == b"search a.test\nnameserver 9.9.9.9\n"
    assert resolv_conf(b"search a.test\n", ()) == b"search a.test\n"


def test_bytes_that_are_no_utf_8_stay() -> None:
    assert resolv_conf(b"# \xff\nnameserver ::1\n", ("fd00::53",)) == b"# \xff\nnameserver fd00::53\n"
