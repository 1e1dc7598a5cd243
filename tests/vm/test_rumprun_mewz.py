"""Rumprun's JSON, read back by models of its tokenizer and its splitting, and Mewz's boot string."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc.errors import SpecError
from urunc.vm.guests import mewz, rumprun
from urunc.vm.machine import Address, Boot, Context, KernelInfo, Network, Root, Route
from urunc.vm.monitors import hvt, qemu
from vmcases import NETWORKS, OFF_LINK_NIC, PLAIN_NIC, SECOND_NIC, make_app, solo5_kernel


def boot(network: Network, kind: str = "none", **fields: object) -> Boot:
    app = make_app("rumprun", "hvt", Root(kind=kind), **{"env": (), **fields})
    context = Context(kernel=solo5_kernel("hvt", 1, 0))
    result = rumprun.boot(app, network, Root(kind=kind), hvt.CAPABILITIES, context)
    assert len(result.arguments) == 1
    return result


def tokens(document: str) -> list[tuple[str, object]]:
    """Read as lib/libbmk_core/jsmn.c does: members in order, their strings as they stand."""
    pairs, depth, strings = [], 0, re.findall(r'"((?:[^"\\]|\\["/\\bfrnt])*)"|([{}:,])', document, re.DOTALL)
    assert re.sub(r'"((?:[^"\\]|\\["/\\bfrnt])*)"|[{}:,]', "", document, flags=re.DOTALL) == ""
    inner: dict[str, str] = {}
    words: list[str] = []
    for text, sign in strings:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if sign == "{" and depth == 2:
            inner, words = {}, words[-1:]
        elif sign == "}" and depth == 1:
            inner.update(zip(words[1::2], words[2::2], strict=True))
            pairs.append((words[0], inner))
            words = []
        elif not sign:
            words.append(text)
            if depth == 1 and len(words) == 2:
                pairs.append((words[0], words[1]))
                words = []
    return pairs


def split(line: str) -> list[str]:
    """Split as lib/librumprun_base/parseargs.c does."""
    words: list[str] = []
    quote: str | None = None  # None outside of a word, "" in one
    letters = iter(line)
    for letter in letters:
        text = next(letters) if letter == "\\" else letter
        if letter in " \n\t" and not quote:
            quote = None
            continue
        if quote is None:
            words.append("")
            quote = ""
        if quote and letter == quote:
            quote = ""
        elif letter in "'\"":
            quote = letter
        else:
            words[-1] += text
    return words


def document(network: Network, kind: str = "none", **fields: object) -> dict[str, object]:
    return dict(tokens(boot(network, kind, **fields).arguments[0]))


def test_network() -> None:
    assert document(NETWORKS["plain"])["net"] == {
        "if": "ukvmif0",
        "cloner": "True",
        "type": "inet",
        "method": "static",
        "addr": "172.17.0.2",
        "mask": "16",
        "gw": "172.17.0.1",
    }


@pytest.mark.parametrize(
    ("ip", "mask", "gateway"),
    [("10.1.2.1", "30", "10.1.2.2"), ("10.1.2.2", "30", "10.1.2.1"), ("10.1.2.3", "29", "10.1.2.1"),
     ("10.1.2.4", "29", "10.1.2.1"), ("10.1.2.8", "28", "10.1.2.1"), ("10.1.2.0", "22", "10.1.0.1"),
     ("172.17.0.2", "5", "169.254.1.1")],
)  # fmt: skip
def test_gateway_outside_the_network(ip: str, mask: str, gateway: str) -> None:
    """Where no network holds both, a neighbour stands in: /0 would be no mask to NetBSD."""
    nic = OFF_LINK_NIC.replace(addresses=(Address(ip=ip, prefix=32),))
    result = boot(Network(nics=(nic,)))
    net = dict(tokens(result.arguments[0]))["net"]
    assert isinstance(net, dict)
    assert (net["addr"], net["mask"], net["gw"]) == (ip, mask, gateway)
    assert ("proxy ARP" in result.messages[0]) == (gateway != "169.254.1.1")


def test_without_network_and_disk() -> None:
    assert list(document(NETWORKS["none"])) == ["cmdline"]


def test_disk() -> None:
    assert document(NETWORKS["none"], "block", block_mount="/srv")["blk"] == {
        "source": "etfs",
        "path": "/dev/ld0a",
        "fstype": "blk",
        "mountpoint": "/srv",
    }


def test_it_takes_one_nic_or_what_its_manifest_declares() -> None:
    """A tender wants every declared device attached; the document has place for the first."""
    app = make_app("rumprun", "hvt", Root(), env=())

    def made(kernel: KernelInfo) -> Boot:
        return rumprun.boot(app, NETWORKS["two"], Root(), hvt.CAPABILITIES, Context(kernel=kernel))

    assert made(KernelInfo(format="elf64")).nics == 1
    assert made(solo5_kernel("hvt", 1, 0)).nics == 1
    two = made(solo5_kernel("hvt", 2, 0))
    assert two.nics == 2
    assert two.messages[-1].startswith("rumprun sets up eth0 alone") and two.messages[-1].endswith(": net1")


def test_a_gateway_beside_the_network() -> None:
    nic = PLAIN_NIC.replace(addresses=(Address(ip="172.17.0.2", prefix=24),), routes=(Route(gateway="172.17.1.1"),))
    result = boot(Network(nics=(nic,)))
    net = dict(tokens(result.arguments[0]))["net"]
    assert isinstance(net, dict) and (net["mask"], net["gw"]) == ("23", "172.17.1.1")
    assert result.messages == ("the guest cannot use a gateway outside its network: it gets the prefix /23",)


words = st.text(st.characters(exclude_characters="\0'", exclude_categories=["Cs"]), max_size=8)


@given(st.lists(words, max_size=4))
def test_words_arrive_as_they_are(args: list[str]) -> None:
    found = document(NETWORKS["none"], args=tuple(args))["cmdline"]
    assert isinstance(found, str) and split(found) == args


def test_words_that_cannot_be_carried() -> None:
    with pytest.raises(SpecError, match=r"process.args.1. cannot be given to the guest: .* a single quote"):
        boot(NETWORKS["none"], args=("a", "it's"))
    with pytest.raises(SpecError, match=r"blkMntPoint.* cannot be given to the guest: .* a backslash"):
        boot(NETWORKS["none"], "block", block_mount="/a\\b")


def test_environment() -> None:
    """One `env` for each variable: the tokenizer takes a key as often as it comes."""
    result = boot(NETWORKS["none"], args=("a",), env=("A=b c", 'Q="', "B=\\", "C=é'"))
    assert tokens(result.arguments[0]) == [("cmdline", "a"), ("env", "A=b c"), ("env", "C=é'")]
    left_out = "is left out: rumprun takes no double quote and no backslash"
    assert result.messages == (f"the environment's `Q` {left_out}", f"the environment's `B` {left_out}")


def test_a_long_environment_is_left_out() -> None:
    """Kubernetes gives every container of a large namespace kilobytes of it."""
    result = boot(NETWORKS["none"], args=("a",), env=tuple(f"SERVICE_{number}=x" for number in range(1000)))
    assert tokens(result.arguments[0]) == [("cmdline", "a")]
    assert result.messages == ("the environment is left out: it is longer than what Solo5 passes on",)


def test_mewz() -> None:
    app = make_app("mewz", "qemu", Root())
    result = mewz.boot(app, NETWORKS["plain"], Root(), qemu.CAPABILITIES, Context())
    assert result.command_line == "ip=172.17.0.2/16 gateway=172.17.0.1"
    assert result.exit_device and result.modern_virtio_only
    assert result.min_memory_mib == 512
    assert mewz.boot(app, Network(), Root(), qemu.CAPABILITIES, Context()).command_line == ""


def test_mewz_without_a_gateway() -> None:
    """Its network starts with both words alone, and without a network it does not get far."""
    network = Network(nics=(SECOND_NIC,))
    result = mewz.boot(make_app("mewz", "qemu", Root()), network, Root(), qemu.CAPABILITIES, Context())
    assert result.command_line == "ip=192.168.7.9/24 gateway=0.0.0.0"
    assert "answers nobody" in result.messages[0]
