"""What the pages say is what the tables in the code say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from checkout import HERE
from urunc import flags
from urunc.oci import annotations
from urunc.oci.config import MonitorConfig
from urunc.vm import choose

TOP = HERE.parent
PAGES = sorted([TOP / "README.md", *(TOP / "docs").rglob("*.md")])


def rows(page: Path, first: str) -> list[list[str]]:
    """Return the cells of the table whose head begins with `first`."""
    lines = page.read_text().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"| {first} |"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


def test_the_support_matrix_is_the_codes() -> None:
    names = {"MirageOS": "mirage"}
    shown = {
        (names.get(cells[0], cells[0].lower()), monitor)
        for cells in rows(TOP / "README.md", "guest")
        for monitor in cells[1].split(", ")
    }
    assert shown == {(row.guest, row.monitor) for row in choose.matrix()}


def test_every_annotation_is_described() -> None:
    page = (TOP / "docs/images-and-annotations.md").read_text()
    for key in annotations.TABLE:
        assert f"`{key.name}`" in page


def test_every_configuration_key_is_described() -> None:
    page = (TOP / "docs/configuration.md").read_text()
    for key in (*MonitorConfig._fields, "delegate", "unsupported_mounts", "dns", "level", "syslog", "destination"):
        assert re.search(rf"\b{key}\b", page), key


def test_every_verb_is_described() -> None:
    page = (TOP / "docs/runtime-spec.md").read_text()
    for verb in flags.VERBS:
        assert f"`{verb}`" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
