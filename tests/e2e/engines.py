"""Real engines, each started by the tests in a `World` with sockets, state and images of its own."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from world import World, wait_for, which

if TYPE_CHECKING:
    import subprocess

    from images import Image


CONFIG = "/run/data/urunc.toml"


def configured(program: Path, folder: Path, name: str) -> Path:
    """Return a program that is this one, with the configuration that a test writes into the world as CONFIG."""
    made = folder / name
    made.write_text(f'#!/bin/sh\nexport URUNC_CONFIG_FILE={CONFIG}\nexec {program} "$@"\n')
    made.chmod(0o755)
    return made


class Docker:
    """Debian's dockerd (which starts its containerd), with `urunc` registered beside `runc`.

    `urunc-own` is urunc with a configuration of the test's own.
    """

    def __init__(self, world: World, runtime: Path) -> None:
        self.world = world
        self.socket = "unix:///run/docker.sock"
        self.client = which("docker") or "docker"
        self.daemon = world.start(
            "dockerd",
            which("dockerd") or "dockerd",
            f"--host={self.socket}",
            "--data-root=/run/data/docker",
            "--exec-root=/run/docker",
            "--pidfile=/run/docker.pid",
            f"--cgroup-parent=/{world.cgroup}",
            f"--add-runtime=urunc={runtime}",
            f"--add-runtime=urunc-own={configured(runtime, world.logs, 'urunc-own')}",
            "--bip=10.88.77.1/24",
            "--debug",
        )
        wait_for("dockerd answers", self._answers, 60)

    def _answers(self) -> bool:
        assert self.daemon.poll() is None, f"dockerd ended: see {self.world.logs}/dockerd.log"
        return self("version", check=False).returncode == 0

    def __call__(self, *argv: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `docker <argv>`."""
        return self.world.run(self.client, f"--host={self.socket}", *argv, check=check, timeout=timeout)

    def load(self, image: Image, folder: Path) -> str:
        """Make the image known; return its name."""
        self("load", "--input", str(image.write(folder / "image.tar")))
        return image.name

    def remove_all(self) -> None:
        """Remove every container, as a test's end does whatever the test did."""
        names = self("ps", "--all", "--quiet").stdout.split()
        if names:
            self("rm", "--force", "--volumes", *names)

    def keeps(self, kind: str, item: str) -> bool:
        """Whether Docker itself keeps this, for its next container."""
        return (
            (kind == "links" and item.startswith("br-"))
            or (kind == "cgroups" and item.endswith(self.world.cgroup))
            or (kind == "files" and item.endswith("/moby"))
        )

    def inspect(self, container: str) -> dict[str, Any]:
        """Return `docker inspect` of one container."""
        found: dict[str, Any] = json.loads(self("inspect", container).stdout)[0]
        return found

    def wait_log(self, container: str, text: str, seconds: float = 30) -> str:
        """Wait until the container's log holds `text`; return the whole log."""

        def look() -> str | None:
            done = self("logs", container)
            whole = done.stdout + done.stderr
            return whole if text in whole else None

        try:
            return str(wait_for(f"`{text}` in the log of {container}", look, seconds))
        except AssertionError as failure:
            done = self("logs", container)
            raise AssertionError(f"{failure}\n{done.stdout}{done.stderr}") from None


