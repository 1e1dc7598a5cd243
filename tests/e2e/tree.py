"""A `World` inside another Debian's tree: newer engines, monitors and Python than the machine's.

`scripts/newer-engines` makes the tree; URUNC_TEST_TREE names it. It is not written to: an overlay goes with the world.
The checkout and /tmp are seen inside under their own names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

import world
from world import World

VARIABLE = "URUNC_TEST_TREE"
CHECKOUT = Path(__file__).resolve().parents[2]

ENTER = """
set -e
mkdir -p "$PLACE"
mount -t tmpfs tmpfs "$PLACE"
mkdir "$PLACE/upper" "$PLACE/work" "$PLACE/root"
mount -t overlay overlay -o "lowerdir=$TREE,upperdir=$PLACE/upper,workdir=$PLACE/work" "$PLACE/root"
cd "$PLACE/root"
mkdir -p .old "./$CHECKOUT"
for kept in /dev /sys /tmp "$CHECKOUT"; do mount --rbind "$kept" "./$kept"; done
mount -t proc proc proc
pivot_root . .old
cd /
umount -l /.old
"""


def want_tree() -> Path:
    """Return the tree; skip where there is none."""
    tree = os.environ.get(VARIABLE)
    if not tree:
        pytest.skip(f"{VARIABLE} names no tree of a newer Debian: see scripts/newer-engines")
    return Path(tree)


class Tree(World):
    """The namespaces, rooted in the tree."""

    def __init__(self, logs: Path, tree: Path) -> None:
        os.environ.update(PLACE=str(logs / "tree"), TREE=str(tree), CHECKOUT=str(CHECKOUT))
        before = world.PREPARE
        world.PREPARE = ENTER + before
        try:
            super().__init__(logs, hide_unified=True)
        finally:
            world.PREPARE = before

    def argv(self, argv: Sequence[str | Path]) -> list[str]:
        """Return the command line that runs `argv` inside, from the tree's root."""
        entered = super().argv(())
        return [word.replace("--wd=", "--wdns=") for word in entered] + [str(word) for word in argv]
