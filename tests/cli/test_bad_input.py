"""Bad input of any container: a non-zero exit, nothing left (the `cli` fixture looks). All of it is proved on runc."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundles import Bundle
from driver import Cli
from refusals import assert_refused, try_create

pytestmark = pytest.mark.root


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
