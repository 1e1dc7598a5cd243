"""`check`: what this host can run, and what to install for the rest.

What the host has is looked at here, for monitors, and by `facilities` for all else. Which guest runs on which monitor
here is decided from what was seen, purely.
"""

from __future__ import annotations

import os

from ..errors import ConfigError, HostError
from ..record import Record
from ..vm import choose, guests, monitors
from . import facilities, facilities_machine, host
from .facility import Facility

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..oci.config import Config
    from ..vm.choose import Row

_SOFTWARE = "with a KVM that has no hardware behind it: guests of plain integer code only"


class Program(Record):
    """A monitor on this host. `accel` is "kvm" or "tcg", "" for one without; `note` is what its user should know."""

    name: str
    ok: bool
    path: str = ""
    version: str = ""
    accel: str = ""
    note: str = ""
    hint: str | None = None


class Pair(Record):
    """A guest on a monitor; `why` it cannot run here."""

    guest: str
    monitor: str
    ok: bool
    why: str = ""


class Report(Record):
    """All of it. `ok`: at least one pair can run here."""

    ok: bool
    arch: str
    kvm: str
    monitors: tuple[Program, ...]
    facilities: tuple[Facility, ...]
    pairs: tuple[Pair, ...]


def check(cache: str, config: Config) -> Report:
    """Look at the host and return the report. `cache` is the folder for what is slow to find out."""
    arch, kvm = os.uname().machine, host.kvm_state(cache)
    programs = tuple(find_monitor(name, config, arch, kvm, cache) for name in monitors.MONITORS)
    found = (*facilities.look(config, arch, kvm, cache), *_parts(programs))
    pairs = judge(choose.matrix(), programs, found, arch)
    return Report(
        ok=any(pair.ok for pair in pairs), arch=arch, kvm=kvm, monitors=programs, facilities=found, pairs=pairs
    )


def _parts(programs: tuple[Program, ...]) -> tuple[Facility, ...]:
    """Return what those monitors that are built with more or less have in them."""
    return tuple(
        facilities_machine.find_parts(monitors.load(program.name).CAPABILITIES, program.path)
        for program in programs
        if program.path and monitors.load(program.name).CAPABILITIES.parts
    )


def judge(
    rows: tuple[Row, ...], programs: tuple[Program, ...], found: tuple[Facility, ...], arch: str
) -> tuple[Pair, ...]:
    """Return each pair of the support matrix, and whether it can run with what was seen. Pure."""
    lacking = next((f"{facility.name}: {facility.what}" for facility in found if _stops(facility)), "")
    init = next((facility.what for facility in found if facility.name == "guest init" and not facility.ok), "")
    broken = {program.name: program.note for program in programs if not program.ok}
    weak = {program.name: program.note for program in programs if program.note == _SOFTWARE}
    emulated = [facility.name for facility in found if facility.ok]
    pairs = []
    for row in rows:
        why = lacking or broken.get(row.monitor, "")
        why = why or (init if row.own_init else "")
        why = why or (weak.get(row.monitor, "") if row.full_cpu else "")
        if arch not in row.architectures and not _is_emulated(row, emulated):
            why = why or f"not on {arch}"
        pairs.append(Pair(guest=row.guest, monitor=row.monitor, ok=not why, why=why))
    return tuple(pairs)


def _is_emulated(row: Row, there: list[str]) -> bool:
    """Return whether the monitor can be a machine for the guest in software, by the facilities that are `there`."""
    return row.kvm == "optional" and any(f"{arch} kernels" in there for arch in row.architectures)


def _stops(facility: Facility) -> bool:
    return facility.needed and not facility.ok


def hints(report: Report) -> tuple[str, ...]:
    """Return what can be done for what is missing, each once."""
    found = [monitor.hint for monitor in report.monitors if not monitor.ok]
    found += [facility.hint for facility in report.facilities if not facility.ok]
    return tuple(dict.fromkeys(hint for hint in found if hint))


def find_monitor(name: str, config: Config, arch: str, kvm: str, cache: str) -> Program:
    """Look for a monitor, all the files that it needs, and whether it can run its vCPUs."""
    can, settings = monitors.load(name).CAPABILITIES, config.monitor(name)
    try:
        found = host.probe_monitor(name, settings, arch, cache)
    except HostError as error:
        return Program(name=name, ok=False, note=error.message, hint=error.hint)
    program = Program(name=name, ok=True, path=found.binary, version=".".join(str(number) for number in found.version))
    try:
        accel, warning = choose.accelerator(can, settings, kvm)
        choose.model(can, settings, arch)
    except (HostError, ConfigError) as error:
        return program.replace(ok=False, note=error.message, hint=error.hint)
    if accel == "kvm" and kvm == "software":
        warning = _SOFTWARE
    return program.replace(accel="" if can.kvm == "no" else accel, note=warning or "")


def to_data(report: Report) -> dict[str, Any]:
    """Return the report as JSON data, with the guests that this version knows and what is to be done."""
    return {**report.to_data(), "guests": list(guests.GUESTS), "todo": list(hints(report))}
