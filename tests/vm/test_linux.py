"""The Linux guest's boot string, and what goes to its init in the initrd."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc.errors import HostError, ImageError, SpecError
from urunc.oci.app import App
from urunc.vm.guests import linux
from urunc.vm.machine import Boot, GuestFile, GuestMount, Network, Root, Streams
from urunc.vm.monitors import firecracker, hvt, qemu
from vmcases import LINUX_KERNEL, NETWORKS, WITH_IPV6, make_context


def boot(
    *args: str, network: Network = NETWORKS["none"], kind: str = "initrd", model: str = "q35", monitor=qemu, **fields
) -> Boot:
    env, root = fields.pop("env", ()), fields.pop("root", Root(kind=kind))
    app = App(guest="linux", monitor="qemu", kernel="/k", args=args, env=env, cwd="/srv")
    context = make_context("linux", LINUX_KERNEL, model, **fields)
    return linux.boot(app, network, root, monitor.CAPABILITIES, context)


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
        ("stdin", "org.urunc.stdin"),
        ("stdout", "org.urunc.stdout"),
        ("stderr", "console"),
    ]


BY_PORT = Streams(stdin="port", stdout="port")


@pytest.mark.parametrize(
    ("monitor", "streams", "ports", "said"),
    [
        (qemu, BY_PORT, ("stdin", "stdout"), ["org.urunc.stdin", "org.urunc.stdout", "console"]),
        (qemu, BY_PORT.replace(stdin="null"), ("stdout",), ["null", "org.urunc.stdout", "console"]),
        (qemu, BY_PORT.replace(merged=True), ("stdin", "stdout"), ["org.urunc.stdin", "org.urunc.stdout", "stdout"]),
        (qemu, Streams(), (), [None, None, None]),
        (qemu, Streams(stdin="null"), (), ["null", None, None]),
        (firecracker, BY_PORT, (), [None, None, None]),
        (firecracker, BY_PORT.replace(stdin="null"), (), ["null", None, None]),
    ],
)
def test_where_the_streams_go(
    monitor: ModuleType, streams: Streams, ports: tuple[str, ...], said: list[str | None]
) -> None:
    result = boot("/x", monitor=monitor, streams=streams)
    assert [dict(records(result)).get(key) for key in ("stdin", "stdout", "stderr")] == said
    assert result.streams == ports


def test_a_port_takes_memory_of_a_microvm() -> None:
    def least(model: str, streams: Streams) -> int:
        return boot("/x", model=model, streams=streams).min_memory_mib

    plain = least("q35", Streams())
    assert least("q35", BY_PORT) == least("microvm", Streams()) == plain
    assert least("microvm", BY_PORT.replace(stdin="null")) == plain + 4
    assert least("microvm", BY_PORT) == plain + 8


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


def test_ipv6() -> None:
    found = records(boot("/x", network=WITH_IPV6["ipv6"]))
    assert ("addr", "2001:db8::5/128") in found
    assert ("route", "default via fe80::1 metric 1024 src 2001:db8::5") in found
    assert ("route", "fe80::1/128 metric 1024") in found
    assert ("neigh", "fe80::1 ee:ee:ee:ee:ee:ee") in found
    assert ("dns", "fd00::53") in found


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


@pytest.mark.parametrize(
    ("root", "words"),
    [
        (Root(kind="block", fstype="ext4"), "/dev/vda ext4 rw"),
        (Root(kind="block", fstype="ext2", readonly=True), "/dev/vda ext4 ro"),
        (Root(kind="9p"), "9p fs0 rw"),
        (Root(kind="9p", readonly=True), "9p fs0 ro"),
    ],
)
def test_init_mounts_the_root(root: Root, words: str) -> None:
    """Arguments and environment need not fit the kernel's command line then, whatever the root."""
    modules = (GuestFile(path="/lib/modules/6/modules.dep", content=b""),)
    result = boot("/x", "a\nb", root=root, modules=modules)
    assert [value for key, value in records(result) if key == "root"] == [words]
    assert "root=" not in result.command_line
    assert modules[0] in result.initrd_tail


def test_mounts() -> None:
    mounts = (
        GuestMount(source="/dev/vdb", fstype="ext2", target="/data x"),
        GuestMount(source="vol1", fstype="9p", target="/etc/app.conf", readonly=True, name="a b"),
    )
    found = [value for key, value in records(boot("/x", mounts=mounts)) if key == "mount"]
    assert found == ["/dev/vdb ext4 rw /data x", "vol1 9p ro /etc/app.conf"]
    assert [value for key, value in records(boot("/x", mounts=mounts)) if key == "mount-file"] == ["a b"]
