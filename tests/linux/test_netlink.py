from __future__ import annotations

import errno
import json
import os
from _struct import pack
from typing import Any

import pytest

from inchild import INSIDE_USER, OUTSIDE, ip, run_in, shown, tc
from urunc.linux import netlink, tap
from urunc.linux.netlink import LinkAddress, LinkNeighbour, LinkRoute, Rtnl

EITHER = pytest.mark.parametrize("kinds", [OUTSIDE, INSIDE_USER], ids=["root", "userns"])


def _veth() -> tuple[int, int]:
    """Make a veth pair, both ends up; return the indexes of `eth0` and `peer`."""
    ip(
        "link add eth0 address 02:00:00:00:00:01 type veth peer name peer address 02:00:00:00:00:02",
        "link set eth0 mtu 1400 up",
        "link set peer up",
    )
    with Rtnl() as rtnl:
        indexes = {link.name: link.index for link in rtnl.links()}
    return indexes["eth0"], indexes["peer"]


@pytest.mark.root
@EITHER
def test_links(kinds: tuple[str, ...]) -> None:
    def body() -> None:
        eth0, _peer = _veth()
        with Rtnl() as rtnl:
            links = {link.name: link for link in rtnl.links()}
        link = links["eth0"]
        assert (link.index, link.type, link.mtu) == (eth0, netlink.ARPHRD_ETHER, 1400)
        assert (link.mac, link.kind, link.up, link.loopback) == ("02:00:00:00:00:01", "veth", True, False)
        assert links["lo"].loopback
        assert not links["lo"].up

    run_in(kinds, body)


@pytest.mark.root
def test_addresses() -> None:
    def body() -> None:
        eth0, _peer = _veth()
        ip(
            "addr add 10.0.0.5/24 dev eth0",
            "addr add 10.0.0.6/24 dev eth0",
            "addr add 192.0.2.1 peer 192.0.2.2/32 dev eth0",
            "addr add 10.9.0.1/24 dev eth0 scope link",
            "addr add 2001:db8::5/64 dev eth0 nodad",
        )
        with Rtnl() as rtnl:
            found = [a for a in rtnl.addresses() if a.index == eth0 and not a.ip.startswith("fe80")]
        common = {"index": eth0, "family": 4}
        assert set(found) == {
            LinkAddress(ip="10.0.0.5", prefix=24, scope="global", **common),
            LinkAddress(ip="10.0.0.6", prefix=24, scope="global", **common),
            LinkAddress(ip="192.0.2.1", prefix=32, scope="global", **common),
            LinkAddress(ip="10.9.0.1", prefix=24, scope="link", **common),
            LinkAddress(index=eth0, family=6, ip="2001:db8::5", prefix=64, scope="global"),
        }

    run_in(OUTSIDE, body)


def _route(index: int, **fields: Any) -> LinkRoute:
    plain: dict[str, Any] = {
        "family": 4,
        "destination": None,
        "prefix": 0,
        "gateway": None,
        "onlink": False,
        "scope": "global",
        "metric": 0,
        "source": None,
        "by_kernel": False,
    }
    return LinkRoute(index=index, **{**plain, **fields})


@pytest.mark.root
def test_routes() -> None:
    def body() -> None:
        eth0, peer = _veth()
        ip(
            "addr add 10.0.0.5/32 dev eth0",
            "addr add 10.1.0.1/24 dev peer",
            "addr add 2001:db8::5/128 dev eth0 nodad",
            "route add 169.254.1.1 dev eth0 scope link",
            "route add default via 169.254.1.1 dev eth0 onlink src 10.0.0.5 metric 7",
            "route add 10.2.0.0/16 nexthop via 169.254.1.1 dev eth0 onlink nexthop via 10.1.0.2 dev peer",
            "route add blackhole 10.3.0.0/16",
            "route add 10.4.0.0/16 dev eth0 table 99",
            "route add 10.5.0.0/16 via inet6 fe80::1 dev eth0 onlink",
            "route add default via fe80::1 dev eth0",
        )
        with Rtnl() as rtnl:
            found = rtnl.routes()
        expected = [
            _route(eth0, gateway="169.254.1.1", onlink=True, source="10.0.0.5", metric=7),
            _route(eth0, destination="169.254.1.1", prefix=32, scope="link"),
            _route(eth0, destination="10.2.0.0", prefix=16, gateway="169.254.1.1", onlink=True),
            _route(peer, destination="10.2.0.0", prefix=16, gateway="10.1.0.2"),
            _route(eth0, destination="10.5.0.0", prefix=16, gateway="fe80::1", onlink=True),
            _route(eth0, family=6, gateway="fe80::1", metric=1024),
            _route(peer, destination="10.1.0.0", prefix=24, scope="link", source="10.1.0.1", by_kernel=True),
        ]
        for route in expected:
            assert route in found
        assert not any(route.destination in ("10.3.0.0", "10.4.0.0") for route in found)

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_only_permanent_neighbours() -> None:
    def body() -> None:
        eth0, _peer = _veth()
        ip(
            "neigh add 169.254.1.1 lladdr 02:11:22:33:44:55 dev eth0 nud permanent",
            "neigh add 10.0.0.9 lladdr 02:11:22:33:44:66 dev eth0 nud reachable",
            "neigh add fe80::1 lladdr 02:11:22:33:44:55 dev eth0 nud permanent",
        )
        with Rtnl() as rtnl:
            found = rtnl.neighbours()
        assert sorted(found, key=lambda item: item.family) == [
            LinkNeighbour(index=eth0, family=4, ip="169.254.1.1", mac="02:11:22:33:44:55"),
            LinkNeighbour(index=eth0, family=6, ip="fe80::1", mac="02:11:22:33:44:55"),
        ]

    run_in(OUTSIDE, body)


