"""Devices of the host that are moved into a container's network namespace, and back."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import containers
from cgroups import sleeper
from inchild import ip, run_in
from urunc.errors import KernelError, SpecError
from urunc.linux import ns
from urunc.linux.rtnl import Rtnl
from urunc.runtime import net_devices, teardown
from urunc.runtime.store import Container, NetDevice

pytestmark = pytest.mark.root
KEPT = {("10.1.0.1", 24), ("10.2.0.1", 16), ("2001:db8::1", 64)}


def addresses(name: str) -> tuple[bool, set[tuple[str, int]]] | None:
    """Return whether a device is up, and its addresses but link-local ones; None where there is none."""
    with Rtnl() as rtnl:
        for link in rtnl.links():
            if link.name == name:
                found = (each for each in rtnl.addresses() if each.index == link.index)
                return link.up, {(each.ip, each.prefix) for each in found if not each.ip.startswith("fe80")}
    return None


def with_namespace(body: Callable[[int], Any]) -> Any:
    """Call `body` in a network namespace with an addressed `host0`, with a descriptor of another namespace."""

    def run() -> Any:
        ip(
            "link add host0 type veth peer name peer0",
            "link set peer0 up",
            "addr add 10.1.0.1/24 dev host0",
            "addr add 10.2.0.1/16 dev host0",
            "addr add 10.3.0.1/16 dev host0 scope link",
            "addr add 10.4.0.1/16 dev host0 valid_lft 1000 preferred_lft 900",
            "addr add 2001:db8::1/64 dev host0 nodad",
        )
        ready, ready_end = os.pipe()

        def prepare() -> None:
            ns.unshare(("network",))
            os.write(ready_end, b"+")

        with sleeper(prepare) as pid:
            os.read(ready, 1)
            return body(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY))

    return run_in(("network", "mount"), run)


def there(namespace: int, name: str) -> tuple[bool, set[tuple[str, int]]] | None:
    with ns.inside(namespace, "network"):
        return addresses(name)


def ip_there(namespace: int, *lines: str) -> None:
    with ns.inside(namespace, "network"):
        ip(*lines)


def move(names: Sequence[tuple[str, str]], namespace: int) -> tuple[NetDevice, ...]:
    """Move the devices in; return what a record says of them then."""
    return list(net_devices.move_in(net_devices.find(names, namespace), namespace))[-1]


def refused(call: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises((KernelError, SpecError)) as caught:
        tuple(call(*arguments) or ())
    return caught.value.message


def test_there_and_back() -> None:
    def body(namespace: int) -> list[Any]:
        devices = move((("host0", "eth7"),), namespace)
        seen = [addresses("host0"), there(namespace, "eth7"), addresses("peer0") is not None]
        before = os.listdir("/proc/self/fd")
        net_devices.move_back(devices, namespace)
        net_devices.move_back(devices, namespace)
        return [*seen, addresses("host0"), there(namespace, "eth7"), os.listdir("/proc/self/fd") == before]

    assert with_namespace(body) == [None, (True, KEPT), True, (False, KEPT), None, True]


def test_a_name_that_the_kernel_completes() -> None:
    def body(namespace: int) -> list[Any]:
        devices = move((("host0", "net%d"), ("peer0", "net%d")), namespace)
        seen = [there(namespace, "net0"), there(namespace, "net1"), [device.inside for device in devices]]
        net_devices.move_back(devices, namespace)
        return [*seen, addresses("host0"), addresses("peer0")]

    inside = [(True, KEPT), (True, set()), ["net0", "net1"]]
    assert with_namespace(body) == [*inside, (False, KEPT), (True, set())]


def test_a_device_comes_back_up_where_it_was_up() -> None:
    def body(namespace: int) -> list[Any]:
        ip("link set host0 up")
        net_devices.move_back(move((("host0", "eth0"),), namespace), namespace)
        return [addresses("host0")]

    assert with_namespace(body) == [(True, KEPT)]


def test_what_cannot_be_moved() -> None:
    def body(namespace: int) -> list[str]:
        found = [refused(net_devices.find, names, namespace) for names in ((("none0", "eth0"),), (("host0", "lo"),))]
        found.append(refused(move, (("lo", "eth0"),), namespace))
        own = os.open(ns.own_path("network"), os.O_RDONLY)
        found.append(refused(net_devices.find, (("host0", "eth0"),), own))
        assert addresses("host0") is not None
        return found

    none, taken, loopback, hosts = with_namespace(body)
    assert none == "linux.netDevices.none0: the host has no network device of that name"
    assert taken == "linux.netDevices.host0: the container's network namespace has a `lo` already"
    assert loopback.startswith("linux.netDevices.lo: cannot be moved: ")
    assert hosts == "linux.netDevices: needs a network namespace that is not the host's"


def test_a_device_that_vanishes_before_it_is_moved() -> None:
    def body(namespace: int) -> list[str]:
        devices = net_devices.find((("host0", "eth0"),), namespace)
        ip("link delete host0", "link add host0 type bridge")
        return [refused(net_devices.move_in, devices, namespace)]

    assert with_namespace(body) == ["linux.netDevices.host0: cannot be moved: No such device"]


@pytest.mark.parametrize(
    "before", [(), ("link add lost0 index {index} type bridge",)], ids=["index kept", "index taken"]
)
def test_a_device_whose_new_name_is_taken_meanwhile_stays(before: tuple[str, ...]) -> None:
    """The kernel has moved it when it finds that it cannot be renamed."""

    def body(namespace: int) -> list[Any]:
        ip("link set host0 up")
        devices = net_devices.find((("host0", "eth7"),), namespace)
        ip_there(namespace, *(line.format(index=devices[0].index) for line in before), "link add eth7 type bridge")
        message = refused(net_devices.move_in, devices, namespace)
        net_devices.move_back(devices, namespace)
        return [message, addresses("host0"), there(namespace, "host0"), there(namespace, "eth7")]

    message, *seen = with_namespace(body)
    assert message.startswith("linux.netDevices.host0: cannot be moved: ")
    assert message.endswith("exists")
    assert seen == [(True, KEPT), None, (False, set())]


def test_another_index_inside_is_recorded() -> None:
    def body(namespace: int) -> list[Any]:
        (planned,) = net_devices.find((("host0", "net%d"),), namespace)
        with Rtnl() as rtnl:
            (mac,) = [link.mac for link in rtnl.links() if link.name == "host0"]
        ip_there(namespace, f"link add net0 index {planned.index} address {mac} type bridge")
        devices = move((("host0", "net%d"),), namespace)
        seen = [devices[0].inside, devices[0].index != planned.index, there(namespace, "net1")]
        net_devices.move_back(devices, namespace)
        return [*seen, addresses("host0"), there(namespace, "net0")]

    assert with_namespace(body) == ["net1", True, (True, KEPT), (False, KEPT), (False, set())]


def test_only_what_was_moved_comes_back() -> None:
    """The second cannot be moved, as the namespace has one of its name by then; that one stays where it is."""

    def body(namespace: int) -> list[Any]:
        devices = net_devices.find((("host0", "x"), ("peer0", "y")), namespace)
        ip_there(namespace, f"link add y index {devices[1].index} type bridge")
        moving = net_devices.move_in(devices, namespace)
        devices = next(moving)
        message = refused(next, moving)
        net_devices.move_back(devices, namespace)
        return [message, addresses("host0"), addresses("peer0"), addresses("y"), there(namespace, "y")]

    message, *seen = with_namespace(body)
    assert message.startswith("linux.netDevices.peer0: cannot be moved: ")
    assert seen == [(False, KEPT), (True, set()), None, (False, set())]


def test_a_device_that_a_hook_has_renamed_comes_back_and_not_its_namesake() -> None:
    def body(namespace: int) -> list[Any]:
        devices = move((("host0", "eth0"),), namespace)
        ip_there(namespace, "link set eth0 down", "link set eth0 name eth1", "link add eth0 type bridge")
        net_devices.move_back(devices, namespace)
        return [addresses("host0"), there(namespace, "eth0"), there(namespace, "eth1")]

    assert with_namespace(body) == [(False, KEPT), (False, set()), None]


def test_one_that_cannot_come_back_does_not_keep_the_others() -> None:
    def body(namespace: int) -> list[Any]:
        devices = move((("host0", "x"), ("peer0", "y")), namespace)
        ip("link add peer0 type bridge")
        message = refused(net_devices.move_back, devices, namespace)
        return [message, addresses("host0"), there(namespace, "y")]

    message = "linux.netDevices.peer0: cannot be moved back: the host has another of that name"
    assert with_namespace(body) == [message, (False, KEPT), (True, set())]


def test_what_was_moved_and_not_recorded_comes_back() -> None:
    """As where urunc is killed between the two."""

    def body(namespace: int) -> list[Any]:
        devices = net_devices.find((("host0", "net%d"),), namespace)
        move((("host0", "net%d"),), namespace)
        net_devices.move_back(devices, namespace)
        return [addresses("host0")]

    assert with_namespace(body) == [(False, KEPT)]


def killed(namespace: int, **fields: Any) -> Container:
    """Return the record of a `create` that was killed after it moved `host0`."""
    path = f"/proc/self/fd/{namespace}"
    given = {"network_path": path, "network_id": ns.identity(path), "creator": (1, 1), **fields}
    return containers.container(net_devices=move((("host0", "eth0"),), namespace), **given)


@pytest.mark.parametrize(
    ("fields", "back"),
    [
        ({}, True),
        ({"creator": (0, 0)}, False),
        ({"boot_id": "another"}, False),
        ({"network_id": (1, 1)}, False),
        ({"network_path": "/no/such/namespace"}, False),
        ({"network_path": __file__}, False),
        ({"network_path": f"{__file__}/beneath"}, False),
    ],
    ids=["killed", "created", "another boot", "another namespace", "none", "a file", "no folder"],
)
def test_what_a_killed_create_left_in_a_namespace_is_given_back(fields: dict[str, Any], back: bool) -> None:
    """Once it is created nobody does so: the namespace's owner decides (config-linux.md, "Namespace Lifecycle")."""

    def body(namespace: int) -> list[bool]:
        teardown._give_back_devices(killed(namespace, **fields))
        return [addresses("host0") == (False, KEPT), there(namespace, "eth0") is None]

    assert with_namespace(body) == [back, back]


def test_the_hosts_own_devices_are_left_alone() -> None:
    def body(namespace: int) -> list[Any]:
        own = ns.own_path("network")
        record = killed(namespace, network_path=own, network_id=ns.identity(own))
        ip("link add host0 index 99 type bridge")
        device = NetDevice(name="old0", inside="host0", index=99, moved=True, up=True)
        teardown._give_back_devices(record.replace(net_devices=(device,)))
        return [addresses("host0") is not None]

    assert with_namespace(body) == [True]


def test_a_device_that_cannot_come_back_does_not_keep_the_container(capfd: pytest.CaptureFixture[str]) -> None:
    def body(namespace: int) -> list[Any]:
        record = killed(namespace)
        ip("link add host0 type bridge")
        teardown._give_back_devices(record)
        return [there(namespace, "eth0")]

    assert with_namespace(body) == [(True, KEPT)]
    assert "cannot be given back: linux.netDevices.host0: " in capfd.readouterr().err
