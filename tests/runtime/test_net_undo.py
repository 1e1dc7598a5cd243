"""What a redirect leaves behind: nothing, whatever failed, and nothing of anybody else's is touched."""

from __future__ import annotations

import os

import pytest

from inchild import EITHER, OUTSIDE, ip, run_in, run_tc, shown
from urunc.errors import HostError, KernelError
from urunc.linux import proc, tap
from urunc.linux.rtnl import Rtnl
from urunc.runtime import net
from wires import (
    GATEWAY_MAC,
    MAC,
    PEER_MAC,
    attach_tap,
    attached,
    back,
    bound_namespace,
    frame_of,
    make_veth,
    packets,
    tap_read,
    traces,
    wait_read,
)


@pytest.mark.root
@EITHER
@pytest.mark.parametrize("persistent", [False, True])
def test_undo_leaves_nothing_and_may_be_repeated(kinds: tuple[str, ...], persistent: bool) -> None:
    def body() -> None:
        make_veth()
        before = traces()
        with Rtnl() as rtnl:
            network = net.look(rtnl, ("urunc-t0",))
            fds = net.attach(rtnl, network, 1000, 1000, persistent=persistent, vnet_hdr=not persistent)
        assert list(fds) == ([] if persistent else ["urunc-t0"])
        for fd in fds.values():
            os.close(fd)  # as the monitor's end does
        assert ("urunc-t0" in traces()[0]) == persistent
        assert traces()[1]
        path = bound_namespace()
        net.detach(path, ("urunc-t0",))
        net.detach(path, ("urunc-t0",))
        back()
        assert traces() == before

    run_in(kinds, body)


@pytest.mark.root
def test_undo_of_what_is_not_there() -> None:
    def body() -> None:
        make_veth()
        before = traces()
        net.detach("/nowhere", ("urunc-t0",))
        net.detach("/proc/self/ns/uts", ("urunc-t0",))
        net.detach("/etc/hostname", ("urunc-t0",))
        net.detach(bound_namespace(), ("urunc-t0", "eth0"))  # eth0 is no tap
        back()
        assert traces() == before

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_the_runtimes_own_namespace_is_not_touched() -> None:
    def body() -> None:
        os.close(tap.open_tap("urunc-t0", persistent=True, uid=0, gid=0, vnet_hdr=False))
        net.detach("/proc/self/ns/net", ("urunc-t0",))
        assert "urunc-t0" in traces()[0]

    run_in(OUTSIDE, body)


@pytest.mark.root
@pytest.mark.parametrize(
    "lines",
    [
        ("qdisc add dev eth0 ingress",),
        ("qdisc add dev eth0 clsact",),
        (
            "qdisc add dev eth0 ingress",
            "filter add dev eth0 ingress protocol all prio 2 u32 match u32 0 0 action mirred egress redirect dev peer",
        ),
        ("qdisc add dev eth0 ingress_block 22 ingress",),
    ],
)
def test_somebody_elses_ingress_qdisc_is_refused_and_survives(lines: tuple[str, ...]) -> None:
    def body() -> None:
        make_veth()
        run_tc(*lines)
        before = traces(), shown("tc", "filter", "show", "dev", "eth0", "ingress")
        with Rtnl() as rtnl:
            network = net.look(rtnl, ("urunc-t0",))
            with pytest.raises(HostError, match="`eth0` already has an ingress qdisc"):
                net.attach(rtnl, network, 0, 0, persistent=True, vnet_hdr=False)
        net.detach(bound_namespace(), ("urunc-t0",))
        back()
        assert (traces(), shown("tc", "filter", "show", "dev", "eth0", "ingress")) == before

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_a_second_guest_is_refused_and_does_the_first_no_harm() -> None:
    def body() -> None:
        make_veth()
        with attached() as (network, (fd,)), packets("peer") as wire:
            before = traces()
            second = network.replace(nics=(network.nics[0].replace(tap="urunc-t1"),))
            with Rtnl() as rtnl, pytest.raises(HostError, match="`eth0` is already redirected to another guest"):
                net.attach(rtnl, second, 0, 0, persistent=True, vnet_hdr=False)
            net.detach(bound_namespace(), ("urunc-t1",))
            back()
            assert traces() == before
            frame = frame_of(MAC, PEER_MAC, b"\x88\xb5", b"still there")
            wire.send(frame)
            wait_read(lambda: tap_read(fd), frame)

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_a_dead_guests_redirect_is_replaced() -> None:
    def body() -> None:
        make_veth()
        with attached(("urunc-t0",)):
            pass
        with attached(("urunc-t1",)) as (_network, (fd,)), packets("peer") as wire:
            frame = frame_of(MAC, PEER_MAC, b"\x88\xb5", b"to the second")
            wire.send(frame)
            wait_read(lambda: tap_read(fd), frame)

    run_in(OUTSIDE, body)


