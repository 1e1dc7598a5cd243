#!/usr/bin/python3
"""Print docs/support.md, or write it and README.md's table (--write).

It says what each guest has on each monitor, and what each monitor is, as the code has it. Nothing here is a list of its
own. What a pair can do is asked of the guest's `boot` with a network, arguments and an environment that are looked for
in what it returns, and of the two modules' records; how much each claim has been tried is what tests/proofs.py says,
and a test holds the one against the other. Which engine has run which guest it says as well.
"""

from __future__ import annotations

import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TOP / "src"), str(TOP / "tests")]

from proofs import ENGINES, GUESTS_BY_ENGINES, PROOFS, by_engine  # noqa: E402
from urunc.errors import SpecError  # noqa: E402
from urunc.oci.app import App  # noqa: E402
from urunc.vm import choose, guests, monitors  # noqa: E402
from urunc.vm.machine import Address, Boot, Capabilities, Context, KernelInfo, Network, Nic, Root, Route  # noqa: E402

ARGUMENT, VARIABLE = "an-argument", "A_VARIABLE=1"
IPV4, IPV6 = "192.0.2.77", "2001:db8::77"
DEVICES = (("net0", "NET_BASIC"), ("net1", "NET_BASIC"), ("disk", "BLOCK_BASIC"))

COLUMNS = {
    "boots": "the guest starts",
    "initrd": "an initrd as its root",
    "disk": "a disk image of the container's rootfs, as its root or beside it",
    "device": "the rootfs itself, a block device, as its root",
    "9p": "the rootfs itself, shared by 9p, as its root",
    "args": "the guest gets the container's arguments",
    "env": "it gets its environment",
    "IPv4": "it is told its IPv4 address",
    "IPv6": "it is told its IPv6 address",
    "NICs": "it makes use of several NICs",
    "volumes": "folders and files of the host as volumes, shared by 9p",
    "copies": "small read-only volumes, ConfigMaps and Secrets, as copies",
    "devices": "block devices: as volumes, and of `linux.devices`",
    "signals": "it hears a stop signal",
    "arm64": "it starts on aarch64 as well",
}
"""Column -> what it says of a guest on a monitor."""

NAMES = {"linux": "Linux", "unikraft": "Unikraft", "mirage": "MirageOS", "mewz": "Mewz"}
"""What README.md calls a guest, where that is not its name in an annotation."""

LEVELS = {
    "G": "a guest of that kind ran so, in a test or a run that is written down",
    "S": "another kernel stood in for it: this repository's test guest, or Solo5's own tests",
    "C": "no guest ran: the monitor's command line, or the plan, is compared with what it should be",
}
"""How much a claim has been tried."""


NETWORKS = {
    "1": "at one network, the engine's own where it has one",
    "2": "at two networks",
    "46": "at a network of IPv4 and IPv6",
    "6": "at a network of IPv6 alone",
}
"""At which networks an engine has run a guest."""

OF_ENGINES = """\
Each was started, asked at all of its addresses, stopped by a signal and, where the engine does that, started again (the
disk tests end by themselves); nothing was left of it. Docker 26, nerdctl and containerd's CRI call urunc's shim; Docker
20.10, Podman, CRI-O and runc's shim call its command line. The figures say at which networks:
"""
NOT_BY_ENGINES = """\
Docker and nerdctl make no networks of IPv6 alone, and CRI-O has one network for all pods. On the newer Debian of Docker
26, Unikraft [has no root by 9p](guests/unikraft.md#limits). The tests are `tests/e2e/test_matrix.py`,
`test_cri_guests.py` and `test_crio.py`; what they need, and skip without, is said in [real guests](real-guests.md) and
on [the shim's page](containerd.md#proof).
"""


