"""Devices of the host that are moved into a container's network namespace, and back."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

import containers
from cgroups import sleeper
from inchild import ip, run_in
from urunc.errors import KernelError, SpecError
from urunc.linux import ns
from urunc.linux.rtnl import Rtnl
from urunc.runtime import net_devices, teardown

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
    with ns.inside(f"/proc/self/fd/{namespace}", "network"):
        return addresses(name)


def test_there_and_back() -> None:
    def body(namespace: int) -> list[Any]:
        names = (("host0", "eth7"),)
        net_devices.check(names, namespace)
        net_devices.move_in(names, namespace)
        seen = [addresses("host0"), there(namespace, "eth7"), addresses("peer0") is not None]
        before = os.listdir("/proc/self/fd")
        net_devices.move_back(names, namespace)
        net_devices.move_back(names, namespace)
        return [*seen, addresses("host0"), there(namespace, "eth7"), os.listdir("/proc/self/fd") == before]

    assert with_namespace(body) == [None, (True, KEPT), True, (True, KEPT), None, True]


def test_a_name_that_the_kernel_completes() -> None:
    def body(namespace: int) -> list[Any]:
        names = (("host0", "net%d"), ("peer0", "net%d"))
        net_devices.check(names, namespace)
        net_devices.move_in(names, namespace)
        return [there(namespace, "net0"), there(namespace, "net1")]

    first, second = with_namespace(body)
    assert first == (True, KEPT)
    assert second == (True, set())


def test_what_cannot_be_moved() -> None:
    def body(namespace: int) -> list[str]:
        found = []
        for names in ((("none0", "eth0"),), (("host0", "lo"),)):
            with pytest.raises(SpecError) as refused:
                net_devices.check(names, namespace)
            found.append(refused.value.message)
        with pytest.raises(KernelError) as failed:
            net_devices.move_in((("lo", "eth0"),), namespace)
        assert addresses("host0") is not None
        return [*found, failed.value.message]

    none, taken, loopback = with_namespace(body)
    assert none == "linux.netDevices.none0: the host has no network device of that name"
    assert taken == "linux.netDevices.host0: the container's network namespace has a `lo` already"
    assert loopback.startswith("linux.netDevices.lo: cannot be moved: ")


@pytest.mark.parametrize(("creator", "back"), [((1, 1), True), ((0, 0), False)], ids=["killed", "created"])
def test_what_a_killed_create_left_in_a_namespace_is_given_back(creator: tuple[int, int], back: bool) -> None:
    """Once it is created nobody does so: the namespace's owner decides (config-linux.md, "Namespace Lifecycle")."""

    def body(namespace: int) -> list[bool]:
        names = (("host0", "eth0"),)
        net_devices.move_in(names, namespace)
        path = f"/proc/self/fd/{namespace}"
        record = containers.container(network_path=path, net_devices=names, creator=creator)
        teardown._give_back_devices(record)
        teardown._give_back_devices(record.replace(network_path="/no/such/namespace"))
        return [addresses("host0") == (True, KEPT), there(namespace, "eth0") is None]

    assert with_namespace(body) == [back, back]
