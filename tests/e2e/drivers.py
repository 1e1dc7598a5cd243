"""Engines as one sees them who runs one guest: the same few calls, whichever engine does them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from engines import CONFIG, Containerd
from guests import PLAIN, SECOND, VOLUME, VOLUME_PAGE, Guest, Net
from images import Image

from realguests import find_guest
from world import World, wait_for

NAME = "guest"
PORT = 8099
SOURCE = "/run/data/volume"
"""The folder that is a guest's volume."""
FAR = 100
"""A grace period, in seconds, that no test waits for: a stop that comes back was heard."""
TENDERS = ("solo5-spt", "solo5-hvt", "firecracker")
MONITORS = ("qemu-system-", *TENDERS)
STATE = (
    *("/run/urunc", "/run/runc", "/run/docker/runtime-urunc", "/run/docker/runtime-runc", "/run/containerd-test/runc"),
    *("/run/containerd/s", "/run/containerd/runc", "/run/netns"),
)
BRIDGES = ("br-", "cni-", "nerdctl", "docker")


def put_tender(world: World, guest: Guest) -> None:
    """Put the guest's own monitor into the world, and a configuration that names it."""
    copy = world.path("/run/data/tender")
    shutil.copy(find_guest(guest.tender), copy)
    copy.chmod(0o755)
    monitor = guest.tender.rpartition("/")[2].removeprefix("solo5-")
    world.path(CONFIG).write_text(f'[monitors.{monitor}]\npath = "/run/data/tender"\n')


def put_volume(world: World) -> None:
    """Make the folder that a guest has as a volume, with its page alone in it."""
    folder = world.path(SOURCE)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "page").write_text(VOLUME_PAGE)


def addresses(world: World) -> list[str]:
    """Return the global addresses of the one monitor's network namespace as a URL has them.

    Those of the interface with the default route come first, and of several such those of the lower name.
    """
    programs = ((pid, command.split()[0].rpartition("/")[2]) for pid, command in world.processes())
    [monitor] = [pid for pid, program in programs if program.startswith(MONITORS) or program == "tender"]

    def ip(*argv: str) -> list[Any]:
        found: list[Any] = json.loads(world.run("nsenter", f"--target={monitor}", "--net", "ip", "-j", *argv).stdout)
        return found

    default = [route["dev"] for family in ("-4", "-6") for route in ip(family, "route", "show", "default")]
    links = [link for link in ip("address", "show", "scope", "global") if link.get("addr_info")]
    links.sort(key=lambda link: (link["ifname"] not in default, link["ifname"]))
    found = [one for link in links for one in link["addr_info"] if one]
    return [f"[{one['local']}]" if one["family"] == "inet6" else one["local"] for one in found]


class Driver:
    """An engine, and in it the container `guest`."""

    world: World
    restarts = True
    """Whether a stopped container can be started again."""

    def load(self, image: Image, folder: Path) -> str:
        """Make the image known, by the engine's own means where it builds images; return its name."""
        raise NotImplementedError

    def start(self, guest: Guest, image: str) -> None:
        """Start the guest."""
        raise NotImplementedError

    def console(self) -> str:
        """Return what the guest has written."""
        raise NotImplementedError

    def has_ended(self) -> bool:
        """Return whether the container has."""
        raise NotImplementedError

    def status(self) -> int:
        """Return the exit status of a container that has ended."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop it, with more time than a test has."""
        raise NotImplementedError

    def again(self) -> None:
        """Start the stopped container again."""
        raise NotImplementedError

    def remove(self) -> None:
        """Remove it, whatever became of it."""
        raise NotImplementedError

    def keeps(self, kind: str, item: str) -> bool:
        """Return whether the engine itself keeps this, for its next container."""
        raise NotImplementedError

    def held(self) -> set[tuple[str, str]]:
        """Return what the world holds of containers."""
        now = self.world.snapshot(*STATE)
        return {
            (kind, item)
            for kind, items in now.items()
            for item in items
            if not self.keeps(kind, item) and not (kind == "links" and item.startswith(BRIDGES))
        }


