"""A host that is not as it should be, or gives too little: one clear error that names it, and nothing is left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bundles import Bundle
from driver import ROOT, Cli
from refusals import assert_refused, try_create

pytestmark = pytest.mark.root


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
    low = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource"]
    assert cli.to_file("bad", "create", f"--bundle={bundle.write()}", "bad", check=False, under=low) == 1
    assert_refused(cli, "bad", "process.oomScoreAdj: cannot set -1000")


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
