"""What each verb costs: CPU time (user and system) of a container's life, against the bare interpreter and runc.

    bench/startup.py [--urunc PROGRAM] [--bundle DIR] [--runc PROGRAM] [--runc-bundle DIR] [--rounds N] [--json]

Interleaved: one round is a whole life with each runtime and one bare interpreter, so that a machine that slows
down does so for all. CPU time is of the verb's own process and the children that it waited for, and for `create`
also what the container's init has used when it waits for `start`; what the container itself uses is not in it.
The figures are the medians, the ratios those of medians. Needs root, and a bundle whose container waits: without
--bundle the test guest in guest/build, without --runc-bundle a busybox that sleeps. The exit status is 1 where a
limit of the project is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TESTGUEST = HERE.parent / "guest/build/testguest.elf"
INTERPRETER = "/usr/bin/python3"
VERBS = ("create", "state", "start", "kill", "delete")
LIFE = ("create", "start", "kill", "delete")
LIMITS = {"create": 2.3, "state": 1.3, "start": 1.3, "kill": 1.3, "delete": 1.3}
"""Times the bare interpreter; and a whole life is not to cost more than runc's."""

PLAIN = {
    "ociVersion": "1.0.2",
    "process": {"user": {"uid": 0, "gid": 0}, "args": ["sleep", "1000"], "env": ["PATH=/bin"], "cwd": "/"},
    "root": {"path": "rootfs"},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
        "resources": {"memory": {"limit": 256 * 1024 * 1024}},
    },
}


def main() -> int:
    options = parse(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="urunc-bench-") as folder:
        times = measure(options, Path(folder))
    report(times, options.json)
    return 1 if broken(times) else 0


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CPU time of each verb")
    parser.add_argument("--urunc", default=str(HERE.parent / "scripts/urunc"))
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--runc", default=shutil.which("runc"))
    parser.add_argument("--runc-bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    return parser.parse_args(argv)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Return milliseconds by name, such as "urunc create"."""
    runtimes = {"urunc": (options.urunc, options.bundle or unikernel(folder / "unikernel"))}
    if options.runc:
        runtimes["runc"] = (options.runc, options.runc_bundle or ordinary(folder / "ordinary"))
    times: dict[str, list[float]] = {}
    for number in range(options.rounds + 1):
        round_times = {"python": cpu_milliseconds([INTERPRETER, "-IS", "-c", "pass"])}
        for name, (program, bundle) in runtimes.items():
            for verb, cost in live(program, folder / f"{name}-state", bundle, f"bench-{os.getpid()}").items():
                round_times[f"{name} {verb}"] = cost
        if number:  # the first round fills caches
            for key, cost in round_times.items():
                times.setdefault(key, []).append(cost)
    return times


def live(program: str, root: Path, bundle: Path, name: str) -> dict[str, float]:
    """Take one container through its life. Return what each verb cost, and the whole of LIFE."""
    call = [program, "--root", str(root)]
    arguments = {"create": ["--bundle", str(bundle), name], "kill": [name, "KILL"]}
    costs = {}
    try:
        for verb in VERBS:
            if verb == "delete":
                wait_stopped(call, name)
            costs[verb] = cpu_milliseconds([*call, verb, *arguments.get(verb, [name])])
            if verb == "create":
                costs[verb] += init_milliseconds(find_state(call, name)["pid"])
    except BaseException:
        cpu_milliseconds([*call, "delete", "--force", name])
        raise
    costs["life"] = sum(costs[verb] for verb in LIFE)
    return costs


def wait_stopped(call: list[str], name: str) -> None:
    for _ in range(200):
        if find_state(call, name)["status"] == "stopped":
            return
        time.sleep(0.01)
    raise SystemExit(f"{name} does not stop")


def find_state(call: list[str], name: str) -> dict[str, Any]:
    reader, writer = os.pipe()
    pid = spawn([*call, "state", name], writer)
    os.close(writer)
    with open(reader, "rb") as file:
        state = json.load(file)
    os.waitpid(pid, 0)
    return state


def init_milliseconds(pid: int) -> float:
    """Return the CPU time that a process and its threads have used (proc(5), schedstat)."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e6


def cpu_milliseconds(argv: list[str]) -> float:
    """Run a program to its end; return the CPU time of it and of the children that it waited for."""
    null = os.open("/dev/null", os.O_RDWR)
    pid = spawn(argv, null)
    os.close(null)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{' '.join(argv)}: exit status {os.waitstatus_to_exitcode(status)}")
    return (usage.ru_utime + usage.ru_stime) * 1000


def spawn(argv: list[str], stdout: int) -> int:
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, stdout, 1),
    ]
    return os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)


def unikernel(folder: Path) -> Path:
    """Make a bundle of the test guest, which waits for ever."""
    if not TESTGUEST.exists():
        raise SystemExit(f"{TESTGUEST} is not built: run make guest, or give --bundle")
    config = json.loads(json.dumps(PLAIN))
    config["process"]["args"] = ["wait"]
    keys = {"unikernelType": "unikraft", "hypervisor": "qemu", "binary": "/kernel"}
    config["annotations"] = {f"com.urunc.unikernel.{key}": value for key, value in keys.items()}
    (folder / "rootfs").mkdir(parents=True)
    shutil.copy(TESTGUEST, folder / "rootfs/kernel")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def ordinary(folder: Path) -> Path:
    """Make a bundle of a busybox that sleeps."""
    for name in ("bin", "proc", "dev", "sys"):
        (folder / "rootfs" / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", folder / "rootfs/bin/sleep")
    (folder / "config.json").write_text(json.dumps(PLAIN))
    return folder


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in times.items()}


def broken(times: dict[str, list[float]]) -> list[str]:
    """Return the limits that do not hold."""
    figures = medians(times)
    found = [f"{verb}: over {limit} x python" for verb, limit in LIMITS.items() if ratio(figures, verb) > limit]
    if "runc life" in figures and figures["urunc life"] > figures["runc life"]:
        found.append("life: over runc's")
    return found


def ratio(figures: dict[str, float], verb: str) -> float:
    return figures[f"urunc {verb}"] / figures["python"]


def report(times: dict[str, list[float]], as_json: bool) -> None:
    figures = medians(times)
    if as_json:
        print(json.dumps({"milliseconds": figures, "broken": broken(times)}))
        return
    print(f"CPU time, median of {len(times['python'])} (lowest), ms; python3 -IS -c pass: {figures['python']:.2f}")
    print(f"{'verb':8} {'urunc':>15} {'x python':>9} {'limit':>6} {'runc':>15} {'x runc':>7}")
    for verb in (*VERBS, "life"):
        ours, other = f"urunc {verb}", f"runc {verb}"
        line = f"{verb:8} {cell(times[ours])} {figures[ours] / figures['python']:9.2f} {LIMITS.get(verb, ''):>6}"
        if other in times:
            line += f" {cell(times[other])} {figures[ours] / figures[other]:7.2f}"
        print(line)
    for line in broken(times):
        print(f"limit broken: {line}")


def cell(values: list[float]) -> str:
    return f"{statistics.median(values):7.2f} ({min(values):5.2f})"


if __name__ == "__main__":
    sys.exit(main())