def claims(guest: str, monitor: str) -> set[str]:
    """Return the columns that the code claims for this pair."""
    row = next(row for row in choose.matrix() if (row.guest, row.monitor) == (guest, monitor))
    can = monitors.load(monitor).CAPABILITIES
    said = _said(_boot(guest, can, _network(IPV4)))
    told = {"args": ARGUMENT, "env": VARIABLE, "IPv4": IPV4}
    found = {"boots", *(column for column, word in told.items() if word in said)}
    found |= {column for column in ("initrd", "9p") if column in row.roots}
    found |= {"disk", "device"} if "block" in row.roots else set()
    found |= _of_its_init(can) if row.own_init else set()
    checks = {
        "IPv6": _is_told_ipv6(guest, can),
        "NICs": can.max_nics > 1 and _boot(guest, can, _network(IPV4), manifest=False).nics != 1,
        "signals": bool(_boot(guest, can, Network()).control or _boot(guest, can, Network()).ctrl_alt_del),
        "arm64": "aarch64" in row.architectures,
    }
    return found | {column for column, holds in checks.items() if holds}


def _of_its_init(can: Capabilities) -> set[str]:
    """Return what urunc's own init gives a guest."""
    return {"copies"} | ({"volumes"} if "9p" in can.shares else set()) | ({"devices"} if can.max_disks else set())


def _network(address: str) -> Network:
    family = 6 if ":" in address else 4
    gateway = Route(gateway="2001:db8::1" if family == 6 else "192.0.2.1", family=family)
    length = 64 if family == 6 else 24
    nic = Nic(
        ifname="eth0",
        tap="tap0",
        mac="02:00:00:00:00:01",
        addresses=(Address(ip=address, prefix=length, family=family),),
        routes=(gateway,),
    )
    return Network(nics=(nic,))


def _boot(guest: str, can: Capabilities, network: Network, *, manifest: bool = True) -> Boot:
    app = App(guest=guest, monitor=can.name, kernel="/kernel", args=("app", ARGUMENT), env=(VARIABLE,))
    abi = can.name if can.arguments else None
    kernel = KernelInfo(
        format="elf64", arch="x86_64", solo5_abi=abi, solo5_devices=DEVICES if abi and manifest else None
    )
    model = can.models[0] if can.models else ""
    context = Context(kernel=kernel, model=model, tsc_khz=1, init=b"init")
    return guests.load(guest).boot(app, network, Root(), can, context)


def _said(boot: Boot) -> str:
    """Return all that a guest is given to read."""
    files = (file.content.decode("utf-8", "replace") for file in boot.initrd_tail)
    return "\n".join((boot.command_line, *boot.arguments, *files))


def _is_told_ipv6(guest: str, can: Capabilities) -> bool:
    try:
        return IPV6 in _said(_boot(guest, can, _network(IPV6)))
    except SpecError:
        return False


def render() -> str:
    """Return the page."""
    return "\n".join(
        (
            "# What runs on what",
            "",
            "Made by `scripts/support.py` from the code, and checked by a test: do not edit it by hand.",
            "",
            "## Guests on monitors",
            "",
            *_table(("guest", "monitor", *COLUMNS), [_pair(row) for row in choose.matrix()]),
            "",
            "An empty cell is something that cannot be had. A root, a volume or a device that is asked for is then",
            "an error; addresses and interfaces are left out with a line in the log; arguments and environment are not",
            "passed on. The letters say how much of what the code claims has been tried:",
            "",
            *(f"- **{letter}**: {what}" for letter, what in LEVELS.items()),
            "",
            "Which test or run it is stands in `tests/proofs.py`. The columns:",
            "",
            *_table(("column", "what it says"), list(COLUMNS.items())),
            "",
            "What each of them means is said once: [storage](storage.md), [networking](networking.md), [arguments",
            "and environment](images-and-annotations.md#what-a-guest-gets), [stopping](console.md#stopping).",
            "",
            "## Guests by engines",
            "",
            *_table(("", *ENGINES.values()), [_by_engines(guest) for guest in GUESTS_BY_ENGINES]),
            "",
            OF_ENGINES,
            *(f"- **{network}**: {what}" for network, what in NETWORKS.items()),
            "",
            NOT_BY_ENGINES,
            "## Monitors",
            "",
            *_table(("", *(f"`{name}`" for name in monitors.MONITORS)), _monitors()),
            "",
            "A guest may need more memory than its monitor does.",
            "",
        )
    )


