"""The features document, and the config.json that `urunc spec` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from urunc.errors import HostError, UsageError
from urunc.oci import parse_linux, spec
from urunc.oci.parse_linux import NAMESPACES
from urunc.runtime import features, template
from urunc.vm import choose


def test_the_document_has_the_shape_of_the_specification() -> None:
    document = json.loads(json.dumps(features.document()))
    assert document["ociVersionMin"] == "1.0.0"
    assert document["hooks"] == [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ]
    assert set(document["linux"]["namespaces"]) == set(NAMESPACES)
    assert document["linux"]["cgroup"]["v2"] is True
    assert "CAP_SYS_ADMIN" in document["linux"]["capabilities"]
    assert len(document["linux"]["capabilities"]) == 41
    assert {type(value) for value in document["annotations"].values()} == {str}


def test_no_more_is_claimed_than_is_there() -> None:
    document = features.document()
    assert "SCMP_ACT_NOTIFY" not in document["linux"]["seccomp"]["actions"]
    assert "rro" not in document["mountOptions"]
    assert "idmap" not in document["mountOptions"]
    assert parse_linux._UNSUPPORTED == ("intelRdt",)
    assert not any(document["linux"]["intelRdt"].values())


def test_the_versions_that_are_claimed_are_read() -> None:
    """features.md, "Specification version"."""
    document = features.document()
    lowest, highest = document["ociVersionMin"], document["ociVersionMax"]
    assert lowest.split(".") <= highest.split(".")
    for version in (lowest, highest):
        assert spec.parse({**config(), "ociVersion": version}).version == version


def test_the_matrix_is_the_registries() -> None:
    annotations = features.document()["annotations"]
    listed = {
        (key.removeprefix("com.urunc.guest."), monitor)
        for key, monitors in annotations.items()
        if key.startswith("com.urunc.guest.")
        for monitor in monitors.split()
    }
    assert listed == {(row.guest, row.monitor) for row in choose.matrix()}


def config(**changes: Any) -> dict[str, Any]:
    given = {"guest": "linux", "monitor": "qemu", "kernel": "/kernel", "initrd": "", "user_namespace": False}
    return template.document(**{**given, **changes})


@pytest.mark.parametrize("changes", [{}, {"user_namespace": True}, {"initrd": "/initrd"}])
def test_the_template_is_a_config_that_urunc_reads(changes: dict[str, Any]) -> None:
    parsed = spec.parse(config(**changes))
    assert parsed.rootfs == "rootfs"
    assert (parsed.namespace("user") is not None) == bool(changes.get("user_namespace"))
    assert parsed.annotations.get("com.urunc.unikernel.initrd", "") == changes.get("initrd", "")


def test_a_pair_that_does_not_run_is_refused() -> None:
    with pytest.raises(UsageError, match="guest `linux` on monitor `spt` is not supported") as caught:
        config(monitor="spt")
    assert "linux on qemu" in str(caught.value.hint)


def test_a_config_is_never_overwritten(tmp_path: Path) -> None:
    template.write(str(tmp_path), config())
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(HostError, match="exists already"):
        template.write(str(tmp_path), config(guest="unikraft"))
    assert (tmp_path / "config.json").read_text() == before
    with pytest.raises(HostError, match="cannot write"):
        template.write(f"{tmp_path}/none", config())
