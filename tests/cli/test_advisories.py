"""The two advisories of the Go version, tried by the command line: annotations that would be arguments, or host files.

GHSA-crxr-jm9v-349c are arguments injected into the monitor's command line by annotations, and GHSA-3385-hmpj-4678
files of the host that are reached by paths in annotations. Each has tests of its own here.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import elves
from bundles import PREFIX, Bundle, solo5
from driver import Cli
from refusals import assert_refused, refuse, swapping

pytestmark = pytest.mark.root


def running_argv(cli: Cli, name: str) -> list[str]:
    """Return the monitor's command line."""
    pid = cli.state(name)["pid"]
    return cli.world.path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]


# GHSA-crxr-jm9v-349c: arguments.

INJECTIONS = [
    " -device virtio-9p-pci,fsdev=x -fsdev local,id=x,path=/",
    ",file=/etc/shadow",
    "\n-monitor\nstdio",
    " --net:service=tap0",
    "' -chardev socket,path=/x '",
    '" -serial file:/etc/passwd "',
    "$(id)",
    "`id`",
    ";id",
    "\t-qmp\tunix:/x",
    "\0-append\0x",
    "\u2028-monitor",
]


@pytest.mark.parametrize("where", ["annotation", "base64", "urunc.json"])
@pytest.mark.parametrize("key", ["binary", "initrd", "block", "blkMntPoint", "hypervisor", "unikernelType"])
def test_ghsa_crxr_jm9v_349c_a_path_or_name_is_no_argument(
    cli: Cli, make_unikernel: Callable[..., Bundle], key: str, where: str
) -> None:
    """Whatever stands in an annotation is a name to look up or an error, never a word of the monitor's."""
    for injection in INJECTIONS:
        cli.log.unlink(missing_ok=True)
        bundle = make_unikernel("app")
        sound = bundle.config["annotations"].get(PREFIX + key, "/x")
        value = sound + injection
        if key == "blkMntPoint":
            bundle.annotate(block="/unikernel/testguest.elf", unikernelType="linux")
        if where == "base64":
            value = base64.b64encode(value.encode()).decode()
        if where == "urunc.json":
            values = {**bundle.config["annotations"], PREFIX + key: value}
            (bundle.rootfs / "urunc.json").write_text(json.dumps(values))
            bundle.config["annotations"] = {}
        else:
            bundle.annotate(**{key: value})
        refuse(cli, bundle)


def test_ghsa_crxr_jm9v_349c_a_file_of_any_name_has_a_fixed_one_for_the_monitor(
    cli: Cli, make_unikernel: Callable[..., Bundle]
) -> None:
    """A kernel, an initrd and a disk whose names are options of QEMU's boot, and none of the names is in its argv."""
    bundle = make_unikernel("app")
    names = {
        "binary": "/a,x -monitor stdio",
        "initrd": "/b,file=/etc/passwd --daemonize",
        "block": "/c,if=none,format=qcow2 'x'",
    }
    shutil.copy(bundle.rootfs / "unikernel/testguest.elf", bundle.rootfs / names["binary"].lstrip("/"))
    (bundle.rootfs / names["initrd"].replace("/etc/", "/", 1).lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    for key in ("initrd", "block"):
        path = bundle.rootfs / names[key].lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 512)
    bundle.annotate(**names, blkMntPoint="/data")
    cli.create("guest", bundle)
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    argv = running_argv(cli, "guest")
    assert "initrd: 512 bytes" in console
    assert "disk0: 1 sectors" in console
    assert argv[argv.index("-kernel") + 1] == "/kernel"
    assert argv[argv.index("-initrd") + 1] == "/initrd"
    assert not any("daemonize" in word or "qcow2" in word or "stdio," in word.replace("stdio,id=", "") for word in argv)
    cli.end("guest")


@pytest.mark.parametrize("by", ["cmdline", "process.args"])
def test_ghsa_crxr_jm9v_349c_the_command_line_is_one_argument(
    cli: Cli, make_unikernel: Callable[..., Bundle], by: str
) -> None:
    line = "app -monitor stdio -drive file=/etc/shadow,format=raw ,x=y --daemonize"
    bundle = make_unikernel(*(line.split() if by == "process.args" else ()))
    if by == "cmdline":
        bundle.annotate(cmdline=line)
    cli.create("guest", bundle)
    cli("start", "guest")
    console = cli.wait_console("guest", "ready")
    assert "-drive file=/etc/shadow,format=raw ,x=y --daemonize" in console
    argv = running_argv(cli, "guest")
    assert "--daemonize" not in argv
    assert [word for word in argv if "/etc/shadow" in word] == [argv[argv.index("-append") + 1]]
    cli.end("guest")