def short() -> str:
    """Return README.md's table."""
    rows = [
        (NAMES.get(guest, guest), ", ".join(guests.load(guest).MONITORS), _roots(guest), _tried(guest))
        for guest in guests.GUESTS
    ]
    return "\n".join(_table(("guest", "monitors", "its root", "tried"), rows)) + "\n"


def _roots(guest: str) -> str:
    """Return what its root may be, with the monitors where that is not so on all."""
    every = guests.load(guest).MONITORS
    kinds = {"an initrd": {"initrd"}, "a disk image": {"disk"}, "the container's rootfs": {"device", "9p"}}
    found = []
    for name, columns in kinds.items():
        having = [monitor for monitor in every if columns & claims(guest, monitor)]
        if having:
            found.append(name if len(having) == len(every) else f"{name} ({', '.join(having)})")
    return ", ".join([*found, "nothing"])


def _tried(guest: str) -> str:
    """Return how far the guest's start has been tried, the monitors where it was tried most first."""
    words = {"G": "runs on", "S": "a stand-in runs on", "C": "command lines alone on"}
    found = []
    for level, what in words.items():
        names = [name for name in guests.load(guest).MONITORS if _level(guest, name, "boots") == level]
        found += [f"{what} {', '.join(names)}"] if names else []
    return "; ".join(found)


def _level(guest: str, monitor: str, column: str) -> str:
    """Return the letter of a claim, `?` where it has no proof."""
    proof = PROOFS.get((guest, monitor), {}).get(column)
    return proof.level if proof else "?"


def _pair(row: choose.Row) -> tuple[str, ...]:
    claimed = claims(row.guest, row.monitor)
    cells = (_level(row.guest, row.monitor, column) if column in claimed else "" for column in COLUMNS)
    return row.guest, row.monitor, *cells


def _by_engines(guest: str) -> tuple[str, ...]:
    names = GUESTS_BY_ENGINES[guest]
    tried = (
        [network for network in NETWORKS if network in names and by_engine(engine, network, names[network])]
        for engine in ENGINES
    )
    return guest, *map(", ".join, tried)


def _monitors() -> list[tuple[str, ...]]:
    known = [monitors.load(name).CAPABILITIES for name in monitors.MONITORS]
    rows = {
        "program": [", ".join(dict.fromkeys(f"`{program}`" for _, program in can.binaries)) for can in known],
        "architectures": [", ".join(arch for arch, _ in can.binaries) for can in known],
        "KVM": [can.kvm for can in known],
        "machine types": [", ".join(f"`{model}`" for model in can.models) for can in known],
        "vCPUs at most": [str(can.max_vcpus) for can in known],
        "NICs at most": [str(can.max_nics) for can in known],
        "disks at most": [str(can.max_disks) for can in known],
        "shared folders": [", ".join(can.shares) for can in known],
        "standard input": ["yes" if can.stdin else "" for can in known],
        "standard streams apart from the console, for Linux": ["yes" if can.stream_ports else "" for can in known],
        "ends by TERM": ["yes" if can.handles_term else "" for can in known],
        "needs beside the guest's memory, MiB": [str(can.overhead_mib) for can in known],
        "least memory of a guest, MiB": [str(can.min_memory_mib) for can in known],
        "least `pids.limit`": [str(can.min_pids) for can in known],
    }
    return [(name, *cells) for name, cells in rows.items()]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def write() -> None:
    """Write the page, and README.md's table where it stands."""
    (TOP / "docs/support.md").write_text(render())
    readme = TOP / "README.md"
    before, head, rest = readme.read_text().partition("| guest | monitors |")
    after = rest[rest.index("\n\n") + 1 :]
    readme.write_text(before + short() + after if head else before)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        write()
    else:
        sys.stdout.write(render())
