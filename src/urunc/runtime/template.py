"""The config.json that `urunc spec` writes: a unikernel with namespaces of its own and no network."""

from __future__ import annotations

import os

from ..errors import HostError, UsageError, reason
from ..jsonio import indented
from ..oci.annotations import PREFIX
from ..usage import SPEC_VERSION
from ..vm import choose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MEMORY_BYTES = 512 * 1024 * 1024


def document(*, guest: str, monitor: str, kernel: str, initrd: str, user_namespace: bool) -> dict[str, Any]:
    """Return a config.json. `kernel` and `initrd` are paths in the rootfs, `initrd` "" for none. Raises UsageError."""
    if not choose.supports(guest, monitor):
        pairs = ", ".join(f"{row.guest} on {row.monitor}" for row in choose.matrix())
        raise UsageError(f"guest `{guest}` on monitor `{monitor}` is not supported", hint=f"choose of: {pairs}")
    namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    linux: dict[str, Any] = {
        "resources": {"devices": [{"allow": False, "access": "rwm"}], "memory": {"limit": _MEMORY_BYTES}},
    }
    if user_namespace:
        namespaces.append("user")
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    linux["namespaces"] = [{"type": kind} for kind in namespaces]
    keys = {"unikernelType": guest, "hypervisor": monitor, "binary": kernel, "initrd": initrd}
    return {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": [],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "urunc",
        "annotations": {PREFIX + key: value for key, value in keys.items() if value},
        "linux": linux,
    }


def write(bundle: str, data: dict[str, Any]) -> None:
    """Write config.json into the bundle. Raises HostError; a file that is there already stays as it is."""
    path = f"{bundle}/config.json"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise HostError(f"`{path}` exists already", hint="remove it, or give another folder with --bundle") from None
    except OSError as error:
        raise HostError(f"cannot write `{path}`: {reason(error)}") from None
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(indented(data, "    ") + "\n")
    except OSError as error:
        os.unlink(path)  # half of it would be in the way of the next attempt
        raise HostError(f"cannot write `{path}`: {reason(error)}") from None
