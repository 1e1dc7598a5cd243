"""What an installed entry point executes before anything else: how modules are found, and a lighter `os`.

`scripts/compile.py` puts it, compiled, in front of the modules that every call needs. They come from one read
instead of thirteen system calls each; so do the modules that `create`, `delete` and the shim load beyond them, by
the group. What is in no group, and everything where the interpreter is another than at the installation (whose
tag is in the groups' path), is found as ever, in the ordinary files beside.

Measured on Debian's Python 3.11: the groups take 0.6 ms of 7.8 from `state`, and 2 of 20 from `create`; the
lighter `os` takes 0.7 ms from each. It must not know what is in a module.
"""

from __future__ import annotations

import posix
import sys
from _frozen_importlib import ModuleSpec
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any


class Modules:
    """Finder and loader of the modules in groups (importlib.abc.MetaPathFinder and Loader).

    `modules` has, by a module's name, whether it is a package and its code, or the name of the group that has it.
    """

    def __init__(self, library: str, modules: dict[str, tuple[bool, CodeType] | str]) -> None:
        self.library = library
        self.modules = modules

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        """Return the module's spec, None where no group has it."""
        entry = self.modules.get(name)
        if isinstance(entry, str):
            with open(f"{self.library}/{sys.implementation.cache_tag}/{entry}", "rb") as file:
                self.modules.update(loads(file.read()))  # noqa: S302  # root's own, as the code of every module is
            entry = self.modules[name]
        if entry is None:
            return None
        place = f"{self.library}/{name.replace('.', '/')}"
        loader: Any = self
        spec = ModuleSpec(name, loader, origin=f"{place}/__init__.py" if entry[0] else f"{place}.py")
        spec.has_location = True
        if entry[0]:
            spec.submodule_search_locations = [place]
        return spec

    def create_module(self, spec: object) -> None:
        """Return None: the interpreter's own kind of module is right."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code in it."""
        exec(self.modules.pop(module.__name__)[1], module.__dict__)  # noqa: S102  # what a loader is


def install_light_os() -> None:
    """Make `import os` give its half that is C and the little beyond that a verb uses; the rest comes when asked for.

    The other half is functions over `posix`, and classes for `environ` (here a plain dict until then: enough to
    read it) that need `_collections_abc`, most of the whole's cost. Who uses it waits for it then, and nobody sees
    a difference.
    """

    def fill(name: str) -> Any:
        del light.__getattr__, sys.modules["os"]
        import os

        light.__dict__.update(os.__dict__)
        sys.modules["os"] = light
        return getattr(light, name)

    def fsencode(name: str | bytes) -> bytes:
        return name if isinstance(name, bytes) else name.encode(encoding, "surrogateescape")

    def fsdecode(name: str | bytes) -> str:
        return name if isinstance(name, str) else name.decode(encoding, "surrogateescape")

    encoding = sys.getfilesystemencoding()
    light: Any = type(sys)("os")
    light.__dict__.update((name, value) for name, value in posix.__dict__.items() if name[:2] != "__")
    light.environ = {fsdecode(name): fsdecode(value) for name, value in posix.environ.items()}
    light.fsencode, light.fsdecode, light.__getattr__ = fsencode, fsdecode, fill
    sys.modules["os"] = light
    import posixpath

    light.path = sys.modules["os.path"] = posixpath


def begin(library: str, modules: dict[str, tuple[bool, CodeType] | str]) -> None:
    """Find modules in the groups below `library`, which hold no other's; make `os` light where it is not yet there."""
    sys.meta_path.insert(0, Modules(library, modules))
    if "os" not in sys.modules:
        install_light_os()
