"""MirageOS's arguments, read back by a model of its parse-argv."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc.errors import SpecError
from urunc.oci.app import App
from urunc.vm.guests import mirage
from urunc.vm.machine import Boot, Context, KernelInfo, Network, Root
from urunc.vm.monitors import qemu, spt
from vmcases import NETWORKS, WITH_IPV6, solo5_kernel


def boot(
    *args: str, network: Network = NETWORKS["none"], kernel: KernelInfo | None = None, monitor=spt, **fields: object
) -> Boot:
    app = App(guest="mirage", monitor=monitor.NAME, kernel="/k", args=args, **fields)  # type: ignore[arg-type]
    context = Context(kernel=kernel or solo5_kernel("spt", 1, 0))
    return mirage.boot(app, network, Root(), monitor.CAPABILITIES, context)


def split(line: str) -> list[str]:
    """Split as parse-argv does; words that stay empty are dropped."""
    words, word, quote, letters = [], "", "", iter(line)
    for letter in letters:
        if letter == "\\" and quote != "'":
            word += next(letters)
        elif letter in "'\"" and quote in ("", letter):
            quote = "" if quote else letter
        elif letter in " \t\n\r\v\f" and not quote:
            words.append(word)
            word = ""
        else:
            word += letter
    return [word for word in [*words, word] if word]


def test_network_comes_first() -> None:
    assert boot("-v", network=NETWORKS["plain"]).arguments == (
        "--ipv4=172.17.0.2/16",
        "--ipv4-gateway=172.17.0.1",
        "-v",
    )


def test_on_qemu_it_is_one_string() -> None:
    result = boot("a b", network=NETWORKS["plain"], monitor=qemu)
    assert result.command_line == '--ipv4=172.17.0.2/16 --ipv4-gateway=172.17.0.1 "a b"'
    assert result.arguments == ()


def test_takes_as_many_nics_as_the_manifest_declares() -> None:
    assert boot(kernel=solo5_kernel("spt", 2, 3)).nics == 2
    assert boot(kernel=solo5_kernel("spt", 0, 1)).nics == 0
    assert boot(kernel=solo5_kernel("virtio", 2, 0), monitor=qemu).nics == 2
    assert boot(kernel=solo5_kernel("virtio", 0, 0), monitor=qemu).nics == 0


def test_more_nics_are_said() -> None:
    result = boot(network=NETWORKS["two"], kernel=solo5_kernel("spt", 2, 0))
    assert result.arguments == ("--ipv4=172.17.0.2/16", "--ipv4-gateway=172.17.0.1")
    assert "net1" in result.messages[0]


def test_ipv6_beside_ipv4_and_alone() -> None:
    ipv6 = ("--ipv6=2001:db8::5/128", "--ipv6-gateway=fe80::1", "--accept-router-advertisements=false")
    ipv4 = ("--ipv4=172.17.0.2/16", "--ipv4-gateway=172.17.0.1")
    assert boot("-v", network=WITH_IPV6["dual"]).arguments == (*ipv4, *ipv6, "-v")
    assert boot("-v", network=WITH_IPV6["ipv6"]).arguments == (*ipv6, "--ipv6-only=true", "-v")


def test_an_option_that_the_image_gives_is_not_given_twice() -> None:
    own = ("--ipv4=10.0.0.9/24", "--ipv6-gateway=fe80::9")
    assert boot(*own, network=WITH_IPV6["dual"]).arguments == (
        "--ipv4-gateway=172.17.0.1",
        "--ipv6=2001:db8::5/128",
        "--accept-router-advertisements=false",
        *own,
    )


def test_a_kernel_that_is_no_mirage_gets_its_arguments_alone() -> None:
    kernel = solo5_kernel("spt", 1, 0).replace(mirage=False, mirage_network=False)
    assert boot("limit", "a b", network=NETWORKS["plain"], kernel=kernel).arguments == ("limit", "a b")


def test_device_names_of_the_image() -> None:
    result = boot(net_device="service", block_device="storage")
    assert (result.net_device, result.block_device) == ("service", "storage")


def test_empty_argument_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"process\.args\[0\]"):
        boot("")


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), max_size=5))
def test_every_word_arrives_whole(args: list[str]) -> None:
    assert split(" ".join(boot(*args).arguments)) == args
