"""Compile an installed tree for the fastest start. Usage: python -X no_debug_ranges compile.py TREE FINAL-PLACE LOADER

Beside each module comes its `.pyc`, smaller than what `python3 -m compileall` writes: without docstrings, column
numbers and what only a type checker reads. These files are the interpreter's ordinary ones, checked by time and
size against their source, so that a changed source is seen.

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

ENTRIES: dict[str, tuple[str, dict[str, str]]] = {
    "urunc.__main__": (
        """
            urunc.cli urunc.verbs urunc.runtime.lifecycle urunc.runtime.init_words urunc.runtime.signals
            urunc.linux.atomic
        """,
        {
            "create": """
                urunc.runtime.create urunc.runtime.load urunc.runtime.options urunc.oci.parse urunc.oci.parse_linux
                urunc.vm.bootstring urunc.vm.monitors.qemu
            """,
            "create.linux": "urunc.vm.guests.linux urunc.vm.cpio",
            "create.unikraft": "urunc.vm.guests.unikraft",
            "create.solo5": "urunc.vm.guests.mirage urunc.vm.monitors.hvt urunc.vm.monitors.spt",
            "create.console": "urunc.runtime.console",
            "create.hooks": "urunc.runtime.hooks",
            "network": "urunc.runtime.net",
            "seccomp": "urunc.linux.seccomp",
            "delete": "urunc.runtime.teardown urunc.linux.cgroup",
            "delegate": "urunc.runtime.delegate urunc.runtime.settings",
        },
    ),
    "urunc.shim.__main__": (
        "urunc.shim.main urunc.shim.start urunc.runtime.bundle urunc.shim.begin",
        {
            "usage": "urunc.shim.usage",
            "serve": "urunc.shim.serve urunc.shim.messages urunc.shim.options",
            "job": "urunc.shim.work",
            "job.nat": "urunc.runtime.nat",
            "job.network": "urunc.runtime.net urunc.runtime.net_devices",
            "job.storage": "urunc.runtime.storage",
            "job.volumes": "urunc.runtime.volumes urunc.vm.volumes",
            "job.console": "urunc.runtime.console",
            "job.hooks": "urunc.runtime.hooks",
            "job.seccomp": "urunc.linux.seccomp urunc.linux.libseccomp urunc.linux.seccomp_profile",
            "job.systemd": "urunc.linux.systemd urunc.oci.scope urunc.oci.unit_properties",
            "job.solo5": "urunc.vm.guests.mirage urunc.vm.guests.rumprun urunc.vm.monitors.hvt urunc.vm.monitors.spt",
            "job.firecracker": "urunc.vm.monitors.firecracker urunc.runtime.monitor_api",
            "job.probe": "urunc.runtime.probe",
            "job.rare": """
                urunc.linux.idmap urunc.oci.parse_config urunc.oci.parse_scheduling urunc.vm.guests.mewz urunc.vm.infer
            """,
            "job.pause": "urunc.runtime.pause",
            "job.update": "urunc.runtime.update urunc.runtime.limits urunc.runtime.balloon",
            "job.create": """
                urunc.runtime.create urunc.runtime.load urunc.runtime.settings
                urunc.runtime.options urunc.oci.parse urunc.oci.parse_linux
                urunc.vm.guests.linux urunc.vm.guests.unikraft urunc.vm.monitors.qemu urunc.vm.cpio
                urunc.linux.devices_bpf
            """,
            "job.life": "urunc.runtime.lifecycle urunc.runtime.init_words urunc.runtime.teardown urunc.linux.cgroup",
            "job.ordinary": """
                urunc.shim.ordinary urunc.runtime.knative urunc.runtime.settings urunc.runtime.store
                urunc.linux.cgroup_layout
            """,
            "cgroup": "urunc.linux.cgroup",
            "port": "urunc.shim.guest",
            "error": "urunc.runtime.channel",
        },
    ),
}
"""By the module of an entry point: what each call needs, and by the name of a group what else is needed together.