class Verbs(Driver):
    """What Docker has taught Podman and nerdctl: `create`, `run`, `logs`, `inspect` and so on.

    `runtimes` are the options of `create` for the runtime, and for the one with a test's configuration; `build` makes
    an image. Where the runtime is an option of the whole command, `before` has the latter. With `connects` a second
    network is connected to what has been made; with `names` each interface is named, whose names would else be chance.
    """

    def __init__(
        self,
        engine: Any,
        do: Callable[..., CompletedProcess[str]],
        runtimes: tuple[tuple[str, ...], tuple[str, ...]],
        build: Callable[[Verbs, Image, Path], str],
        *,
        before: tuple[str, ...] = (),
        connects: bool = False,
        names: bool = False,
    ) -> None:
        self.engine, self.world, self.do, self.runtimes = engine, engine.world, do, runtimes
        self.build, self.before, self.connects, self.names = build, before, connects, names
        self.made: set[str] = set()

    def load(self, image: Image, folder: Path) -> str:
        """Build the image."""
        return self.build(self, image, folder)

    def network(self, number: int, net: Net) -> str:
        """Make the network where it is not there; return the option that gives it, as the interface of that number."""
        if net.name not in self.made:
            options = [f"--subnet={subnet}" for subnet in net.subnets]
            if net.fixed:
                gateway = net.fixed.rpartition(".")[0] + ".1"
                options += [f"--gateway={gateway}", f"--ip-range={net.fixed}/32"]
            if len(net.subnets) > 1:
                options.append("--ipv6")
            self.do("network", "create", *options, net.name)
            self.made.add(net.name)
        return f"--network={net.name}:interface_name=eth{number}" if self.names else f"--network={net.name}"

    def start(self, guest: Guest, image: str) -> None:
        """Create it at its networks, and start it."""
        options = [*self.runtimes[bool(guest.tender)], f"--name={NAME}", f"--memory={guest.memory}"]
        if guest.tender:
            put_tender(self.world, guest)
        if guest.port:
            options.append(f"--publish={PORT}:{guest.port}")
        if guest.volume:
            put_volume(self.world)
            options.append(f"--volume={SOURCE}:{VOLUME}:{guest.volume}")
        networks = [self.network(number, net) for number, net in enumerate(guest.networks) if net != PLAIN]
        first = networks[:1] if self.connects else networks
        before = self.before if guest.tender else ()
        self.do(*before, "create", *options, *first, image, *guest.command)
        if self.connects and SECOND in guest.networks:
            self.do("network", "connect", SECOND.name, NAME)
        self.do("start", NAME)

    def console(self) -> str:
        """Return what the engine's log has."""
        done = self.do("logs", NAME)
        return done.stdout + done.stderr

    def _show(self, form: str) -> str:
        return self.do("inspect", f"--format={form}", NAME).stdout.strip()

    def has_ended(self) -> bool:
        """Return whether it has exited."""
        return self._show("{{.State.Status}}") == "exited"

    def status(self) -> int:
        """Return what `inspect` says."""
        return int(self._show("{{.State.ExitCode}}"))

    def stop(self) -> None:
        """Stop it."""
        self.do("stop", f"--time={FAR}", NAME)

    def again(self) -> None:
        """Start it."""
        self.do("start", NAME)

    def remove(self) -> None:
        """Remove it."""
        self.do("rm", "--force", NAME, check=False)

    def keeps(self, kind: str, item: str) -> bool:
        """As the engine."""
        return bool(self.engine.keeps(kind, item)) or item == "/run/containerd/s"


DOCKERFILE = """FROM scratch
ADD layer.tar /
CMD {command}
"""


def by_building(driver: Verbs, image: Image, folder: Path) -> str:
    """`build`, of a file of three lines."""
    context = folder / "context"
    context.mkdir()
    (context / "layer.tar").write_bytes(image.layer())
    (context / "Dockerfile").write_text(DOCKERFILE.format(command=json.dumps(image.config["Cmd"])))
    driver.do("build", "--quiet", f"--tag={image.name}", str(context))
    return image.name


def by_importing(driver: Verbs, image: Image, folder: Path) -> str:
    """`import`, of the layer."""
    layer = folder / "layer.tar"
    layer.write_bytes(image.layer())
    driver.do("import", f"--change=CMD {json.dumps(image.config['Cmd'])}", str(layer), image.name)
    return image.name


def by_loading(driver: Verbs, image: Image, folder: Path) -> str:
    """`load`, of a layout; by `ctr` where a newer nerdctl asks its containerd for what came with 1.7."""
    if " 1.6." in driver.engine("version").stdout:
        driver.engine.load(image, folder)
    else:
        driver.do("load", "--input", str(image.write(folder / "image.tar")))
    return image.name


