"""The features document (features.md, features-linux.md), made from the tables that the code itself goes by."""

from __future__ import annotations

from .. import __version__
from ..linux import seccomp, seccomp_profile
from ..oci.annotations import PREFIX
from ..oci.parse_linux import CAPABILITIES, NAMESPACES
from ..oci.parse_scheduling import MODE_FLAGS, MODES
from ..oci.spec import Hooks
from ..usage import SPEC_VERSION, find_commit
from ..vm import choose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOUNT_OPTIONS = (
    "acl async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noacl noatime nodev"
    " nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private rbind"
    " relatime remount ro rprivate rshared rslave runbindable rw shared silent slave strictatime suid symfollow sync"
    " unbindable"
)
"""What a mount that urunc can give may say. The recursive attributes (rro and its kin) it cannot give."""


def document() -> dict[str, Any]:
    """Return the features document. It says what this code supports, whatever the host has."""
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": [_camel_case(name) for name in Hooks._fields],
        "mountOptions": _MOUNT_OPTIONS.split(),
        "linux": {
            "namespaces": sorted(NAMESPACES),
            "capabilities": [f"CAP_{name}" for name in CAPABILITIES.split()],
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp_profile.ACTIONS),
                "operators": sorted(seccomp_profile.OPERATORS),
                "archs": sorted(seccomp_profile.ARCHITECTURES),
                "knownFlags": sorted(seccomp.FLAGS),
                "supportedFlags": sorted(seccomp.FLAGS),
            },
            "apparmor": {"enabled": False},
            "selinux": {"enabled": False},
            "memoryPolicy": {"modes": sorted(MODES), "flags": sorted(MODE_FLAGS)},
            "intelRdt": {"enabled": False, "schemata": False, "monitoring": False},
            "mountExtensions": {"idmap": {"enabled": False}},
            "netDevices": {"enabled": True},
        },
        "annotations": _about(),
        "potentiallyUnsafeConfigAnnotations": [PREFIX],
    }


def _about() -> dict[str, str]:
    """Return urunc's version, and the support matrix: for each guest the monitors that run it."""
    about = {"com.urunc.version": __version__, "com.urunc.commit": find_commit() or ""}
    monitors: dict[str, list[str]] = {}
    for row in choose.matrix():
        monitors.setdefault(row.guest, []).append(row.monitor)
    about.update((f"com.urunc.guest.{guest}", " ".join(names)) for guest, names in monitors.items())
    return {key: value for key, value in about.items() if value}


def _camel_case(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