@pytest.mark.parametrize("key", ["solo5NetDev", "solo5BlkDev"])
@pytest.mark.parametrize("name", ["a:b", "a=b", "a b", "a\nb", "a,b", "-a", "a/b", "é", "x" * 68, "٣"])
def test_ghsa_crxr_jm9v_349c_a_devices_name(
    cli: Cli, make_unikernel: Callable[..., Bundle], key: str, name: str
) -> None:
    bundle = solo5(cli, make_unikernel, elves.make_elf(elves.manifest_note((b"a", 2)), elves.abi_note()))
    bundle.annotate(**{key: name})
    refuse(cli, bundle, key)


# GHSA-3385-hmpj-4678: paths.

ESCAPES = [
    "/../../../../../../../../etc/shadow",
    "../../../../../../../../etc/shadow",
    "/unikernel/../../../../../../etc/shadow",
    "/unikernel/./.././../etc/shadow",
    "//..//..//..//..//etc//shadow",
    "/proc/self/root/etc/shadow",
    "/proc/1/root/etc/shadow",
    "/link",
    "/up",
    "/folder/shadow",
    "/chain",
    "/magic",
]


@pytest.mark.parametrize("key", ["binary", "initrd", "block"])
@pytest.mark.parametrize("encoded", [False, True])
def test_ghsa_3385_hmpj_4678_no_path_leads_to_the_host(
    cli: Cli, make_unikernel: Callable[..., Bundle], key: str, encoded: bool
) -> None:
    """By dots, by links of every kind; /etc/shadow is the host's, and there is none in the image."""
    bundle = make_unikernel("app")
    (bundle.rootfs / "link").symlink_to("/etc/shadow")
    (bundle.rootfs / "up").symlink_to("../" * 40 + "etc/shadow")
    (bundle.rootfs / "folder").symlink_to("/etc")
    (bundle.rootfs / "chain").symlink_to("link")
    (bundle.rootfs / "magic").symlink_to("/proc/self/root/etc/shadow")
    for path in ESCAPES:
        cli.log.unlink(missing_ok=True)
        value = base64.b64encode(path.encode()).decode() if encoded else path
        bundle.annotate(**{key: value, "blkMntPoint": "/data"})
        message = refuse(cli, bundle)
        assert "`..` is not allowed" in message or "no such file" in message or "no such process" in message, message


@pytest.mark.parametrize("key", ["bootKernel", "bootInitrd"])
def test_ghsa_3385_hmpj_4678_a_hosts_path_is_never_taken(
    cli: Cli, make_unikernel: Callable[..., Bundle], key: str
) -> None:
    bundle = make_unikernel("app")
    bundle.annotate(**{key: "/boot/vmlinuz"})
    refuse(cli, bundle, key, "never taken from an image")


def test_a_file_that_becomes_a_link_while_create_looks_at_it(
    cli: Cli, make_unikernel: Callable[..., Bundle], tmp_path: Path
) -> None:
    """An engine's shared folder may be another's to change: whatever create sees, it is beneath the rootfs."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"the host's secret " * 1000)
    bundle = make_unikernel("app")
    folder, place = bundle.rootfs / "swapped", bundle.rootfs / "initrd"
    folder.mkdir()
    (folder / "file").write_bytes(b"harmless")
    (folder / "link").symlink_to(f"/../../../../../../../../../..{secret}")
    bundle.annotate(initrd="/initrd")
    os.link(folder / "file", place)
    with swapping(place, folder, "link", "file"):
        for number in range(15):
            cli.log.unlink(missing_ok=True)
            name = f"race{number}"
            if cli.create(name, bundle, check=False):
                assert_refused(cli, name, "initrd")
                continue
            cli("start", name)
            assert "initrd: 8 bytes" in cli.wait_console(name, "ready")
            cli.end(name)