@pytest.mark.root
@pytest.mark.parametrize("persistent", [False, True])
def test_a_failure_at_any_step_leaves_nothing(persistent: bool) -> None:
    def body() -> int:
        make_veth(address="10.1.2.3/32")
        ip(
            "route add default via 169.254.1.1 dev eth0 onlink",
            f"neigh add 169.254.1.1 lladdr {GATEWAY_MAC} dev eth0 nud permanent",
            "route add default via fe80::1 dev eth0",
            f"neigh add fe80::1 lladdr {GATEWAY_MAC} dev eth0 nud permanent",
        )
        before = traces()
        descriptors = os.listdir("/proc/self/fd")
        for failing in range(100):
            with _Failing(failing) as rtnl:
                network = net.look(rtnl, ("urunc-t0",))
                try:
                    net.attach(rtnl, network, 0, 0, persistent=persistent, vnet_hdr=False)
                except KernelError as error:
                    assert "cannot connect the guest" in error.message
                else:
                    return failing
            assert traces() == before
            assert os.listdir("/proc/self/fd") == descriptors
        return 100

    assert run_in(OUTSIDE, body) == 12


@pytest.mark.root
def test_an_undo_that_fails_does_not_hide_the_failure(capfd: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    def body() -> None:
        make_veth()
        with _Failing(2) as rtnl:
            network = net.look(rtnl, ("urunc-t0",))
            net.remove = refuse
            with pytest.raises(KernelError, match="no space left on device"):
                net.attach(rtnl, network, 0, 0, persistent=False, vnet_hdr=False)

    run_in(OUTSIDE, body)
    assert "cannot undo what was done of the guest's network: operation not permitted" in capfd.readouterr().err


class _Failing(Rtnl):
    """Fails in its `failing`th change."""

    def __init__(self, failing: int) -> None:
        super().__init__()
        self.left = failing

    def do(self, what: str, kind: int, flags: int, body: bytes) -> None:
        if not what.startswith("delete"):
            self.left -= 1
            if self.left < 0:
                raise OSError(28, "No space left on device")
        super().do(what, kind, flags, body)


@pytest.mark.root
def test_killed_at_any_step_detach_clears_it() -> None:
    """As above, but nobody undoes at once: the process is gone, and its descriptors with it."""

    def body() -> int:
        make_veth(address="10.1.2.3/32")
        before = traces()
        for failing in range(100):
            child = os.fork()
            if child == 0:
                net.remove = lambda *_: os._exit(1)  # type: ignore[assignment]
                with _Failing(failing) as rtnl:
                    network = net.look(rtnl, ("urunc-t0",))
                    net.attach(rtnl, network, 0, 0, persistent=True, vnet_hdr=False)
                os._exit(0)
            done = os.waitpid(child, 0)[1] == 0
            net.detach(bound_namespace(), ("urunc-t0",))
            back()
            assert traces() == before
            if done:
                return failing
        return 100

    assert run_in(OUTSIDE, body) == 7


@pytest.mark.root
def test_an_interface_that_vanished() -> None:
    def body() -> None:
        make_veth()
        with Rtnl() as rtnl:
            network = net.look(rtnl, ("urunc-t0",))
            ip("link delete eth0")
            with pytest.raises(HostError, match="`eth0` has vanished"):
                net.attach(rtnl, network, 0, 0, persistent=False, vnet_hdr=False)
        assert traces() == ({"lo"}, {})

    run_in(OUTSIDE, body)


@pytest.mark.root
@pytest.mark.parametrize("vnet_hdr", [False, True])
def test_a_monitor_that_opens_its_tap_by_name(vnet_hdr: bool) -> None:
    """As Solo5 and Firecracker do, as the container's user and without a capability."""

    def body() -> None:
        make_veth()
        with Rtnl() as rtnl:
            network = net.look(rtnl, ("urunc-t0",))
            net.attach(rtnl, network, 1234, 2345, persistent=True, vnet_hdr=vnet_hdr)
        with packets("peer") as wire:
            proc.become(1234, 2345)
            header = bytes(10 if vnet_hdr else 0)
            fd = attach_tap("urunc-t0", vnet_hdr=vnet_hdr)
            inward = frame_of(MAC, PEER_MAC, b"\x88\xb5", b"to the guest")
            wire.send(inward)
            wait_read(lambda: tap_read(fd), header + inward)
            outward = frame_of(PEER_MAC, MAC, b"\x88\xb5", b"from the guest")
            os.write(fd, header + outward)
            wait_read(lambda: wire.recv(2000), outward)

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_a_missing_tun_device_is_the_hosts_error() -> None:
    def body() -> None:
        make_veth()
        before = traces()
        with Rtnl() as rtnl:
            network = net.look(rtnl, ("urunc-t0",))
            with pytest.raises(HostError, match=r"`/dev/net/none` is not there \(load the kernel module tun\)"):
                net.attach(rtnl, network, 0, 0, persistent=False, vnet_hdr=False, device="/dev/net/none")
        assert traces() == before

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_a_tap_name_that_is_taken() -> None:
    def body() -> None:
        make_veth()
        os.close(tap.open_tap("urunc-t0", persistent=True, uid=0, gid=0, vnet_hdr=False))
        before = traces()
        with Rtnl() as rtnl:
            network = net.look(rtnl, ("urunc-t0",))
            with pytest.raises(KernelError, match="cannot make the tap `urunc-t0`: device or resource busy"):
                net.attach(rtnl, network, 0, 0, persistent=False, vnet_hdr=False)
        assert traces() == before

    run_in(OUTSIDE, body)
