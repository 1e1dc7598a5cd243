"""What an installed entry point executes before anything else: how modules are found, and a lighter `os`.

`scripts/compile.py` puts it, compiled, in front of the modules that every call needs. They come from one read
instead of thirteen system calls each; so do the modules that `create`, `delete` and the shim load beyond them, by
the group. What is in no group, and everything where the interpreter is another than at the installation (whose
tag is in the groups' path), is found as ever, in the ordinary files beside.

docs/performance.md has what each part saves. It must not know what is in a module.
"""

from __future__ import annotations

import posix
import sys
from _frozen_importlib import ModuleSpec
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any, TypeAlias

    Group: TypeAlias = list[tuple[str, bool, CodeType]]  # name, whether it is a package, code; imports come first


class Modules:
    """Finder and loader of the modules in groups (importlib.abc.MetaPathFinder and Loader)."""

    def __init__(self, library: str, groups: dict[str, str]) -> None:
        self.library = library
        self.groups = groups  # by the name of a module, which group holds it
        self.held: dict[str, tuple[int, int, int]] = {}  # by the name of a group, its file: descriptor, device, inode

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Run the group that has the module, and return a spec that leads to it; None where no group has it."""
        if name not in self.groups:
            return None
        group = self.groups[name]
        held = self.held.get(group)
        self.run(loads(read_held(*held) if held else read_file(self.place(group))))  # noqa: S302  # root's own
        loader: Any = self
        return ModuleSpec(name, loader)

    def place(self, group: str) -> str:
        """Return the path of a group's file."""
        return f"{self.library}/{sys.implementation.cache_tag}/{group}"

    def hold(self) -> list[int]:
        """Keep the groups' files open, and return the descriptors: what is installed later is another version's.

        One that cannot be opened (none is left, or it is being installed) is looked for when it is wanted, as ever.
        """
        for group in {*self.groups.values()} - {*self.held}:
            try:
                fd = posix.open(self.place(group), posix.O_RDONLY | posix.O_CLOEXEC)
            except OSError:
                continue
            info = posix.fstat(fd)
            self.held[group] = fd, info.st_dev, info.st_ino
        return [fd for fd, _device, _inode in self.held.values()]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module, which is there already."""
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: it has run with its group."""

    def run(self, group: Group) -> None:
        """Make the modules of a group and run their code, by hand: that costs a third of an import.

        The group is emptied: a module's own code is of no use once it has run, and the shim stays for long.
        """
        group.reverse()
        while group:
            name, package, code = group.pop()
            if name in sys.modules:
                continue
            parent, _, last = name.rpartition(".")
            place = f"{self.library}/{name.replace('.', '/')}"
            module = sys.modules[name] = type(sys)(name)
            module.__package__ = name if package else parent
            module.__file__ = f"{place}/__init__.py" if package else f"{place}.py"
            if package:
                module.__path__ = [place]
            module.__dict__["_module"] = find_module  # see scripts/compile.py
            exec(code, module.__dict__)  # noqa: S102  # what a loader is
            if parent:
                setattr(sys.modules[parent], last, module)


def find_module(name: str) -> ModuleType:
    """Return a module; as a rule it has run already, with its group or one before."""
    try:
        return sys.modules[name]
    except KeyError:
        __import__(name)
        return sys.modules[name]


def read_held(fd: int, device: int, inode: int) -> bytes:
    """Return the content of a file whose descriptor others share. Raises ImportError where it is that no more.

    Who closes all descriptors, as a container's init, may have the image's files by these numbers afterwards.
    """
    try:
        info = posix.fstat(fd)
    except OSError:
        info = None
    if info is None or (info.st_dev, info.st_ino) != (device, inode):
        raise ImportError("the file that held this module is closed")
    return posix.pread(fd, info.st_size, 0)


def read_file(path: str) -> bytes:
    """Return a file's content by the four system calls that it takes: `open` makes nine, and objects for them."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, posix.fstat(fd).st_size)
    finally:
        posix.close(fd)


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


def begin(library: str, groups: dict[str, str], group: Group) -> None:
    """Run the modules of a first group, and find the others' when they are wanted. `library` is where all is."""
    if "os" not in sys.modules:
        install_light_os()
    modules = Modules(library, groups)
    sys.meta_path.insert(0, modules)
    modules.run(group)
