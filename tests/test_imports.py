"""The modules that each verb loads, by name: imports are start-up time, so one more must be meant.

A failure here is no bug in itself: look at what the new module costs (`python3 -IS -X importtime`, bench/startup.py),
and whether the verb needs it before it can start. If it does, add it to the list.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bundles
from checkout import INTERPRETER, SOURCE

RUNNER = """
import sys
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
from urunc.cli import main
status = main(["urunc", *sys.argv[3:]])
loaded = sorted(set(sys.modules) - before)
with open(sys.argv[2], "w") as file:
    file.write("\\n".join(loaded))
sys.exit(status)
"""

OS = "__future__ _collections_abc _stat genericpath os os.path posixpath stat"
EVERY = f"""
{OS} _json errno fcntl
urunc urunc.booleans urunc.cli urunc.errors urunc.flags urunc.jsonio urunc.log urunc.record
"""
VERB = f"{EVERY} urunc.runtime urunc.runtime.store urunc.verbs"
CONTAINER = f"{VERB} select urunc.linux urunc.linux.proc urunc.runtime.lifecycle urunc.runtime.status"
CREATE = f"""
{CONTAINER}
_ctypes _socket _struct
urunc.linux.atomic urunc.linux.cgroup urunc.linux.cgroup_files urunc.linux.cgroup_layout urunc.linux.freezer
urunc.linux.fsops urunc.linux.kept urunc.linux.libc urunc.linux.mounts urunc.linux.ns
urunc.oci urunc.oci.annotations urunc.oci.app urunc.oci.checks urunc.oci.config urunc.oci.network urunc.oci.node
urunc.oci.cgroup_path urunc.oci.device_rules
urunc.oci.parse urunc.oci.parse_linux urunc.oci.resources urunc.oci.spec
urunc.runtime.assemble urunc.runtime.bundle urunc.runtime.channel urunc.runtime.create urunc.runtime.go_message
urunc.runtime.first_record urunc.runtime.handover
urunc.runtime.host urunc.runtime.image urunc.runtime.inherit urunc.runtime.init urunc.runtime.init_words
urunc.runtime.load urunc.runtime.monitor_root urunc.runtime.options urunc.runtime.plan
urunc.runtime.plan_devices urunc.runtime.plan_machine
urunc.runtime.plan_storage urunc.runtime.settings urunc.runtime.streams urunc.runtime.timeline
urunc.vm urunc.vm.bootstring urunc.vm.choose urunc.vm.elf urunc.vm.guests urunc.vm.guests.unikraft
urunc.vm.machine urunc.vm.monitors urunc.vm.monitors.qemu urunc.vm.port urunc.vm.storage
"""
NETWORK = "urunc.linux.netlink urunc.linux.rtnl urunc.linux.tap urunc.linux.tc urunc.runtime.net"
SECCOMP = "_blake2 urunc.linux.seccomp"

DELETE = """
urunc.linux.cgroup urunc.linux.cgroup_files urunc.linux.freezer urunc.linux.removal
urunc.runtime.signals urunc.runtime.teardown
"""
FREEZE = f"""
{VERB} select urunc.linux urunc.linux.cgroup_files urunc.linux.freezer urunc.linux.proc
urunc.runtime.pause urunc.runtime.status
"""
EVENTS = f"""
{VERB} select urunc.linux urunc.linux.cgroup_stats urunc.linux.oom urunc.linux.proc urunc.linux.process_usage
urunc.runtime.events urunc.runtime.status _socket urunc.runtime.control urunc.vm urunc.vm.port
"""
UPDATE = f"""
{VERB} select urunc.linux urunc.linux.cgroup_files urunc.linux.proc urunc.runtime.status urunc.runtime.update
urunc.runtime.limits
urunc.oci urunc.oci.node urunc.oci.parse_linux urunc.oci.resources urunc.oci.spec
urunc.vm urunc.vm.choose urunc.vm.guests urunc.vm.machine urunc.vm.monitors urunc.vm.monitors.qemu urunc.vm.port
"""

LIFE: tuple[tuple[str, str], ...] = (
    ("create --bundle BUNDLE web", CREATE),
    ("state web", CONTAINER),
    ("start web", f"{CONTAINER} _socket urunc.linux.atomic urunc.runtime.init_words"),
    ("state web", CONTAINER),
    (
        "ps --format json web",
        f"{CONTAINER} urunc.linux.cgroup urunc.linux.cgroup_files urunc.linux.freezer urunc.tables",
    ),
    ("list", f"{CONTAINER} pwd urunc.tables"),
    ("pause web", FREEZE),
    ("resume web", FREEZE),
    ("events --stats web", EVENTS),
    ("timeline web", f"{VERB} urunc.runtime.steps urunc.tables"),
    ("update --pids-limit 90 web", UPDATE),
    ("kill web KILL", f"{CONTAINER} urunc.runtime.signals"),
    ("delete --force web", f"{CONTAINER} {DELETE}"),
)
"""A container's life, verb by verb, and what each may load."""


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., list[str]]:
    """Run a verb to its end, in the interpreter as the entry point starts it. Return the modules it has loaded."""

    def run(*args: str, status: int = 0) -> list[str]:
        answer = tmp_path / "modules"
        argv = [INTERPRETER, "-IS", "-c", RUNNER, str(SOURCE), str(answer), "--root", f"{tmp_path}/state", *args]
        with open(tmp_path / "output", "w+b") as output:  # no pipe: a container that lives on would hold it
            done = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        assert done.returncode == status, (tmp_path / "output").read_text()
        return answer.read_text().splitlines()

    return run


