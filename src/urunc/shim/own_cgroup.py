"""The cgroup of the shim itself, where containerd's configuration names one (ShimCgroup).

So what the shims of a host take can be counted and limited.
"""

from __future__ import annotations

import os

from ..errors import HostError
from ..linux import cgroup, cgroup_layout


def join(path: str) -> None:
    """Put this process into the cgroup, on v1 into each hierarchy's that has it. Raises HostError, KernelError.

    As containerd's own shim does, which takes one that is there, and makes none.
    """
    trees = cgroup_layout.detect().hierarchies
    paths = {name: f"{tree.mountpoint}/{path.strip('/')}" for name, tree in trees.items()}
    there = {name: folder for name, folder in paths.items() if os.path.isdir(folder)}
    if not there:
        raise HostError(f"cannot find the shim's cgroup `{path}`", hint="make it before containerd starts a shim")
    cgroup.join(there, os.getpid())