class Ctr(Driver):
    """`ctr`, which makes no networks: they are made here, in a namespace that it is told of."""

    restarts = False

    def __init__(self, engine: Containerd, runtimes: tuple[str, str]) -> None:
        self.engine, self.world, self.runtimes = engine, engine.world, runtimes

    def load(self, image: Image, folder: Path) -> str:
        """Import it."""
        return self.engine.load(image, folder)

    def start(self, guest: Guest, image: str) -> None:
        """Start it in a namespace of its own."""
        self.world.run("ip", "netns", "add", NAME)
        for number, net in enumerate(guest.networks):
            self._link(number, net)
        if guest.tender:
            put_tender(self.world, guest)
        options = [f"--log-uri=file://{self.log}", f"--with-ns=network:/run/netns/{NAME}"]
        options.append(f"--memory-limit={guest.memory}")
        if guest.volume:
            put_volume(self.world)
            options.append(f"--mount=type=bind,src={SOURCE},dst={VOLUME},options=rbind:{guest.volume}")
        by = self.runtimes[bool(guest.tender)]
        self.engine("run", "--detach", by, *options, image, NAME, *guest.command)

    def _link(self, number: int, net: Net) -> None:
        """Put a veth into the namespace, as an engine does."""
        inside, outside = f"eth{number}", f"to-eth{number}"
        ip = ("ip", "-n", NAME)
        self.world.run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", NAME)
        self.world.run("ip", "link", "set", outside, "up")
        self.world.run(*ip, "link", "set", inside, "up")
        for subnet in net.subnets or ("10.88.80.0/24",):
            prefix, _, length = subnet.partition("/")
            nodad = ("nodad",) if ":" in prefix else ()
            base = prefix if ":" in prefix else prefix.removesuffix("0")
            self.world.run("ip", "address", "add", f"{base}1/{length}", "dev", outside, *nodad)
            self.world.run(*ip, "address", "add", f"{base}2/{length}", "dev", inside, *nodad)
            if net.default:
                self.world.run(*ip, "route", "add", "default", "via", f"{base}1")

    @property
    def log(self) -> str:
        return f"/run/data/{NAME}.log"

    def console(self) -> str:
        """Return the log's file."""
        return self.world.run("cat", self.log).stdout

    def has_ended(self) -> bool:
        """Return whether the task has."""
        return self.engine.task_status(NAME) == "STOPPED"

    def status(self) -> int:
        """Remove the task, which tells."""
        told = re.search(r"exit code (\d+)", self.engine("task", "rm", NAME).stderr)
        return int(told[1]) if told else 0

    def stop(self) -> None:
        """Send TERM, and nothing after it."""
        self.engine("task", "kill", "--signal=TERM", NAME)
        wait_for("the task ends", self.has_ended)

    def remove(self) -> None:
        """Remove container, namespace and log."""
        self.engine.remove_all()
        self.world.run("ip", "netns", "del", NAME, check=False)
        self.world.path(self.log).unlink(missing_ok=True)

    def keeps(self, kind: str, item: str) -> bool:
        """As the engine."""
        return self.engine.keeps(kind, item) or item == "/run/containerd/s"


class Pods(Driver):
    """Kubernetes' interface: a pod of the guest alone."""

    def __init__(self, kubelet: Any, make: Callable[..., Any], handler: Callable[[Any, Guest], str]) -> None:
        self.engine, self.world, self.make, self.handler = kubelet, kubelet.world, make, handler
        self.pod: Any = None
        self.id = ""
        self.guest: tuple[Guest, str] | None = None

    def load(self, image: Image, folder: Path) -> str:
        """Import it; return the name that a test's pod has for it."""
        self.engine.load(image, folder)
        return image.name.removeprefix("test/").removesuffix(":1")

    def start(self, guest: Guest, image: str) -> None:
        """Make the pod, and start the container in it."""
        self.pod = self.make(self.engine, f"of-{guest.name}", handler=self.handler(self.engine, guest))
        self.guest = guest, image
        if guest.volume:
            put_volume(self.world)
        self._start()

    def _start(self) -> None:
        assert self.guest is not None
        guest, image = self.guest
        mount = {"container_path": VOLUME, "host_path": SOURCE, "readonly": guest.volume == "ro"}
        mounts = (mount,) if guest.volume else ()
        self.id = self.pod.start(NAME, image, *guest.command, memory=guest.memory, mounts=mounts)

    def console(self) -> str:
        """Return CRI's log."""
        return str(self.pod.log(NAME))

    def has_ended(self) -> bool:
        """Return whether it has exited."""
        return bool(self.pod.status(self.id)["state"] == 2)

    def status(self) -> int:
        """Return what its status says."""
        return int(self.pod.status(self.id)["exit_code"])

    def stop(self) -> None:
        """Stop it."""
        self.engine.call("StopContainer", container_id=self.id, timeout=FAR)

    def again(self) -> None:
        """Start another, as a kubelet does."""
        self.engine.call("RemoveContainer", container_id=self.id)
        self._start()

    def remove(self) -> None:
        """Remove the pod."""
        if self.pod is not None:
            self.pod.remove()
        self.pod = None

    def keeps(self, kind: str, item: str) -> bool:
        """The namespace's folders."""
        return item == "/run/containerd/s" or item.endswith((self.world.cgroup, "/k8s.io"))
