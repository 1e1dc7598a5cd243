"""Network mode `nat` undone: after a guest, after a failure at any step, and nothing that is not ours."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from inchild import EITHER, OUTSIDE, run_in, shown
from pods import TAP, attached, make_pod, make_pod_with_ipv6, traces, undo
from urunc.errors import HostError, KernelError
from urunc.linux import tap
from urunc.linux.nftables import Nftables
from urunc.linux.rtnl import Rtnl
from urunc.runtime import nat, net

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.root


@EITHER
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("forwarded", [False, True])
def test_undo_leaves_nothing_and_may_be_repeated(kinds: tuple[str, ...], persistent: bool, forwarded: bool) -> None:
    def body() -> None:
        make_pod()
        if forwarded:
            with open("/proc/sys/net/ipv4/conf/eth0/forwarding", "w") as file:
                file.write("1")
        before = traces()
        with Rtnl() as rtnl:
            network = nat.look(rtnl, (TAP,))
            fds = nat.attach(rtnl, network, 1000, 1000, persistent=persistent, vnet_hdr=not persistent)
        assert traces()[2]["eth0"]
        assert list(traces()[1]) == [TAP]
        net.close(fds)  # as the monitor's end does
        undo("urunc9-other")
        assert list(traces()[1]) == [TAP]
        undo(TAP, "urunc1-t")
        undo(TAP, "urunc1-t")
        assert traces() == before

    run_in(kinds, body)


def test_somebody_elses_rules_survive() -> None:
    def body() -> None:
        make_pod()
        with Nftables() as tables:
            tables.add_table("filter", b"", ())
        before = traces()
        with attached():
            pass
        undo(TAP)
        assert traces() == before

    run_in(OUTSIDE, body)


def test_a_second_guest_is_refused_and_does_the_first_no_harm() -> None:
    def body() -> None:
        make_pod()
        with attached():
            before = traces()
            with Rtnl() as rtnl, pytest.raises(HostError, match="has a guest behind NAT already"):
                nat.look(rtnl, ("urunc0-u",))
            undo("urunc0-u")
            assert traces() == before

    run_in(OUTSIDE, body)


def test_a_dead_guests_rules_are_replaced_and_its_late_undo_does_the_next_no_harm() -> None:
    def body() -> None:
        make_pod()
        before = traces()
        with Rtnl() as rtnl:
            first = nat.look(rtnl, ("urunc0-t0",))
            net.close(nat.attach(rtnl, first, 0, 0, persistent=False, vnet_hdr=False))
        with attached():
            during = traces()
            assert list(during[1]) == [TAP]
            undo("urunc0-t0")
            assert traces() == during
        undo(TAP)
        assert traces() == before

    run_in(OUTSIDE, body)


@EITHER
@pytest.mark.parametrize("own_knob", [True, False], ids=["an interface's own", "all"])
@pytest.mark.parametrize("forwarded", [False, True])
def test_ipv6_forwarding_and_its_undo(
    kinds: tuple[str, ...], own_knob: bool, forwarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the knob that each interface has since Linux 6.17, and before that by the one for all."""
    if not own_knob:
        monkeypatch.setattr(nat, "_OF_ONE", "no_such_knob")
    elif not os.path.exists("/proc/sys/net/ipv6/conf/lo/force_forwarding"):
        pytest.skip("this kernel has no force_forwarding")
    knob = "eth0/force_forwarding" if own_knob else "all/forwarding"

    def value() -> str:
        with open(f"/proc/sys/net/ipv6/conf/{knob}") as file:
            return file.read().strip()

    def body() -> None:
        make_pod_with_ipv6()
        if forwarded:
            with open(f"/proc/sys/net/ipv6/conf/{knob}", "w") as file:
                file.write("1")
        before = traces(), value()
        with attached():
            assert value() == "1"
            assert "inet6 fd75:7275:6e63::1/64" in shown("ip", "address", "show", "dev", TAP)
        undo(TAP)
        undo(TAP)
        assert (traces(), value()) == before

    run_in(kinds, body)


def _failing(steps: list[str], limit: int) -> Callable[..., object]:
    """Return a wrapper of changes that lets `limit` of them happen and the next one fail."""

    def wrap(name: str, change: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **options: object) -> object:
            steps.append(name)
            if len(steps) == limit + 1:
                raise OSError(28, "No space left on device")
            return change(*arguments, **options)

        return counted

    return wrap


@pytest.mark.parametrize("killed", [False, True], ids=["failed", "killed"])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_failure_at_any_step_leaves_nothing(killed: bool, persistent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed: nobody undoes at once, and `delete --force` must."""

    def attempt(limit: int) -> bool:
        steps: list[str] = []
        wrap = _failing(steps, limit)
        with Rtnl() as rtnl:
            network = nat.look(rtnl, (TAP,))
            real, Nftables.add_table = Nftables.add_table, wrap("table", Nftables.add_table)  # type: ignore[method-assign,assignment]
            for name in ("set_link", "add_address"):
                setattr(rtnl, name, wrap(name, getattr(rtnl, name)))
            turn, nat._turn = nat._turn, wrap("turn", nat._turn)  # type: ignore[assignment]
            try:
                if killed:
                    nat._remove = net.remove = lambda *_: os._exit(1)  # type: ignore[assignment]
                net.close(nat.attach(rtnl, network, 0, 0, persistent=persistent, vnet_hdr=False))
            except KernelError as error:
                assert "no space left" in error.message
                return False
            finally:
                Nftables.add_table = real  # type: ignore[method-assign]
                nat._turn = turn
        return True

    def more_traces() -> tuple[object, ...]:
        return traces(), [nat._is_turned(f"{name}:{nat._OF_ONE}") for name in names]

    names = ("all", "eth0")

    def body() -> int:
        make_pod_with_ipv6()
        before = more_traces()
        for limit in range(20):
            if killed:
                child = os.fork()
                if child == 0:
                    os._exit(0 if attempt(limit) else 1)
                done = os.waitpid(child, 0)[1] == 0
                undo(TAP)
            else:
                done = attempt(limit)
                if done:
                    undo(TAP)
            assert more_traces() == before
            if done:
                return limit
        return 20

    monkeypatch.setattr(nat, "_OF_ONE", nat._OF_ALL)  # which every kernel has for every interface
    assert run_in(OUTSIDE, body) == 9


def test_an_undo_that_fails_does_not_hide_the_failure(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    def body() -> None:
        make_pod()
        with Rtnl() as rtnl:
            network = nat.look(rtnl, (TAP,))
            Nftables.add_table = fail  # type: ignore[method-assign,assignment]
            nat._remove = refuse  # type: ignore[assignment]
            with pytest.raises(KernelError, match="cannot put the guest behind NAT: no space left on device"):
                nat.attach(rtnl, network, 0, 0, persistent=True, vnet_hdr=False)
        assert TAP not in shown("ip", "link")

    run_in(OUTSIDE, body)
    assert "cannot undo what was done of the guest's network: operation not permitted" in capfd.readouterr().err


def test_a_tap_name_that_is_taken() -> None:
    def body() -> None:
        make_pod()
        os.close(tap.open_tap(TAP, persistent=True, uid=0, gid=0, vnet_hdr=False))
        with Rtnl() as rtnl:
            network = nat.look(rtnl, (TAP,))
            with pytest.raises(KernelError, match=f"cannot make the tap `{TAP}`"):
                nat.attach(rtnl, network, 0, 0, persistent=False, vnet_hdr=False)
        assert not traces()[1]

    run_in(OUTSIDE, body)
