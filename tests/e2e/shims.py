"""The shim of this checkout, with an entry point as `make install` writes it."""

from __future__ import annotations

from pathlib import Path

NAME = "containerd-shim-urunc-v2"
INTERPRETER = "/usr/bin/python3"
SOURCE = Path(__file__).resolve().parents[2] / "src"


def write_entry(folder: Path) -> Path:
    """Write the entry point into `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    entry = folder / NAME
    shell = (SOURCE.parent / "bin/shim.in").read_text().replace("@PYTHON@", INTERPRETER)
    entry.write_text(f"{shell}import sys\nsys.path.insert(0, {str(SOURCE)!r})\nimport urunc.shim.__main__\n")
    entry.chmod(0o755)
    return entry
