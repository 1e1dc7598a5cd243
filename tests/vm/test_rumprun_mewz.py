"""Rumprun's JSON and Mewz's boot string."""

from __future__ import annotations

import json

from urunc.vm.guests import mewz, rumprun
from urunc.vm.machine import Context, Network, Root
from urunc.vm.monitors import hvt, qemu
from vmcases import NETWORKS, SECOND_NIC, make_app, solo5_kernel


def document(network: Network, kind: str = "none", **fields: object) -> dict[str, object]:
    app = make_app("rumprun", "hvt", Root(kind=kind), **fields)
    context = Context(kernel=solo5_kernel("hvt", 1, 0))
    result = rumprun.boot(app, network, Root(kind=kind), hvt.CAPABILITIES, context)
    assert len(result.arguments) == 1
    return json.loads(result.arguments[0])


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


def test_gateway_outside_the_network() -> None:
    net = document(NETWORKS["offlink"])["net"]
    assert isinstance(net, dict) and net["mask"] == "0"


def test_without_network_and_disk() -> None:
    assert list(document(NETWORKS["none"])) == ["cmdline"]


def test_disk() -> None:
    assert document(NETWORKS["none"], "block", block_mount="/srv")["blk"] == {
        "source": "etfs",
        "path": "/dev/ld0a",
        "fstype": "blk",
        "mountpoint": "/srv",
    }


def test_words() -> None:
    assert document(NETWORKS["none"], args=("a", "b c", 'd"'))["cmdline"] == 'a b\\ c d\\"'


def test_mewz() -> None:
    app = make_app("mewz", "qemu", Root())
    result = mewz.boot(app, NETWORKS["plain"], Root(), qemu.CAPABILITIES, Context())
    assert result.command_line == "ip=172.17.0.2/16 gateway=172.17.0.1"
    assert result.exit_device and result.modern_virtio_only
    assert result.min_memory_mib == 512
    assert mewz.boot(app, Network(), Root(), qemu.CAPABILITIES, Context()).command_line == ""


def test_mewz_without_a_gateway() -> None:
    """Its network starts with both words alone."""
    network = Network(nics=(SECOND_NIC,))
    result = mewz.boot(make_app("mewz", "qemu", Root()), network, Root(), qemu.CAPABILITIES, Context())
    assert result.command_line == "ip=192.168.7.9/24 gateway=0.0.0.0"
