"""The command line of every guest on every monitor, with every kind of network and root, is what the file says.

After a change that is meant, write the files anew with URUNC_GOLDEN=write and read the difference.
"""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import pytest

from urunc.vm import choose, monitors
from urunc.vm.machine import Root
from vmcases import NETWORKS, VERSIONS, WITH_IPV6, describe, launch, make_machine

FOLDER = Path(__file__).resolve().parent.parent / "golden"


def cases() -> list[tuple[str, str, str, str, str, str]]:
    """Return (guest, monitor, version, model, network, root); version is "" where the monitor has only one here."""
    found = []
    for row in choose.matrix():
        models = monitors.load(row.monitor).CAPABILITIES.models or ("",)
        known = VERSIONS[row.monitor]
        versions = [".".join(map(str, version)) for version in known] if len(known) > 1 else [""]
        if row.guest in ("mirage", "mewz"):
            models = tuple(model for model in models if model != "microvm")  # no PCI bus: refused
        found += [(row.guest, row.monitor, *case) for case in product(versions, models, NETWORKS, row.roots)]
        ipv6 = WITH_IPV6 if row.guest in ("linux", "mirage") else ("dual",)
        found += [(row.guest, row.monitor, *case) for case in product(versions, models, ipv6, ("none",))]
    return found


@pytest.mark.parametrize(("guest", "monitor", "version", "model", "network", "root"), cases())
def test_command_line(guest: str, monitor: str, version: str, model: str, network: str, root: str) -> None:
    machine = make_machine(guest, monitor, {**NETWORKS, **WITH_IPV6}[network], Root(kind=root), model)
    numbers = tuple(int(part) for part in version.split(".")) if version else ()
    actual = describe(machine.boot, launch(machine, monitor, numbers))
    path = FOLDER / f"{'-'.join(part for part in (guest, monitor, version, model, network, root) if part)}.txt"
    if os.environ.get("URUNC_GOLDEN") == "write":
        path.write_text(actual)
    assert actual == path.read_text()


def test_no_file_without_a_case() -> None:
    expected = {"-".join(part for part in case if part) + ".txt" for case in cases()}
    assert {path.name for path in FOLDER.glob("*.txt")} == expected
