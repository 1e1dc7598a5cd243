"""Unikernels that cannot be: what bundle or image asks for is refused by one clear error, and nothing is left."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundles import PREFIX, Bundle
from driver import Cli
from refusals import assert_refused, try_create

pytestmark = pytest.mark.root

ANNOTATIONS: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = [
    ("unknown guest", {"unikernelType": "nonsense"}, ("nonsense",)),
    ("unknown monitor", {"hypervisor": "nonsense"}, ("nonsense",)),
    ("guest and monitor that do not go together", {"unikernelType": "mewz", "hypervisor": "spt"}, ()),
    ("no guest, and a kernel that does not tell", {"unikernelType": None}, ("unikernelType",)),
    ("no kernel", {"binary": None}, ("binary",)),
    ("empty kernel", {"binary": ""}, ()),
    ("kernel missing", {"binary": "/unikernel/no-such"}, ("/unikernel/no-such",)),
    ("kernel is a folder", {"binary": "/unikernel"}, ("/unikernel",)),
    ("kernel below a file", {"binary": "/unikernel/testguest.elf/x"}, ()),
    ("dots", {"binary": "/unikernel/../../../../bin/busybox"}, ()),
    ("dots inside", {"binary": "../rootfs/unikernel/testguest.elf/.."}, ()),
    ("commas", {"binary": "/unikernel/a,file=/etc/passwd"}, ()),
    ("spaces", {"binary": "/unikernel/a -append x"}, ()),
    ("newline", {"binary": "/unikernel/testguest.elf\n"}, ()),
    ("leading dashes", {"binary": "--monitor=stdio"}, ()),
    ("NUL", {"binary": "/unikernel/testguest.elf\0x"}, ()),
    ("NUL in the command line", {"cmdline": "a\0b"}, ()),
    ("100 kB", {"binary": "/" + "a" * 100_000}, ()),
    ("100 kB of type", {"unikernelType": "a" * 100_000}, ()),
    ("initrd missing", {"initrd": "/no-such-initrd"}, ("/no-such-initrd",)),
    ("block missing", {"block": "/no-such-disk", "blkMntPoint": "/data"}, ("/no-such-disk",)),
    ("not a bool", {"mountRootfs": "perhaps"}, ("mountRootfs",)),
    ("no way to mount the root", {"unikernelType": "mirage", "mountRootfs": "true"}, ("mountRootfs",)),
    ("device name", {"unikernelType": "mirage", "hypervisor": "spt", "solo5NetDev": "a:b"}, ("solo5NetDev",)),
    ("a host path from the image", {"bootKernel": "/bin/busybox"}, ()),
]


@pytest.mark.parametrize(
    ("annotations", "words"), [row[1:] for row in ANNOTATIONS], ids=[row[0] for row in ANNOTATIONS]
)
def test_an_annotation_that_cannot_be(
    cli: Cli, make_unikernel: Callable[[], Bundle], annotations: dict[str, str | None], words: tuple[str, ...]
) -> None:
    bundle = make_unikernel()
    for key, value in annotations.items():
        bundle.config["annotations"].pop(PREFIX + key, None)
        if value is not None:
            bundle.annotate(**{key: value})
    try_create(cli, "bad", bundle.write())
    message = assert_refused(cli, "bad", *words)
    assert len(message) < 2000
    assert "\n" not in message


def test_the_same_from_the_images_own_file(cli: Cli, make_unikernel: Callable[[], Bundle]) -> None:
    bundle = make_unikernel()
    image = {key: value for key, value in bundle.config["annotations"].items() if key.startswith(PREFIX)}
    image[PREFIX + "binary"] = "/no-such"
    (bundle.rootfs / "urunc.json").write_text(json.dumps(image))
    bundle.config["annotations"] = {}
    try_create(cli, "bad", bundle.write())
    assert_refused(cli, "bad", "/no-such")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"com.urunc.unikernel.binary": 5}', b"x" * 100_000])
def test_a_broken_file_in_the_image_is_never_handed_to_runc(
    cli: Cli, make_unikernel: Callable[[], Bundle], content: bytes
) -> None:
    bundle = make_unikernel()
    bundle.config["annotations"] = {}
    (bundle.rootfs / "urunc.json").write_bytes(content)
    try_create(cli, "bad", bundle.write())
    assert_refused(cli, "bad", "urunc.json")


@pytest.mark.parametrize("how", ["a gigabyte", "a link to itself"])
def test_a_file_in_the_image_that_cannot_be_read_is_an_error(
    cli: Cli, make_unikernel: Callable[[], Bundle], how: str
) -> None:
    bundle = make_unikernel()
    bundle.config["annotations"] = {}
    file = bundle.rootfs / "urunc.json"
    if how == "a gigabyte":
        file.touch()
        os.truncate(file, 1 << 30)
    else:
        file.symlink_to("urunc.json")
    try_create(cli, "bad", bundle.write())
    assert cli.last_error().startswith("/urunc.json: ")


@pytest.mark.parametrize("target", ["/bin/busybox", "../../../../../../../../../../bin/busybox"])
def test_a_kernel_that_is_a_link_out_of_the_rootfs(cli: Cli, make_unikernel: Callable[[], Bundle], target: str) -> None:
    bundle = make_unikernel()
    (bundle.rootfs / "unikernel/link").symlink_to(target)
    bundle.annotate(binary="/unikernel/link")
    try_create(cli, "bad", bundle.write())
    assert_refused(cli, "bad", "/unikernel/link")


def test_a_folder_that_is_a_link_out_of_the_rootfs(
    cli: Cli, make_unikernel: Callable[[], Bundle], testguest: Path
) -> None:
    bundle = make_unikernel()
    (bundle.rootfs / "outside").symlink_to(testguest.parent)
    bundle.annotate(binary=f"/outside/{testguest.name}")
    try_create(cli, "bad", bundle.write())
    assert_refused(cli, "bad", "/outside/")


def test_a_kernel_that_is_a_fifo_does_not_hang(cli: Cli, make_unikernel: Callable[[], Bundle]) -> None:
    bundle = make_unikernel()
    os.mkfifo(bundle.rootfs / "unikernel/fifo")
    bundle.annotate(binary="/unikernel/fifo")
    try_create(cli, "bad", bundle.write())
    assert_refused(cli, "bad", "/unikernel/fifo")


def test_a_kernel_that_is_no_kernel(cli: Cli, make_unikernel: Callable[[], Bundle]) -> None:
    bundle = make_unikernel()
    (bundle.rootfs / "unikernel/text").write_text("this is no kernel\n" * 1000)
    bundle.annotate(binary="/unikernel/text")
    try_create(cli, "bad", bundle.write())
    assert_refused(cli, "bad", "kernel")


def test_memory_that_is_too_small(cli: Cli, make_unikernel: Callable[[], Bundle]) -> None:
    bundle = make_unikernel()
    bundle.config["linux"]["resources"]["memory"] = {"limit": 4 * 1024 * 1024}
    try_create(cli, "bad", bundle.write())
    assert_refused(cli, "bad", "4")


def test_a_mount_that_no_guest_can_take(cli: Cli, make_unikernel: Callable[[], Bundle], tmp_path: Path) -> None:
    bundle = make_unikernel()
    mount = {"destination": "/volume", "type": "bind", "source": str(tmp_path), "options": ["rbind"]}
    bundle.config["mounts"].append(mount)
    try_create(cli, "bad", bundle.write())
    assert_refused(cli, "bad", "/volume")


@pytest.mark.parametrize("verb", ["exec", "checkpoint", "restore"])
def test_verbs_that_a_machine_does_not_have(cli: Cli, make_unikernel: Callable[[], Bundle], verb: str) -> None:
    cli.create("c", make_unikernel())
    cli("start", "c")
    arguments = ("exec", "c", "sh") if verb == "exec" else (verb, "c")
    done = cli(*arguments, check=False)
    assert done.returncode != 0
    assert f"`{verb}` is not for `c`" in cli.last_error()
    assert cli.status("c") == "running"


def test_arguments_that_no_program_could_be_given(cli: Cli, make_unikernel: Callable[[], Bundle]) -> None:
    bundle = make_unikernel()
    bundle.config["process"]["args"] = ["app", "x" * 200_000]
    assert cli.create("bad", bundle, check=False) == 1
    assert_refused(cli, "bad", "boot string of 200", "131071 at most")


def test_a_seccomp_profile_that_stops_urunc_itself_is_named(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    """Init is under the profile already when it says that it executes the monitor, or why it could not."""
    bundle = make_unikernel("app")
    never = [{"index": 0, "value": 2**40, "op": "SCMP_CMP_EQ"}]
    rules = [
        {"names": ["execve", "exit_group", "mmap", "read", "write"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["sendto"], "action": "SCMP_ACT_ALLOW", "args": never},
    ]
    bundle.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
    cli.create("guest", bundle)
    assert cli("start", "guest", check=False).returncode != 0
    assert "a seccomp profile that refuses execve, sendto or exit_group does that" in cli.last_error()


@pytest.mark.parametrize(
    "profile",
    [
        {"defaultAction": "SCMP_ACT_ERRNO"},
        {"defaultAction": "SCMP_ACT_KILL", "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"}]},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ERRNO"}]},
    ],
    ids=["everything", "but two", "execve"],
)
def test_a_seccomp_profile_under_which_nothing_starts(
    cli: Cli, make_unikernel: Callable[..., Bundle], profile: dict[str, Any]
) -> None:
    bundle = make_unikernel("app")
    bundle.config["linux"]["seccomp"] = profile
    try_create(cli, "bad", bundle.write())
    assert_refused(cli, "bad", "linux.seccomp: execve", "refused, without which no monitor starts")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel", {"path": "/boot/vmlinuz", "parameters": ["quiet"]}),
        ("hypervisor", {"path": "/usr/bin/qemu-system-x86_64"}),
        ("image", {"path": "/disk.img", "format": "raw"}),
        ("hwConfig", {"vcpus": 2, "memory": 1 << 30}),
    ],
)
def test_a_machine_that_the_bundle_describes(
    cli: Cli, make_unikernel: Callable[..., Bundle], name: str, value: dict[str, Any]
) -> None:
    """config-vm.md: what cannot be applied MUST be an error (runtime.md, "Create")."""
    bundle = make_unikernel("app")
    bundle.config["vm"] = {name: value}
    try_create(cli, "bad", bundle.write())
    assert_refused(cli, "bad", f"vm.{name}: not supported")


def test_listening_sockets_for_a_guest(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    """systemd's socket activation, as conmon hands it on; sockets that are another process's are nobody's business."""
    bundle = make_unikernel("app").write()
    for pid, status in (("$$", 1), ("1", 0)):
        script = f'exec env LISTEN_FDS=1 LISTEN_PID={pid} "$@" 3</dev/null'
        under = ["sh", "-c", script, "sh"]
        assert cli.to_file("bad", "create", f"--bundle={bundle}", "bad", check=False, under=under) == status
        if status:
            assert_refused(cli, "bad", "LISTEN_FDS: 1 listening sockets cannot be given to a virtual machine")
    cli.end("bad")
