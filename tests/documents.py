"""A config.json with everything in it, and one with the least, as data."""

from __future__ import annotations

import copy
from typing import Any

MINIMAL: dict[str, Any] = {"ociVersion": "1.0.2", "process": {"cwd": "/"}, "root": {"path": "rootfs"}}

FULL: dict[str, Any] = {
    "ociVersion": "1.2.1+dev",
    "process": {
        "terminal": True,
        "consoleSize": {"height": 25, "width": 80},
        "user": {"uid": 1, "gid": 2, "umask": 63, "additionalGids": [5, 6]},
        "args": ["/app", "", "a b"],
        "env": ["A=b", "EMPTY="],
        "cwd": "/srv",
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2**64 - 1}],
        "oomScoreAdj": -5,
        "apparmorProfile": "docker-default",
        "selinuxLabel": "system_u",
    },
    "root": {"path": "/images/1", "readonly": True},
    "hostname": "web",
    "domainname": "example",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "data//x/../y", "type": "none", "source": "/srv", "options": ["rbind", "ro"]},
    ],
    "hooks": {
        "prestart": [{"path": "/bin/a", "args": ["a", "b"], "env": ["X=y"], "timeout": 5}],
        "createRuntime": [{"path": "/bin/b"}],
        "createContainer": [{"path": "/bin/c"}],
        "startContainer": [{"path": "/bin/d"}],
        "poststart": [{"path": "/bin/e"}, {"path": "/bin/f"}],
        "poststop": [{"path": "/bin/g", "env": []}],
    },
    "annotations": {"a": "b", "com.urunc.unikernel.binary": "/k"},
    "linux": {
        "namespaces": [{"type": "mount"}, {"type": "network", "path": "/run/netns/x"}, {"type": "pid", "path": ""}],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        "gidMappings": [{"containerID": 0, "hostID": 2000, "size": 10}],
        "timeOffsets": {"monotonic": {"secs": -3}, "boottime": {"secs": 4, "nanosecs": 5}},
        "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 2, "fileMode": 438, "uid": 3, "gid": 4}],
        "cgroupsPath": "/a/b",
        "resources": {
            "memory": {"limit": 1000, "reservation": 900, "swap": -1, "swappiness": 10, "disableOOMKiller": True,
                       "checkBeforeUpdate": True},
            "cpu": {
                "shares": 5, "quota": 50000, "period": 100000, "burst": 1, "realtimeRuntime": 2,
                "realtimePeriod": 3, "cpus": "0-1", "mems": "0", "idle": 1,
            },
            "pids": {"limit": 0},
            "blockIO": {
                "weight": 10,
                "leafWeight": 11,
                "weightDevice": [
                    {"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}, {"major": 8, "minor": 16, "weight": 0},
                ],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 7}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 5}],
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "rxe3": {"hcaObjects": 0}},
            "network": {"classID": 9, "priorities": [{"name": "eth0", "priority": 1}]},
            "unified": {"io.max": "8:0 rbps=1"},
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 10, "minor": -1, "access": "rw"},
            ],
        },
        "rootfsPropagation": "rslave",
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}
            ],
        },
        "sysctl": {"net.core.somaxconn": "1024"},
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
    },
}  # fmt: skip


def with_value(path: str, value: Any) -> dict[str, Any]:
    """Return FULL with the value at a path such as `process.args.1` replaced."""
    data = copy.deepcopy(FULL)
    at: Any = data
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    for part in parents:
        at = at[part]
    at[last] = value
    return data
