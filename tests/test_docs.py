"""What the pages say is what the tables in the code say."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from checkout import HERE
from urunc import flags
from urunc.oci import annotations
from urunc.oci.config import MonitorConfig
from urunc.vm import guests, monitors

TOP = HERE.parent
PAGES = sorted([TOP / "README.md", *(TOP / "docs").rglob("*.md")])


def test_every_annotation_is_described() -> None:
    page = (TOP / "docs/images-and-annotations.md").read_text()
    for key in annotations.TABLE:
        assert f"`{key.name}`" in page


def test_every_guest_and_monitor_is_named() -> None:
    page = (TOP / "docs/images-and-annotations.md").read_text()
    for key, known in (("unikernelType", guests.GUESTS), ("hypervisor", monitors.MONITORS)):
        row = next(line for line in page.splitlines() if line.startswith(f"| `{key}` |"))
        assert all(f"`{name}`" in row for name in known)


def test_every_configuration_key_is_described() -> None:
    page = (TOP / "docs/configuration.md").read_text()
    for key in (*MonitorConfig._fields, "delegate", "unsupported_mounts", "dns", "level", "syslog", "destination"):
        assert re.search(rf"\b{key}\b", page), key


def test_every_verb_is_described() -> None:
    page = (TOP / "docs/runtime-spec.md").read_text()
    for verb in flags.VERBS:
        assert f"`{verb}`" in page


def prose(page: Path) -> str:
    """Return a page's text without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return what the headings of a page are called in links, as mkdocs makes it."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", prose(page)):
        path = page.parent / target if target else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


def rows(page: Path, head: str) -> list[list[str]]:
    """Return the cells of every table whose head begins with `head`."""
    found, inside = [], False
    for line in page.read_text().splitlines():
        inside = line.startswith(f"| {head} |") or (inside and line.startswith("|"))
        if inside and not line.startswith((f"| {head} |", "| ---")):
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


def cells(page: Path, head: str) -> list[str]:
    """Return the first cells of such tables, without their code marks."""
    return [row[0].strip("` ") for row in rows(page, head)]


def messages_of_the_code() -> list[re.Pattern[str]]:
    """Return a pattern for each string of urunc's that is long enough to tell: anything where a value is put in."""
    found = []
    for path in (TOP / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            texts = [part.value if isinstance(part, ast.Constant) else None for part in parts]
            if sum(len(text) for text in texts if isinstance(text, str)) >= 12:
                found.append("".join(".+" if text is None else re.escape(str(text)) for text in texts))
    return [re.compile(pattern) for pattern in sorted(set(found))]


def ticks(text: str) -> str:
    """Return the text without backquotes: those at the ends of a cell are lost with its code marks."""
    return text.replace("`", "")


def test_quoted_errors_are_the_codes() -> None:
    """A message that was changed in the code, and not in the troubleshooting page, is found here."""
    known = [re.compile("(.+: )?" + ticks(pattern.pattern)) for pattern in messages_of_the_code()]
    quoted = cells(TOP / "docs/troubleshooting.md", "message")
    assert len(quoted) > 30
    assert [text for text in quoted if not any(pattern.fullmatch(ticks(text)) for pattern in known)] == []


def test_quoted_words_of_the_guests_init_are_its_own() -> None:
    source = "".join(path.read_text() for path in (TOP / "guest/init").glob("*.c"))
    for text in cells(TOP / "docs/troubleshooting.md", "message of the guest's init"):
        said = text.removeprefix("urunc-init: ").partition("`")[0].strip()
        assert said in source


CONFORMANCE = TOP / "docs/runtime-spec.md"
PROPERTIES = (HERE / "oci/properties.txt").read_text().split()
"""Every property of config.json in the schema of the specification 1.3.0, lists left out: `mounts.source`."""


def test_the_conformance_page_speaks_of_every_property_and_of_no_other() -> None:
    named = [name for row in rows(CONFORMANCE, "property") for name in re.findall(r"`([^`]+)`", row[0])]
    assert [name for name in PROPERTIES if not any(fnmatchcase(name, pattern) for pattern in named)] == []
    assert [pattern for pattern in named if not any(fnmatchcase(name, pattern) for name in PROPERTIES)] == []


def functions() -> set[str]:
    """Return every test as the conformance page names it: `cli/life::NAME` is test_NAME in tests/cli/test_life.py."""
    found = set()
    for path in HERE.rglob("test_*.py"):
        place = path.relative_to(HERE).parent / path.stem.removeprefix("test_")
        found |= {f"{place}::{name}" for name in re.findall(r"def test_(\w+)\(", path.read_text())}
    return found


def test_the_conformance_pages_proofs_are_tests() -> None:
    proofs = [row[-1] for head in ("clause", "property") for row in rows(CONFORMANCE, head)]
    named = {name for cell in proofs for name in re.findall(r"`([^`]+)`", cell)}
    assert len(named) > 100
    assert named - functions() == set()


@pytest.mark.parametrize("row", [row for head in ("clause", "property") for row in rows(CONFORMANCE, head)])
def test_each_row_of_the_conformance_page_is_proved(row: list[str]) -> None:
    """By a test, by a run that a page tells of, or by the reason for which there is nothing to prove."""
    what, said, proof = row
    told = re.search(r"\]\([\w/-]+\.md#[\w-]+\)", proof)
    nothing = re.search(r"\*\*not applicable\*\*: \w", said) or said == "below"
    assert "`" in proof or told or nothing, what
    assert nothing or told or "::" in proof, what


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_files_and_tests_that_a_page_names_are_there(page: Path) -> None:
    text = prose(page)
    for path in re.findall(r"`((?:tests|scripts|src|guest|bench)/[\w./-]+)", text):
        assert "tiny" in path or (TOP / path).exists(), path
    tests = "".join(path.read_text() for path in HERE.rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+?)(?:_\*)?`", text):
        assert f"def {name}" in tests, name


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r": (\S+\.md)$", (TOP / "mkdocs.yml").read_text(), re.MULTILINE))
    assert listed == {str(path.relative_to(TOP / "docs")) for path in (TOP / "docs").rglob("*.md")}