@pytest.mark.root
def test_dumps_of_many_datagrams() -> None:
    def body() -> None:
        _veth()
        ip(*(f"route add 10.{n >> 8}.{n & 255}.0/24 dev eth0" for n in range(2000)))
        ip(*(f"link add link peer name mv{n} type macvlan" for n in range(60)))
        with Rtnl() as rtnl:
            assert len(rtnl.routes()) >= 2000
            assert len(rtnl.links()) == 63

    run_in(OUTSIDE, body)


@pytest.mark.root
@EITHER
def test_set_link(kinds: tuple[str, ...]) -> None:
    def body() -> None:
        eth0, peer = _veth()
        ip("link add name bridge type bridge", "link set eth0 down", "link set peer down")
        with Rtnl() as rtnl:
            bridge = next(link.index for link in rtnl.links() if link.name == "bridge")
            rtnl.set_link(eth0, mtu=1300, arp=False, mac="02:00:00:00:00:99", master=bridge, addrgen_none=True)
            rtnl.set_link(eth0, up=True)
            rtnl.set_link(peer, name="other", inet_conf={23: 1}, up=True)
            link = next(link for link in rtnl.links() if link.index == eth0)
            assert (link.mtu, link.mac, link.master, link.up) == (1300, "02:00:00:00:00:99", bridge, True)
            assert link.flags & netlink.IFF_NOARP
            rtnl.set_link(eth0, arp=True, master=0)
            link = next(link for link in rtnl.links() if link.index == eth0)
            assert link.master == 0
            assert link.up
            assert not link.flags & netlink.IFF_NOARP
            assert not any(address.index == eth0 for address in rtnl.addresses())
            with open("/proc/sys/net/ipv4/conf/other/accept_local") as file:
                assert file.read() == "1\n"

    run_in(kinds, body)


@pytest.mark.root
def test_the_kernels_own_words_are_in_the_error() -> None:
    def body() -> None:
        eth0, _peer = _veth()
        with Rtnl() as rtnl:
            with pytest.raises(OSError, match=r"cannot change the link: Invalid argument \(mtu greater than device"):
                rtnl.set_link(eth0, mtu=1 << 24)
            with pytest.raises(OSError, match="cannot delete the link: No such device") as caught:
                rtnl.delete_link(9999)
            assert caught.value.errno == errno.ENODEV
            assert rtnl.links()  # and the socket goes on

    run_in(OUTSIDE, body)


@pytest.mark.root
@EITHER
@pytest.mark.parametrize("block", [0, 0x75000003])
def test_redirect(kinds: tuple[str, ...], block: int) -> None:
    def body() -> None:
        eth0, peer = _veth()
        ip("link add name other type veth peer name b")
        with Rtnl() as rtnl:
            other = next(link.index for link in rtnl.links() if link.name == "other")
            assert rtnl.ingresses() == {}
            assert rtnl.redirects(eth0) == []
            rtnl.add_ingress(eth0, block)
            assert rtnl.ingresses() == {eth0: block}
            assert rtnl.redirects(eth0) == []
            rtnl.add_redirect(eth0, other, block)
            assert rtnl.redirects(eth0) == [other]
            assert rtnl.redirects(peer) == []
            assert rtnl.redirects(9999) == []
            with pytest.raises(FileExistsError):
                rtnl.add_ingress(eth0, block)
            shows = json.loads(shown("tc", "-json", "filter", "show", "dev", "eth0", "ingress"))
            action = next(item["options"]["actions"][0] for item in shows if "actions" in item.get("options", {}))
            assert (action["kind"], action["mirred_action"], action["direction"]) == ("mirred", "redirect", "egress")
            assert (action["to_dev"], action["control_action"]["type"]) == ("other", "stolen")
            rtnl.delete_link(other)
            assert rtnl.redirects(eth0) == [0]
            rtnl.delete_ingress(eth0)
            rtnl.delete_ingress(eth0)
            rtnl.delete_ingress(9999)
            assert rtnl.ingresses() == {}

    run_in(kinds, body)


