"""Compile an installed tree for the fastest start. Usage: compile.py TREE FINAL-PLACE LOADER

Beside each module comes its `.pyc`, smaller than what `python3 -m compileall` writes: without docstrings, column
numbers and the import of `__future__`, whose effect is the compiler's. These files are the interpreter's ordinary
ones, checked by time and size against their source, so that a changed source is seen.

The modules that a call needs together come a second time, in one file a group, which bin/loader.py reads: see
there what that saves. Nobody checks those against their source: `make install` makes them anew each time, with the
interpreter that will run them, whose tag is the name of their folder.
"""

from __future__ import annotations
import __future__

import ast
import importlib.util
import marshal
import subprocess
import sys
from importlib._bootstrap_external import _code_to_timestamp_pyc  # type: ignore[import-not-found]
from pathlib import Path
from types import CodeType

ENTRIES = {
    "urunc.__main__": {
        "": "urunc.cli urunc.verbs urunc.runtime.lifecycle urunc.runtime.init_words",
        "create": """
            urunc.runtime.create urunc.runtime.options urunc.oci.parse urunc.oci.parse_linux
            urunc.vm.guests.linux urunc.vm.guests.unikraft urunc.vm.monitors.qemu
        """,
        "delete": "urunc.runtime.teardown urunc.linux.cgroup",
        "delegate": "urunc.runtime.delegate urunc.runtime.settings",
    },
    "urunc.shim.__main__": {
        "": "urunc.shim.main urunc.shim.start urunc.shim.messages urunc.shim.places urunc.shim.rootfs",
        "serve": "urunc.shim.serve urunc.oci.parse urunc.oci.parse_linux",
    },
}
"""By the module of an entry point, each group's name and what it is to hold, with all that this imports.

The group without a name is what every call needs. A module in two others comes from the last one.
"""


def compile_tree(tree: Path, place: str) -> dict[str, tuple[bool, CodeType]]:
    """Compile every module below `tree`, which will stand at `place`: tracebacks name that.

    Return (is a package, code) by the module's name.
    """
    modules = {}
    for source in sorted(tree.rglob("*.py")):
        path = source.relative_to(tree)
        code = _compile(source, f"{place}/{path}")
        info = source.stat()
        target = Path(importlib.util.cache_from_source(str(source), optimization=""))
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(_code_to_timestamp_pyc(code, int(info.st_mtime), info.st_size))
        package = path.name == "__init__.py"
        modules[".".join((path.parent if package else path.with_suffix("")).parts)] = package, code
    return modules


def _compile(source: Path, name: str) -> CodeType:
    module = ast.parse(source.read_bytes(), str(source))
    module.body = [node for node in module.body if not _is_future(node)]
    code: CodeType = compile(
        module, name, "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True, optimize=2
    )
    return code


def _is_future(node: ast.stmt) -> bool:
    """Whether this is `from __future__ import annotations`, the only one that the house uses."""
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def write_groups(tree: Path, modules: dict[str, tuple[bool, CodeType]], loader: CodeType) -> None:
    """Write the groups of each entry point; the first has the loader in front, and tells where the others' are."""
    folder = tree / str(sys.implementation.cache_tag)
    folder.mkdir(exist_ok=True)
    for entry, groups in ENTRIES.items():
        first: dict[str, object] = {name: modules[name] for name in (entry, *_loaded_by(tree, groups[""]))}
        places: dict[str, object] = {}
        for group, imports in groups.items():
            if not group:
                continue
            names = [name for name in _loaded_by(tree, imports) if name not in first]
            (folder / group).write_bytes(marshal.dumps({name: modules[name] for name in names}))
            places.update((name, group) for name in names)
        (folder / entry).write_bytes(marshal.dumps((loader, places | first)))


def _loaded_by(tree: Path, names: str) -> list[str]:
    """Return which modules of the tree an import of those names loads."""
    program = "import sys; sys.path.append(sys.argv[1]); names = sys.argv[2].split(); list(map(__import__, names)); "
    program += "print(*(name for name in sys.modules if name.partition('.')[0] == 'urunc'))"
    argv = [sys.executable, "-IS", "-c", program, str(tree), names]
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


if __name__ == "__main__":
    root = Path(sys.argv[1])
    write_groups(root, compile_tree(root, sys.argv[2]), _compile(Path(sys.argv[3]), f"{sys.argv[2]}/loader.py"))
