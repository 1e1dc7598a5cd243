"""Damage to a real ext file system, as a bad disk or an attacker does it: octets changed where they mean something."""

from __future__ import annotations

import random
import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PLACES = ("superblock", "group descriptors", "bitmaps", "inode table", "folders", "journal")
COUNTS = (1, 4, 32, 256)
"""How many octets are changed, in turn."""


def make_disk(tree: Path, disk: Path, size: str) -> Path:
    """Make an ext4 without checksums, by which most damage would be found at once, and without extents."""
    features = "^metadata_csum,^extents,^64bit"
    subprocess.run(["mkfs.ext4", "-q", "-O", features, "-d", str(tree), str(disk), size], check=True)
    return disk


def lose_block(disk: Path, path: str, block: str) -> None:
    """Have a block of a file be one far beyond the disk's end: "0" the first, "DIND" all but the first few."""
    change = ["debugfs", "-w", "-R", f"set_inode_field {path} block[{block}] 4000000000", str(disk)]
    subprocess.run(change, check=True, capture_output=True)


def find_places(disk: Path, *folders: str) -> dict[str, list[range]]:
    """Return where each of PLACES lies in an unmounted file system, in octets; `folders` are some that it has."""
    text = subprocess.run(["dumpe2fs", str(disk)], check=True, capture_output=True, text=True).stdout
    size = int(re.findall(r"Block size: +(\d+)", text)[0])

    def spans(pattern: str) -> list[range]:
        pairs = [(int(first), int(last or first)) for first, last in re.findall(pattern + r"(\d+)(?:-(\d+))?", text)]
        return [range(first * size, (last + 1) * size) for first, last in pairs]

    def blocks(what: str) -> list[range]:
        shown = subprocess.run(
            ["debugfs", "-R", f"blocks {what}", str(disk)], check=True, capture_output=True, text=True
        )
        return [range(int(block) * size, (int(block) + 1) * size) for block in shown.stdout.split()]

    return {
        "superblock": [range(1024, 2048)],
        "group descriptors": spans("Group descriptors at "),
        "bitmaps": spans("bitmap at "),
        "inode table": spans("Inode table at ")[:1],  # where the first files are
        "folders": [span for folder in ("/", *folders) for span in blocks(folder)],
        "journal": blocks("<8>")[:8],
    }


def damage(disk: Path, places: dict[str, list[range]], seed: int) -> str:
    """Change octets in one place, which one and which octets by `seed`; return what was done, to be said."""
    chance = random.Random(seed)  # noqa: S311 - the same for the same seed
    place = PLACES[seed % len(PLACES)]
    count = COUNTS[seed // len(PLACES) % len(COUNTS)]
    with disk.open("r+b") as file:
        for _ in range(count if places[place] else 0):
            span = chance.choice(places[place])
            file.seek(chance.randrange(span.start, span.stop))
            file.write(bytes((chance.randrange(256),)))
    return f"seed {seed}: {count} octets of the {place}"
