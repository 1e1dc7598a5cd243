"""`make install`: into any place, moved afterwards, run through a link; and nothing left by `make uninstall`."""

from __future__ import annotations

import marshal
import os
import shutil
import subprocess
from pathlib import Path

import pytest

import bundles
from checkout import HERE, INTERPRETER, SOURCE

TOP = HERE.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root below which urunc is installed, with PREFIX=/opt/urunc."""
    if not (TOP / "guest/build/urunc-init").exists() and not shutil.which("gcc"):
        pytest.skip("the guest's init is not built, and there is no gcc")
    root = tmp_path_factory.mktemp("root")
    make(root, "install")
    return root


def make(root: Path, task: str) -> None:
    argv = ["make", "-s", "-C", str(TOP), task, f"DESTDIR={root}", "PREFIX=/opt/urunc", f"PYTHON={INTERPRETER}"]
    subprocess.run(argv, check=True, capture_output=True, umask=0o077)


def version(program: Path | str, **more: object) -> str:
    return subprocess.run([program, "--version"], check=True, capture_output=True, text=True, **more).stdout  # type: ignore[call-overload, no-any-return]


def test_it_runs_where_it_is_moved_to_and_through_a_link(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(installed / "opt/urunc/bin/urunc")
    expected = version(installed / "opt/urunc/bin/urunc")
    assert expected.startswith("urunc version ")
    assert version(tmp_path / "link") == expected
    assert version("./urunc", cwd=installed / "opt/urunc/bin") == expected
    shutil.copytree(installed / "opt/urunc", tmp_path / "elsewhere")
    assert version(tmp_path / "elsewhere/bin/urunc") == expected


def test_every_module_is_compiled_and_names_its_final_place(installed: Path) -> None:
    library = installed / "opt/urunc/lib/urunc"
    sources = sorted(file.relative_to(library) for file in library.rglob("*.py"))
    assert sources == sorted(file.relative_to(SOURCE) for file in (SOURCE / "urunc").rglob("*.py"))
    for source in sources:
        (compiled,) = (library / source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")
        data = compiled.read_bytes()
        info = (library / source).stat()
        assert int.from_bytes(data[4:8], "little") == 0, "not checked by time and size"
        assert int.from_bytes(data[8:12], "little") == int(info.st_mtime), source
        assert int.from_bytes(data[12:16], "little") == info.st_size, source
        code = marshal.loads(data[16:])  # noqa: S302
        assert code.co_filename == f"/opt/urunc/lib/urunc/{source}"


RECORDS = """
import importlib, pathlib, sys
sys.path.insert(0, sys.argv[1])
from urunc.record import Record
for file in sorted(pathlib.Path(sys.argv[1], "urunc").rglob("*.py")):
    name = ".".join(file.relative_to(sys.argv[1]).with_suffix("").parts).removesuffix(".__init__")
    for value in vars(importlib.import_module(name)).values() if not name.endswith("__main__") else ():
        if isinstance(value, type) and issubclass(value, Record) and value is not Record:
            print(name, value.__qualname__, value._fields, sorted(value._required), value._defaults)
"""
"""Prints what each record's fields are; a module's own are among those that it imports."""


def test_records_are_what_they_were(installed: Path) -> None:
    def fields(library: Path) -> list[str]:
        argv = [INTERPRETER, "-IS", "-c", RECORDS, str(library)]
        return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()

    found = fields(installed / "opt/urunc/lib/urunc")
    assert len(found) > 80
    assert found == fields(SOURCE)


NAMES = """
import sys
from types import FunctionType, ModuleType
if "urunc" not in sys.modules:
    sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    __import__(name)
    for key, value in vars(sys.modules[name]).items():
        named = isinstance(value, (FunctionType, ModuleType, type))
        if named and key not in ("_module", "_from", "dataclass_transform"):
            print(name, key, value.__name__, getattr(value, "__module__", ""))
