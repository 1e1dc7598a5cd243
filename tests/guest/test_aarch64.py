"""A Linux guest on aarch64: QEMU's `virt`, emulated, with the command line and boot string that urunc would give it.

The folder that URUNC_TEST_AARCH64 names holds the kernel, its modules, busybox and urunc's init: scripts/aarch64-guest
makes it. Skipped without it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from guest import linux_guest
from urunc.oci.app import App
from urunc.vm import guests, monitors
from urunc.vm.machine import Context, Host, KernelInfo, Machine, Network, Root

pytestmark = pytest.mark.slow

VARIABLE = "URUNC_TEST_AARCH64"
SCRIPT = 'echo "on $(busybox uname -m), $(hostname), $1"; cat /proc/cmdline; exit 7'


@pytest.fixture
def folder() -> Path:
    """What the guest is made of."""
    named = os.environ.get(VARIABLE)
    if not named:
        pytest.skip(f"{VARIABLE} does not name a folder made by scripts/aarch64-guest")
    if shutil.which("qemu-system-aarch64") is None:
        pytest.skip("qemu-system-aarch64 is not installed")
    return Path(named)


def make_machine(init: bytes, first_fd: int) -> Machine:
    kernel = KernelInfo(format="arm64", arch="aarch64")
    can = monitors.load("qemu").CAPABILITIES
    app = App(
        guest="linux",
        monitor="qemu",
        kernel="/kernel",
        args=("/bin/sh", "-c", SCRIPT, "sh", 'a "quoted" word'),
        env=("PATH=/bin",),
    )
    context = Context(arch="aarch64", accel="tcg", kernel=kernel, init=init)
    boot = guests.load("linux").boot(app, Network(hostname="web"), Root(), can, context)
    return Machine(name="web", arch="aarch64", memory_mib=256, kernel=kernel, initrd=True, boot=boot, first_fd=first_fd)


def test_a_linux_guest(folder: Path, tmp_path: Path) -> None:
    kernel = next((folder / "boot").glob("vmlinuz-*"))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "qmp.sock"))
    listener.listen()
    machine = make_machine((folder / "guest/urunc-init").read_bytes(), listener.fileno())
    tail = linux_guest.cpio((file.path, 0o100000 | file.mode, file.content) for file in machine.boot.initrd_tail)
    initrd = tmp_path / "initrd"
    initrd.write_bytes(linux_guest.base_initrd(kernel, folder) + tail)
    for name in ("control.in", "control.out"):
        os.mkfifo(tmp_path / name)
    control = os.open(tmp_path / "control.out", os.O_RDWR | os.O_NONBLOCK)
    launch = monitors.load("qemu").launch(machine, Host(binary="qemu-system-aarch64", version=(7, 2)))
    assert launch.fds == ("listen:qmp", "fifo:control.in", "fifo:control.out")
    inside = {"/kernel": str(kernel), "/initrd": str(initrd)}
    argv = [inside.get(word, word).replace("path=/control", f"path={tmp_path}/control") for word in launch.argv]
    try:
        done = subprocess.run(
            argv,
            pass_fds=(listener.fileno(),),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said = os.read(control, 4096)
    finally:
        os.close(control)
        listener.close()
    assert b'on aarch64, web, a "quoted" word\n' in done.stdout
    assert b"console=ttyAMA0" in done.stdout
    assert said == b"started\nexit 7\n"
