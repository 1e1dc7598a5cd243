"""What containerd's user waits for: `ctr run --rm` from start to end, by urunc's shim and by others.

    bench/shim.py [--shim PROGRAM] [--rounds N] [--pods N] [--spt KERNEL [--go-urunc PROGRAM]] [--json]

Interleaved: one round is one container with each, and what the container executes alone: the very command line of the
process, run once more in the mount namespace of a container that waits. The overhead is the whole time less that: what
a runtime does in the container before it executes the monitor is so its own. The part of shim and runtime is what is
left without the engine's: what `ctr` takes to make and remove a container that never runs. `first` is when the first
byte arrives. The figures are medians of milliseconds, the ratios those of medians. Then so many pods are started with
each shim, and what one costs idle is read from smaps_rollup: proportional and private KiB.

Needs root, containerd, runc, QEMU and the test guest (make -C guest). `--shim` is an installed one, as only that has
compiled modules. `--spt` is a kernel of Solo5's for spt that prints something and ends with 0 (its test_globals.spt);
with it, `--go-urunc` is the Go project's runtime, built outside the tree, which containerd's own shim calls. On spt,
since that is the same process in both: the Go urunc runs QEMU by KVM or not at all, which is no measure where a
machine's KVM is slow.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE.parent / "tests"), str(HERE.parent / "tests/e2e")]

import images  # noqa: E402
from engines import Containerd  # noqa: E402

from world import World, wait_for  # noqa: E402

BUSYBOX, GUEST, SOLO5 = "docker.io/test/busybox:1", "docker.io/test/guest:1", "docker.io/test/solo5:1"
TESTGUEST = HERE.parent / "guest/build/testguest.elf"
SHELL = (("sh", "-c", "while sleep 9; do :; done"), ("sh", "-c", "echo"))
UNIKERNEL = (("app", "spin"), ("app", "poweroff"))
SPT, GO = "urunc's shim, spt", "the Go urunc, spt"
QMP = "socket,id=qmp,fd=3,server=on,wait=off"
LIMIT_SECONDS = 20
RUNC = "io.containerd.runc.v2"
LIMIT_RUNC, LIMIT_GO, LIMIT_PSS, LIMIT_PRIVATE = 0.7, 0.5, 1.5, 3.0
"""The project's aims: the guest's overhead against runc's shim and the Go urunc's, and the memory of an idle shim."""


class Engine(Containerd):
    """A containerd that finds the Go project's `urunc`."""

    def __init__(self, world: World, path: str) -> None:
        self.path = path
        super().__init__(world, Path("/usr/bin/runc"))

    def _start(self) -> Any:
        config = self.world.logs / "containerd.toml"
        config.write_text(
            f'version = 2\nroot = "/run/data/containerd"\nstate = "/run/containerd-test"\n'
            f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{self.socket}"\n'
        )
        return self.world.start("containerd", "/usr/bin/containerd", "--config", config, env={"PATH": self.path})


class Case(NamedTuple):
    """One container: by which shim, of which image, and what it executes."""

    runtime: tuple[str, ...]
    image: str
    waits: tuple[str, ...]
    """The arguments with which the container goes on until it is killed."""
    ends: tuple[str, ...]
    """The arguments with which it prints something and ends."""
    alone: tuple[str, ...] = ()
    """What it executes, where that is known and need not be asked of a container that waits."""


