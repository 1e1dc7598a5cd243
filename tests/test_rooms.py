"""The doors between the rooms: who may import whom, and what nobody on the hot path may import at start.

Reads the sources, runs nothing. A door that design.md does not draw, a heavy module at a module's top level, or
anything but the standard library on the hot path fails here.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkout import SOURCE

PACKAGE = SOURCE / "urunc"
FILES = sorted(PACKAGE.rglob("*.py"))

BASE = {"errors", "record"}
PURE = BASE | {"booleans", "jsonio"}
DOORS: dict[str, set[str]] = {
    "oci": PURE | {"oci"},
    "vm": PURE | {"oci", "vm"},  # vm reads oci's records: App, Config
    "linux": BASE | {"linux"},
    "runtime": PURE | {"oci", "vm", "linux", "runtime", "log", "usage", "__version__"},
    "shim": PURE | {"oci", "runtime", "linux", "shim", "log", "__version__"},
    "record": set(),
    "booleans": set(),
    "errors": set(),
    "jsonio": set(),
    "log": PURE,
}
"""Room (a folder or a file directly under urunc) -> what of urunc it may import. Others may import anything."""

HOT = ("oci", "vm", "linux", "runtime", "shim", *(path.name for path in PACKAGE.glob("*.py")))
"""Rooms, and files directly under urunc, whose start-up time every call pays."""

BANNED = {
    "argparse": "10 ms",
    "asyncio": "50 ms",
    "collections": "brings keyword, operator, reprlib",
    "contextlib": "brings collections, functools",
    "ctypes": "3.5 ms; `_ctypes` costs 0.7",
    "dataclasses": "17 ms",
    "enum": "5 ms",
    "functools": "brings collections",
    "inspect": "imports half the library",
    "ipaddress": "imports functools",
    "json": "9 ms; jsonio does without",
    "logging": "17 ms",
    "pathlib": "13 ms",
    "random": "imports hashlib, bisect",
    "re": "6 ms",
    "shlex": "imports re",
    "shutil": "imports bz2, lzma, zlib",
    "signal": "imports enum; `_signal` is built in",
    "socket": "imports enum, selectors; `_socket` is built in",
    "struct": "`_struct` is enough",
    "subprocess": "13 ms",
    "tempfile": "imports random, shutil",
    "threading": "a fork must not meet a thread",
    "tomllib": "17 ms; runtime.settings remembers",
    "traceback": "imports linecache, tokenize, re",
    "typing": "12 ms; only under TYPE_CHECKING",
    "uuid": "imports enum, platform",
}
"""Module -> why it is not imported at the top of a hot module."""


def room(path: Path) -> str:
    """Return the room of a source file: its folder under urunc, its own name where it is directly there."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


COLD = ("runtime/probe.py",)
"""Modules in hot rooms that few calls load, as tests/test_imports.py holds."""


def is_hot(path: Path) -> bool:
    place = path.relative_to(PACKAGE)
    return place.parts[0] in HOT and str(place) not in COLD


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(tree: ast.AST, *, functions: bool = True, types: bool = True) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports in a tree: those inside functions and those for type checkers only where asked for."""
    if isinstance(tree, ast.Import | ast.ImportFrom):
        yield tree
        return
    children = list(ast.iter_child_nodes(tree))
    if is_type_checking(tree) and not types:
        children = tree.orelse  # type: ignore[attr-defined]
    for node in children:
        if functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports(node, functions=functions, types=types)


def full_names(path: Path, node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return the dotted names that an import statement binds, relative ones resolved."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    package = ["urunc", *path.relative_to(PACKAGE).parts[:-1]]
    base = package[: len(package) - node.level + 1] if node.level else []
    start = [*base, *(node.module.split(".") if node.module else [])]
    return [".".join([*start, alias.name]) for alias in node.names]


HOT_FILES = [path for path in FILES if is_hot(path)]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_drawn_doors(path: Path) -> None:
    allowed = DOORS.get(room(path))
    if allowed is None:
        return
    for node in imports(parse(path)):
        for name in full_names(path, node):
            if name.split(".")[0] == "urunc":
                target = name.split(".")[1]
                assert target in allowed, f"{path.name}:{node.lineno}: `{room(path)}` must not import `{target}`"


@pytest.mark.parametrize("path", HOT_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_heavy_at_the_top_of_a_hot_module(path: Path) -> None:
    for node in imports(parse(path), functions=False, types=False):
        for name in full_names(path, node):
            top = name.split(".")[0]
            assert top not in BANNED, f"{path.name}:{node.lineno}: `{top}` at the top level: {BANNED[top]}"


@pytest.mark.parametrize("path", HOT_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_hot_path_needs_the_standard_library_alone(path: Path) -> None:
    for node in imports(parse(path), types=False):
        for name in full_names(path, node):
            top = name.split(".")[0]
            assert top == "urunc" or top in sys.stdlib_module_names, f"{path.name}:{node.lineno}: `{top}`"


@pytest.mark.parametrize("path", HOT_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_annotations_cost_nothing(path: Path) -> None:
    """Without the future import every annotation is evaluated, and its names must exist."""
    tree = parse(path)
    if any(isinstance(node, ast.AnnAssign | ast.FunctionDef) for node in ast.walk(tree)):
        names = [name for node in imports(tree) for name in full_names(path, node)]
        assert "__future__.annotations" in names


@pytest.mark.parametrize("path", HOT_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_guest_and_no_monitor_is_asked_for_by_name(path: Path) -> None:
    """What a guest or monitor can do is said by its module: adding one is one file and one line in a registry."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            asked = {side.attr for side in sides if isinstance(side, ast.Attribute)} & {"guest", "monitor"}
            named = [side for side in sides if isinstance(side, ast.Constant) and type(side.value) is str]
            assert not (asked and named), f"{path.name}:{node.lineno}"


def source(text: str) -> ast.Module:
    return ast.parse(text)


def test_the_walls_bite() -> None:
    """This test's own eyes: hidden imports are seen, those for type checkers are not."""
    tree = source(
        "import os\n"
        "def f():\n    import json\n"
        "if TYPE_CHECKING:\n    import typing\nelse:\n    import re\n"
        "try:\n    import enum\nexcept ImportError:\n    pass\n"
        "class C:\n    import socket\n"
    )

    def names(**which: bool) -> list[str]:
        return [alias.name for node in imports(tree, **which) for alias in node.names]

    assert names(functions=False, types=False) == ["os", "re", "enum", "socket"]
    assert names(types=False) == ["os", "json", "re", "enum", "socket"]
    assert names() == ["os", "json", "typing", "re", "enum", "socket"]


@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("from ..linux import tap", ["urunc.linux.tap"]),
        ("from . import spec", ["urunc.oci.spec"]),
        ("from .. import jsonio", ["urunc.jsonio"]),
        ("from ..vm.monitors import qemu", ["urunc.vm.monitors.qemu"]),
        ("import urunc.runtime.create", ["urunc.runtime.create"]),
        ("from urunc.linux import tap", ["urunc.linux.tap"]),
    ],
)
def test_relative_names(statement: str, names: list[str]) -> None:
    node = source(statement).body[0]
    assert isinstance(node, ast.Import | ast.ImportFrom)
    assert full_names(PACKAGE / "oci" / "app.py", node) == names
