"""Compile an installed tree for the fastest start. Usage: compile.py TREE FINAL-PLACE

What `python3 -m compileall` writes is bigger than what runs: this leaves out docstrings, column numbers and the
import of `__future__`, whose effect is the compiler's. Measured on `urunc state` together: 0.2 ms of 7.3, where
the bare interpreter takes 5.5. The files are the interpreter's ordinary ones, checked by time and size against
their source, so that a changed source is seen; `make install` runs this with the interpreter that will run them,
since PYTHONDONTWRITEBYTECODE or a read-only /usr would otherwise leave every start to compile everything.
"""

from __future__ import annotations
import __future__

import ast
import importlib.util
import sys
from importlib._bootstrap_external import _code_to_timestamp_pyc  # type: ignore[import-not-found]
from pathlib import Path


def compile_tree(tree: Path, place: str) -> None:
    """Compile every module below `tree`, which will stand at `place`: tracebacks name that."""
    for source in sorted(tree.rglob("*.py")):
        module = ast.parse(source.read_bytes(), str(source))
        module.body = [node for node in module.body if not _is_future(node)]
        code = compile(
            module,
            f"{place}/{source.relative_to(tree)}",
            "exec",
            flags=__future__.annotations.compiler_flag,
            dont_inherit=True,
            optimize=2,
        )
        info = source.stat()
        target = Path(importlib.util.cache_from_source(str(source), optimization=""))
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(_code_to_timestamp_pyc(code, int(info.st_mtime), info.st_size))


def _is_future(node: ast.stmt) -> bool:
    """Whether this is `from __future__ import annotations`, the only one that the house uses."""
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


if __name__ == "__main__":
    compile_tree(Path(sys.argv[1]), sys.argv[2])
