"""A kubelet's side of the container runtime interface: containerd's CRI plug-in over gRPC, by our own tables.

Only the messages that the tests need; field numbers are those of runtime.v1's api.proto.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import grpc
import guests
from engines import Containerd
from guests import Net

from urunc.shim.wire import Table, decode, encode
from world import World, wait_for

SERVICE = "/runtime.v1.RuntimeService/"

POD_METADATA = Table("PodSandboxMetadata", (1, "name", "string"), (2, "uid", "string"), (3, "namespace", "string"))
POD_LINUX = Table("LinuxPodSandboxConfig", (1, "cgroup_parent", "string"))
POD = Table(
    "PodSandboxConfig",
    (1, "metadata", "message", POD_METADATA),
    (2, "hostname", "string"),
    (3, "log_directory", "string"),
    (6, "labels", "map"),
    (7, "annotations", "map"),
    (8, "linux", "message", POD_LINUX),
)
METADATA = Table("ContainerMetadata", (1, "name", "string"))
IMAGE = Table("ImageSpec", (1, "image", "string"), (18, "user_specified_image", "string"))
RESOURCES = Table("LinuxContainerResources", (3, "cpu_shares", "int64"), (4, "memory_limit_in_bytes", "int64"))
LINUX = Table("LinuxContainerConfig", (1, "resources", "message", RESOURCES))
MOUNT = Table("Mount", (1, "container_path", "string"), (2, "host_path", "string"), (3, "readonly", "bool"))
CONTAINER = Table(
    "ContainerConfig",
    (1, "metadata", "message", METADATA),
    (2, "image", "message", IMAGE),
    (3, "command", "string", "repeated"),
    (4, "args", "string", "repeated"),
    (7, "mounts", "message", "repeated", MOUNT),
    (10, "annotations", "map"),
    (11, "log_path", "string"),
    (15, "linux", "message", LINUX),
)
NUMBER = Table("UInt64Value", (1, "value", "uint64"))
CPU = Table("CpuUsage", (2, "usage_core_nano_seconds", "message", NUMBER))
MEMORY = Table("MemoryUsage", (2, "working_set_bytes", "message", NUMBER))
ATTRIBUTES = Table("ContainerAttributes", (1, "id", "string"))
STATS = Table(
    "ContainerStats",
    (1, "attributes", "message", ATTRIBUTES),
    (2, "cpu", "message", CPU),
    (3, "memory", "message", MEMORY),
)
STATS_FILTER = Table("ContainerStatsFilter", (2, "pod_sandbox_id", "string"))
STATUS = Table(
    "ContainerStatus", (1, "id", "string"), (3, "state", "enum"), (7, "exit_code", "int32"), (10, "reason", "string")
)
NETWORK = Table("PodSandboxNetworkStatus", (1, "ip", "string"))
POD_STATUS = Table("PodSandboxStatus", (3, "state", "enum"), (5, "network", "message", NETWORK))
CONDITION = Table("RuntimeCondition", (1, "type", "string"), (2, "status", "bool"), (4, "message", "string"))
RUNTIME_STATUS = Table("RuntimeStatus", (1, "conditions", "message", "repeated", CONDITION))
NOTHING = Table("Nothing")
POD_ID = Table("PodId", (1, "pod_sandbox_id", "string"))
ID = Table("Id", (1, "container_id", "string"))

METHODS: dict[str, tuple[Table, Table]] = {
    "Status": (NOTHING, Table("StatusResponse", (1, "status", "message", RUNTIME_STATUS))),
    "RunPodSandbox": (
        Table("RunPodSandboxRequest", (1, "config", "message", POD), (2, "runtime_handler", "string")),
        POD_ID,
    ),
    "PodSandboxStatus": (POD_ID, Table("PodSandboxStatusResponse", (1, "status", "message", POD_STATUS))),
    "StopPodSandbox": (POD_ID, NOTHING),
    "RemovePodSandbox": (POD_ID, NOTHING),
    "CreateContainer": (
        Table(
            "CreateContainerRequest",
            (1, "pod_sandbox_id", "string"),
            (2, "config", "message", CONTAINER),
            (3, "sandbox_config", "message", POD),
        ),
        ID,
    ),
    "StartContainer": (ID, NOTHING),
    "StopContainer": (Table("StopContainerRequest", (1, "container_id", "string"), (2, "timeout", "int64")), NOTHING),
    "RemoveContainer": (ID, NOTHING),
    "ContainerStatus": (ID, Table("ContainerStatusResponse", (1, "status", "message", STATUS))),
    "ContainerStats": (ID, Table("ContainerStatsResponse", (1, "stats", "message", STATS))),
    "ListContainerStats": (
        Table("ListContainerStatsRequest", (1, "filter", "message", STATS_FILTER)),
        Table("ListContainerStatsResponse", (1, "stats", "message", "repeated", STATS)),
    ),
    "ExecSync": (
        Table(
            "ExecSyncRequest", (1, "container_id", "string"), (2, "cmd", "string", "repeated"), (3, "timeout", "int64")
        ),
        Table("ExecSyncResponse", (1, "stdout", "bytes"), (2, "stderr", "bytes"), (3, "exit_code", "int32")),
    ),
    "UpdateContainerResources": (
        Table("UpdateContainerResourcesRequest", (1, "container_id", "string"), (2, "linux", "message", RESOURCES)),
        NOTHING,
    ),
}
RUNNING, EXITED = 1, 2


class Cri:
    """A kubelet's connection."""

    channel: grpc.Channel

    def connect(self, socket: Path) -> None:
        """Connect, and wait until runtime and network are ready."""
        self.channel = grpc.insecure_channel(f"unix:{socket}")
        wait_for("the runtime and its network are ready", self._ready, 60)

    def _ready(self) -> bool:
        try:
            status = self.call("Status")["status"]
        except grpc.RpcError:
            return False
        wanted = [one["status"] for one in status["conditions"] if one["type"] in ("RuntimeReady", "NetworkReady")]
        return wanted == [True, True]

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """Call a method of RuntimeService."""
        takes, gives = METHODS[method]
        stub = self.channel.unary_unary(
            SERVICE + method,
            request_serializer=lambda values: encode(takes, values),
            response_deserializer=lambda data: decode(gives, data),
        )
        answer: dict[str, Any] = stub(values, timeout=60)
        return answer

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()


