"""The Linux guest's boot string, and what goes to its init in the initrd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc.errors import HostError, ImageError, SpecError
from urunc.oci.app import App
from urunc.vm.guests import linux
from urunc.vm.machine import Boot, Network, Root
from urunc.vm.monitors import hvt, qemu
from vmcases import LINUX_KERNEL, NETWORKS, make_context


def boot(
    *args: str, network: Network = NETWORKS["none"], kind: str = "initrd", model: str = "q35", monitor=qemu, **fields
) -> Boot:
    env = fields.pop("env", ())
    app = App(guest="linux", monitor="qemu", kernel="/k", args=args, env=env, cwd="/srv")
    context = make_context("linux", LINUX_KERNEL, model, **fields)
    return linux.boot(app, network, Root(kind=kind), monitor.CAPABILITIES, context)


def records(result: Boot) -> list[tuple[str, str]]:
    content = {file.path: file.content for file in result.initrd_tail}["/.urunc/config"]
    assert content.endswith(b"\0")
    words = content.decode("utf-8", "surrogateescape").split("\0")[:-1]
    return list(zip(words[::2], words[1::2], strict=True))


def test_config_of_init() -> None:
    found = records(boot("/bin/sh", "-c", "echo 'a\n\"b'", "", network=NETWORKS["offlink"], env=("A=1", "B=")))
    assert found == [
        ("arg", "/bin/sh"),
        ("arg", "-c"),
        ("arg", "echo 'a\n\"b'"),
        ("arg", ""),
        ("env", "A=1"),
        ("env", "B="),
        ("cwd", "/srv"),
        ("uid", "1000"),
        ("gid", "100"),
        ("group", "5"),
        ("group", "6"),
        ("hostname", "web"),
        ("nic", "02:00:00:00:00:01"),
        ("mtu", "1400"),
        ("addr", "10.1.2.3/32"),
        ("route", "169.254.1.1/32 scope link"),
        ("route", "default via 169.254.1.1 onlink metric 5"),
        ("neigh", "169.254.1.1 ee:ee:ee:ee:ee:ee"),
        ("file", "/etc/hosts"),
        ("end", "poweroff"),
        ("exit", "debug-exit"),
        ("control", "org.urunc.control"),
    ]


def test_limits_umask_and_terminal() -> None:
    found = records(boot("/x", umask=0o27, rlimits=(("RLIMIT_NOFILE", 1024, 4096),), terminal=True))
    assert ("umask", "23") in found
    assert ("rlimit", "RLIMIT_NOFILE 1024 4096") in found
    assert ("terminal", "1") in found
    assert not {key for key, _ in records(boot("/x"))} & {"umask", "rlimit", "terminal"}


def test_source_of_a_route_and_resolvers() -> None:
    found = records(boot("/x", network=NETWORKS["plain"]))
    assert ("route", "172.17.0.0/16 scope link src 172.17.0.2") in found
    assert [value for key, value in found if key == "dns"] == ["10.0.0.53", "10.0.0.54", "fd00::53"]
    assert ("search", "a.test") in found


def test_tail_holds_init_and_files() -> None:
    tail = {file.path: file for file in boot("/x").initrd_tail}
    assert tail["/.urunc/init"].mode == 0o755
    assert tail["/.urunc/init"].content == b"\x7fELF init"
    assert tail["/.urunc/config"].mode == 0o600
    assert tail["/.urunc/files/etc/hosts"].content == b"127.0.0.1 localhost\n"


def test_microvm_ends_by_a_reset() -> None:
    result = boot("/x", model="microvm")
    assert "reboot=t" in result.command_line.split()
    assert ("end", "reboot") in records(result)


def test_emulated_clock() -> None:
    assert "tsc_early_khz=2600000" in boot("/x").command_line.split()
    assert "tsc" not in boot("/x", accel="kvm").command_line
    assert boot("/x", model="microvm", tsc_khz=0).messages
    assert not boot("/x", tsc_khz=0).messages


def test_nothing_of_the_image_stands_in_the_boot_string() -> None:
    line = boot("/x", "init=/evil", env=("panic=0", "A=B"), network=NETWORKS["plain"]).command_line
    assert "evil" not in line and "A=B" not in line
    assert line.endswith("rdinit=/.urunc/init")


def test_a_monitor_without_ways_out() -> None:
    keys = [key for key, _ in records(boot("/x", monitor=hvt))]
    assert "exit" not in keys and "control" not in keys


def test_aarch64_console() -> None:
    assert "console=ttyAMA0" in boot("/x", arch="aarch64").command_line


def test_no_program() -> None:
    with pytest.raises(ImageError, match="no program"):
        boot()


def test_no_init() -> None:
    with pytest.raises(HostError, match="not installed"):
        boot("/x", init=None)


def test_nul() -> None:
    with pytest.raises(SpecError, match=r"process\.args\[1\]"):
        boot("/x", "a\0b")


@given(
    st.lists(
        st.text(
            st.characters(exclude_characters="\0", exclude_categories=()).filter(
                lambda c: not 0xD800 <= ord(c) < 0xDC80 and not 0xDCFF < ord(c) < 0xE000
            )
        )
    )
)
def test_every_argument_arrives_whole(args: list[str]) -> None:
    found = records(boot("/x", *args))
    assert [value.encode("utf-8", "surrogateescape") for key, value in found if key == "arg"][1:] == [
        arg.encode("utf-8", "surrogateescape") for arg in args
    ]


class TestDisk:
    def test_boot_string(self) -> None:
        result = boot("/sbin/init", "a b", network=NETWORKS["plain"], kind="block", env=("A=b c",), accel="kvm")
        assert result.command_line == (
            "panic=-1 console=ttyS0 quiet root=/dev/vda rw "
            "ip=172.17.0.2::172.17.0.1:255.255.0.0:web:eth0:off:10.0.0.53:10.0.0.54 "
            '"A=b c" init=/sbin/init -- "a b"'
        )
        assert result.initrd_tail == ()
        assert result.nics == 1

    def test_gateway_outside_gets_a_wider_network(self) -> None:
        line = boot("/x", network=NETWORKS["offlink"], kind="block").command_line
        assert "ip=10.1.2.3::169.254.1.1:0.0.0.0:web:eth0:off" in line

    @pytest.mark.parametrize("word", ['a"b', "a\nb", ""])
    def test_what_the_kernel_cannot_carry(self, word: str) -> None:
        with pytest.raises(SpecError, match=r"process\.args\[1\]"):
            boot("/x", word, kind="block")

    def test_too_many_words(self) -> None:
        boot("/x", *["a"] * 32, kind="block")
        with pytest.raises(SpecError, match="at most 32"):
            boot("/x", *["a"] * 33, kind="block")

    def test_too_long(self) -> None:
        with pytest.raises(SpecError, match="2047"):
            boot("/x", "a" * 2048, kind="block")
