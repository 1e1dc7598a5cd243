"""docs/adding-a-guest.md, followed to the letter in a copy of the tree: every file, difference and command of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from checkout import HERE

TOP = HERE.parent
PAGE = TOP / "docs/adding-a-guest.md"
COPIED = ("bench", "docs", "guest", "scripts", "src", "tests", "README.md", "mkdocs.yml", "pyproject.toml")
BLOCK = re.compile(r'^```(\w+) title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
NOT_HERE = ("run", "test", "all")
"""Commands that boot the guest, which is for root, or look at the whole tree, which the suite does anyway."""


def blocks() -> list[tuple[str, str, str]]:
    """Return (language, title, content) of the page's blocks, in order."""
    return BLOCK.findall(PAGE.read_text())


def run(folder: Path, *argv: str) -> None:
    """Run a command in the copy, with the tools of this interpreter."""
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": tools, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, testguest: Path) -> Path:
    """A copy of the tree in which the page has been followed."""
    tmp_path = tmp_path_factory.mktemp("tree")
    for name in COPIED:
        if (TOP / name).is_dir():
            shutil.copytree(TOP / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "build"))
        else:
            shutil.copy(TOP / name, tmp_path / name)
    (tmp_path / "guest/build").mkdir(parents=True)
    shutil.copy(testguest, tmp_path / "guest/build")
    for language, title, content in blocks():
        if language == "diff":
            (tmp_path / "difference").write_text(content)
            run(tmp_path, "patch", "--strip=1", "--fuzz=0", "--input=difference")
        elif language != "sh":
            (tmp_path / title).write_text(content)
        elif title not in NOT_HERE:
            run(tmp_path, "sh", "-e", "-c", content)
    return tmp_path


def test_what_it_writes_passes(tree: Path) -> None:
    rooms = ("vm", "test_support.py", "test_docs.py", "test_rooms.py")
    run(tree, "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/{room}" for room in rooms))
    assert "| tiny | qemu | G |" in (tree / "docs/support.md").read_text()
    assert "| tiny | qemu | nothing | runs on qemu |" in (tree / "README.md").read_text()
    assert list(tree.glob("tests/golden/tiny-qemu-*.txt"))


def test_its_code_is_as_the_house_has_it(tree: Path) -> None:
    written = [title for language, title, _ in blocks() if language == "python"]
    run(tree, "ruff", "format", "--no-cache", "--check", *written)
    run(tree, "ruff", "check", "--no-cache", *written)


@pytest.mark.root
def test_it_boots(tree: Path) -> None:
    run(tree, "pytest", "-q", "tests/cli/test_tiny.py", "-p", "no:cacheprovider")
    command = next(content for _, title, content in blocks() if title == "run").replace("/tmp/tiny", f"{tree}/tiny")
    run(tree, "unshare", "--mount", "--net", "sh", "-e", "-c", f"mount -t tmpfs none /run\n{command}")
