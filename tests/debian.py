"""A real Debian as a guest's root: bash, dpkg, apt, perl and the kernel's package, as debootstrap installed them.

`scripts/debian-root` makes the tree; URUNC_TEST_DEBIAN names it. It is not written to.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bundles import Bundle

VARIABLE = "URUNC_TEST_DEBIAN"
KERNEL = "/vmlinuz"  # the link that Debian's package makes
PACKAGE = "/opt/greeting.deb"
MEMORY = 320 << 20
ANNOTATIONS = {"unikernelType": "linux", "hypervisor": "qemu", "binary": KERNEL, "mountRootfs": "true"}

CONTROL = """Package: greeting
Version: 1.0
Architecture: all
Maintainer: tests <tests@example.org>
Depends: perl-base
Description: says hello
"""


def want_tree() -> Path:
    """Return the tree; skip where there is none."""
    tree = os.environ.get(VARIABLE)
    if not tree:
        pytest.skip(f"{VARIABLE} names no root of Debian: see scripts/debian-root")
    return Path(tree)


def make_disk(disk: Path) -> Path:
    """Make an ext4 file system with the tree's content, and a package that is to be installed, in a file."""
    subprocess.run(["mkfs.ext4", "-q", "-d", str(want_tree()), str(disk), "640M"], check=True)
    add_file(disk, PACKAGE, make_package(disk.parent / "greeting"))
    return disk


def make_package(folder: Path) -> Path:
    """Make a package with a program in perl; return the .deb."""
    (folder / "DEBIAN").mkdir(parents=True)
    (folder / "DEBIAN/control").write_text(CONTROL)
    (folder / "usr/bin").mkdir(parents=True)
    program = folder / "usr/bin/greeting"
    program.write_text('#!/usr/bin/perl\nprint "hello from perl $^V\\n";\n')
    program.chmod(0o755)
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", str(folder)], check=True, capture_output=True)
    return folder.with_suffix(".deb")


def add_file(disk: Path, inside: str, source: Path) -> None:
    """Put a file into an unmounted ext4 file system."""
    write = ["debugfs", "-w", "-R", f"write {source} {inside}", str(disk)]
    subprocess.run(write, check=True, capture_output=True)


def annotate(bundle: Bundle) -> Bundle:
    """Make a bundle's rootfs the root of a machine with the kernel that is in it."""
    bundle.annotate(**ANNOTATIONS)
    bundle.config["linux"]["resources"]["memory"] = {"limit": MEMORY}
    bundle.config["process"]["env"].append("LC_ALL=C")
    return bundle
