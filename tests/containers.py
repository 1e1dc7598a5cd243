"""Containers' records, for the tests of what reads them."""

from __future__ import annotations

import os
from typing import Any

from urunc.linux import proc
from urunc.runtime.store import Container

NAME = "web"


def container(**fields: Any) -> Container:
    """Return a record that says little beside `fields`."""
    base = Container(
        id=NAME,
        oci_version="1.0.2",
        bundle="/b",
        rootfs="/r",
        created="",
        guest="unikraft",
        monitor="qemu",
        boot_id=proc.boot_id(),
    )
    return base.replace(**fields)


def process(pid: int = 0) -> dict[str, int]:
    """Return the fields that name a process, the caller's own by default."""
    pid = pid or os.getpid()
    return {"pid": pid, "start_time": proc.start_time(pid) or 0}
