"""What tests may leave on the machine: programs, links, mounts, cgroups, network namespaces, urunc's state."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

MARK = "URUNC_TEST_SESSION"  # set in the environment of all that the tests start

# Nobody but the tests starts these. Whatever else is left has the mark.
PROGRAMS = (
    "qemu-system",
    "solo5-",
    "firecracker",
    "runc",
    "crun",
    "urunc",
    "conmon",
    "dockerd",
    "containerd",
    "podman",
)
FOLDERS = ("/run/urunc", "/run/netns", "/run/docker", "/run/containerd")


def machine() -> dict[str, set[str]]:
    """Return all of it, each as a line for a person."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    links = subprocess.run(["ip", "-o", "-br", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
    return {
        "process": set(_processes()),
        "link": {line.split()[0] for line in links},
        "mount": {line.split(" ")[4] for line in mounts} - {"/run/netns"},  # iproute2 makes it, and keeps it
        "cgroup": set(_cgroups()),
        "file": {str(path) for folder in FOLDERS for path in Path(folder).glob("*") if path.name != ".cache"},
    }


def _cgroups() -> list[str]:
    """Return the cgroups at the top of each hierarchy, and every one that is named after urunc."""
    top = Path("/sys/fs/cgroup")
    deep = top.glob("*/*/") if not (top / "cgroup.procs").exists() else top.glob("*/")
    named = (folder for folder, _, _ in os.walk(top) if "urunc" in folder)
    mine = f"urunc-test-{os.getpid()}-"  # a world's; those of another run are not this one's to judge
    return [folder for folder in (*map(str, deep), *named) if "urunc-test-" not in folder or mine in folder]


def _processes() -> list[str]:
    found = []
    mark = f"{MARK}={os.environ.get(MARK, '')}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            ours = mark in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if ours or any(os.path.basename(word).startswith(PROGRAMS) for word in words[:3]):
            found.append(f"{entry.name} {' '.join(words)[:200]}")
    return found


def more(before: dict[str, set[str]]) -> list[str]:
    """Return what is there now and was not before."""
    return sorted(f"{kind} {item}" for kind, items in machine().items() for item in items - before[kind])
