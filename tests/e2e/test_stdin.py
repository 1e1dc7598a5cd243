"""The standard streams of a Linux guest by every engine's `run -i`: all of the input and its end, all of the output."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread

import images
import pytest
from engines import Containerd, Docker, Podman
from shims import write_entry
from test_linux import image as linux_image

from world import wait_for

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

NAME = "test/reader:1"
DATA = os.urandom(3 << 20) + b"\x03\x04\r\n\0"
COUNT = "busybox wc -c; sleep 0.3; busybox wc -c"
Feed = Callable[[str, bytes], tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def reader(runtime: Path) -> images.Image:
    """An image with busybox."""
    if runtime.name == "runc":
        pytest.skip("runc has no unikernels")
    return linux_image(NAME, {})


def result(argv: Sequence[str | Path], data: bytes, env: dict[str, str] | None = None) -> tuple[bytes, bytes]:
    """Run a client with this input; return its output and error."""
    done = subprocess.run(
        argv, input=data, capture_output=True, check=True, timeout=60, env={**os.environ, **(env or {})}
    )
    return done.stdout, done.stderr


def docker_run(engine: Docker, folder: Path) -> Feed:
    client = (engine.client, f"--host={engine.socket}", "run", "--rm", "-i", "--runtime=urunc", "--memory=320m", NAME)
    return lambda script, data: result(engine.world.argv((*client, "sh", "-c", script)), data)


def podman_run(engine: Podman, folder: Path) -> Feed:
    options = ("--rm", "-i", "--memory=320m", f"--cgroup-parent=/{engine.world.cgroup}")
    argv = engine.argv("run", *options, f"docker.io/{NAME}", "sh", "-c")
    return lambda script, data: result(engine.world.argv((*argv, script)), data, engine.env)


def ctr_run(engine: Containerd, folder: Path, by: str) -> Feed:
    ctr = (engine.program("ctr"), f"--address={engine.socket}", f"--namespace={engine.namespace}")
    argv = (*ctr, "run", "--rm", by, "--memory-limit", str(320 << 20), f"docker.io/{NAME}", "reader", "sh", "-c")

    def run(script: str, data: bytes) -> tuple[bytes, bytes]:
        """`ctr` tells nobody of an end of its input that it sees before the task is created, by runc's shim too."""
        source, sink = os.pipe()
        pipe = subprocess.PIPE
        client = subprocess.Popen(engine.world.argv((*argv, script)), stdin=source, stdout=pipe, stderr=pipe)
        os.close(source)

        def write() -> None:
            with open(sink, "wb") as file:
                file.write(data)
                file.flush()
                wait_for("the task runs", lambda: engine.task_status("reader") == "RUNNING")

        writer = Thread(target=write)
        writer.start()
        try:
            out, error = client.communicate(timeout=60)
        finally:
            client.kill()
            client.wait()
            writer.join()
        assert client.returncode == 0, error
        return out, error

    return run


def binary_run(engine: Containerd, folder: Path) -> Feed:
    return ctr_run(engine, folder, f"--runc-binary={engine.runtime}")


def shim_run(engine: Containerd, folder: Path) -> Feed:
    return ctr_run(engine, folder, f"--runtime={write_entry(folder)}")


@pytest.fixture(params=[docker_run, podman_run, binary_run, shim_run], ids=["docker", "podman", "binary", "shim"])
def feed(request: pytest.FixtureRequest, reader: images.Image, tmp_path: Path) -> Feed:
    """Run a guest by an engine, with a line of shell and its input; return what it prints."""
    name = {docker_run: "docker", podman_run: "podman"}.get(request.param, "containerd")
    engine = request.getfixturevalue(name)
    engine.load(reader, tmp_path)
    run: Feed = request.param(engine, tmp_path)
    return run


def test_it_ends(feed: Feed) -> None:
    """As in `printf 'a\\0b' | docker run -i`. After the end there is no more."""
    assert feed(COUNT, b"a\0b")[0].split() == [b"3", b"0"]


def test_every_octet_comes_and_goes(feed: Feed) -> None:
    assert feed("sleep 0.3; cat", DATA)[0] == DATA


def test_an_empty_one_ends(feed: Feed) -> None:
    assert feed(COUNT, b"")[0].split() == [b"0", b"0"]


def test_output_and_error_are_apart(feed: Feed) -> None:
    out, error = feed("echo out; echo error >&2; [ -t 1 ] || [ -t 2 ] || echo none is a terminal", b"")
    assert (out, error) == (b"out\nnone is a terminal\n", b"error\n")


def test_a_client_may_go_and_another_come(docker: Docker, reader: images.Image, tmp_path: Path) -> None:
    """The input of `run --detach -i` stays open while nobody is attached, and belongs to each client in turn."""
    docker.load(reader, tmp_path)
    script = "while read a; do echo got $a; done; echo end"
    options = ("--detach", "-i", "--name=reader", "--runtime=urunc", "--memory=320m")
    docker("run", *options, NAME, "sh", "-c", script)
    for word in ("one", "two"):
        attach = docker.world.argv((docker.client, f"--host={docker.socket}", "attach", "--sig-proxy=false", "reader"))
        client = subprocess.Popen(attach, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert client.stdin is not None
        client.stdin.write(word.encode() + b"\n")
        client.stdin.flush()
        wait_for(word, lambda word=word: f"got {word}" in docker("logs", "reader").stdout, 60)
        client.kill()
        client.wait()
        client.stdin.close()
    assert docker.inspect("reader")["State"]["Running"]
    assert "end" not in docker("logs", "reader").stdout
