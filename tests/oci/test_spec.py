"""config.json: what is read, and that every wrong value is one SpecError that starts with its JSON path."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from documents import FULL, MINIMAL, with_value
from urunc import jsonio
from urunc.errors import SpecError
from urunc.oci import spec
from urunc.oci.node import Node
from urunc.oci.parse_linux import read_resources
from urunc.oci.spec import DeviceRule, DeviceWeight, Hook, IdMap, Mount, Namespace, Rlimit, User

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


def test_the_least_document() -> None:
    found = spec.parse(MINIMAL)
    assert found.version == "1.0.2"
    assert found.rootfs == "rootfs"
    assert found.process.args == () and found.process.user == User()
    assert found.resources == spec.Resources()
    assert found.namespace("mount") is None


def test_the_whole_document() -> None:
    found = spec.parse(FULL)
    assert found.process == spec.Process(
        args=("/app", "", "a b"),
        env=("A=b", "EMPTY="),
        cwd="/srv",
        terminal=True,
        console_size=(25, 80),
        user=User(uid=1, gid=2, umask=63, groups=(5, 6)),
        rlimits=(Rlimit(kind="RLIMIT_NOFILE", soft=1, hard=2**64 - 1),),
        oom_score_adj=-5,
        apparmor="docker-default",
        selinux="system_u",
    )
    assert (found.rootfs, found.root_readonly) == ("/images/1", True)
    assert (found.hostname, found.domainname) == ("web", "example")
    assert found.mounts[0] == Mount(destination="/proc", type="proc", source="proc", options=("nosuid",))
    assert found.mounts[1] == Mount(destination="/data/y", type="bind", source="/srv", options=("rbind", "ro"))
    assert found.hooks.prestart == (Hook(path="/bin/a", args=("a", "b"), env=("X=y",), timeout=5),)
    assert [hook.path for hook in found.hooks.poststart] == ["/bin/e", "/bin/f"]
    assert found.hooks.create_runtime[0].env is None
    assert found.hooks.poststop[0].env == ()
    assert found.annotations["a"] == "b"
    assert found.namespaces == (
        Namespace(kind="mount"),
        Namespace(kind="network", path="/run/netns/x"),
        Namespace(kind="pid"),
    )
    assert found.uid_maps == (IdMap(container_id=0, host_id=1000, size=10),)
    assert found.time_offsets == (("monotonic", -3, 0), ("boottime", 4, 5))
    assert found.devices[0].mode == 0o666
    assert found.seccomp == FULL["linux"]["seccomp"]
    assert found.sysctl == (("net.core.somaxconn", "1024"),)


def test_the_resources() -> None:
    found = spec.parse(FULL).resources
    assert (found.memory_limit, found.memory_swap, found.memory_disable_oom_killer) == (1000, -1, True)
    assert (found.cpu_shares, found.cpu_quota, found.cpu_idle, found.cpus) == (5, 50000, 1, "0-1")
    assert found.memory_check_before_update is True
    assert found.pids_limit == 0
    assert (found.block_io_weight, found.block_io_leaf_weight) == (10, 11)
    assert found.block_io_device_weights == (
        DeviceWeight(major=8, minor=0, weight=500, leaf_weight=300),
        DeviceWeight(major=8, minor=16),
    )
    assert found.block_io_throttle == (("read_bps", 8, 0, 600), ("write_iops", 8, 0, 7))
    assert found.hugepage_limits == (("2MB", 5),)
    assert found.rdma == (("mlx5_1", 3, 10000), ("rxe3", None, 0))
    assert (found.network_class_id, found.network_priorities) == (9, (("eth0", 1),))
    assert found.unified == (("io.max", "8:0 rbps=1"),)
    assert found.devices == (
        DeviceRule(allow=False),
        DeviceRule(allow=True, kind="c", major=10, minor=None, access="rw"),
    )
    assert read_resources(Node(FULL["linux"]["resources"], "resources")) == found


def test_zeros_that_mean_not_given() -> None:
    data = {"memory": {"limit": 0, "swappiness": 2**64 - 1}, "cpu": {"shares": 0, "quota": 0}, "blockIO": {"weight": 0}}
    assert read_resources(Node(data, "resources")) == spec.Resources()


def test_null_is_absent() -> None:
    data = {**MINIMAL, "linux": None, "mounts": None, "hooks": {"prestart": None}}
    assert spec.parse(data) == spec.parse(MINIMAL)


def test_the_console_size_is_ignored_without_a_terminal() -> None:
    data = with_value("process/terminal", False)
    data["process"]["consoleSize"] = "nonsense"
    process = spec.parse(data).process
    assert process.console_size is None


@pytest.mark.parametrize("version", ["1.0.2", "1.0.2-dev", "1.2.1+dev", "1.0.0-rc5", "1.3.0-rc.1+git.5"])
def test_versions(version: str) -> None:
    assert spec.parse({**MINIMAL, "ociVersion": version}).version == version


@pytest.mark.parametrize(
    "version", ["", "1", "1.0", "1.0.x", "01.0.0", "1.0.0-r c", "1.0.0.0", "0.1.0", "2.0.0", "1.0.²"]
)
def test_bad_versions(version: str) -> None:
    with pytest.raises(SpecError, match=r"^ociVersion: "):
        spec.parse({**MINIMAL, "ociVersion": version})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("process/args/2", 5, "process.args[2]: want a string, got 5"),
        ("process/args", "x", "process.args: want a list, got `x`"),
        ("process/args/1", "a\0b", "process.args[1]: holds a NUL character"),
        ("process/args/1", "\ud800", "process.args[1]: holds half of a surrogate pair"),
        ("process/env/0", "A", "process.env[0]: want NAME=VALUE, got `A`"),
        ("process/env/0", "=A", "process.env[0]: want NAME=VALUE, got `=A`"),
        ("process/cwd", "srv", "process.cwd: want an absolute path, got `srv`"),
        ("process/cwd", None, "process.cwd: missing"),
        ("process", None, "process: missing"),
        ("root", None, "root: missing"),
        ("root/path", "", "root.path: is empty"),
        ("root/readonly", "yes", "root.readonly: want a boolean, got `yes`"),
        ("root/readonly", 1, "root.readonly: want a boolean, got 1"),
        ("process/user/uid", True, "process.user.uid: want an integer, got true"),
        ("process/user/uid", -1, "process.user.uid: want an integer from 0 to 4294967295, got -1"),
        ("process/user/uid", 1.0, "process.user.uid: want an integer, got 1.0"),
        ("process/user/umask", 512, "process.user.umask: want an integer from 0 to 511, got 512"),
        ("process/oomScoreAdj", 1001, "process.oomScoreAdj: want an integer from -1000 to 1000, got 1001"),
        ("process/rlimits/0/type", "NOFILE", "process.rlimits[0].type: unknown resource `NOFILE`"),
        ("process/rlimits/0/hard", 0, "process.rlimits[0].soft: 1 is above the hard limit 0"),
        ("process/rlimits", [{"type": "RLIMIT_AS", "soft": 1, "hard": 1}] * 2,
         "process.rlimits[1].type: `RLIMIT_AS` is limited twice"),
        ("hostname", "h" * 65, "hostname: longer than 64 bytes"),
        ("mounts/0/destination", None, "mounts[0].destination: missing"),
        ("mounts/0/options", {"a": 1}, "mounts[0].options: want a list, got an object"),
        ("hooks/prestart/0/path", "a", "hooks.prestart[0].path: want an absolute path, got `a`"),
        ("hooks/poststop/0/timeout", 0, "hooks.poststop[0].timeout: want an integer from 1 to 2147483647, got 0"),
        ("annotations/a", 1, "annotations.a: want a string, got 1"),
        ("annotations", {"": "x"}, "annotations.: an annotation's key is empty"),
        ("linux/namespaces/1/type", "foo", "linux.namespaces[1].type: unknown namespace `foo`"),
        ("linux/namespaces/1/type", "mount", "linux.namespaces[1].type: namespace `mount` is listed twice"),
        ("linux/namespaces/1/path", "x", "linux.namespaces[1].path: want an absolute path, got `x`"),
        ("linux/uidMappings", [{"containerID": 0, "hostID": 0, "size": 0}],
         "linux.uidMappings[0].size: want an integer from 1 to 4294967295, got 0"),
        ("linux/gidMappings", [{"containerID": 0, "hostID": 0, "size": 9}, {"containerID": 8, "hostID": 50, "size": 1}],
         "linux.gidMappings[1]: overlaps an earlier line"),
        ("linux/uidMappings", [{"containerID": 0, "hostID": 2**32 - 1, "size": 2}],
         "linux.uidMappings[0]: reaches beyond 32 bits"),
        ("linux/timeOffsets", {"realtime": {}}, "linux.timeOffsets.realtime: unknown clock `realtime`"),
        ("linux/devices/0/type", "x", "linux.devices[0].type: want c, b, u or p, got `x`"),
        ("linux/devices/0/type", ["c"], "linux.devices[0].type: want c, b, u or p, got a list"),
        ("linux/devices/0/major", None, "linux.devices[0].major: missing"),
        ("linux/resources/memory/limit", 1.5, "linux.resources.memory.limit: want an integer, got 1.5"),
        ("linux/resources/memory/limit", -2,
         "linux.resources.memory.limit: want an integer from -1 to 9223372036854775807, got -2"),
        ("linux/resources/memory/limit", "64m", "linux.resources.memory.limit: want an integer, got `64m`"),
        ("linux/resources/memory/swappiness", 101,
         "linux.resources.memory.swappiness: want an integer from 0 to 100, got 101"),
        ("linux/resources/cpu/cpus", "0;1", "linux.resources.cpu.cpus: want a list such as 0-3,7, got `0;1`"),
        ("linux/resources/devices/0/access", "rx",
         "linux.resources.devices[0].access: want some of r, w and m, got `rx`"),
        ("linux/resources/devices/0/access", "", "linux.resources.devices[0].access: want some of r, w and m, got ``"),
        ("linux/resources/cpu/idle", 2, "linux.resources.cpu.idle: want an integer from 0 to 1, got 2"),
        ("linux/resources/devices/1/major", 2**32,
         "linux.resources.devices[1].major: want an integer from -1 to 4294967295, got 4294967296"),
        ("linux/resources/devices/0/allow", None, "linux.resources.devices[0].allow: missing"),
        ("linux/resources/devices/1/type", "d",
         "linux.resources.devices[1].type: unknown value `d`, want one of a, b, c"),
        ("linux/resources/unified", {"../x": "1"}, "linux.resources.unified.../x: want the name of a cgroup file"),
        ("linux/resources/hugepageLimits/0/pageSize", "2M",
         "linux.resources.hugepageLimits[0].pageSize: want a size such as 2MB, got `2M`"),
        ("linux/rootfsPropagation", "open",
         "linux.rootfsPropagation: unknown value `open`, want one of shared, rshared, slave, rslave, private, "
         "rprivate, unbindable, runbindable"),
        ("linux/seccomp/defaultAction", "KILL", "linux.seccomp.defaultAction: unknown action `KILL`"),
        ("linux/resources/blockIO/weightDevice/0", {"major": 8, "minor": 0},
         "linux.resources.blockIO.weightDevice[0]: want weight or leafWeight"),
        ("linux/resources/rdma/mlx5_1", {}, "linux.resources.rdma.mlx5_1: want hcaHandles or hcaObjects"),
        ("linux/resources/rdma/a b", {"hcaHandles": 1}, "linux.resources.rdma.a b: want the name of a device"),
        ("linux/resources/memory/checkBeforeUpdate", 1,
         "linux.resources.memory.checkBeforeUpdate: want a boolean, got 1"),
        ("linux/seccomp/syscalls/0/names", [], "linux.seccomp.syscalls[0]: names no system call"),
        ("linux/seccomp/syscalls/0/args/0/op", "EQ", "linux.seccomp.syscalls[0].args[0].op: unknown operator `EQ`"),
        ("linux/seccomp/syscalls/0/args/0/index", 6,
         "linux.seccomp.syscalls[0].args[0].index: want an integer from 0 to 5, got 6"),
        ("hostname", "\x1b[31m\0", "hostname: holds a NUL character"),
    ],
)  # fmt: skip
def test_wrong_values_name_their_path(path: str, value: Any, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec.parse(with_value(path, value))
    assert caught.value.message == message


@pytest.mark.parametrize("data", [None, 5, "x", [], True, 1.5])
def test_a_document_that_is_no_object(data: Any) -> None:
    with pytest.raises(SpecError, match=r"^config\.json: want an object, got "):
        spec.parse(data)


def test_an_error_shows_nothing_a_terminal_obeys() -> None:
    with pytest.raises(SpecError) as caught:
        spec.parse(with_value("process/cwd", "\x1b[31m" + "x" * 5000))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 120


def test_capabilities_are_looked_at_for_names_alone() -> None:
    sets = {"bounding": ["CAP_KILL", "CAP_FLY"], "ambient": ["CAP_FLY", "KILL"]}
    process = spec.parse(with_value("process/capabilities", sets)).process
    assert process and process.unknown_capabilities == ("CAP_FLY", "KILL")
    with pytest.raises(SpecError, match=r"process\.capabilities\.effective"):
        spec.parse(with_value("process/capabilities", {"effective": "CAP_KILL"}))


def test_what_cannot_be_given_is_listed() -> None:
    data = copy.deepcopy(FULL)
    data["linux"]["intelRdt"] = {"closID": "x"}
    data["linux"]["resources"]["memory"].update(kernel=4096, kernelTCP=0)
    data["linux"]["personality"] = {"domain": "LINUX32"}
    data["mounts"][1]["uidMappings"] = [{"containerID": 0, "hostID": 1, "size": 1}]
    data["mounts"][1]["gidMappings"] = []
    data["mounts"][1]["options"] = ["rbind", "ridmap"]
    assert spec.parse(data).unsupported == (
        "mounts[1].uidMappings",
        "mounts[1].options[1]",
        "linux.intelRdt",
        "linux.resources.memory.kernel",
        "linux.personality.domain",
    )


@pytest.mark.parametrize(
    ("vm", "listed"),
    [
        ({"kernel": {"path": "/boot/vmlinuz", "initrd": "/boot/initrd.img"}}, ("vm.kernel",)),
        (
            {"hwConfig": {"vcpus": 1}, "image": {"path": "/a"}, "hypervisor": {"path": "/b"}, "kernel": {"path": "/c"}},
            ("vm.hypervisor", "vm.kernel", "vm.image", "vm.hwConfig"),
        ),
        ({}, ()),
        ({"kernel": {}, "of another version": 1}, ()),
    ],
)
def test_no_part_of_the_vm_section_can_be_given(vm: dict[str, Any], listed: tuple[str, ...]) -> None:
    assert spec.parse({**MINIMAL, "vm": vm}).unsupported == listed


@pytest.mark.parametrize("vm", [[], "qemu", True])
def test_a_vm_section_that_is_no_object(vm: object) -> None:
    with pytest.raises(SpecError, match=r"^vm: want an object"):
        spec.parse({**MINIMAL, "vm": vm})


@pytest.mark.parametrize(("name", "why"), [("e\ud800", "half of a surrogate pair"), ("e\0", "a NUL character")])
@pytest.mark.parametrize("section", ["netDevices", "sysctl", "timeOffsets"])
def test_a_property_whose_name_no_kernel_takes(section: str, name: str, why: str) -> None:
    with pytest.raises(SpecError, match=rf"^linux\.{section}\.e\\(ud800|x00): holds {why}$"):
        spec.parse({**MINIMAL, "linux": {section: {name: {}}}})


def test_network_devices() -> None:
    given = {"nic0": {}, "nic1": {"name": "eth1"}, "nic2": {"name": "net%d"}}
    found = spec.parse({**MINIMAL, "linux": {"netDevices": given}})
    assert found.net_devices == (("nic0", "nic0"), ("nic1", "eth1"), ("nic2", "net%d"))


@pytest.mark.parametrize(
    ("name", "inside", "which"),
    [
        ("", "eth0", "of the host"),
        ("a/b", "eth0", "of the host"),
        ("nic%d", "eth0", "of the host"),
        ("a" * 16, "eth0", "of the host"),
        ("nic0", "..", "inside"),
        ("nic0", "eth 0", "inside"),
        ("nic0", "a%d%d", "inside"),
        ("nic0", "a%s", "inside"),
        ("nic0", "a:1", "inside"),
    ],
)
def test_what_is_no_name_of_a_network_device(name: str, inside: str, which: str) -> None:
    with pytest.raises(SpecError, match=rf"^linux\.netDevices\.{name[:15]}.* is no name of a device {which}$"):
        spec.parse({**MINIMAL, "linux": {"netDevices": {name: {"name": inside}}}})


def test_unknown_properties_are_ignored() -> None:
    """config.md, "Extensibility": in every object of the document."""

    def extended(value: Any) -> Any:
        if isinstance(value, list):
            return [extended(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {key: extended(item) for key, item in value.items()} | {"ofVersion2": {"a": [1]}}

    data = extended(FULL)
    linux, resources = data["linux"], data["linux"]["resources"]
    named = (data["annotations"], linux["sysctl"], linux["timeOffsets"], resources["unified"], resources["rdma"])
    for each in named:  # whose keys are their user's to choose
        del each["ofVersion2"]
    assert spec.parse(data) == spec.parse(FULL).replace(seccomp=linux["seccomp"])


def test_what_speaks_of_other_systems_is_left_alone() -> None:
    """config.md, "Platform-specific configuration"; Windows' `commandLine` and `username`."""
    others = {name: {"any": ["thing"]} for name in ("windows", "solaris", "zos", "freebsd")}
    process = {**MINIMAL["process"], "commandLine": "a b", "user": {"username": "me"}}
    assert spec.parse({**MINIMAL, **others, "process": process}) == spec.parse(MINIMAL)


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_what_engines_write_is_read(file: Path) -> None:
    found = spec.parse(jsonio.loads(file.read_bytes()))
    assert found.process.args
    assert found.namespace("mount") is not None
    assert found.unsupported == ()


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value of a document."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] + [place for key, item in pairs for place in places(item, (*path, key))]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(places(FULL)[1:]), json_values)
@settings(max_examples=400, deadline=None)
def test_any_value_anywhere_is_read_or_refused(place: tuple[Any, ...], value: Any) -> None:
    data = copy.deepcopy(FULL)
    at: Any = data
    for part in place[:-1]:
        at = at[part]
    at[place[-1]] = value
    try:
        spec.parse(data)
    except SpecError as error:
        assert error.message.isprintable()
        assert error.message.startswith(str(place[0]))


@given(json_values)
@settings(max_examples=100, deadline=None)
def test_any_document_is_read_or_refused(value: Any) -> None:
    with pytest.raises(SpecError):
        spec.parse(value)


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b.c"]), max_size=8).map("/".join))
def test_a_clean_path_stays_beneath_the_root(path: str) -> None:
    from urunc.oci.node import clean_path

    clean = clean_path(path)
    assert clean.startswith("/")
    assert clean == "/" or not {"..", ".", ""} & set(clean[1:].split("/"))
    assert clean_path(clean) == clean
