"""What holds each cell of the support table (docs/support.md): a test by its id, or a run that a page tells of.

The levels are those of scripts/support.py: G a guest of that kind, S a stand-in, C the command line alone. A `where`
that starts with `docs/` is a page and one of its headings, below which stand a date and what was done by hand.
tests/test_support.py holds this table against the code: a claim without a proof fails, and so does a proof without
a claim, or one that is not there. Beside it, which engine has run which guest: held against the tests of engines alike.
"""

from __future__ import annotations

from typing import NamedTuple


class Proof(NamedTuple):
    """One cell's proof."""

    level: str
    where: str


def ran(where: str) -> Proof:
    """A guest of that kind ran."""
    return Proof("G", where)


def stood_in(where: str) -> Proof:
    """Another kernel ran in its place."""
    return Proof("S", where)


def planned(where: str) -> Proof:
    """No guest ran: the command line or the plan was compared."""
    return Proof("C", where)


def golden(guest: str, monitor: str, network: str = "plain", root: str = "none") -> Proof:
    """The command line is compared with a file of tests/golden."""
    version, model = {"firecracker": ("1.16.1", ""), "qemu": ("", "q35")}.get(monitor, ("", ""))
    case = "-".join((guest, monitor, version, model, network, root))
    return planned(f"tests/vm/test_golden.py::test_command_line[{case}]")


def aarch64(guest: str, monitor: str) -> Proof:
    """The same for aarch64."""
    return planned(f"tests/vm/test_aarch64.py::test_command_line[{guest}-{monitor}-plain-initrd]")


DOCKER = "tests/e2e/test_linux.py::test_"
BLOCK = "tests/cli/test_block.py::test_"
DEVICE = "tests/cli/test_rootfs_device.py::test_"
VOLUMES = "tests/cli/test_volumes.py::test_"
NETWORK = "tests/cli/test_guest_network.py::test_"
FIRECRACKER = "tests/cli/test_firecracker.py::test_"
REAL = "tests/cli/test_real_guests.py::test_"
LOADER = "tests/cli/test_real_elfloader.py::test_"
MIRAGE = "tests/cli/test_real_mirage.py::test_"
MEWZ_RUMPRUN = "tests/cli/test_real_mewz_rumprun.py::test_"
PLANNED_DEVICE = planned("tests/vm/test_storage.py::test_how_a_monitor_gets_at_the_rootfs")
SOLO5_AARCH64 = planned("tests/vm/test_solo5.py::test_aarch64_is_no_different")


def mirage_ran(target: str) -> dict[str, Proof]:
    """What MirageOS itself did, built for that target of Solo5's."""
    told = ran(f"{MIRAGE}arguments_arrive_as_they_are[{target}]")
    return {
        "boots": told,
        "disk": ran(f"{MIRAGE}mirages_own_test_of_a_disk[{target}]"),
        "args": told,
        "IPv4": ran(f"{MIRAGE}it_serves_a_page[{target}]"),
        "IPv6": ran(f"{MIRAGE}ipv6_beside_ipv4_and_alone[{target}]"),
    }


def mirage_on(tender: str) -> dict[str, Proof]:
    """MirageOS on a tender of Solo5's: on spt. A KVM without hardware behind it does not run OCaml on hvt.

    There, and for several NICs, Solo5's own test kernels stand in for it.
    """
    tried = mirage_ran("spt") if tender == "spt" else {}
    return {
        "boots": stood_in(f"{REAL}solo5_hello[{tender}]"),
        "disk": stood_in(f"{REAL}solo5_block[{tender}]"),
        "device": stood_in(f"{DEVICE}a_monitor_that_opens_the_node_itself[{tender}]"),
        "args": stood_in(f"{REAL}solo5_hello[{tender}]"),
        "IPv4": golden("mirage", tender),
        "IPv6": golden("mirage", tender, "ipv6"),
        "NICs": stood_in(f"{REAL}solo5_two_interfaces[{tender}]"),
        "arm64": SOLO5_AARCH64,
        **tried,
    }


