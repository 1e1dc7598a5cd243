"""The command line, run as containerd runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from urunc import __version__
from urunc.errors import UsageError
from urunc.shim import main, messages
from urunc.shim.messages import ANY, DELETE_RESPONSE, FEATURES, RUNC_OPTIONS, RUNTIME_INFO, pack
from urunc.shim.wire import decode, encode

SOURCE = str(Path(main.__file__).parents[2])


def shim(*argv: str, stdin: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run the shim in a process of its own."""
    program = f"import sys; sys.path.insert(0, {SOURCE!r}); sys.argv[0] = 'shim'; import urunc.shim.__main__"
    argv = (sys.executable, "-IS", "-c", program, *argv)
    return subprocess.run(argv, input=stdin, capture_output=True, timeout=30, check=False, **options)


@pytest.mark.parametrize(
    ("args", "parsed"),
    [
        ("-namespace n -id web start", ({"namespace": "n", "id": "web"}, "start")),
        ("--namespace=n -debug -id= start", ({"namespace": "n", "debug": "true", "id": ""}, "start")),
        ("-debug=false -- delete", ({"debug": "false"}, "delete")),
        ("-v", ({"v": "true"}, "")),
        ("", ({}, "")),
        ("- start", ({}, "-")),
    ],
)
def test_parsing(args: str, parsed: object) -> None:
    assert main.parse(args.split()) == parsed


@pytest.mark.parametrize(("args", "message"), [("-nonsense", "unknown"), ("-id", "needs a value")])
def test_parsing_what_is_wrong(args: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        main.parse(args.split())


def test_version() -> None:
    assert f"Version:  {__version__}" in shim("-v").stdout.decode()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("start",), "namespace cannot be empty"),
        (("-namespace", "n", "dance"), "`dance` is unknown"),
        (("-namespace", "n", "start"), "id is missing"),
        (("-namespace", "n", "-id", "web", "start"), "cannot read"),
    ],
)
def test_errors_are_one_line(argv: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = shim(*argv, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("io.containerd.urunc.v2: ")
    assert message in lines[0]


@pytest.mark.parametrize("stdin", [b"", b"nonsense\xff", encode(ANY, pack(RUNC_OPTIONS, {"root": "/r"}))])
def test_info(stdin: bytes) -> None:
    info = decode(RUNTIME_INFO, shim("-info", stdin=stdin).stdout)
    assert info["name"] == "io.containerd.urunc.v2"
    assert info["version"]["version"] == __version__
    assert info["features"]["type_url"] == FEATURES
    assert b'"hooks"' in info["features"]["value"]
    assert (info["options"] is not None) == stdin.startswith(b"\x0a")


def test_delete_with_nothing_left(tmp_path: Path) -> None:
    before = messages.now()["seconds"]
    done = shim("-namespace", "test-none", "-id", "web", "-bundle", str(tmp_path), "delete")
    assert (done.returncode, done.stderr) == (0, b"")
    response = decode(DELETE_RESPONSE, done.stdout)
    assert (response["pid"], response["exit_status"]) == (0, 137)
    assert response["exited_at"]["seconds"] >= before


def test_delete_says_the_pid_and_removes_the_dead_socket(tmp_path: Path) -> None:
    (tmp_path / "init.pid").write_text("4711")
    (tmp_path / "address").write_text(f"unix://{tmp_path}/socket")
    (tmp_path / "socket").write_text("")
    done = shim("-namespace", "test-none", "-id", "web", "delete", cwd=tmp_path)
    assert decode(DELETE_RESPONSE, done.stdout)["pid"] == 4711
    assert not (tmp_path / "socket").exists()


@pytest.mark.root
def test_delete_clears_what_a_killed_create_left(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "web").mkdir(parents=True)
    (root / "web" / "lock").write_text("")
    (tmp_path / "shim.json").write_text(
        f'{{"id":"web","bundle":"{tmp_path}","root":"{root}","delegate":"runc","systemd":false}}'
    )
    done = shim("-namespace", "n", "-id", "web", "delete", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert not (root / "web").exists()
