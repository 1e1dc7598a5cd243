"""The monitors themselves take the command lines: real QEMU and Solo5, without a sandbox around them."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from urunc.oci.app import App
from urunc.runtime import host
from urunc.vm import elf, guests, monitors
from urunc.vm.machine import Boot, Disk, Host, Machine, Network, Root
from vmcases import make_context
from world import which

SECONDS = 60


def inspect(kernel: Path):
    data = kernel.read_bytes()
    return elf.inspect(lambda offset, length: data[offset : offset + length], kernel.name)


def build(guest: str, monitor: str, kernel: Path, *args: str, model: str = "", **fields: object) -> Machine:
    can = monitors.load(monitor).CAPABILITIES
    context = make_context(guest, inspect(kernel), model)
    app = App(guest=guest, monitor=monitor, kernel="/kernel", args=args)
    boot = guests.load(guest).boot(app, Network(), Root(), can, context)
    memory = max(can.min_memory_mib, boot.min_memory_mib, 16)
    values = {"boot": boot, "memory_mib": memory, "model": model, "kernel": context.kernel, **fields}
    return Machine(name="boots", arch="x86_64", **values)  # type: ignore[arg-type]


def run(machine: Machine, monitor: str, kernel: Path, folder: Path, disk: Path | None = None) -> tuple[int, str]:
    """Run the monitor to its end; return its status and what the guest wrote."""
    module = monitors.load(monitor)
    module.check(machine)
    binary = which(dict(module.CAPABILITIES.binaries)["x86_64"])
    if binary is None:
        pytest.skip(f"{monitor} is not installed")
    listeners = [socket.socket(socket.AF_UNIX) for _ in range(8)]
    first = max(listener.fileno() for listener in listeners) + 1
    machine = machine.replace(first_fd=first)
    launch = module.launch(machine, Host(binary=str(binary), version=(7, 2)))
    fds = []
    for index, (kind, _, name) in enumerate(what.partition(":") for what in launch.fds):
        if kind in ("fifo", "disk", "read"):
            fd = open_for(machine, kind, name, folder)
            if fd != first + index:
                os.dup2(fd, first + index)
                os.close(fd)
        else:
            listeners[index].bind(str(folder / f"{name}.sock"))
            listeners[index].listen(1)
            os.dup2(listeners[index].fileno(), first + index)
        fds.append(first + index)
    argv = [word.replace("/disk0", str(disk)) if disk else word for word in launch.argv]
    argv = [
        str(kernel) if word == "/kernel" else word.replace("path=/control", f"path={folder}/control") for word in argv
    ]
    try:
        done = subprocess.run(
            argv, pass_fds=fds, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
        )
    finally:
        for fd in fds:
            os.close(fd)
        for listener in listeners:
            listener.close()
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


def open_for(machine: Machine, kind: str, name: str, folder: Path) -> int:
    """Open what a Launch names: a fifo, which is made, or a disk."""
    if kind == "fifo":
        os.mkfifo(folder / name)
        return os.open(folder / name, os.O_RDWR | os.O_NONBLOCK)
    readonly = kind == "read" or next(disk.readonly for disk in machine.disks if disk.path == name)
    return os.open(name, os.O_RDONLY if readonly else os.O_RDWR)


@pytest.mark.parametrize("model", ["q35", "microvm"])
def test_qemu(model: str, testguest: Path, tmp_path: Path) -> None:
    machine = build("unikraft", "qemu", testguest, "app", "a, b", "exit", "0", model=model)
    status, output = run(machine.replace(vcpus=2), "qemu", testguest, tmp_path)
    assert status == 0, output
    assert f"cmdline: {machine.boot.command_line}" in output
    assert "memory: 16 MiB" in output


def test_qemu_reports_a_failure(testguest: Path, tmp_path: Path) -> None:
    machine = build("unikraft", "qemu", testguest, "app", "exit", "3", model="q35")
    boot = machine.boot.replace(exit_device=True, panic_device=True, control=True)
    status, output = run(machine.replace(boot=boot), "qemu", testguest, tmp_path)
    assert status == 3, output


def test_qemu_reports_a_panic(testguest: Path, tmp_path: Path) -> None:
    boot = Boot(command_line="panic", panic_device=True)
    machine = build("unikraft", "qemu", testguest, "app", model="q35").replace(boot=boot)
    status, output = run(machine, "qemu", testguest, tmp_path)
    assert status == 1, output


@pytest.mark.parametrize("model", ["q35", "microvm"])
def test_qemu_gives_disks(model: str, testguest: Path, tmp_path: Path) -> None:
    disk = tmp_path / "a,b.img"  # never such a path in a container, but the option's syntax is
    disk.write_bytes(b"hello disk".ljust(1024 * 1024, b"\0"))
    machine = build("unikraft", "qemu", testguest, "app", "exit", "0", model=model)
    machine = machine.replace(disks=(Disk(path=str(disk), readonly=True),))
    status, output = run(machine, "qemu", testguest, tmp_path)
    assert status == 0, output
    assert "disk0: 2048 sectors, read-only, first bytes 68 65 6c 6c 6f" in output


@pytest.fixture(scope="session")
def solo5_guests() -> Path:
    folder = Path(os.environ.get("URUNC_TEST_GUESTS", "/nonexistent")) / "solo5"
    if not folder.is_dir():
        pytest.skip("URUNC_TEST_GUESTS does not name a folder with Solo5's test guests")
    return folder


@pytest.fixture(params=["spt", "hvt"])
def tender(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name: str = request.param
    if monitors.load(name).CAPABILITIES.kvm == "required" and host.kvm_state(str(tmp_path)) == "none":
        pytest.skip("there is no usable /dev/kvm")
    return name


def test_solo5_hello(tender: str, solo5_guests: Path, tmp_path: Path) -> None:
    kernel = solo5_guests / f"test_hello.{tender}"
    status, output = run(build("mirage", tender, kernel, "Hello_Solo5"), tender, kernel, tmp_path)
    assert status == 0, output
    assert "Command line is: 'Hello_Solo5'" in output
    assert "SUCCESS" in output


def test_solo5_block(tender: str, solo5_guests: Path, tmp_path: Path) -> None:
    kernel, disk = solo5_guests / f"test_blk.{tender}", tmp_path / "disk"
    disk.write_bytes(bytes(1024 * 1024))
    machine = build("mirage", tender, kernel, disks=(Disk(path="/disk0"),))
    status, output = run(machine, tender, kernel, tmp_path, disk)
    assert status == 0, output
    assert "SUCCESS" in output


def test_solo5_on_qemu(solo5_guests: Path, tmp_path: Path) -> None:
    kernel = solo5_guests / "test_hello.virtio"
    machine = build("mirage", "qemu", kernel, "Hello_Solo5", model="q35", memory_mib=32)
    status, output = run(machine, "qemu", kernel, tmp_path)
    assert status == 0, output
    assert "SUCCESS" in output