def rumprun_on(tender: str) -> dict[str, Proof]:
    """Rumprun on a tender of Solo5's: on spt. A KVM without hardware behind it does not run it on hvt."""
    planned_alone = {
        "boots": golden("rumprun", tender),
        "disk": golden("rumprun", tender, root="block"),
        "device": PLANNED_DEVICE,
        "args": golden("rumprun", tender),
        "env": golden("rumprun", tender),
        "IPv4": golden("rumprun", tender),
        "arm64": SOLO5_AARCH64,
    }
    seen = ran(f"{MEWZ_RUMPRUN}rumprun_hello")
    page = ran(f"{MEWZ_RUMPRUN}rumprun_serves_a_page")
    tried = {"boots": seen, "disk": seen, "args": seen, "env": seen, "IPv4": page}
    return {**planned_alone, **(tried if tender == "spt" else {})}


PROOFS: dict[tuple[str, str], dict[str, Proof]] = {
    ("linux", "qemu"): {
        "boots": ran(f"{DOCKER}busybox_serves_a_page_by_bridge_and_published_port"),
        "initrd": ran(f"{DOCKER}arguments_and_environment_arrive_whole"),
        "disk": ran(f"{BLOCK}linux_on_a_disk_as_its_root"),
        "device": ran(f"{DEVICE}linux_boots_from_its_rootfs[mountRootfs]"),
        "9p": ran("tests/cli/test_share.py::test_the_rootfs_is_the_guests_root"),
        "args": ran(f"{DOCKER}arguments_and_environment_arrive_whole"),
        "env": ran(f"{DOCKER}arguments_and_environment_arrive_whole"),
        "IPv4": ran(f"{DOCKER}nginx_serves_a_large_page_and_stops_by_itself"),
        "IPv6": ran(f"{NETWORK}ipv6_alone"),
        "NICs": ran(f"{NETWORK}two_interfaces"),
        "volumes": ran(f"{VOLUMES}a_volume_is_shared_both_ways"),
        "copies": ran(f"{VOLUMES}a_config_map_and_a_token[copied]"),
        "devices": ran(f"{VOLUMES}a_block_device_is_a_disk"),
        "signals": ran(f"{DOCKER}a_stop_signal_reaches_the_program"),
        "arm64": ran("tests/cli/test_aarch64.py::test_a_linux_guest"),
    },
    ("linux", "firecracker"): {
        "boots": stood_in(f"{FIRECRACKER}a_linux_guest_is_stopped_by_ctrl_alt_del"),
        "initrd": golden("linux", "firecracker", root="initrd"),
        "disk": golden("linux", "firecracker", root="block"),
        "device": PLANNED_DEVICE,
        "args": planned("tests/vm/test_linux.py::test_config_of_init"),
        "env": planned("tests/vm/test_linux.py::test_config_of_init"),
        "IPv4": golden("linux", "firecracker"),
        "IPv6": golden("linux", "firecracker", "ipv6"),
        "NICs": golden("linux", "firecracker", "two"),
        "copies": planned("tests/vm/test_linux.py::test_tail_holds_init_and_files"),
        "devices": planned("tests/vm/test_volumes.py::test_disks_come_behind_the_roots"),
        "signals": stood_in(f"{FIRECRACKER}a_linux_guest_is_stopped_by_ctrl_alt_del"),
        "arm64": aarch64("linux", "firecracker"),
    },
    ("unikraft", "qemu"): {
        "boots": ran(f"{REAL}unikraft_hello"),
        "initrd": ran(f"{REAL}unikraft_nginx_serves_a_page"),
        "9p": ran(f"{LOADER}unikrafts_nginx_serves_a_page_of_the_rootfs"),
        "args": ran(f"{REAL}unikraft_nginx_serves_a_page"),
        "env": ran(f"{LOADER}a_linux_program_has_its_environment"),
        "IPv4": ran(f"{REAL}unikraft_nginx_serves_a_page"),
        "NICs": ran(f"{LOADER}unikrafts_nginx_at_two_interfaces"),
        "arm64": aarch64("unikraft", "qemu"),
    },
    ("unikraft", "firecracker"): {
        "boots": stood_in(f"{REAL}unikraft_on_firecracker"),
        "initrd": stood_in(f"{FIRECRACKER}a_disk_an_initrd_and_another_user"),
        "args": stood_in(f"{REAL}unikraft_on_firecracker"),
        "env": stood_in(f"{REAL}unikraft_on_firecracker"),
        "IPv4": stood_in(f"{FIRECRACKER}the_network"),
        "NICs": golden("unikraft", "firecracker", "two"),
        "arm64": aarch64("unikraft", "firecracker"),
    },
    ("mirage", "hvt"): mirage_on("hvt"),
    ("mirage", "spt"): mirage_on("spt"),
    ("mirage", "qemu"): {
        **mirage_ran("virtio"),
        "device": PLANNED_DEVICE,
        "NICs": stood_in(f"{REAL}solo5_two_interfaces_on_qemu"),
    },
    ("rumprun", "hvt"): rumprun_on("hvt"),
    ("rumprun", "spt"): rumprun_on("spt"),
    ("mewz", "qemu"): {
        "boots": ran(f"{MEWZ_RUMPRUN}mewz_hello"),
        "IPv4": ran(f"{MEWZ_RUMPRUN}mewz_serves_a_page"),
    },
}
"""(guest, monitor) -> column -> its proof."""

