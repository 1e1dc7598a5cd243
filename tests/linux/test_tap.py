"""Taps, as the kernel and `ip` show them."""

from __future__ import annotations

import errno
import json
import os

import pytest

from inchild import OUTSIDE, run_in, shown
from urunc.linux import proc, tap
from urunc.linux.rtnl import Rtnl
from wires import attach_tap


@pytest.mark.root
def test_a_tap_held_by_its_descriptor() -> None:
    def body() -> None:
        name = "ünïcode~tap"  # 15 bytes at most, whatever they are
        fd = tap.open_tap(name, persistent=False, uid=1, gid=2, vnet_hdr=True)
        assert not os.get_inheritable(fd)
        with Rtnl() as rtnl:
            assert [link.kind for link in rtnl.links() if link.name == name] == ["tun"]
            with pytest.raises(OSError) as caught:
                tap.open_tap(name, persistent=False, uid=1, gid=2, vnet_hdr=True)
            assert caught.value.errno == errno.EBUSY
            os.close(fd)
            assert not [link for link in rtnl.links() if link.name == name]

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_a_persistent_tap_is_its_owners() -> None:
    def body() -> None:
        os.close(tap.open_tap("mine", persistent=True, uid=1234, gid=2345, vnet_hdr=False))
        os.close(tap.open_tap("gone", persistent=True, uid=0, gid=0, vnet_hdr=False))
        with Rtnl() as rtnl:
            rtnl.delete_link(next(link.index for link in rtnl.links() if link.name == "gone"))
        details = json.loads(shown("ip", "-details", "-json", "link", "show", "mine"))[0]["linkinfo"]["info_data"]
        assert (details["user"], details["group"]) == (1234, 2345)
        assert (details["type"], details["pi"], details["vnet_hdr"], details["persist"]) == ("tap", False, False, True)
        with Rtnl() as rtnl:
            assert [link.name for link in rtnl.links() if link.kind == "tun"] == ["mine"]
        for uid, gid, allowed in ((1234, 2345, True), (1234, 1, False), (1, 2345, False)):
            child = os.fork()
            if child == 0:
                try:
                    proc.become(uid, gid)
                    attach_tap("mine", vnet_hdr=False)
                    os._exit(0)
                except OSError as error:
                    os._exit(1 if error.errno == errno.EPERM else 2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (0 if allowed else 1)

    run_in(OUTSIDE, body)


def test_a_name_that_is_too_long_is_not_cut() -> None:
    with pytest.raises(OSError) as caught:
        tap.open_tap("sixteen-bytes-xx", persistent=False, uid=0, gid=0, vnet_hdr=False)
    assert caught.value.errno == errno.ENAMETOOLONG
