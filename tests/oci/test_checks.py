"""What a Spec must hold, and what becomes of each mount that an engine makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from urunc import jsonio
from urunc.errors import SpecError
from urunc.oci import checks, spec
from urunc.oci.spec import Device, IdMap, Mount, Namespace, Process, Resources, Spec, User

GOLDEN = Path(__file__).parent / "golden"
GOOD = Spec(version="1.0.2", process=Process(), rootfs="rootfs", namespaces=(Namespace(kind="mount"),))
MAPS = (IdMap(container_id=0, host_id=1000, size=10),)


def with_namespace(*kinds: str, **changes: Any) -> Spec:
    return GOOD.replace(namespaces=(*GOOD.namespaces, *(Namespace(kind=kind) for kind in kinds)), **changes)


def golden(name: str) -> Spec:
    return spec.parse(jsonio.loads((GOLDEN / f"{name}.json").read_bytes()))


@pytest.mark.parametrize(
    "good",
    [
        GOOD,
        with_namespace("user", uid_maps=MAPS, gid_maps=MAPS),
        GOOD.replace(namespaces=(Namespace(kind="mount"), Namespace(kind="user", path="/proc/9/ns/user"))),
        with_namespace("uts", hostname="web", domainname="x"),
        with_namespace("time", time_offsets=(("monotonic", 1, 0),)),
        GOOD.replace(resources=Resources(cpu_quota=-1, cpu_burst=5)),
        GOOD.replace(devices=(Device(path="/dev/kvm", kind="c", major=10, minor=232),)),
    ],
)
def test_good_ones(good: Spec) -> None:
    checks.check(good)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (GOOD.replace(namespaces=()), "linux.namespaces: a mount namespace is needed"),
        (GOOD.replace(uid_maps=MAPS), "linux.uidMappings: given without a user namespace"),
        (GOOD.replace(gid_maps=MAPS), "linux.gidMappings: given without a user namespace"),
        (with_namespace("user"), "linux.uidMappings: missing, a new user namespace needs it"),
        (with_namespace("user", uid_maps=MAPS), "linux.gidMappings: missing, a new user namespace needs it"),
        (
            with_namespace("user", uid_maps=(IdMap(container_id=1, host_id=1, size=9),), gid_maps=MAPS),
            "linux.uidMappings: 0 is not mapped, as whom the container is set up",
        ),
        (
            with_namespace("user", uid_maps=MAPS, gid_maps=MAPS, process=Process(user=User(uid=10))),
            "process.user.uid: 10 is not mapped into the user namespace",
        ),
        (
            with_namespace("user", uid_maps=MAPS, gid_maps=MAPS, process=Process(user=User(gid=10))),
            "process.user.gid: 10 is not mapped into the user namespace",
        ),
        (
            with_namespace("user", uid_maps=MAPS, gid_maps=MAPS, process=Process(user=User(groups=(1, 11)))),
            "process.user.additionalGids[1]: 11 is not mapped into the user namespace",
        ),
        (GOOD.replace(hostname="web"), "hostname: needs a uts namespace"),
        (GOOD.replace(domainname="web"), "domainname: needs a uts namespace"),
        (GOOD.replace(time_offsets=(("monotonic", 1, 0),)), "linux.timeOffsets: needs a time namespace"),
        (
            GOOD.replace(
                namespaces=(Namespace(kind="mount"), Namespace(kind="time", path="/t")),
                time_offsets=(("monotonic", 1, 0),),
            ),
            "linux.timeOffsets: the time namespace `/t` has its own",
        ),
        (
            GOOD.replace(resources=Resources(cpu_quota=5, cpu_burst=6)),
            "linux.resources.cpu.burst: 6 is above the quota 5",
        ),
        (
            GOOD.replace(devices=(Device(path="/dev/null", kind="c"), Device(path="/dev/sda", kind="c"))),
            "linux.devices[1]: `/dev/sda` cannot be given to a virtual machine",
        ),
        (GOOD.replace(unsupported=("linux.intelRdt",)), "linux.intelRdt: not supported"),
        (GOOD.replace(net_devices=(("nic0", "eth0"),)), "linux.netDevices: needs a network namespace"),
        (
            GOOD.replace(
                net_devices=(("nic0", "eth0"), ("nic1", "eth0")),
                namespaces=(*GOOD.namespaces, Namespace(kind="network")),
            ),
            "linux.netDevices: two devices are to be `eth0`",
        ),
        (
            GOOD.replace(
                net_devices=(("nic0", "e%d"), ("nic1", "e%dx"), ("nic2", "e10x")),
                namespaces=(*GOOD.namespaces, Namespace(kind="network")),
            ),
            "linux.netDevices: two devices are to be `e10x`",
        ),
    ],
)
def test_bad_ones(bad: Spec, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        checks.check(bad)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("vm.kernel", "com.urunc.unikernel.binary"),
        ("vm.image", "com.urunc.unikernel.binary"),
        ("vm.hypervisor", "com.urunc.unikernel.hypervisor"),
        ("vm.hwConfig", "linux.resources"),
    ],
)
def test_what_is_not_supported_says_what_is(path: str, hint: str) -> None:
    with pytest.raises(SpecError) as caught:
        checks.check(GOOD.replace(unsupported=(path,)))
    assert caught.value.message == f"{path}: not supported"
    assert hint in (caught.value.hint or "")


ENGINES = {
    "docker-default": ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts"],
    "docker-limits": ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts"],
    "docker-host": ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts"],
    "docker-sysctl": ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts"],
    "ctr-default": [],
    "ctr-limits": [],
    "runc-spec": [],
    "podman-default": ["/etc/hostname", "/etc/resolv.conf", "/etc/hosts"],
    "podman-limits": ["/etc/passwd", "/etc/group", "/etc/hostname", "/etc/resolv.conf", "/etc/hosts"],
    "podman-systemd": ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname"],
    "podman-pod-container": ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname"],
    "cri-container": ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"],
    "cri-sandbox": ["/etc/resolv.conf"],
}


@pytest.mark.parametrize("name", ENGINES)
def test_what_engines_mount_unasked_passes(name: str) -> None:
    found = golden(name)
    checks.check(found)
    plan = checks.classify_mounts(found, takes_files=True)
    assert [mount.destination for mount in plan.given] == ENGINES[name]
    assert len(plan.given) + len(plan.dropped) == len(found.mounts)
    assert (plan.resolv_conf is not None) == ("/etc/resolv.conf" in ENGINES[name])

    bare = checks.classify_mounts(found, takes_files=False)
    assert bare.given == () and bare.dropped == found.mounts
    assert bare.resolv_conf == plan.resolv_conf
    for path in ENGINES[name]:
        assert f"mount `{path}` is left out: the guest cannot take it" in bare.messages


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("docker-volume", "mounts[7]: mount `/data` cannot be given to the guest"),
        ("docker-init", "mounts[7]: mount `/sbin/docker-init` cannot be given to the guest"),
        ("podman-volume", "mounts[1]: mount `/data` cannot be given to the guest"),
    ],
)
def test_what_the_user_asked_for_is_an_error_or_a_message(name: str, message: str) -> None:
    found = golden(name)
    with pytest.raises(SpecError) as caught:
        checks.classify_mounts(found, takes_files=True)
    assert caught.value.message == message
    assert "unsupported_mounts" in (caught.value.hint or "")
    plan = checks.classify_mounts(found, takes_files=True, unsupported="warn")
    assert message.split(": ")[1] + ", and is left out" in plan.messages


def test_devices_of_a_privileged_container_are_an_error() -> None:
    with pytest.raises(SpecError, match=r"^linux\.devices\[0\]: "):
        checks.check(golden("docker-privileged"))


def test_the_log_has_one_line_for_the_kernel_mounts() -> None:
    plan = checks.classify_mounts(golden("ctr-default"), takes_files=True)
    assert plan.messages == (
        "mounts left out, the guest has its own: /proc, /dev, /dev/pts, /dev/shm, /dev/mqueue, /sys, /run",
    )


def bind(destination: str, source: str) -> Mount:
    return Mount(destination=destination, type="bind", source=source, options=("rbind",))


@pytest.mark.parametrize(
    ("mount", "fine"),
    [
        (bind("/log", "/var/lib/kubelet/pods/uid/containers/web/1a2b"), True),
        (bind("/log", "/var/lib/kubelet/pods/uid/volumes/web/1a2b"), False),
        (bind("/termination", "/x"), True),  # named by the annotation
        (bind("/etc/passwd", "/etc/passwd"), False),
        (bind("/etc/passwd", "/c/1/userdata/passwd"), True),
        (bind("/proc", "/proc"), False),
        (Mount(destination="/proc", type="proc"), True),
        (Mount(destination="/data", type="proc"), False),
        (Mount(destination="/scratch", type="tmpfs"), False),
        (Mount(destination="/run/secrets", type="tmpfs"), True),
        (Mount(destination="/etc/hosts", type="ext4", source="/dev/sda"), False),
        (bind("/", "/srv"), False),
    ],
)
def test_single_mounts(mount: Mount, fine: bool) -> None:
    found = GOOD.replace(
        mounts=(mount,), annotations={"io.kubernetes.container.terminationMessagePath": "/termination"}
    )
    if fine:
        assert checks.classify_mounts(found, takes_files=False).dropped == (mount,)
    else:
        with pytest.raises(SpecError):
            checks.classify_mounts(found, takes_files=False)


def test_the_last_resolv_conf_counts() -> None:
    first, last = bind("/etc/resolv.conf", "/a"), bind("/etc/resolv.conf", "/b")
    assert checks.classify_mounts(GOOD.replace(mounts=(first, last)), takes_files=True).resolv_conf == last


def test_a_capability_that_is_none_is_said() -> None:
    process = Process(unknown_capabilities=("CAP_FLY", "CAP_SWIM"))
    said = ("process.capabilities holds unknown names: CAP_FLY, CAP_SWIM",)
    assert checks.warnings(GOOD.replace(process=process)) == said
    assert checks.warnings(GOOD) == ()


def test_notes_say_what_was_asked_for_and_does_not_reach_the_guest() -> None:
    assert checks.notes(golden("docker-default")) == ()
    assert checks.notes(golden("docker-sysctl")) == (
        "linux.sysctl does not reach the guest's kernel: net.core.somaxconn",
    )
    labelled = GOOD.replace(process=Process(apparmor="docker-default", selinux="label"))
    assert checks.notes(labelled) == (
        "process.apparmorProfile is not applied: docker-default",
        "process.selinuxLabel is not applied: label",
    )


ALL = checks.Takes(copies=True, shares="yes", tmpfs=True, disks=True)
FILE, FOLDER = checks.Source(kind="file", small=True), checks.Source(kind="folder", small=True)
LARGE, BLOCK = checks.Source(kind="folder"), checks.Source(kind="block", device=(8, 1))
DATA = Mount(destination="/data", type="bind", source="/srv", options=("rbind",))
CONFIG = DATA.replace(destination="/config", options=("rbind", "ro"))
RECURSIVE = CONFIG.replace(options=("rbind", "rro"))  # read-only with all that is mounted below it
TOKEN = CONFIG.replace(destination="/var/run/secrets/kubernetes.io/serviceaccount")
DISK = Mount(destination="/disk", type="ext4", source="/dev/sda1")
SCRATCH = Mount(destination="/scratch", type="tmpfs")


@pytest.mark.parametrize(
    ("mount", "source", "changes", "way"),
    [
        (DATA, LARGE, {}, "share"),
        (DATA, FILE, {"shares": "maybe"}, "share"),
        (CONFIG, FOLDER, {}, "share"),  # which shows later changes
        (CONFIG, FOLDER, {"shares": "maybe"}, "copy"),
        (CONFIG, FILE, {"shares": "no"}, "copy"),
        (CONFIG, LARGE, {"shares": "maybe"}, "share"),
        (RECURSIVE, FOLDER, {}, "share"),
        (RECURSIVE, FOLDER, {"shares": "maybe"}, "copy"),
        (TOKEN, FOLDER, {}, "share"),
        (TOKEN, FOLDER, {"shares": "no"}, "copy"),
        (DISK, BLOCK, {}, "disk"),
        (SCRATCH, checks.Source(), {}, "tmpfs"),
    ],
)
def test_volumes(mount: Mount, source: checks.Source, changes: dict[str, object], way: str) -> None:
    found = checks.classify_mounts(
        GOOD.replace(mounts=(mount,)), takes_files=True, takes=ALL.replace(**changes), sources={0: source}
    )
    readonly = bool({"ro", "rro"} & set(mount.options))
    assert found.volumes == (checks.Volume(mount=mount, way=way, readonly=readonly, source=source),)
    assert found.dropped == ()
    assert bool(found.messages) == (way == "copy")


@pytest.mark.parametrize(
    ("mount", "source", "changes"),
    [
        (DATA, FOLDER, {"shares": "no"}),  # to be written
        (CONFIG, LARGE, {"shares": "no"}),
        (CONFIG, FOLDER, {"shares": "no", "copies": False}),
        (DATA, checks.Source(), {}),
        (DATA, BLOCK, {}),
        (DATA.replace(destination="/"), FOLDER, {}),
        (DATA.replace(destination="/proc"), FOLDER, {}),
        (DISK, FILE, {}),
        (DISK, BLOCK, {"disks": False}),
        (SCRATCH, checks.Source(), {"tmpfs": False}),
        (DISK.replace(type="nfs"), BLOCK, {}),
    ],
)
def test_volumes_that_cannot_be_given(mount: Mount, source: checks.Source, changes: dict[str, object]) -> None:
    found = GOOD.replace(mounts=(mount,))
    with pytest.raises(SpecError, match=r"^mounts\[0\]: "):
        checks.classify_mounts(found, takes_files=True, takes=ALL.replace(**changes), sources={0: source})


def test_what_nobody_asked_for_is_shared_only_where_it_surely_can_be() -> None:
    found = GOOD.replace(mounts=(TOKEN,))
    plan = checks.classify_mounts(
        found, takes_files=True, takes=ALL.replace(shares="maybe", copies=False), sources={0: FOLDER}
    )
    assert (plan.volumes, plan.dropped) == ((), (TOKEN,))


def test_only_what_is_not_an_engines_own_is_looked_at() -> None:
    hosts = DATA.replace(destination="/etc/hosts")
    assert checks.undecided(GOOD.replace(mounts=(hosts, DATA, SCRATCH, DISK, TOKEN))) == (1, 3, 4)


def test_block_devices_are_disks() -> None:
    disk = Device(path="/dev/xvda", kind="b", major=8, minor=1)
    found = GOOD.replace(devices=(Device(path="/dev/null", kind="c"), disk))
    checks.check(found)
    assert checks.find_disks(found, takes_disks=True) == (disk,)
    with pytest.raises(SpecError, match=r"^linux\.devices\[1\]: "):
        checks.find_disks(found, takes_disks=False)
