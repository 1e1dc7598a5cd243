"""OCI bundles and network namespaces for the tests, as an engine would make them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from world import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

    from driver import Cli
    from world import World

PREFIX = "com.urunc.unikernel."
BUSYBOX = Path("/bin/busybox")
APPLETS = ("sh", "echo", "sleep", "cat", "httpd", "ip", "id", "ls", "env", "true", "false", "readlink")

MOUNTS: list[dict[str, Any]] = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance"]},
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
]


class Bundle:
    """A bundle's folder, and its config.json as data until `write`."""

    def __init__(self, folder: Path, args: Sequence[str] = (), *, cgroup: str = "") -> None:
        self.folder = folder
        self.rootfs = folder / "rootfs"
        self.rootfs.mkdir(parents=True)
        self.config: dict[str, Any] = {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": False,
                "user": {"uid": 0, "gid": 0},
                "args": list(args),
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                "cwd": "/",
            },
            "root": {"path": "rootfs"},
            "hostname": "test",
            "mounts": [dict(mount) for mount in MOUNTS],
            "annotations": {},
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
                "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            },
        }
        if cgroup:
            self.config["linux"]["cgroupsPath"] = cgroup

    def write(self) -> Path:
        """Write config.json; return the bundle's folder."""
        (self.folder / "config.json").write_text(json.dumps(self.config, indent=1))
        return self.folder

    def annotate(self, **values: str) -> None:
        """Set annotations by their short keys, such as `unikernelType`."""
        self.config["annotations"].update({PREFIX + key: value for key, value in values.items()})

    def namespace(self, kind: str, path: Path | str | None) -> None:
        """Make the container join the namespace at `path`; None gives it none of that kind."""
        others = [entry for entry in self.config["linux"]["namespaces"] if entry["type"] != kind]
        self.config["linux"]["namespaces"] = others if path is None else [*others, {"type": kind, "path": str(path)}]

    def add_busybox(self, folder: str = "") -> None:
        """Put busybox into a folder of the rootfs, the root itself where none is named."""
        (self.rootfs / folder).mkdir(exist_ok=True)
        shutil.copy(BUSYBOX, self.rootfs / folder / "busybox")

    def hook(self, kind: str, *argv: str, timeout: int | None = None, env: Sequence[str] | None = None) -> None:
        """Add a hook: a path and its arguments after it, as an engine writes them."""
        entry: dict[str, Any] = {"path": argv[0], "args": list(argv)}
        if timeout is not None:
            entry["timeout"] = timeout
        if env is not None:
            entry["env"] = list(env)
        self.config.setdefault("hooks", {}).setdefault(kind, []).append(entry)


def ordinary(folder: Path, *args: str, cgroup: str = "") -> Bundle:
    """Return a bundle for an ordinary container with busybox in it."""
    bundle = Bundle(folder, args or ("sleep", "1000"), cgroup=cgroup)
    for name in ("proc", "dev", "sys", "tmp"):
        (bundle.rootfs / name).mkdir()
    bundle.add_busybox("bin")
    for applet in APPLETS:
        (bundle.rootfs / "bin" / applet).symlink_to("busybox")
    return bundle


def unikernel(
    folder: Path, kernel: Path, *args: str, guest: str = "unikraft", monitor: str = "qemu", cgroup: str = ""
) -> Bundle:
    """Return a bundle for a unikernel: the kernel at `/unikernel/<its name>`, plain annotations."""
    bundle = Bundle(folder, args, cgroup=cgroup)
    (bundle.rootfs / "unikernel").mkdir()
    shutil.copy(kernel, bundle.rootfs / "unikernel" / kernel.name)
    bundle.annotate(unikernelType=guest, hypervisor=monitor, binary=f"/unikernel/{kernel.name}")
    return bundle


class Netns:
    """A network namespace with one end of a veth in it, as a CNI plugin leaves it; the other end has the gateway."""

    def __init__(
        self,
        world: World,
        name: str,
        *,
        ifname: str = "eth0",
        mtu: int = 1500,
        number: int = 1,
        subnet: str = "",
    ) -> None:
        self.world = world
        self.name = name
        self.ifname = ifname
        subnet = subnet or f"10.77.{number}"
        self.address = f"{subnet}.2"
        self.gateway = f"{subnet}.1"
        self.peer = f"peer{number}"
        self.path = f"/run/netns/{name}"
        for command in self._commands(mtu):
            world.run(*command.split())
        wait_for("the link is up", lambda: "UP" in self._ip(f"-br link show dev {ifname}").split())

    def _commands(self, mtu: int) -> Iterator[str]:
        yield f"ip netns add {self.name}"
        yield f"ip link add {self.peer} mtu {mtu} type veth peer name {self.ifname} mtu {mtu} netns {self.name}"
        yield f"ip address add {self.gateway}/24 dev {self.peer}"
        yield f"ip link set {self.peer} up"
        yield f"ip -n {self.name} link set lo up"
        yield f"ip -n {self.name} link set {self.ifname} addrgenmode none"
        yield f"ip -n {self.name} address add {self.address}/24 dev {self.ifname}"
        yield f"ip -n {self.name} link set {self.ifname} up"
        yield f"ip -n {self.name} route add default via {self.gateway}"

    def remember(self) -> None:
        """Take what it holds now as what it must hold at the end."""
        self._before = self.contents()

    def __enter__(self) -> Self:
        self.remember()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Close it. It must hold exactly what was remembered; a test that failed already has said enough."""
        after = self.contents()
        self.close()
        assert kind or after == self._before

    def contents(self) -> list[str]:
        """Return every link, address, route, neighbour, qdisc and filter in the namespace, one a line."""
        kinds = ("-br link", "-br address", "route show table all", "-6 route show table all")
        lines = [line for kind in kinds for line in self._ip(kind).splitlines()]
        lines += self.world.run("ip", "netns", "exec", self.name, "tc", "qdisc").stdout.splitlines()
        filters = ["tc", "filter", "show", "dev", self.ifname, "ingress"]
        lines += self.world.run("ip", "netns", "exec", self.name, *filters, check=False).stdout.splitlines()
        return sorted(line.strip() for line in lines)

    def _ip(self, what: str) -> str:
        return self.world.run("ip", "-n", self.name, *what.split()).stdout

    def close(self) -> None:
        """Remove the veth and the name."""
        self.world.run("ip", "link", "del", self.peer)
        self.world.run("ip", "netns", "del", self.name)


def ping(world: World, address: str) -> bool:
    """Whether the address answers."""
    return world.run("ping", "-c1", "-W1", address, check=False).returncode == 0


def solo5(cli: Cli, make: Callable[..., Bundle], kernel: bytes, monitor: str = "spt") -> Bundle:
    """Return a bundle with a kernel of that content, which is refused, for one of Solo5's tenders.

    No tender is ever started for it, so where there is none another program stands in.
    """
    bundle = make("app")
    if shutil.which(f"solo5-{monitor}") is None:
        cli.config.write_text(f'{cli.config.read_text()}[monitors.{monitor}]\npath = "{BUSYBOX}"\n')
    (bundle.rootfs / "unikernel/solo5").write_bytes(kernel)
    bundle.annotate(unikernelType="mirage", hypervisor=monitor, binary="/unikernel/solo5")
    return bundle