class Kubelet(Cri, Containerd):
    """A containerd with its CRI plug-in, a CNI bridge and the handler `urunc`."""

    def __init__(self, world: World, runtime: Path, shim: Path) -> None:
        self.shim = shim
        networks = {"cni": [CNI]} | {
            f"cni-{name}": [cni(net, f"cni-{net.name}") for net in nets] for nets, name in NETWORKS.items()
        }
        for name, configs in networks.items():
            folder = world.path(f"/run/data/{name}")
            folder.mkdir(parents=True)
            for number, config in enumerate(configs):
                (folder / f"{number}-bridge.conf").write_text(config)
        super().__init__(world, runtime)
        self.namespace = "k8s.io"
        self.connect(world.path(self.socket))

    def _start(self) -> Any:
        path = f"{self.shim.parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        config = self.world.logs / "containerd.toml"
        handlers = "".join(HANDLER.format(name=name, count=len(nets)) for nets, name in NETWORKS.items())
        config.write_text(CONFIG.format(socket=self.socket, cgroup=self.world.cgroup) + snippet("cri") + handlers)
        return self.world.start("containerd", self.program("containerd"), "--config", config, env={"PATH": path})


def cni(net: Net, bridge: str) -> str:
    """Return the CNI configuration of a bridge with that network."""
    ranges = [
        [{"subnet": subnet} | ({"rangeStart": net.fixed, "rangeEnd": net.fixed} if net.fixed else {})]
        for subnet in net.subnets
    ]
    default = {"10": "0.0.0.0/0", "fd": "::/0"}
    routes = [{"dst": default[subnet[:2]]} for subnet in net.subnets] if net.default else []
    ipam = {"type": "host-local", "dataDir": "/run/data/ipam", "ranges": ranges, "routes": routes}
    made = {
        "cniVersion": "0.4.0",
        "name": net.name,
        "type": "bridge",
        "bridge": bridge,
        "isGateway": True,
        "ipam": ipam,
    }
    return json.dumps(made)


CNI = cni(Net("test", ("10.88.79.0/24",)), "cni-test")
NETWORKS: dict[tuple[Net, ...], str] = {
    (guests.FIRST,): "fixed",
    (guests.FIRST, guests.SECOND): "two",
    (guests.IPV6,): "ipv6",
    (guests.DUAL,): "dual",
}
"""The networks that a handler of its own has, as CNI has no other way to give them to a pod: `urunc-NAME`."""
HANDLER = """
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.urunc-{name}]
runtime_type = "io.containerd.urunc.v2"
pod_annotations = ["com.urunc.*"]
cni_conf_dir = "/run/data/cni-{name}"
cni_max_conf_num = {count}
"""
CONFIG = """version = 2
root = "/run/data/containerd"
state = "/run/containerd-test"
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/test/pause:1"
restrict_oom_score_adj = true
disable_tcp_service = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "/run/data/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.urunc-config]
runtime_type = "io.containerd.urunc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.urunc-config.options]
ConfigPath = "/run/data/urunc.toml"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.urunc-options]
runtime_type = "io.containerd.urunc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.urunc-options.options]
Root = "/run/data/state"
ShimCgroup = "/{cgroup}/shims"

"""


def snippet(name: str, page: str = "containerd.md") -> str:
    """Return a snippet of a page of docs: the indented lines after its mark."""
    lines = (
        (Path(__file__).resolve().parents[2] / "docs" / page)
        .read_text()
        .split(f"<!-- snippet: {name} -->\n")[1]
        .splitlines()
    )
    return "".join(f"{line.strip()}\n" for line in itertools.takewhile(lambda line: line.startswith("    "), lines))