@pytest.mark.root
def test_others_filters_are_no_redirects() -> None:
    def body() -> None:
        eth0, _peer = _veth()
        tc(
            "qdisc add dev eth0 clsact",
            "filter add dev eth0 ingress protocol ip prio 1 u32 match ip dst 10.0.0.0/8 flowid 1:1",
            "filter add dev eth0 ingress protocol all prio 3 u32 match u32 0 0 action mirred egress mirror dev peer",
            "filter add dev eth0 egress protocol all prio 3 u32 match u32 0 0 action mirred egress redirect dev peer",
        )
        with Rtnl() as rtnl:
            assert rtnl.ingresses() == {eth0: 0}
            assert rtnl.redirects(eth0) == []
            with pytest.raises(FileExistsError):
                rtnl.add_ingress(eth0)

    run_in(OUTSIDE, body)


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
        from urunc.linux import proc

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
                    tap.open_tap("mine", persistent=False, uid=0, gid=0, vnet_hdr=False, new=False)
                    os._exit(0)
                except OSError as error:
                    os._exit(1 if error.errno == errno.EPERM else 2)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == (0 if allowed else 1)

    run_in(OUTSIDE, body)


def test_a_name_that_is_too_long_is_not_cut() -> None:
    with pytest.raises(OSError) as caught:
        tap.open_tap("sixteen-bytes-xx", persistent=False, uid=0, gid=0, vnet_hdr=False)
    assert caught.value.errno == errno.ENAMETOOLONG


class FakeSocket:
    """A netlink socket whose answers the test writes."""

    def __init__(self, *answers: bytes, sender: int = 0, flags: int = 0) -> None:
        self.answers = list(answers)
        self.sent: list[bytes] = []
        self.sender = sender
        self.flags = flags

    def sendto(self, data: bytes, _address: object) -> None:
        self.sent.append(data)

    def recvmsg(self, _size: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        return self.answers.pop(0), [], self.flags, (self.sender, 0)

    def close(self) -> None:
        pass


def _message(kind: int, flags: int, sequence: int, body: bytes, port: int = 77) -> bytes:
    return pack("IHHII", 16 + len(body), kind, flags, sequence, port) + body


def _rtnl(fake: FakeSocket) -> Rtnl:
    rtnl = Rtnl()
    rtnl.close()
    rtnl._socket = fake  # type: ignore[assignment]
    rtnl._port = 77
    return rtnl


LINK = pack("BxHiII", 0, 1, 5, 1, 0) + pack("HH", 8, 3) + b"eth\0"
DONE = pack("i", 0)


def test_answers_to_others_are_passed_over() -> None:
    fake = FakeSocket(
        _message(16, 2, 9, LINK) + _message(3, 2, 9, DONE),  # an old request's
        _message(16, 2, 1, LINK, port=78),  # another socket's
        _message(16, 2, 1, LINK),
        _message(3, 2, 1, DONE),
    )
    assert [link.name for link in _rtnl(fake).links()] == ["eth"]


def test_a_dump_that_changed_under_way_begins_again() -> None:
    fake = FakeSocket(
        _message(16, 2 | 0x10, 1, LINK) + _message(16, 2, 1, LINK),
        _message(3, 2, 1, DONE),
        _message(16, 2, 2, LINK),
        _message(3, 2, 2, DONE),
    )
    assert len(_rtnl(fake).links()) == 1
    assert len(fake.sent) == 2


def test_an_error_at_the_end_of_a_dump() -> None:
    fake = FakeSocket(_message(16, 2, 1, LINK) + _message(3, 2, 1, pack("i", -errno.ENOMEM)))
    with pytest.raises(OSError, match="cannot list the links: Cannot allocate memory"):
        _rtnl(fake).links()


@pytest.mark.parametrize(
    "answer",
    [
        pack("IHHII", 8, 16, 2, 1, 77),
        pack("IHHII", 400, 16, 2, 1, 77),
        _message(16, 2, 1, pack("BxHiII", 0, 1, 5, 1, 0) + pack("HH", 2, 3)),
        _message(16, 2, 1, pack("BxHiII", 0, 1, 5, 1, 0) + pack("HH", 80, 3)),
    ],
)
def test_broken_answers_are_errors(answer: bytes) -> None:
    fake = FakeSocket(answer, _message(3, 2, 1, DONE))
    with pytest.raises(OSError, match="impossible length"):
        _rtnl(fake).links()


def test_a_cut_answer_is_an_error() -> None:
    with pytest.raises(OSError, match="larger than the buffer"):
        _rtnl(FakeSocket(_message(16, 2, 1, LINK), flags=0x20)).links()
