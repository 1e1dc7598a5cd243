"""A room of its own for an engine: private mount, network and process namespaces, with a private /run.

A real dockerd rewrites iptables, mounts things and leaves shims behind. Inside a `World` none of that reaches the
machine: its first process is a small keeper that ends when the test run ends (its standard input closes), and the
kernel then ends every process, mount, link and iptables rule inside. What a namespace does not hold is cgroups:
engines are told to put theirs below one of the world's own, which is removed at the end and must by then be empty.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Self

CGROUPS = Path("/sys/fs/cgroup")

# The keeper is process 1 of its namespace: ignoring SIGCHLD makes the kernel reap what is orphaned to it.
KEEPER = """
import signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
sys.stdin.read()
"""

UNSHARE = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private"]

PREPARE = """
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns /run/data
ip link set lo up
ip netns add first && ip netns del first # now and not in a test: it makes a mount of /run/netns
if [ -n "$HIDE_UNIFIED" ] && mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
exec /usr/bin/python3 -IS -c "$KEEPER"
"""


def which(name: str) -> str | None:
    """Return where Debian's program `name` is; another copy in front of it on PATH is not what is tested."""
    return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") or shutil.which(name)


def wait_for(what: str, condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Return the first true value of `condition()`; fail with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    pause = 0.01
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)


class World:
    """The namespaces, and the way in. `logs` is a folder outside that outlives them."""

    def __init__(self, logs: Path, *, hide_unified: bool = False) -> None:
        self.logs = logs
        self.logs.mkdir(parents=True, exist_ok=True)
        self.services: dict[str, subprocess.Popen[bytes]] = {}
        self.cgroup = f"urunc-test-{os.getpid()}-{os.urandom(3).hex()}"
        self._keeper = subprocess.Popen(
            [*UNSHARE, "sh", "-c", PREPARE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "KEEPER": KEEPER, "HIDE_UNIFIED": "1" if hide_unified else ""},
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == b"ready\n", "the namespaces could not be made"
        children = Path(f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children").read_text().split()
        self.pid = int(children[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def path(self, inside: str) -> Path:
        """Return the outside's path of a file inside."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def argv(self, argv: Sequence[str | Path]) -> list[str]:
        """Return the command line that runs `argv` inside."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--wd=/", "--"]
        return [*enter, *map(str, argv)]

    def run(
        self,
        *argv: str | Path,
        check: bool = True,
        timeout: float = 60,
        env: dict[str, str] | None = None,
        stdin: bytes | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end; both outputs are text. A failure shows them."""
        done = subprocess.run(
            self.argv(argv),
            check=False,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
            input=stdin if stdin is not None else b"",
        )
        result = subprocess.CompletedProcess(
            list(map(str, argv)),
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )
        if check and result.returncode:
            shown = " ".join(result.args)
            raise AssertionError(f"{shown}: exit status {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    def ask(self, *argv: str) -> str:
        """Return what one of this machine's own programs prints in the network inside; "" where it fails.

        Inside may be another tree, without such a program: a test would take that for a guest that is silent.
        """
        enter = ["nsenter", f"--target={self.pid}", "--net", "--"]
        done = subprocess.run([*enter, *argv], check=False, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
        assert done.returncode != 127, f"{argv[0]}: {done.stderr.decode(errors='replace')}"
        return "" if done.returncode else done.stdout.decode(errors="replace")

    def start(self, name: str, *argv: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a service inside; what it prints goes to `<logs>/<name>.log`."""
        with (self.logs / f"{name}.log").open("ab") as log:
            service = subprocess.Popen(
                self.argv(argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})}
            )
        self.services[name] = service
        return service

    def processes(self) -> list[tuple[int, str]]:
        """Return (pid inside, command line) of every process inside except the keeper."""
        own = os.stat(f"/proc/{self.pid}/ns/pid").st_ino
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == self.pid:
                continue
            try:
                if os.stat(entry / "ns/pid").st_ino != own and not _inside(entry, own):
                    continue
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                pid = int(_status(entry, "NSpid").split()[1])
            except (OSError, IndexError):
                continue
            if command:
                found.append((pid, command))
        return found

    def links(self) -> list[str]:
        """Return the names of the network interfaces inside."""
        lines = self.run("ip", "-br", "link").stdout.splitlines()
        return sorted(line.split()[0].split("@")[0] for line in lines)

    def snapshot(self, *folders: str) -> dict[str, list[str]]:
        """Return what a container may leave behind: processes, links, cgroups, mounts, and what is in `folders`.

        Not what urunc remembers of the host (`.cache`), which is no container's.
        """
        mounts = self.run("cat", "/proc/mounts").stdout.splitlines()
        return {
            "processes": sorted(command for _, command in self.processes()),
            "links": self.links(),
            "cgroups": sorted(map(str, self.cgroups())),
            "mounts": sorted(line.split()[1] for line in mounts if not line.startswith("nsfs ")),
            "files": sorted(path for folder in folders for path in self._below(folder)),
        }

    def _below(self, top: str) -> Iterable[str]:
        outside = self.path(top)
        for folder, names, files in os.walk(outside):
            names[:] = [name for name in names if name != ".cache"]
            for name in [*names, *files]:
                yield f"{top}/{Path(folder, name).relative_to(outside)}"

    def close(self) -> None:
        """End everything inside and remove the world's cgroups. Fails where one of them is not empty."""
        for service in self.services.values():
            service.terminate()
        for service in self.services.values():
            try:
                service.wait(15)
            except subprocess.TimeoutExpired:
                service.kill()
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.close()
        self._keeper.stdout.close()
        try:
            self._keeper.wait(15)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait(15)
        remove_cgroups(self.cgroups())

    def cgroups(self) -> set[Path]:
        """Return every cgroup at or below the world's own, in every hierarchy."""
        return {path for path in cgroups() if self.cgroup in path.parts}


def _status(entry: Path, key: str) -> str:
    for line in (entry / "status").read_text().splitlines():
        if line.startswith(key + ":"):
            return line.split(":", 1)[1]
    return ""


def _inside(entry: Path, own: int) -> bool:
    """Whether the process is in a namespace below: its own parent namespaces include the keeper's."""
    try:
        parent = int(_status(entry, "PPid"))
        while parent > 1:
            if os.stat(f"/proc/{parent}/ns/pid").st_ino == own:
                return True
            parent = int(_status(Path(f"/proc/{parent}"), "PPid"))
    except (OSError, ValueError):
        pass
    return False


def cgroups() -> Iterable[Path]:
    """Yield every cgroup folder of every mounted hierarchy, parents first."""
    for folder, names, _ in os.walk(CGROUPS):
        for name in names:
            yield Path(folder, name)


def remove_cgroups(folders: set[Path], seconds: float = 10) -> None:
    """Remove cgroups, children first; the kernel lets one go only some moments after its last process."""

    def gone() -> bool:
        for folder in sorted(folders, key=lambda path: -len(path.parts)):
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return False
        return True

    wait_for(f"cgroups left: {sorted(map(str, folders))}", gone, seconds)
