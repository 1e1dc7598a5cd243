"""Run a test's body in a forked child that stands in namespaces of its own: what it does there, the kernel undoes.

A child in a new user namespace is not the machine's root: its ids are mapped to ones that own nothing.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from urunc.linux import libc, mounts, ns, proc
from urunc.linux.mount_options import MountOptions
from urunc.linux.rtnl import Rtnl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FIRST_ID = 300000
IDS = 65536
OUTSIDE = ("network", "mount")
INSIDE_USER = ("user", "network", "mount")
EITHER = pytest.mark.parametrize("kinds", [OUTSIDE, INSIDE_USER], ids=["root", "userns"])
"""For a body that must be able to run in a user namespace as well."""


def run_in(kinds: Iterable[str], body: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `body` returns in a child in new namespaces of these kinds; a failure there fails here."""
    ready, ready_end = os.pipe()
    go_end, go = os.pipe()
    answer, answer_end = os.pipe()
    child = os.fork()
    if child == 0:
        _be_child(tuple(kinds), ready_end, go_end, answer_end, body, arguments)
    for fd in (ready_end, go_end, answer_end):
        os.close(fd)
    if os.read(ready, 1) == b"u":
        for which in ("uid", "gid"):
            with open(f"/proc/{child}/{which}_map", "w") as file:
                file.write(f"0 {FIRST_ID} {IDS}\n")
    os.write(go, b"g")
    with open(answer, "rb") as file:
        data = file.read()
    os.close(ready)
    os.close(go)
    _, status = os.waitpid(child, 0)
    assert data, f"the child ended without an answer: wait status {status}"
    failed, value = pickle.loads(data)  # noqa: S301  # from our own child
    if failed:
        raise AssertionError(f"in the child:\n{value}")
    return value


def _be_child(
    kinds: tuple[str, ...], ready: int, go: int, answer: int, body: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    try:
        if "user" in kinds:
            ns.unshare(("user",))
        os.write(ready, b"u" if "user" in kinds else b"-")
        os.read(go, 1)
        if "user" in kinds:
            proc.become(0, 0, ())
        ns.unshare(kind for kind in kinds if kind != "user")
        if "mount" in kinds:
            set_propagation("rprivate")
        result = (False, body(*arguments))
    except BaseException:
        result = (True, traceback.format_exc())
    os.write(answer, pickle.dumps(result))
    os._exit(0)


def enter_user_namespace() -> None:
    """Go on as root of a new user namespace, with a mount namespace of its own, that maps this one user."""
    uid, gid = os.getuid(), os.getgid()
    ns.unshare(("user",))
    for name, line in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(line)
    ns.unshare(("mount",))


def ip(*lines: str) -> None:
    """Run `ip -batch` on these lines."""
    _batch("ip", lines)


def run_tc(*lines: str) -> None:
    """Run `tc -batch` on these lines."""
    _batch("tc", lines)


def veth() -> tuple[int, int]:
    """Make a veth pair, both ends up; return the indexes of `eth0` and `peer`."""
    ip(
        "link add eth0 address 02:00:00:00:00:01 type veth peer name peer address 02:00:00:00:00:02",
        "link set eth0 mtu 1400 up",
        "link set peer up",
    )
    with Rtnl() as rtnl:
        indexes = {link.name: link.index for link in rtnl.links()}
    return indexes["eth0"], indexes["peer"]


def _batch(program: str, lines: tuple[str, ...]) -> None:
    done = subprocess.run(
        [program, "-batch", "-"], input="\n".join(lines) + "\n", text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def shown(*argv: str) -> str:
    """Return what a command prints."""
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def bind_file(source: int | str, root_fd: int, target: str, *, readonly: bool = True) -> None:
    """Bind a file or folder at `target` below `root_fd`, making what it stands on. Raises OSError."""
    tree = mounts.clone_tree(source, readonly=readonly)
    try:
        mounts.attach_file(tree, root_fd, target)
    finally:
        os.close(tree)


def set_propagation(option: str, target: str = "/") -> None:
    """Set how mounts at `target` reach other mount namespaces, by mount(8)'s option: `rprivate`, `shared`, .."""
    libc.mount("none", target, None, MountOptions([option]).propagation)


def mount_tmpfs(target: str, options: str = "", flags: int = libc.MS_NOSUID | libc.MS_NODEV) -> None:
    """Mount a tmpfs by path, with MS_* flags. Raises OSError."""
    libc.mount("tmpfs", target, "tmpfs", flags, options)
