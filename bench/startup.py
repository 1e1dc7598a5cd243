"""What each verb costs: CPU time (user and system) of a container's life, against the bare interpreter and runc.

    bench/startup.py [--urunc PROGRAM] [--bundle DIR] [--runc PROGRAM] [--runc-bundle DIR] [--rounds N]
                     [--seccomp FILE] [--json]

Interleaved: one round is a whole life with each runtime and one bare interpreter, so that a machine that slows
down does so for all. CPU time is of the verb's own process and of the children that it waited for. `init` is the
container's first process, which this program inherits and so can ask the kernel about: from the fork until it has
executed the monitor, at whose first instruction it is stopped; of runc's container, whose init is not so easily
stopped, the program's own start is in it (a static busybox that sleeps, below half a millisecond). A life is
create, start, kill, delete and init. The figures are medians, the ratios those of medians.

With --seccomp, a profile as containers/common has it, both runtimes' bundles get the profile that engines give
unasked: Podman's is /usr/share/containers/seccomp.json, and Docker's and nerdctl's hardly differ. Only the rules that
hold for a container without capabilities are taken.

Needs root. Without --urunc it installs the checkout into a folder of its own: what is measured is what is installed.
Without --bundle the bundle is of the test guest in guest/build, without --runc-bundle of a busybox that sleeps; the
states are in /dev/shm, since /run is in memory as well. The exit status is 1 where a limit of the project is broken.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
HERE = Path(__file__).resolve().parent
TESTGUEST = HERE.parent / "guest/build/testguest.elf"
INTERPRETER = "/usr/bin/python3"
VERBS = ("create", "state", "start", "kill", "delete")
LIFE = ("create", "start", "kill", "delete", "init")
LIMITS = {"create": 2.3, "state": 1.3, "start": 1.3, "kill": 1.3, "delete": 1.3}
"""Times the bare interpreter; and a whole life is not to cost more than runc's."""