"""
"""Prints what each module calls the functions, classes and modules that it has, its own and imported ones."""


def test_modules_of_groups_have_what_they_import(installed: Path, tmp_path: Path) -> None:
    names = sorted(
        ".".join(file.relative_to(SOURCE).with_suffix("").parts)
        for file in (SOURCE / "urunc").rglob("*.py")
        if file.name not in ("__init__.py", "__main__.py")
    )

    def shown(*argv: str | Path) -> set[str]:
        done = subprocess.run([*argv, str(SOURCE), *names], check=True, stdout=subprocess.PIPE, text=True)
        return set(done.stdout.splitlines())

    wanted = shown(INTERPRETER, "-IS", "-c", NAMES)
    assert len(wanted) > 1000
    for entry in ("urunc", "containerd-shim-urunc-v2"):
        assert shown(changed(installed, tmp_path / entry, NAMES, entry)) == wanted


LIGHT = """
import sys
light = sys.modules["os"]
before = dict(light.environ), light.fsencode("\\udcff"), light.fsdecode(b"\\xff")
assert "_collections_abc" not in sys.modules
assert light.devnull == "/dev/null"
import os
assert os is light and type(os.environ).__name__ == "_Environ" and os.path.os is os
assert before == (dict(os.environ), os.fsencode("\\udcff"), os.fsdecode(b"\\xff"))
try:
    os.nothing
except AttributeError:
    sys.exit(0)
"""
"""What an entry point runs in place of the program: looks at the `os` that the loader made."""

LOADED = """
from urunc.cli import main
finder, read = sys.meta_path[0], []
def run(group, run=finder.run):
    read.append("a group")
    run(group)
finder.run = run
status = main()
loaders = {name: type(getattr(module, "__loader__", None)).__name__ for name, module in sys.modules.items()}
slow = [name for name, loader in loaders.items() if loader == "SourceFileLoader"]
slow += ["os"] if "_collections_abc" in sys.modules else []
with open(sys.modules["os"].environ["LOADED"], "w") as file:
    file.write("\\n".join([*read, *(name for name in slow if name.startswith(("urunc", "os")))]))
sys.exit(status)
"""
"""Runs the program; tells how many groups it has read, and which modules it has loaded that were in none."""

VERBS = {"create": ["a group"] * 2, "state": [], "start": [], "kill": [], "delete": ["a group"]}


def changed(installed: Path, place: Path, program: str, name: str = "urunc") -> Path:
    """Return an entry point in a copy of the installation that runs another program."""
    shutil.copytree(installed / "opt/urunc", place)
    entry = place / "bin" / name
    text = entry.read_text().replace("begin(library, groups, first)", "begin(library, groups, first[:-1])")
    start, _, module = text.rpartition("import ")
    assert module.startswith("urunc.")
    entry.write_text(start + program)
    return entry


def test_os_is_light_until_more_of_it_is_used(installed: Path, tmp_path: Path) -> None:
    subprocess.run([changed(installed, tmp_path / "urunc", LIGHT)], check=True)


HELD = """
import os, pathlib, shutil
finder = sys.meta_path[0]
assert len(finder.hold()) == len({*finder.groups.values()}) and finder.hold()
files = [file.relative_to(library).with_suffix("") for file in pathlib.Path(library).rglob("*.py")]
shutil.rmtree(f"{library}/urunc")
shutil.rmtree(f"{library}/{sys.implementation.cache_tag}")
missing = []
for name in sorted(".".join(file.parts).removesuffix(".__init__") for file in files):
    try:
        __import__(name)
    except ModuleNotFoundError:
        missing.append(name)
with open(os.environ["MISSING"], "w") as file:
    file.write(" ".join(missing))
sys.exit(0)
"""
"""Holds its modules, removes the installation, and tells which modules it cannot import then."""

NOT_THE_SHIMS = """
    urunc.__main__ urunc.cli urunc.flags urunc.linux.process_usage urunc.runtime.check urunc.runtime.events
    urunc.runtime.facilities urunc.runtime.facilities_machine urunc.runtime.facilities_network
    urunc.runtime.facilities_sandbox urunc.runtime.facility urunc.runtime.features urunc.runtime.foreground
    urunc.runtime.keyboard urunc.runtime.steps urunc.runtime.template urunc.shim.__main__ urunc.shim.own_cgroup
    urunc.tables urunc.usage urunc.verbs
