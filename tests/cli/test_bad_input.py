"""Bad input: one clear error, a non-zero exit, nothing left (the `cli` fixture looks). Half of it is proved on runc."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundles import PREFIX, Bundle
from driver import ROOT, Cli

pytestmark = pytest.mark.root


def assert_refused(cli: Cli, name: str, *words: str) -> str:
    """Assert that exactly one error was logged, as its last line, with these words in it; return its message."""
    errors = [line for line in cli.log_lines() if line["level"] == "error"]
    assert len(errors) == 1, errors
    assert cli.log_lines()[-1] == errors[0]
    message = str(errors[0]["msg"])
    assert "Traceback" not in cli.console(name) + message
    for word in words:
        assert word in message
    return message


def try_create(cli: Cli, name: str, folder: Path) -> None:
    """Create from a folder as it is; it must fail, and there must be no container then."""
    assert cli.to_file(name, "create", f"--bundle={folder}", name, check=False, timeout=30) != 0
    assert name not in cli("list", "--quiet").stdout.split()


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"{",
        b'{"ociVersion": "1.0.2", "process": {"args": ["a"',
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"a": 1} trailing',
    ],
    ids=["missing", "empty", "brace", "truncated", "list", "null", "not-utf8", "trailing"],
)
def test_a_configuration_that_is_none(cli: Cli, make_bundle: Callable[[], Bundle], content: bytes | None) -> None:
    bundle = make_bundle()
    if content is not None:
        (bundle.folder / "config.json").write_bytes(content)
    try_create(cli, "bad", bundle.folder)


def test_a_bundle_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    try_create(cli, "bad", tmp_path / "no-such-bundle")


def test_a_bundle_that_is_a_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    try_create(cli, "bad", tmp_path / "file")


def test_a_rootfs_that_is_not_there(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    bundle = make_bundle()
    bundle.config["root"]["path"] = "no-such-rootfs"
    try_create(cli, "bad", bundle.write())


def set_path(data: Any, path: str, value: Any) -> None:
    """Set what a dotted path names, making objects on the way."""
    *parents, last = path.split(".")
    for key in parents:
        data = data.setdefault(key, {}) if isinstance(data, dict) else data[int(key)]
    data[last] = value


WRONG_TYPES = [
    ("ociVersion", 1),
    ("process", "sh"),
    ("process.args", "sh -c true"),
    ("process.args", ["sh", 1]),
    ("process.env", {"A": "b"}),
    ("process.cwd", 1),
    ("process.user", []),
    ("process.user.uid", "root"),
    ("process.terminal", "yes"),
    ("root", "rootfs"),
    ("root.path", 1),
    ("mounts", {}),
    ("hooks", []),
    ("hooks.prestart", {}),
    ("annotations", []),
    ("annotations.key", 1),
    ("linux", []),
    ("linux.namespaces", {}),
    ("linux.resources.memory.limit", "64M"),
    ("linux.resources.cpu.quota", 1.5),
    ("linux.resources.pids", 3),
    ("linux.cgroupsPath", 5),
]


@pytest.mark.parametrize(("path", "value"), WRONG_TYPES, ids=[f"{path}={value!r}" for path, value in WRONG_TYPES])
def test_a_wrong_type(cli: Cli, make_bundle: Callable[[], Bundle], is_runc: bool, path: str, value: Any) -> None:
    bundle = make_bundle()
    set_path(bundle.config, path, value)
    try_create(cli, "bad", bundle.write())
    if not is_runc:
        assert_refused(cli, "bad", path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("linux.namespaces", [{"type": "nonsense"}]),
        ("linux.namespaces", [{"type": "pid"}, {"type": "pid"}, {"type": "mount"}]),
        ("process.rlimits", [{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}]),
    ],
)
def test_a_value_that_means_nothing(cli: Cli, make_bundle: Callable[[], Bundle], path: str, value: Any) -> None:
    bundle = make_bundle()
    set_path(bundle.config, path, value)
    try_create(cli, "bad", bundle.write())


def test_a_namespace_path_that_is_not_there(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    bundle = make_bundle()
    bundle.namespace("network", "/run/netns/no-such")
    try_create(cli, "bad", bundle.write())


def test_a_namespace_path_of_another_kind(cli: Cli, make_bundle: Callable[[], Bundle]) -> None:
    bundle = make_bundle()
    bundle.namespace("network", "/proc/1/ns/uts")
    try_create(cli, "bad", bundle.write())


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-verb",),
        ("create",),
        ("create", "--no-such-flag", "id"),
        ("start",),
        ("start", "a", "b"),
        ("kill", "id", "NONSENSE"),
        ("--log-format=nonsense", "list"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line(cli: Cli, arguments: tuple[str, ...], is_runc: bool) -> None:
    if is_runc and arguments == ("no-such-verb",):
        pytest.skip("runc prints its help")
    done = cli(*arguments, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


# From here on it is about unikernels, which runc does not have.

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
    set_path(bundle.config, "linux.resources.memory", {"limit": 4 * 1024 * 1024})
    try_create(cli, "bad", bundle.write())
    assert_refused(cli, "bad", "4")


def test_a_monitor_that_is_not_installed(cli: Cli, make_unikernel: Callable[[], Bundle]) -> None:
    cli.config.write_text('[monitors.qemu]\npath = "/no/such/qemu"\n')
    try_create(cli, "bad", make_unikernel().write())
    assert_refused(cli, "bad", "/no/such/qemu")


@pytest.mark.parametrize(
    "content",
    [
        "nonsense",
        "[no_such_table]\n",
        '[monitors.qemu]\naccel = "warp"\n',
        "[monitors.qemu]\ndefault_memory_mb = '1'\n",
    ],
)
def test_a_configuration_file_that_is_wrong(cli: Cli, make_unikernel: Callable[[], Bundle], content: str) -> None:
    cli.config.write_text(content)
    try_create(cli, "bad", make_unikernel().write())
    assert_refused(cli, "bad", str(cli.config))


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
    assert verb in cli.last_error() or "unikernel" in cli.last_error()
    assert cli.status("c") == "running"


@pytest.mark.parametrize(
    ("options", "reason"),
    [("size=8k", "no space left"), ("size=1m,nr_inodes=3", "no space left"), ("ro", "read-only")],
    ids=["full", "no inodes", "read-only"],
)
def test_a_state_directory_that_takes_nothing(
    cli: Cli, make_unikernel: Callable[[], Bundle], options: str, reason: str
) -> None:
    cli.world.run("mkdir", "/run/small")
    cli.world.run("mount", "-t", "tmpfs", "-o", options, "none", "/run/small")
    if options == "size=8k":
        cli.world.run("dd", "if=/dev/zero", "of=/run/small/fill", "bs=4k", "count=2")
    bundle = make_unikernel()
    assert cli.to_file("bad", "--root=/run/small", "create", f"--bundle={bundle.write()}", "bad", check=False) == 1
    message = assert_refused(cli, "bad", "cannot write below the state directory `/run/small`", reason)
    assert "internal" not in message
    assert {path.name for path in cli.world.path("/run/small").iterdir()} <= {"fill", ".cache"}
    cli.world.run("umount", "/run/small")
    cli.world.run("rmdir", "/run/small")


def test_a_state_directory_that_is_a_file(cli: Cli, make_unikernel: Callable[[], Bundle]) -> None:
    bundle = make_unikernel()
    for arguments in (("create", f"--bundle={bundle.write()}", "bad"), ("list",)):
        cli.log.unlink(missing_ok=True)
        assert cli.to_file("bad", "--root=/etc/passwd", *arguments, check=False) == 1
        assert "internal" not in assert_refused(cli, "bad", "/etc/passwd")


def test_a_record_that_cannot_be_read_does_not_hide_the_others(cli: Cli, make_unikernel: Callable[[], Bundle]) -> None:
    cli.create("good", make_unikernel())
    broken = cli.world.path(f"{ROOT}/broken")
    broken.mkdir()
    (broken / "record.json").write_text("{")
    assert cli("list", "--quiet").stdout == "good\n"
    (broken / "record.json").unlink()
    broken.rmdir()


def test_an_oom_score_that_cannot_be_set_is_named(cli: Cli, make_unikernel: Callable[[], Bundle]) -> None:
    bundle = make_unikernel()
    bundle.config["process"]["oomScoreAdj"] = -1000
    if cli.create("bad", bundle, check=False):
        assert_refused(cli, "bad", "process.oomScoreAdj: cannot set -1000")


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


@pytest.mark.parametrize("user_namespace", [False, True])
def test_a_limit_above_uruncs_own(cli: Cli, make_unikernel: Callable[..., Bundle], user_namespace: bool) -> None:
    """Without CAP_SYS_RESOURCE; in a user namespace with it too."""
    bundle = make_unikernel("app")
    limits = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_NPROC", "soft": 100, "hard": 6000}]
    bundle.config["process"]["rlimits"] = limits
    low = ["prlimit", "--nproc=5000:5000", "setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"]
    if user_namespace:
        low = low[:2]
        bundle.config["linux"]["namespaces"].append({"type": "user"})
        maps = [{"containerID": 0, "hostID": 300000, "size": 65536}]
        bundle.config["linux"].update(uidMappings=maps, gidMappings=maps)
    assert cli.to_file("bad", "create", f"--bundle={bundle.write()}", "bad", check=False, under=low) == 1
    assert_refused(cli, "bad", "process.rlimits[1].hard: RLIMIT_NPROC cannot be set to 6000, above urunc's own limit")


def test_too_few_open_files_are_named(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    bundle = make_unikernel("app").write()
    low = ["prlimit", "--nofile=40:40"]
    assert cli.to_file("bad", "create", f"--bundle={bundle}", "bad", check=False, under=low) == 1
    assert_refused(cli, "bad", "too many open files", "RLIMIT_NOFILE")


def test_few_open_files_are_the_monitors_alone(cli: Cli, make_unikernel: Callable[..., Bundle]) -> None:
    """urunc needs more than that to make the container: the limit is set last, just before the monitor is executed."""
    bundle = make_unikernel("app", "wait")
    bundle.config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 32, "hard": 32}]
    cli.create("few", bundle)
    cli("start", "few")
    cli.wait_console("few", "ready")
    limits = cli.world.run("cat", f"/proc/{cli.state('few')['pid']}/limits").stdout.splitlines()
    assert [line.split()[3:5] for line in limits if line.startswith("Max open files")] == [["32", "32"]]
    cli.end("few")


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
