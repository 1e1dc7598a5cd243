"""What the pages say is what the tables in the code say."""

from __future__ import annotations

import re
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
        assert (page.parent / target).exists(), target