def main() -> int:
    options = parse(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="urunc-bench-") as folder:
        found = measure(options, Path(folder))
    print(json.dumps(found, indent=2) if options.json else report(found))
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="containers by containerd's shims")
    parser.add_argument("--shim", default="/usr/local/bin/containerd-shim-urunc-v2")
    parser.add_argument("--spt", type=Path, metavar="KERNEL")
    parser.add_argument("--go-urunc")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pods", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    if options.go_urunc and not options.spt:
        parser.error("--go-urunc needs --spt")
    return options


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    beside = os.path.dirname(options.go_urunc) + ":" if options.go_urunc else ""
    world = World(folder / "world")
    try:
        engine = Engine(world, f"{beside}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        engine.load(images.busybox(), folder)
        engine.load(guest(), folder)
        cases = {
            "runc's shim, sh": Case((f"--runtime={RUNC}",), BUSYBOX, *SHELL),
            "urunc's shim, sh": Case((f"--runtime={options.shim}",), BUSYBOX, *SHELL),
            "urunc's shim, guest": Case((f"--runtime={options.shim}",), GUEST, *UNIKERNEL),
        }
        if options.spt:
            engine.load(solo5(options.spt), folder)
            alone = ("solo5-spt", "--mem=256", str(options.spt))
            cases[SPT] = Case((f"--runtime={options.shim}",), SOLO5, (), (), alone)
        if options.go_urunc:
            cases[GO] = Case((f"--runtime={RUNC}", f"--runc-binary={options.go_urunc}"), SOLO5, (), (), alone)
        return {"times": times(engine, cases, options.rounds), "memory": memory(engine, options)}
    finally:
        world.close()


def guest() -> images.Image:
    """Return the test guest's image."""
    return images.unikernel(
        "test/guest:1", TESTGUEST, {"unikernelType": "unikraft", "hypervisor": "qemu", "cmdline": "app"}
    )


def solo5(kernel: Path) -> images.Image:
    """Return the image of a kernel for spt, with the values that the Go urunc can read: in base64."""
    image = images.unikernel("test/solo5:1", kernel, {"unikernelType": "mirage", "hypervisor": "spt", "cmdline": "x"})
    plain = json.loads(image.files["urunc.json"][0])
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
    image.file("urunc.json", json.dumps(encoded).encode())
    return image


def times(engine: Engine, cases: dict[str, Case], rounds: int) -> dict[str, dict[str, float]]:
    """Return, for each case, the medians of the times and of the overheads, in milliseconds."""
    alone = {name: process(engine, case, f"w{number}") for number, (name, case) in enumerate(cases.items())}
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in cases}
    engines = []
    for number in range(rounds):
        engines.append(never_run(engine, f"n{number}"))
        for name, case in cases.items():
            container = f"c{number}-{len(name)}"
            command = engine.ctr("run", "--rm", *case.runtime, case.image, container, *case.ends)
            try:
                found[name].append((*timed(engine.world.argv(command)), *timed(alone[name])))
            except subprocess.TimeoutExpired:
                print(f"{name}: the container of round {number} hangs, and is left out", file=sys.stderr)
            if container in engine("container", "ls", "--quiet").stdout.split():
                engine.remove(container)
    engine.remove_all()
    return {name: medians(rows, statistics.median(engines)) for name, rows in found.items()}


def never_run(engine: Engine, name: str) -> float:
    """Return the milliseconds that `ctr` takes of its own: to start once, and to make and remove a container."""
    started, made, removed = (
        elapsed(engine.world.argv(engine.ctr(*argv)))
        for argv in (("--version",), ("container", "create", BUSYBOX, name), ("container", "rm", name))
    )
    return made + removed - started


def elapsed(command: list[str]) -> float:
    """Return the milliseconds of a command."""
    begin = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.monotonic() - begin) * 1000


def medians(rows: list[tuple[float, float, float, float]], engine: float) -> dict[str, float]:
    """Return the medians of the rows: when the first byte came and when the end, in the container and alone."""
    overhead = statistics.median(row[1] - row[3] for row in rows)
    return {
        "first": statistics.median(row[0] for row in rows),
        "whole": statistics.median(row[1] for row in rows),
        "alone": statistics.median(row[3] for row in rows),
        "overhead": overhead,
        "runtime": overhead - engine,
    }


def process(engine: Engine, case: Case, name: str) -> list[str]:
    """Return the command that executes the container's process once more, to its end: in a container that waits."""
    if case.alone:
        return engine.world.argv(case.alone)
    engine("run", "--detach", *case.runtime, case.image, name, *case.waits)
    pid = next(int(line.split()[1]) for line in engine("task", "ls").stdout.splitlines() if line.startswith(name))
    argv = wait_for("the monitor", lambda: executed(engine.world, pid, case), 10)
    return engine.world.argv(["nsenter", f"--target={pid}", "--mount", "--net", "--uts", "--ipc", "--", *argv])


