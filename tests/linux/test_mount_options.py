"""A mount's options, taken apart."""

from __future__ import annotations

import pytest

from urunc.linux import libc
from urunc.linux.mount_options import MountOptions


@pytest.mark.parametrize(
    ("options", "flags", "propagation", "data"),
    [
        ([], 0, 0, []),
        (["rbind", "ro"], libc.MS_BIND | libc.MS_REC | libc.MS_RDONLY, 0, []),
        (["ro", "rw"], 0, 0, []),
        (["nosuid", "nodev", "noexec"], libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC, 0, []),
        (["rprivate", "bind"], libc.MS_BIND, libc.MS_PRIVATE | libc.MS_REC, []),
        (["shared", "private"], 0, libc.MS_PRIVATE, []),
        (["index=off", "workdir=/w", "lowerdir=/a:/b"], 0, 0, ["index=off", "workdir=/w", "lowerdir=/a:/b"]),
    ],
)
def test_options(options: list[str], flags: int, propagation: int, data: list[str]) -> None:
    parsed = MountOptions(options)
    assert (parsed.flags, parsed.propagation, parsed.data, parsed.loop) == (flags, propagation, data, False)


def test_a_loop_device_is_asked_for() -> None:
    parsed = MountOptions(["loop", "nosuid"])
    assert (parsed.flags, parsed.data, parsed.loop) == (libc.MS_NOSUID, [], True)
