"""The support table claims what the code claims, and nothing that is not held by a test or a run that is told of."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from types import ModuleType

import pytest

from checkout import HERE
from proofs import ENGINES, GUESTS_BY_ENGINES, PROOFS, UNTRIED, Proof, by_engine
from urunc.vm import choose

TOP = HERE.parent
PAIRS = [(row.guest, row.monitor) for row in choose.matrix()]
GUESTS_RUN = ("tests/cli/", "tests/e2e/", "tests/guest/", "tests/vm/test_boots.py")


@pytest.fixture(scope="module")
def support() -> ModuleType:
    """scripts/support.py."""
    spec = importlib.util.spec_from_file_location("support", TOP / "scripts/support.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.mark.parametrize(("guest", "monitor"), PAIRS)
def test_each_claim_has_a_proof_and_each_proof_a_claim(guest: str, monitor: str, support: ModuleType) -> None:
    assert PROOFS[guest, monitor].keys() == support.claims(guest, monitor)


def test_no_proof_of_a_pair_that_is_not_there() -> None:
    assert set(PROOFS) == set(PAIRS)


def test_the_page_is_what_the_code_says(support: ModuleType) -> None:
    assert (TOP / "docs/support.md").read_text() == support.render(), "run `make docs`, and read the difference"


def test_the_readmes_table_is_the_same_in_short(support: ModuleType) -> None:
    assert support.short() in (TOP / "README.md").read_text(), support.short()


def all_proofs() -> list[Proof]:
    return sorted({proof for cells in PROOFS.values() for proof in cells.values()} | set(proofs_by_engines()))


def proofs_by_engines() -> list[Proof]:
    found = (
        by_engine(engine, network, guest)
        for engine in ENGINES
        for names in GUESTS_BY_ENGINES.values()
        for network, guest in names.items()
    )
    return [proof for proof in found if proof]


def collected(files: list[str]) -> set[str]:
    """Return the tests of these files, by their ids."""
    argv = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", *files]
    done = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, check=True, env=dict(os.environ))
    return set(done.stdout.splitlines())


def test_the_tests_are_there() -> None:
    named = {proof.where for proof in all_proofs() if not proof.where.startswith("docs/")}
    assert named <= collected(sorted({name.partition("::")[0] for name in named}))


def test_what_engines_run_is_in_their_table() -> None:
    """Each of the matrix, and of the pods: the table says no less than there is."""
    files = [f"tests/e2e/{name}.py" for name in ("test_matrix", "test_cri_guests", "test_crio")]
    run = {test for test in collected(files) if "::test_a_guest[" in test or "::test_a_pod[" in test}
    untried = {f"{files[0]}::test_a_guest[{engine}-{guest}]" for engine, guest in UNTRIED}
    assert run - untried == {proof.where for proof in proofs_by_engines()}


def test_a_level_is_no_more_than_its_proof(support: ModuleType) -> None:
    for proof in all_proofs():
        assert proof.level in support.LEVELS
        ran = proof.where.startswith((*GUESTS_RUN, "docs/"))
        assert ran == (proof.level != "C"), proof


def test_runs_by_hand_are_told_with_their_date() -> None:
    for proof in all_proofs():
        if proof.where.startswith("docs/"):
            page, _, heading = proof.where.partition("#")
            section = (TOP / page).read_text().partition(f"# {heading}\n")[2].partition("\n#")[0]
            assert re.search(r"\b20\d\d-\d\d-\d\d\b", section), proof


@pytest.mark.parametrize(("guest", "monitor"), PAIRS)
def test_guests_and_monitors_have_a_page(guest: str, monitor: str) -> None:
    """A heading of its own is enough for a monitor: Solo5's two share a page."""
    assert (TOP / f"docs/guests/{guest}.md").exists()
    assert any(f"`{monitor}`" in page.read_text() for page in (TOP / "docs/monitors").glob("*.md"))