class Containerd:
    """Debian's containerd, driven by `ctr`, whose `--runc-binary` names the runtime under test."""

    def __init__(self, world: World, runtime: Path) -> None:
        self.world = world
        self.runtime = runtime
        self.socket = "/run/containerd-test/containerd.sock"
        self.namespace = world.cgroup  # ctr puts a container's cgroup below a folder of this name
        self.daemon = self._start()
        wait_for("containerd answers", self._answers, 60)

    def _start(self) -> subprocess.Popen[bytes]:
        config = self.world.logs / "containerd.toml"
        config.write_text(self.config())
        return self.world.start("containerd", self.program("containerd"), "--config", config)

    def config(self) -> str:
        """Return the daemon's configuration."""
        return CONTAINERD_CONFIG.format(socket=self.socket)

    def program(self, name: str) -> str:
        """Return the path of `containerd` or `ctr`."""
        return which(name) or name

    def _answers(self) -> bool:
        assert self.daemon.poll() is None, f"containerd ended: see {self.world.logs}/containerd.log"
        return self("version", check=False).returncode == 0

    def __call__(self, *argv: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `ctr <argv>`."""
        return self.world.run(*self.ctr(*argv), check=check, timeout=timeout)

    def ctr(self, *argv: str) -> list[str]:
        """Return the command line of `ctr <argv>`."""
        return [self.program("ctr"), f"--address={self.socket}", f"--namespace={self.namespace}", *argv]

    def load(self, image: Image, folder: Path) -> str:
        """Make the image known; return the name that ctr gives it."""
        self("image", "import", str(image.write(folder / "image.tar")))
        return f"docker.io/{image.name}"

    def remove_all(self) -> None:
        """End and remove every task and container."""
        for name in self("container", "ls", "--quiet").stdout.split():
            self.remove(name)

    def remove(self, name: str) -> None:
        """End and remove one container and its task."""
        self("task", "kill", "--signal=KILL", name, check=False)
        self("task", "rm", "--force", name, check=False)
        self("container", "rm", name, check=False)

    def keeps(self, kind: str, item: str) -> bool:
        """Whether containerd itself keeps this, for its next container."""
        return (kind == "cgroups" and item.endswith(self.world.cgroup)) or (
            kind == "files" and item.endswith("/runc/" + self.namespace)
        )

    def task_status(self, container: str) -> str:
        """Return the status in `ctr task ls` in upper case, "" where there is no task."""
        for line in self("task", "ls").stdout.splitlines()[1:]:
            name, _, status = line.split()[:3]
            if name == container:
                return status
        return ""


CONTAINERD_CONFIG = """version = 2
root = "/run/data/containerd"
state = "/run/containerd-test"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]

[grpc]
address = "{socket}"
"""


class Podman:
    """Debian's podman: no daemon, conmon beside every container, the network by its own helper before create."""

    def __init__(self, world: World, runtime: Path | str) -> None:
        self.world = world
        self.runtime = runtime
        self.config = world.logs / "containers.conf"
        # No CAP_SYS_RESOURCE on a build machine: podman's default limits would be raised in vain.
        self.config.write_text(
            '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=30000:30000"]\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            '[network]\nnetwork_config_dir = "/run/data/podman-networks"\n'
        )
        self("info", timeout=60)

    def __call__(self, *argv: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `podman <argv>`."""
        return self.world.run(*self.argv(*argv), check=check, timeout=timeout, env=self.env)

    def argv(self, *argv: str) -> list[str]:
        """Return the whole command line of `podman <argv>`, to be run with `env`."""
        options = (
            "--root=/run/data/podman",
            "--runroot=/run/podman-test",
            "--tmpdir=/run/libpod-test",
            "--storage-driver=vfs",
        )
        return [which("podman") or "podman", *options, f"--runtime={self.runtime}", *argv]

    @property
    def env(self) -> dict[str, str]:
        """What podman needs in its environment."""
        return {"CONTAINERS_CONF": str(self.config)}

    def using(self, runtime: Path | str) -> Podman:
        """Return this podman with another runtime."""
        other = copy.copy(self)
        other.runtime = runtime
        return other

    def create(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `podman run <argv>` with the container's cgroup below the world's."""
        return self("run", f"--cgroup-parent=/{self.world.cgroup}", *argv, check=check)

    def load(self, image: Image, folder: Path) -> str:
        """Make the image known; return its name."""
        self("load", "--input", str(image.write(folder / "image.tar")))
        return f"docker.io/{image.name}"

    def remove_all(self) -> None:
        """Remove every container."""
        self("rm", "--all", "--force", "--time=0")

    def keeps(self, kind: str, item: str) -> bool:
        """Whether podman itself keeps this, for its next container."""
        return (
            item == "/run/netns"
            or item.startswith("cni-podman")
            or item.endswith("/conmon")
            or (kind == "cgroups" and item.endswith(self.world.cgroup))
        )