ENGINES = {
    "docker": "Docker 20.10",
    "newer_docker": "Docker 26",
    "podman": "Podman 4.3",
    "nerdctl": "nerdctl 2.3",
    "ctr_runc": "ctr, runc's shim",
    "ctr_shim": "ctr, urunc's",
    "cri": "containerd's CRI",
    "crio": "CRI-O 1.36",
}
"""Engine, as tests/e2e/test_matrix.py calls it -> what it is."""

GUESTS_BY_ENGINES = {
    "Linux on QEMU": {"1": "linux", "2": "linux-two", "46": "linux-dual", "6": "linux-ipv6"},
    "Linux on QEMU, a volume copied": {"1": "linux-copied"},
    "Linux on QEMU, root and volume by 9p": {"1": "linux-9p"},
    "Unikraft's nginx, from an initrd": {"1": "unikraft", "2": "unikraft-two"},
    "a Linux nginx on Unikraft's ELF loader, by 9p": {"1": "elfloader"},
    "Unikraft's hello on Firecracker 1.7": {"1": "unikraft-firecracker"},
    "MirageOS on spt": {"1": "mirage-spt", "46": "mirage-dual", "6": "mirage-ipv6"},
    "MirageOS on QEMU": {"1": "mirage-virtio"},
    "rumprun on spt, with a disk": {"1": "rumprun"},
    "Mewz on QEMU": {"1": "mewz", "2": "mewz-two"},
    "Solo5's network tests on hvt": {"1": "hvt", "2": "hvt-two"},
    "Solo5's network tests on spt": {"1": "spt", "2": "spt-two"},
    "Solo5's disk test on hvt": {"1": "hvt-blk"},
    "Solo5's disk test on spt": {"1": "spt-blk"},
    "our test guest on QEMU": {"1": "guest"},
    "our test guest on Firecracker": {"1": "firecracker"},
}
"""Guest -> network -> what the tests of engines call it. The networks are those of scripts/support.py."""

IPV6_ALONE = {"podman", "ctr_runc", "ctr_shim", "cri"}
"""The others make no such networks."""
OF_ITS_OWN = {"hvt", "spt"}
"""What needs a network of its own: CRI-O has one for all pods."""
PODS = {"cri": "test_cri_guests", "crio": "test_crio"}
"""Where an engine of pods has its plain cases."""
NO_PODS = {"hvt-blk", "spt-blk", "linux-copied", "linux-9p", "unikraft-firecracker"}
"""What is not among these."""
UNTRIED = {("newer_docker", "elfloader")}
"""Unikraft's root by 9p does not come up on the QEMU of that Debian: docs/guests/unikraft.md."""


def by_engine(engine: str, network: str, guest: str) -> Proof | None:
    """Return the test in which the engine ran it at that network, None where there is none."""
    if (engine, guest) in UNTRIED or (network == "6" and engine not in IPV6_ALONE):
        return None
    if engine == "crio" and (network != "1" or guest in OF_ITS_OWN):
        return None
    if engine in PODS and network == "1" and guest not in NO_PODS:
        return ran(f"tests/e2e/{PODS[engine]}.py::test_a_pod[{guest}]")
    return ran(f"tests/e2e/test_matrix.py::test_a_guest[{engine}-{guest}]")