def executed(world: World, pid: int, case: Case) -> list[str]:
    """Return the process's command line with the arguments that end it; empty before it was executed.

    Without QEMU's control socket, whose descriptor the process inherited.
    """
    argv = world.run("cat", f"/proc/{pid}/cmdline").stdout.split("\0")[:-1]
    if not any(one.endswith(case.waits[-1]) for one in argv):
        return []
    if QMP in argv:
        at = argv.index(QMP)
        del argv[at - 1 : at + 3]
    return [one.removesuffix(case.waits[-1]) + case.ends[-1] if one.endswith(case.waits[-1]) else one for one in argv]


def timed(command: list[str]) -> tuple[float, float]:
    """Return after how many milliseconds the command's first byte came, and its end.

    Its status is not looked at: `ctr run --rm` cannot remove the root filesystem that the Go urunc mounted on.
    """
    begin = time.monotonic()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as run:
        timer = threading.Timer(LIMIT_SECONDS, os.killpg, (run.pid, signal.SIGKILL))
        timer.start()
        try:
            assert run.stdout is not None
            printed = run.stdout.read(1)
            first = time.monotonic()
            run.stdout.read()
            status = run.wait()
        finally:
            timer.cancel()
    end = time.monotonic()
    if status == -signal.SIGKILL:
        raise subprocess.TimeoutExpired(command, LIMIT_SECONDS)
    assert printed, f"{shlex.join(command)}: exit status {status}, and nothing printed"
    return (first - begin) * 1000, (end - begin) * 1000


def memory(engine: Engine, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the KiB, proportional and private, of one shim among so many."""
    shims = {"runc's shim": (RUNC, "containerd-shim-runc-v2"), "urunc's shim": (options.shim, "-urunc-v2")}
    for kind, (runtime, _) in enumerate(shims.values()):
        for number in range(options.pods):
            engine("run", "--detach", f"--runtime={runtime}", BUSYBOX, f"p{kind}-{number}")
    time.sleep(1)
    found = {}
    for name, (_, word) in shims.items():
        pids = [pid for pid, command in engine.world.processes() if word in command.split(" -namespace ")[0]]
        sums = [rollup(engine.world, pid) for pid in pids]
        found[name] = {key: statistics.mean(one[key] for one in sums) for key in ("pss", "private")}
    engine.remove_all()
    return found


def rollup(world: World, pid: int) -> dict[str, int]:
    values = {}
    for line in world.run("cat", f"/proc/{pid}/smaps_rollup").stdout.splitlines()[1:]:
        name, _, rest = line.partition(":")
        values[name] = int(rest.split()[0])
    return {"pss": values["Pss"], "private": values["Private_Clean"] + values["Private_Dirty"]}


def report(found: dict[str, Any]) -> str:
    base, mine = "runc's shim, sh", "urunc's shim, guest"
    columns = ("first", "whole", "alone", "overhead", "runtime")
    lines = [f"{'milliseconds':<24}" + "".join(f"{column:>10}" for column in (*columns, "/ runc", "/ runc"))]
    for name, one in found["times"].items():
        ratios = [one[key] / found["times"][base][key] for key in ("overhead", "runtime")]
        lines.append(
            f"{name:<24}"
            + "".join(f"{one[key]:10.0f}" for key in columns)
            + "".join(f"{value:10.2f}" for value in ratios)
        )
    lines.append(f"guest / runc: {ratio(found, mine, base)} (aim {LIMIT_RUNC})")
    if GO in found["times"]:
        lines.append(f"spt / Go urunc: {ratio(found, SPT, GO)} (aim {LIMIT_GO})")
    theirs, ours = found["memory"]["runc's shim"], found["memory"]["urunc's shim"]
    lines.append(f"{'':<28}{'pss':>8}{'private':>10}  KiB")
    for name, one in found["memory"].items():
        lines.append(f"{name:<28}{one['pss']:8.0f}{one['private']:10.0f}")
    lines.append(f"pss: {ours['pss'] / theirs['pss']:.2f} (aim {LIMIT_PSS})")
    lines.append(f"private: {ours['private'] / theirs['private']:.2f} (aim {LIMIT_PRIVATE})")
    return "\n".join(lines)


def ratio(found: dict[str, Any], one: str, other: str) -> str:
    """Return how the overheads of two cases compare, and those without the engine's part."""
    whole, runtime = (found["times"][one][key] / found["times"][other][key] for key in ("overhead", "runtime"))
    return f"{whole:.2f}, without the engine's part {runtime:.2f}"


if __name__ == "__main__":
    sys.exit(main())