Each with all that it imports, `a.b` without what `a` has. A group is read, and all of it run, when one of its modules
is wanted; of several groups that have the module, the last one. The shim's have all that it may ever need: it goes on
with its own version while another is installed (`Modules.hold`), and no module of the other may come among them.
"""


def compile_tree(tree: Path, place: str) -> dict[str, tuple[bool, CodeType]]:
    """Compile every module below `tree`, which will stand at `place`: tracebacks name that.

    Return (is a package, code for a group) by the module's name.
    """
    sources = {_module_name(path): path for path in (source.relative_to(tree) for source in sorted(tree.rglob("*.py")))}
    modules = {}
    for name, path in sources.items():
        source, package = tree / path, path.name == "__init__.py"
        info = source.stat()
        target = Path(importlib.util.cache_from_source(str(source), optimization=""))
        target.parent.mkdir(exist_ok=True)
        code = _compile(_read(source), f"{place}/{path}")
        target.write_bytes(_code_to_timestamp_pyc(code, int(info.st_mtime), info.st_size))
        direct = _Direct(name if package else name.rpartition(".")[0], frozenset(sources)).visit(_read(source))
        modules[name] = package, _compile(direct, f"{place}/{path}")
    return modules


def _module_name(path: Path) -> str:
    return ".".join((path.parent if path.name == "__init__.py" else path.with_suffix("")).parts)


def _read(source: Path) -> ast.Module:
    module: ast.Module = _Lean().visit(ast.parse(source.read_bytes(), str(source)))
    return module


def _compile(module: ast.Module, name: str) -> CodeType:
    code: CodeType = compile(
        ast.fix_missing_locations(module),
        name,
        "exec",
        flags=__future__.annotations.compiler_flag,
        dont_inherit=True,
        optimize=2,
    )
    return code


class _Lean(ast.NodeTransformer):
    """Leaves out what only type checkers read, and says outright what a Record else finds out of its annotations."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | None:
        """Leave out `from __future__ import annotations`, the only one that the house uses."""
        return None if node.module == "__future__" else node

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        """Leave out what is there `if TYPE_CHECKING`."""
        self.generic_visit(node)
        test = ast.unparse(node.test)
        if test == "not TYPE_CHECKING":
            return node.body
        return node if test != "TYPE_CHECKING" else node.orelse or ast.Pass()

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        """Put a Record's `_fields`, `_defaults` and `_required` in the place of the annotations they come from."""
        self.generic_visit(node)
        if any(isinstance(base, ast.Name) and base.id == "Record" for base in node.bases):
            annotated = [line for line in node.body if isinstance(line, ast.AnnAssign)]
            values = {line.target.id: line.value for line in annotated if line.target.id[0] != "_"}
            required = frozenset(name for name, value in values.items() if not value)
            defaults = [name for name in values if name not in required]
            node.body = [
                *(line for line in map(_without_annotation, node.body) if line),
                _assign("_fields", ast.Constant(tuple(values))),
                _assign("_required", ast.Constant(required)),
                _assign("_defaults", ast.Dict([ast.Constant(name) for name in defaults], list(map(_name, defaults)))),
            ]
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        """Leave out an argument's annotation."""
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Leave out the annotation of what is returned."""
        node.returns = None
        self.generic_visit(node)
        return node


class _Direct(ast.NodeTransformer):
    """Has a module of a group take what it imports of the house's own out of the modules that have run before it.

    `from ..errors import A` becomes `_from = _module("urunc.errors"); A = _from.A`, which takes a tenth of the time;
    `_module` is the loader's. Only a module's own statements, not those in its functions.
    """

    def __init__(self, package: str, modules: frozenset[str]) -> None:
        self.package = package
        self.modules = modules

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Leave it as it is: what is imported there may be in no group."""
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom | list[ast.stmt]:
        """Put assignments in the place of a relative import."""
        if node.level == 0:
            return node
        parent = self.package.rsplit(".", node.level - 1)[0]
        base = f"{parent}.{node.module}" if node.module else parent
        values = {alias.name: f"{base}.{alias.name}" for alias in node.names}
        own = any(inner not in self.modules for inner in values.values())
        lines: list[ast.stmt] = [_assign("_from", _module(base))] if own else []
        for alias in node.names:
            inner = values[alias.name]
            value = _module(inner) if inner in self.modules else ast.Attribute(_name("_from"), alias.name, ast.Load())
            lines.append(_assign(alias.asname or alias.name, value))
        return lines


def _module(name: str) -> ast.expr:
    return ast.Call(_name("_module"), [ast.Constant(name)], [])


def _assign(name: str, value: ast.expr) -> ast.Assign:
    return ast.Assign([ast.Name(name, ast.Store())], value)


def _name(name: str) -> ast.expr:
    return ast.Name(name, ast.Load())


def _without_annotation(line: ast.stmt) -> ast.stmt | None:
    if not isinstance(line, ast.AnnAssign):
        return line
    return ast.Assign([line.target], line.value) if line.value else None


def write_groups(tree: Path, modules: dict[str, tuple[bool, CodeType]], loader: CodeType) -> None:
    """Write the groups of each entry point; the first has the loader in front, and tells where the others' are."""
    folder = tree / str(sys.implementation.cache_tag)
    folder.mkdir(exist_ok=True)

    def packed(names: list[str]) -> list[tuple[str, bool, CodeType]]:
        return [(name, *modules[name]) for name in names]

    for entry, (always, groups) in ENTRIES.items():
        first = [*_loaded_by(tree, always), entry]
        places: dict[str, str] = {}
        for group, imports in groups.items():
            before = {name for name, place in places.items() if place == group.rpartition(".")[0]}.union(first)
            names = [name for name in _loaded_by(tree, imports) if name not in before]
            (folder / group).write_bytes(marshal.dumps(packed(names)))
            places.update((name, group) for name in names)
        (folder / entry).write_bytes(marshal.dumps((loader, places, packed(first))))


_LOADED = """
import sys
from importlib._bootstrap_external import SourceFileLoader
def run(self, module, run=SourceFileLoader.exec_module):
    run(self, module)
    if module.__name__.partition(".")[0] == "urunc":
        print(module.__name__)
SourceFileLoader.exec_module = run
sys.path.append(sys.argv[1])
for name in sys.argv[2].split():
    __import__(name)
"""


def _loaded_by(tree: Path, names: str) -> list[str]:
    """Return which modules of the tree an import of those names runs, in the order in which they are done."""
    argv = [sys.executable, "-IS", "-c", _LOADED, str(tree), names]
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


if __name__ == "__main__":
    root = Path(sys.argv[1])
    write_groups(root, compile_tree(root, sys.argv[2]), _compile(_read(Path(sys.argv[3])), f"{sys.argv[2]}/loader.py"))