PR_SET_CHILD_SUBREAPER = 36
PTRACE_SEIZE = 0x4206
PTRACE_O_TRACEEXEC = 0x10
PTRACE_EVENT_EXEC = 4
WALL = 0x40000000

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
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise SystemExit("cannot become the reaper of what is left of a container")
    with tempfile.TemporaryDirectory(prefix="urunc-bench-", dir="/dev/shm") as folder:
        times = measure(options, Path(folder))
    report(times, as_json=options.json)
    return 1 if broken(times) else 0


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="CPU time of each verb")
    parser.add_argument("--urunc")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--runc", default=shutil.which("runc"))
    parser.add_argument("--runc-bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seccomp", type=Path)
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    return parser.parse_args(argv)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Return milliseconds by name, such as "urunc create"."""
    urunc = options.urunc or install(folder / "installed")
    profile = seccomp(options.seccomp) if options.seccomp else None
    runtimes = {"urunc": (urunc, options.bundle or unikernel(folder / "unikernel", profile))}
    if options.runc:
        runtimes["runc"] = (options.runc, options.runc_bundle or ordinary(folder / "ordinary", profile))
    times: dict[str, list[float]] = {}
    for number in range(options.rounds + 1):
        round_times = {"python": cpu_milliseconds([INTERPRETER, "-IS", "-c", "pass"])}
        for name, (program, bundle) in runtimes.items():
            root, container = folder / f"{name}-state", f"bench-{os.getpid()}"
            costs = live(program, root, bundle, container, stop=name == "urunc")
            round_times.update((f"{name} {verb}", cost) for verb, cost in costs.items())
        if number:  # the first round fills caches
            for key, cost in round_times.items():
                times.setdefault(key, []).append(cost)
    return times


def install(folder: Path) -> str:
    subprocess.run(
        ["make", "-s", "-C", HERE.parent, "install", f"PREFIX={folder}", f"PYTHON={INTERPRETER}"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return f"{folder}/bin/urunc"


def live(program: str, root: Path, bundle: Path, name: str, *, stop: bool) -> dict[str, float]:
    """Take one container through its life. Return what each verb and init cost, and the whole of LIFE."""
    call = [program, "--root", str(root), "--log", f"{root}.log"]
    pid_file = f"{root}.pid"
    costs = {}
    try:
        costs["create"] = cpu_milliseconds([*call, "create", "--pid-file", pid_file, "--bundle", str(bundle), name])
        init = int(Path(pid_file).read_text())
        costs["state"] = cpu_milliseconds([*call, "state", name])
        if stop:
            stop_at_execve(init)
        costs["start"] = cpu_milliseconds([*call, "start", name])
        if stop:
            wait_for_execve(init)
        costs["kill"] = cpu_milliseconds([*call, "kill", name, "KILL"])
        costs["init"] = milliseconds(os.wait4(init, 0)[2])
        costs["delete"] = cpu_milliseconds([*call, "delete", name])
    except BaseException:
        cpu_milliseconds([*call, "delete", "--force", name])
        raise
    costs["life"] = sum(costs[verb] for verb in LIFE)
    return costs


def stop_at_execve(pid: int) -> None:
    """Have a process stop once it has executed another program, which then costs nothing more."""
    if libc.ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_TRACEEXEC):
        raise SystemExit(f"cannot trace {pid}: {os.strerror(ctypes.get_errno())}")


def wait_for_execve(pid: int) -> None:
    status = os.waitpid(pid, WALL)[1]
    if not os.WIFSTOPPED(status) or status >> 16 != PTRACE_EVENT_EXEC:
        raise SystemExit(f"the container's init did not execute the monitor (status {status:#x})")


def cpu_milliseconds(argv: list[str]) -> float:
    """Run a program to its end; return the CPU time of it and of the children that it waited for."""
    null = os.open("/dev/null", os.O_RDWR)
    pid = spawn(argv, null)
    os.close(null)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{' '.join(argv)}: exit status {os.waitstatus_to_exitcode(status)}")
    return milliseconds(usage)


def milliseconds(usage: Any) -> float:
    return (usage.ru_utime + usage.ru_stime) * 1000


def spawn(argv: list[str], stdout: int) -> int:
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, stdout, 1),
    ]
    return os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)


def seccomp(file: Path) -> dict[str, Any]:
    """Return `linux.seccomp` of a profile in the form of containers/common, for x86_64 and no capability."""
    profile = json.loads(file.read_text())
    calls = []
    for entry in profile["syscalls"]:
        wanted, unwanted = entry.get("includes", {}), entry.get("excludes", {})
        if (
            not wanted.get("caps")
            and "amd64" in wanted.get("arches", ["amd64"])
            and "amd64" not in unwanted.get("arches", [])
        ):
            calls.append({key: entry[key] for key in ("names", "action", "args", "errnoRet") if entry.get(key)})
    return {
        "defaultAction": profile["defaultAction"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": calls,
    }


def unikernel(folder: Path, profile: dict[str, Any] | None) -> Path:
    """Make a bundle of the test guest, which waits for ever."""
    if not TESTGUEST.exists():
        raise SystemExit(f"{TESTGUEST} is not built: run make guest, or give --bundle")
    config = plain(profile)
    config["process"]["args"] = ["wait"]
    keys = {"unikernelType": "unikraft", "hypervisor": "qemu", "binary": "/kernel"}
    config["annotations"] = {f"com.urunc.unikernel.{key}": value for key, value in keys.items()}
    (folder / "rootfs").mkdir(parents=True)
    shutil.copy(TESTGUEST, folder / "rootfs/kernel")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def plain(profile: dict[str, Any] | None) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(json.dumps(PLAIN))
    if profile:
        config["linux"]["seccomp"] = profile
    return config


def ordinary(folder: Path, profile: dict[str, Any] | None) -> Path:
    """Make a bundle of a busybox that sleeps."""
    for name in ("bin", "proc", "dev", "sys"):
        (folder / "rootfs" / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", folder / "rootfs/bin/sleep")
    (folder / "config.json").write_text(json.dumps(plain(profile)))
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


def report(times: dict[str, list[float]], *, as_json: bool) -> None:
    figures = medians(times)
    if as_json:
        print(json.dumps({"milliseconds": figures, "broken": broken(times)}))
        return
    print(f"CPU time, median of {len(times['python'])} (lowest), ms; python3 -IS -c pass: {figures['python']:.2f}")
    print(f"{'verb':8} {'urunc':>15} {'x python':>9} {'limit':>6} {'runc':>15} {'x runc':>7}")
    for verb in (*VERBS, "init", "life"):
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