@pytest.fixture
def bundle(tmp_path: Path, testguest: Path) -> Iterator[Path]:
    """A bundle of the test guest, whose container is gone after the test."""
    yield bundles.unikernel(tmp_path / "bundle", testguest, "wait").write()
    call = [INTERPRETER, "-IS", "-c", RUNNER, str(SOURCE), "/dev/null", "--root", f"{tmp_path}/state"]
    subprocess.run([*call, "delete", "--force", "web"], check=False, capture_output=True, env={"PATH": "/nowhere"})


@pytest.mark.root
def test_a_containers_life(loaded: Callable[..., list[str]], bundle: Path) -> None:
    # The first fills the cache of the monitor's libraries, whose making may import what it likes.
    loaded("create", "--bundle", str(bundle), "web")
    loaded("delete", "--force", "web")
    for line, modules in LIFE:
        assert (line, loaded(*line.replace("BUNDLE", str(bundle)).split())) == (line, sorted(set(modules.split())))


@pytest.mark.root
def test_what_only_some_containers_need(loaded: Callable[..., list[str]], tmp_path: Path, testguest: Path) -> None:
    bundle = bundles.unikernel(tmp_path / "bundle", testguest, "wait")
    bundle.hook("prestart", "/bin/true")
    bundle.config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    bundle.write()
    for _ in range(2):  # the first fills the caches
        modules = loaded("create", "--bundle", str(bundle.folder), "web")
        loaded("delete", "--force", "web")
    assert set(modules) - set(CREATE.split()) == set(f"{NETWORK} {SECCOMP} urunc.runtime.hooks".split())


@pytest.mark.parametrize("flag", ["--version", "--help"])
def test_help(loaded: Callable[..., list[str]], flag: str) -> None:
    assert loaded(flag) == sorted({*VERB.split(), "urunc.usage"})


def test_a_container_of_the_delegate(loaded: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    more = """
        urunc.linux urunc.linux.atomic urunc.linux.kept urunc.oci urunc.oci.config
        urunc.runtime.delegate urunc.runtime.settings
    """
    assert loaded("state", "strange", status=1) == sorted({*VERB.split(), *more.split()})
