"""Ingress qdiscs and filters, as `tc` shows them."""

from __future__ import annotations

import json

import pytest

from inchild import EITHER, OUTSIDE, ip, run_in, run_tc, shown, veth
from urunc.linux import tc
from urunc.linux.rtnl import Rtnl


@pytest.mark.root
@EITHER
@pytest.mark.parametrize("block", [0, 0x75000003])
def test_redirect(kinds: tuple[str, ...], block: int) -> None:
    def body() -> None:
        eth0, peer = veth()
        ip("link add name other type veth peer name b")
        with Rtnl() as rtnl:
            other = next(link.index for link in rtnl.links() if link.name == "other")
            assert tc.ingresses(rtnl) == {}
            assert tc.redirects(rtnl, eth0) == []
            tc.add_ingress(rtnl, eth0, block)
            assert tc.ingresses(rtnl) == {eth0: block}
            assert tc.redirects(rtnl, eth0) == []
            tc.add_redirect(rtnl, eth0, other, block)
            assert tc.redirects(rtnl, eth0) == [other]
            assert tc.redirects(rtnl, peer) == []
            assert tc.redirects(rtnl, 9999) == []
            with pytest.raises(FileExistsError):
                tc.add_ingress(rtnl, eth0, block)
            shows = json.loads(shown("tc", "-json", "filter", "show", "dev", "eth0", "ingress"))
            action = next(item["options"]["actions"][0] for item in shows if "actions" in item.get("options", {}))
            assert (action["kind"], action["mirred_action"], action["direction"]) == ("mirred", "redirect", "egress")
            assert (action["to_dev"], action["control_action"]["type"]) == ("other", "stolen")
            rtnl.delete_link(other)
            assert tc.redirects(rtnl, eth0) == [0]
            tc.delete_ingress(rtnl, eth0)
            tc.delete_ingress(rtnl, eth0)
            tc.delete_ingress(rtnl, 9999)
            assert tc.ingresses(rtnl) == {}

    run_in(kinds, body)


@pytest.mark.root
def test_others_filters_are_no_redirects() -> None:
    def body() -> None:
        eth0, _peer = veth()
        run_tc(
            "qdisc add dev eth0 clsact",
            "filter add dev eth0 ingress protocol ip prio 1 u32 match ip dst 10.0.0.0/8 flowid 1:1",
            "filter add dev eth0 ingress protocol all prio 3 u32 match u32 0 0 action mirred egress mirror dev peer",
            "filter add dev eth0 egress protocol all prio 3 u32 match u32 0 0 action mirred egress redirect dev peer",
        )
        with Rtnl() as rtnl:
            assert tc.ingresses(rtnl) == {eth0: 0}
            assert tc.redirects(rtnl, eth0) == []
            with pytest.raises(FileExistsError):
                tc.add_ingress(rtnl, eth0)

    run_in(OUTSIDE, body)
