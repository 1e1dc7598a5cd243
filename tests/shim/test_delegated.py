"""Ordinary containers: what the delegate is called with, and what becomes of its answers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from urunc.errors import HostError, StateError
from urunc.shim import delegated, ordinary, work
from urunc.shim.places import Place

# In runc's place: notes its arguments; a file beside it tells what to answer.
DELEGATE = """
import json, os, socket, sys
here = os.path.dirname(os.path.abspath(__file__))
args = sys.argv[1:]
with open(here + "/calls", "a") as calls:
    calls.write(json.dumps([args, sys.stdin.read()]) + "\\n")
option = lambda name: args[args.index(name) + 1]
if os.path.exists(here + "/fail"):
    with open(option("--log"), "w") as log:
        log.write(open(here + "/fail").read())
    sys.exit(1)
if "--pid-file" in args:
    with open(option("--pid-file"), "w") as file:
        file.write(str(os.getppid()))
if "--console-socket" in args and not os.path.exists(here + "/silent"):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(option("--console-socket"))
    socket.send_fds(sock, [b"/dev/ptmx"], [os.open("/dev/null", os.O_RDWR)])
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A container by the fake delegate."""
    program = tmp_path / "delegate"
    program.write_text(f"#!{sys.executable}\n{DELEGATE}")
    program.chmod(0o755)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "root").mkdir()
    return Place(
        id="web", bundle=str(tmp_path / "bundle"), root=str(tmp_path / "root"), delegate=str(program), ours=False
    )


def calls(place: Place) -> list[tuple[list[str], str]]:
    """Return the calls so far: arguments from the verb on, and standard input. Those before it are checked."""
    found = []
    for line in Path(place.delegate).with_name("calls").read_text().splitlines():
        args, stdin = json.loads(line)
        assert args[:2] == ["--root", place.root]
        assert args[2] == "--log"
        assert args[3].startswith(place.bundle)  # what a killed operation leaves there goes with the bundle
        assert args[4:6] == ["--log-format", "json"]
        found.append((args[6:], stdin))
    return found


def fail(place: Place, log: str) -> None:
    Path(place.delegate).with_name("fail").write_text(log)


@pytest.fixture(autouse=True)
def nothing_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> object:
    stdin = os.open("/dev/null", os.O_RDONLY)
    before = os.dup(0)
    os.dup2(stdin, 0)
    yield
    os.dup2(before, 0)
    os.close(before)
    os.close(stdin)
    assert os.listdir(place.root) == []


def test_the_verbs(place: Place) -> None:
    ordinary.start(place)
    ordinary.kill(place, 15, False)
    ordinary.kill(place, 9, True)
    ordinary.pause(place)
    ordinary.resume(place)
    ordinary.update(place, '{"cpu":{}}')
    work.delete(place, False)
    work.delete(place.replace(systemd=True), True)
    assert calls(place) == [
        (["start", "web"], ""),
        (["kill", "web", "15"], ""),
        (["kill", "--all", "web", "9"], ""),
        (["pause", "web"], ""),
        (["resume", "web"], ""),
        (["update", "--resources", "-", "web"], '{"cpu":{}}'),
        (["delete", "web"], ""),
        (["--systemd-cgroup", "delete", "--force", "web"], ""),
    ]


def config(place: Place, cgroups_path: str = "/x") -> None:
    Path(place.bundle, "config.json").write_text(
        json.dumps({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "linux": {"cgroupsPath": cgroups_path}})
    )
    Path(place.bundle, "rootfs").mkdir(exist_ok=True)


@pytest.mark.parametrize(
    ("cgroups_path", "booted", "flag"),
    [
        ("/x", True, []),
        ("a.slice:cri:web", True, ["--systemd-cgroup"]),
        ("a.slice:cri:web", False, []),  # runc takes it for a folder's name, as it does by itself
    ],
)
def test_create(
    place: Place, monkeypatch: pytest.MonkeyPatch, cgroups_path: str, booted: bool, flag: list[str]
) -> None:
    monkeypatch.setattr(ordinary, "_BOOTED", place.bundle if booted else "/nowhere")
    config(place, cgroups_path)
    facts, master = ordinary.create(place.replace(no_pivot=True), False)
    assert (facts["pid"], facts["ours"], master) == (os.getpid(), False, -1)
    assert Path(place.bundle, "init.pid").read_text() == str(os.getpid())
    [(args, _)] = calls(place)
    assert args[: len(flag) + 4] == [*flag, "create", "--bundle", place.bundle, "--no-pivot"]
    assert args[-1] == "web"


def test_without_a_delegate_it_is_the_configuration_s(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'[runtime]\ndelegate = "{place.delegate}"\n')
    config(place)
    facts, _ = ordinary.create(place.replace(delegate="", config=str(file)), False)
    assert facts["delegate"] == place.delegate
    work.delete(place.replace(delegate="", config=str(file)), True)
    assert [args[0] for args, _ in calls(place)] == ["create", "delete"]


def test_a_terminal(place: Place) -> None:
    pid, master = delegated.make(place, ("create",), "web", True)
    assert pid == os.getpid()
    assert os.fstat(master).st_rdev == os.stat("/dev/null").st_rdev
    os.close(master)


def test_a_terminal_that_does_not_come(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delegated, "_CONSOLE_SECONDS", 0.01)
    Path(place.delegate).with_name("silent").write_text("")
    with pytest.raises(HostError, match="sent no terminal"):
        delegated.make(place, ("create",), "web", True)


def test_exec(place: Place) -> None:
    facts, _ = ordinary.execute(place, {"args": ["sh"], "terminal": True}, False)
    assert facts == {"pid": os.getpid()}
    [(args, _)] = calls(place)
    assert (args[0], args[3], args[-1]) == ("exec", "--detach", "web")


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ('{"level":"info","msg":"x"}\n{"level":"error","msg":"no such file"}\n', "no such file"),
        ('{"level":"error","msg":"first"}\n{"level":"error","msg":"last"}\n{"level":"debug","msg":"y"}\n', "last"),
        ("not JSON\n[]\n", "delegate start ended with status 1"),
        ("", "delegate start ended with status 1"),
    ],
)
def test_its_error_is_ours(place: Place, log: str, message: str) -> None:
    fail(place, log)
    with pytest.raises(StateError) as caught:
        ordinary.start(place)
    assert caught.value.message == message


def test_a_container_that_it_has_lost_is_deleted(place: Place) -> None:
    fail(place, '{"level":"error","msg":"container does not exist"}')
    ordinary.delete(place, False)
    fail(place, '{"level":"error","msg":"container is busy"}')
    with pytest.raises(StateError, match="busy"):
        ordinary.delete(place, False)


def test_no_delegate(place: Place) -> None:
    with pytest.raises(HostError, match="cannot find `/nowhere/runc`"):
        ordinary.start(place.replace(delegate="/nowhere/runc"))