"""
"""What the command line alone needs, and a shim before it serves. Whatever else there is, is in a group of the shim."""


def test_a_shim_goes_on_with_its_own_version(installed: Path, tmp_path: Path) -> None:
    """Once it holds its code, all that it may need is there, whatever becomes of the installation."""
    entry = changed(installed, tmp_path / "urunc", HELD, "containerd-shim-urunc-v2")
    subprocess.run([entry], check=True, env={**os.environ, "MISSING": f"{tmp_path}/missing"})
    assert (tmp_path / "missing").read_text().split() == NOT_THE_SHIMS.split()


UNHELD = """
finder = sys.meta_path[0]
posix.unlink(finder.place("usage"))
held = finder.hold()
assert len(held) == len({*finder.groups.values()}) - 1
closed, replaced = finder.held["job"][0], finder.held["error"][0]
posix.close(closed)
posix.dup2(finder.held["serve"][0], replaced)
for name in ("urunc.shim.work", "urunc.runtime.channel"):
    try:
        __import__(name)
    except ImportError:
        pass
    else:
        raise AssertionError(name)
import urunc.runtime.pause
sys.exit(0)
"""
"""Cannot hold one group, and no longer has the files of two others."""


def test_what_is_not_held_is_not_loaded_out_of_whatever_has_its_descriptor(installed: Path, tmp_path: Path) -> None:
    subprocess.run([changed(installed, tmp_path / "urunc", UNHELD, "containerd-shim-urunc-v2")], check=True)


@pytest.mark.root
def test_a_life_loads_the_groups_it_needs(installed: Path, tmp_path: Path, testguest: Path) -> None:
    bundle = bundles.unikernel(tmp_path / "bundle", testguest, "wait").write()
    entry = changed(installed, tmp_path / "urunc", LOADED)

    def run(verb: str, *args: str) -> list[str]:
        environment = {**os.environ, "LOADED": f"{tmp_path}/loaded"}
        argv = [entry, "--root", tmp_path / "state", verb, *args]
        with open(tmp_path / "output", "w+b") as output:
            done = subprocess.run(
                argv, check=False, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
            )
        assert done.returncode == 0, (tmp_path / "output").read_text()
        return (tmp_path / "loaded").read_text().splitlines()

    create = ("create", "--bundle", str(bundle), "web")
    try:
        run(*create)  # fills the caches, whose making may import what it likes
        run("delete", "--force", "web")
        loaded = {"create": run(*create), "state": run("state", "web"), "start": run("start", "web")}
        loaded["kill"] = run("kill", "web", "KILL")
    finally:
        loaded["delete"] = run("delete", "--force", "web")
    assert loaded == VERBS


def test_another_interpreter_takes_the_ordinary_files(installed: Path, tmp_path: Path) -> None:
    shutil.copytree(installed / "opt/urunc", tmp_path / "urunc")
    (folder,) = (tmp_path / "urunc/lib/urunc").glob("cpython-*")
    folder.rename(folder.with_name("cpython-999"))
    assert version(tmp_path / "urunc/bin/urunc") == version(installed / "opt/urunc/bin/urunc")


def test_what_is_there_is_for_all_to_read(installed: Path) -> None:
    modes = {file.stat().st_mode & 0o7777 for file in installed.rglob("*") if file.is_file()}
    assert modes <= {0o644, 0o755}
    assert os.access(installed / "opt/urunc/lib/urunc/guest/urunc-init", os.X_OK)


def test_uninstall_leaves_nothing(tmp_path: Path, installed: Path) -> None:
    shutil.copytree(installed, tmp_path / "root")
    make(tmp_path / "root", "uninstall")
    assert [file for file in (tmp_path / "root").rglob("*") if not file.is_dir()] == []


def test_help_lists_every_task() -> None:
    text = subprocess.run(["make", "-s", "-C", str(TOP), "help"], check=True, capture_output=True, text=True).stdout
    phony = next(line for line in (TOP / "Makefile").read_text().splitlines() if line.startswith(".PHONY"))
    listed = {line.split()[0] for line in text.splitlines() if line.startswith("  ")}
    assert listed == set(phony.split()[1:])
