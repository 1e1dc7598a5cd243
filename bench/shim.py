"""What containerd's user waits for: `ctr run --rm` from start to end, by urunc's shim and by others.

    bench/shim.py [--shim PROGRAM] [--go-urunc PROGRAM] [--rounds N] [--pods N] [--json]

Interleaved: one round is one container with each. The overhead is the whole time less the container's own, which is
from its start event to its exit; the figures are medians of milliseconds, the ratios those of medians. Then so many
pods are started with each shim, and what one costs idle is read from smaps_rollup: proportional and private KiB.

Needs root, containerd, runc, QEMU and the test guest (make -C guest). `--shim` is an installed one, as only that has
compiled modules; `--go-urunc` the runtime of the Go project, built outside the tree, which containerd's own shim calls.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src"), str(HERE.parent / "tests"), str(HERE.parent / "tests/e2e")]

import images  # noqa: E402
from engines import Containerd  # noqa: E402

from world import World, wait_for  # noqa: E402

BUSYBOX, GUEST = "docker.io/test/busybox:1", "docker.io/test/guest:1"
TESTGUEST = HERE.parent / "guest/build/testguest.elf"
GO = "the Go urunc, guest"
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


def main() -> int:
    options = parse(sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="urunc-bench-") as folder:
        found = measure(options, Path(folder))
    print(json.dumps(found, indent=2) if options.json else report(found))
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="containers by containerd's shims")
    parser.add_argument("--shim", default="/usr/local/bin/containerd-shim-urunc-v2")
    parser.add_argument("--go-urunc")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pods", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    beside = os.path.dirname(options.go_urunc) + ":" if options.go_urunc else ""
    world = World(folder / "world")
    try:
        engine = Engine(world, f"{beside}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        engine.load(images.busybox(), folder)
        engine.load(guest(), folder)
        cases = {
            "runc's shim, /bin/true": ((RUNC,), BUSYBOX, ("true",)),
            "urunc's shim, /bin/true": ((options.shim,), BUSYBOX, ("true",)),
            "urunc's shim, guest": ((options.shim,), GUEST, ("app", "poweroff")),
        }
        if options.go_urunc:
            cases[GO] = ((RUNC, f"--runc-binary={options.go_urunc}"), GUEST, ("app", "poweroff"))
        return {"times": times(engine, cases, options.rounds), "memory": memory(engine, options)}
    finally:
        world.close()


def guest() -> images.Image:
    """Return the test guest's image, with the values that the Go urunc can read: in base64."""
    keys = {"unikernelType": "unikraft", "hypervisor": "qemu", "cmdline": "app"}
    image = images.unikernel("test/guest:1", TESTGUEST, keys)
    plain = json.loads(image.files["urunc.json"][0])
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
    image.file("urunc.json", json.dumps(encoded).encode())
    return image


def times(engine: Engine, cases: dict[str, Any], rounds: int) -> dict[str, dict[str, float]]:
    """Return, for each case, the medians of the whole time and of the overhead, in milliseconds."""
    options = (f"--address={engine.socket}", f"--namespace={engine.namespace}")
    events = engine.world.start("events", "ctr", *options, "events")
    log = engine.world.logs / "events.log"
    whole: dict[str, list[float]] = {name: [] for name in cases}
    over: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        for name, ((runtime, *more), image, command) in cases.items():
            container = f"c{number}-{len(name)}"
            begin = time.monotonic()
            try:
                engine("run", "--rm", f"--runtime={runtime}", *more, image, container, *command, timeout=20)
            except subprocess.TimeoutExpired:
                print(f"{name}: the container of round {number} hangs, and is left out", file=sys.stderr)
                engine.remove_all()
                continue
            took = (time.monotonic() - begin) * 1000
            own = wait_for("the events", lambda container=container: own_time(log.read_text(), container), 10)
            whole[name].append(took)
            over[name].append(took - own)
    events.terminate()
    for pid, line in engine.world.processes():
        if line.endswith("events"):
            engine.world.run("kill", str(pid))
    return {
        name: {"whole": statistics.median(whole[name]), "overhead": statistics.median(over[name])} for name in cases
    }


def own_time(log: str, container: str) -> float | None:
    """Return the milliseconds between the container's start event and its exit, None while one is missing."""
    start = exited = None
    for line in log.splitlines():
        words = line.split(" ", 6)
        if len(words) < 7 or f'"container_id":"{container}"' not in line:
            continue
        if words[5] == "/tasks/start":
            start = moment(f"{words[0]}T{words[1]}Z")
        if words[5] == "/tasks/exit":
            exited = moment(json.loads(words[6])["exited_at"])
    return max((exited - start) * 1000, 0.001) if start and exited else None


def moment(text: str) -> float:
    """Return the seconds of a time with nanoseconds."""
    head, _, fraction = text.rstrip("Z").partition(".")
    base = datetime.datetime.fromisoformat(head).replace(tzinfo=datetime.UTC).timestamp()
    return base + float(f"0.{fraction or 0}")


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
    base, mine, go = "runc's shim, /bin/true", "urunc's shim, guest", GO
    lines = [f"{'':<28}{'whole':>8}{'overhead':>10}{'/ runc':>8}"]
    for name, one in found["times"].items():
        ratio = one["overhead"] / found["times"][base]["overhead"]
        lines.append(f"{name:<28}{one['whole']:8.0f}{one['overhead']:10.0f}{ratio:8.2f}")
    over = {name: one["overhead"] for name, one in found["times"].items()}
    lines.append(f"guest / runc: {over[mine] / over[base]:.2f} (aim {LIMIT_RUNC})")
    if go in over:
        lines.append(f"guest / Go urunc: {over[mine] / over[go]:.2f} (aim {LIMIT_GO})")
    theirs, ours = found["memory"]["runc's shim"], found["memory"]["urunc's shim"]
    lines.append(f"{'':<28}{'pss':>8}{'private':>10}  KiB")
    for name, one in found["memory"].items():
        lines.append(f"{name:<28}{one['pss']:8.0f}{one['private']:10.0f}")
    lines.append(f"pss: {ours['pss'] / theirs['pss']:.2f} (aim {LIMIT_PSS})")
    lines.append(f"private: {ours['private'] / theirs['private']:.2f} (aim {LIMIT_PRIVATE})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
