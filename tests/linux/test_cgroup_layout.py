"""Which cgroup trees a host has, and where a container's directories are, from the text of two files of /proc."""

from __future__ import annotations

import pytest

from urunc.errors import HostError
from urunc.linux import cgroup_files, cgroup_layout
from urunc.oci.cgroup_path import CgroupPath

V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct
34 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
35 31 0:32 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices
"""
V1_OWN = "5:memory:/own/m\n4:devices:/own\n3:cpu,cpuacct:/own\n1:name=systemd:/own\n0::/\n"
HYBRID = V1 + "36 31 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V2_OWN = "0::/user.slice/session-1.scope\n"


def place(path: str) -> CgroupPath:
    return CgroupPath(driver="cgroupfs", path=path)


def test_v1_has_a_directory_for_every_controller() -> None:
    layout = cgroup_layout.parse_layout(V1, V1_OWN)
    assert (layout.version, layout.unified) == (1, None)
    assert cgroup_layout.paths(layout, place("/pod/web")) == {
        "name=systemd": "/sys/fs/cgroup/systemd/pod/web",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct/pod/web",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/pod/web",
        "memory": "/sys/fs/cgroup/memory/pod/web",
        "devices": "/sys/fs/cgroup/devices/pod/web",
    }


def test_a_relative_path_is_below_the_own_cgroup_on_v1() -> None:
    found = cgroup_layout.paths(cgroup_layout.parse_layout(V1, V1_OWN), place("web"))
    assert found["memory"] == "/sys/fs/cgroup/memory/own/m/web"
    assert found["cpu"] == "/sys/fs/cgroup/cpu,cpuacct/own/web"


def test_hybrid_counts_as_v1() -> None:
    layout = cgroup_layout.parse_layout(HYBRID, V1_OWN)
    found = cgroup_layout.paths(layout, place("/web"))
    assert (layout.version, layout.unified) == (1, "/sys/fs/cgroup/unified")
    assert found["unified"] == "/sys/fs/cgroup/unified/web"
    assert cgroup_files.version_of(found) == 1


def test_v2_has_one_directory() -> None:
    layout = cgroup_layout.parse_layout(V2, V2_OWN)
    assert (layout.version, layout.unified) == (2, "/sys/fs/cgroup")
    assert cgroup_layout.paths(layout, place("/web")) == {"": "/sys/fs/cgroup/web"}
    assert cgroup_files.version_of({"": "/sys/fs/cgroup/web"}) == 2


def test_a_relative_path_is_beside_the_own_cgroup_on_v2() -> None:
    assert cgroup_layout.paths(cgroup_layout.parse_layout(V2, V2_OWN), place("web")) == {
        "": "/sys/fs/cgroup/user.slice/web"
    }
    assert cgroup_layout.paths(cgroup_layout.parse_layout(V2, "0::/\n"), place("web")) == {"": "/sys/fs/cgroup/web"}


def test_a_v1_tree_without_the_main_controllers_beside_v2_counts_as_v2() -> None:
    extra = "40 30 0:50 / /sys/fs/cgroup/net_cls rw - cgroup net_cls rw,net_cls\n"
    layout = cgroup_layout.parse_layout(V2 + extra, "2:net_cls:/\n" + V2_OWN)
    assert layout.version == 2
    assert list(layout.hierarchies) == [""]


def test_a_later_mount_hides_what_is_below_it() -> None:
    layout = cgroup_layout.parse_layout(V1 + V2.replace("30 23", "60 31"), V1_OWN)
    assert layout.version == 2


def test_a_mount_of_a_part_of_the_tree() -> None:
    """As in a container without a cgroup namespace: the own path is seen from the mount's root."""
    mounted = V2.replace("0:26 / ", "0:26 /docker/1 ")
    layout = cgroup_layout.parse_layout(mounted, "0::/docker/1/init\n")
    assert cgroup_layout.paths(layout, place("web")) == {"": "/sys/fs/cgroup/web"}
    outside = cgroup_layout.parse_layout(mounted, "0::/../other\n")
    assert cgroup_layout.paths(outside, place("web")) == {"": "/sys/fs/cgroup/web"}


def test_mount_points_are_unescaped() -> None:
    layout = cgroup_layout.parse_layout(V2.replace("/sys/fs/cgroup", "/c\\040g\\134\\043"), V2_OWN)
    assert layout.unified == "/c g\\#"


def test_no_cgroups_is_an_error() -> None:
    with pytest.raises(HostError, match="no cgroup file system"):
        cgroup_layout.parse_layout("31 23 0:28 / / rw - ext4 /dev/vda rw\n", "")


def test_v1_without_devices_is_an_error() -> None:
    layout = cgroup_layout.parse_layout(V1.replace("devices", "pids"), V1_OWN.replace("devices", "pids"))
    with pytest.raises(HostError, match="devices controller"):
        cgroup_layout.paths(layout, place("/web"))
