"""What every test shares: the source on the path, the runtime under test, the markers' meaning."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from checkout import INTERPRETER, SOURCE, TESTGUEST

# A shell ignores these in what it starts in the background, and so would every program that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, out loud, what needs root where the tests do not have it."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root") or item.get_closest_marker("engine"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(scope="session", autouse=True)
def nothing_left() -> Iterator[None]:
    """Compare the machine before the first test and after the last, where scripts/test says that it is ours alone."""
    if "URUNC_TEST_ALONE" not in os.environ:
        yield
        return
    import leftovers
    from world import wait_for

    os.environ[leftovers.MARK] = str(os.getpid())
    before = leftovers.machine()
    yield
    try:
        wait_for("nothing left", lambda: not leftovers.more(before), 15)
    except AssertionError:
        pytest.fail("left on the machine:\n" + "\n".join(leftovers.more(before)))


@pytest.fixture(scope="session")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runtime under test: what URUNC_TEST_RUNTIME names, else this checkout's urunc."""
    named = os.environ.get("URUNC_TEST_RUNTIME")
    if named:
        found = shutil.which(named)
        assert found, f"URUNC_TEST_RUNTIME: {named} is not there"
        return Path(found)
    return checkout_urunc(tmp_path_factory.mktemp("bin"))


def checkout_urunc(folder: Path) -> Path:
    """Write an entry point for the checkout, as `make install` writes one for what it installs."""
    entry = folder / "urunc"
    entry.write_text(
        f"#!{INTERPRETER} -IS\n"
        "import sys\n"
        f"sys.path.insert(0, {str(SOURCE)!r})\n"
        "from urunc.cli import main\n"
        "sys.exit(main())\n"
    )
    entry.chmod(entry.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return entry


@pytest.fixture(scope="session")
def testguest() -> Path:
    """The test guest's kernel: what URUNC_TEST_GUEST names, else guest/build/testguest.elf."""
    kernel = Path(os.environ.get("URUNC_TEST_GUEST") or TESTGUEST)
    if not kernel.exists():
        pytest.skip(f"the test guest is not built: {kernel} (make -C guest)")
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    return kernel
