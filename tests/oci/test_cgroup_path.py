"""Which cgroup `linux.cgroupsPath` names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc.errors import SpecError
from urunc.oci import cgroup_path
from urunc.oci.cgroup_path import CgroupPath


@pytest.mark.parametrize(
    ("text", "flag", "driver", "path"),
    [
        ("/default/web", False, "cgroupfs", "/default/web"),
        ("/default/web", True, "cgroupfs", "/default/web"),
        ("pods/web", False, "cgroupfs", "pods/web"),
        ("../../web", False, "cgroupfs", "web"),
        ("/../../a/./b//c/..", False, "cgroupfs", "/a/b"),
        ("system.slice:docker:1234", True, "systemd", "/system.slice/docker-1234.scope"),
        ("system.slice:docker:1234", False, "systemd", "/system.slice/docker-1234.scope"),
        ("a-b.slice:cri:x", False, "systemd", "/a.slice/a-b.slice/cri-x.scope"),
        ("-.slice:cri:x", False, "systemd", "/cri-x.scope"),
        (":docker:1234", True, "systemd", "/system.slice/docker-1234.scope"),
        (":docker:1234", False, "cgroupfs", ":docker:1234"),
        ("a:b:c", True, "cgroupfs", "a:b:c"),
    ],
)
def test_the_form_decides(text: str, flag: bool, driver: str, path: str) -> None:
    found = cgroup_path.parse(text, systemd=flag)
    assert (found.driver, found.path) == (driver, path)


@pytest.mark.parametrize(
    "text",
    [
        "/",
        "..",
        "./",
        "a\0b",
        "a-.slice:p:n",
        ".slice:p:n",
        "a/b.slice:p:n",
        "s.slice:p:../n",
        "s.slice:p:",
        "s.slice:p:x.slice",
    ],
)
def test_a_bad_path_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"^linux\.cgroupsPath: "):
        cgroup_path.parse(text, systemd=True)


@given(st.text(alphabet="ab/.-:\\", max_size=30), st.booleans())
def test_no_path_leaves_its_root(text: str, flag: bool) -> None:
    try:
        found = cgroup_path.parse(text, systemd=flag)
    except SpecError:
        return
    assert not {"", ".", ".."} & set(found.path.removeprefix("/").split("/"))


def test_without_a_path_the_id_names_the_cgroup() -> None:
    assert cgroup_path.default("web", systemd=False) == CgroupPath(driver="cgroupfs", path="web")
    scope = cgroup_path.default("web", systemd=True)
    assert (scope.path, scope.slice, scope.unit) == ("/system.slice/urunc-web.scope", "system.slice", "urunc-web.scope")


@pytest.mark.parametrize(
    ("name", "path"),
    [("a.slice", "/a.slice"), ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"), ("-.slice", "/")],
)
def test_slices_expand(name: str, path: str) -> None:
    assert cgroup_path.expand_slice(name) == path
