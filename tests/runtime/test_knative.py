"""What Knative's proxy is told of a guest, and how the bundle's config.json is changed for it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from urunc.errors import HostError
from urunc.oci import network
from urunc.runtime import knative

NAME = "io.kubernetes.cri.container-name"
PROBE = {"httpGet": {"path": "/", "port": 8080, "host": "127.0.0.1", "httpHeaders": []}, "successThreshold": 1}


def probe_of(env: list[str]) -> Any:
    (value,) = (entry.partition("=")[2] for entry in env if entry.startswith("SERVING_READINESS_PROBE="))
    return json.loads(value)


def test_the_address_and_the_probes_host() -> None:
    env = knative.environment(["A=1", "SERVING_READINESS_PROBE=" + json.dumps(PROBE), "REDIRECT_IP=10.0.0.1", "B=2"])
    assert [entry.partition("=")[0] for entry in env] == ["A", "SERVING_READINESS_PROBE", "B", "REDIRECT_IP"]
    assert env[-1] == "REDIRECT_IP=172.16.1.2"
    assert probe_of(env) == {**PROBE, "httpGet": {**PROBE["httpGet"], "host": "172.16.1.2"}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ({"tcpSocket": {"port": 1}}, {"tcpSocket": {"port": 1, "host": "172.16.1.2"}}),
        ({"exec": {"command": ["x"]}}, {"exec": {"command": ["x"]}}),
        ([{"tcpSocket": {"port": 1}}, 7], [{"tcpSocket": {"port": 1, "host": "172.16.1.2"}}, 7]),
        ({"httpGet": "odd"}, {"httpGet": "odd"}),
        ("text", "text"),
    ],
)
def test_probes_of_other_kinds(probe: object, expected: object) -> None:
    assert probe_of(knative.environment(["SERVING_READINESS_PROBE=" + json.dumps(probe)])) == expected


@pytest.mark.parametrize("value", ["", "{", "\ud800", '{"a":}'])
def test_a_probe_that_is_no_json_is_left(value: str) -> None:
    entry = f"SERVING_READINESS_PROBE={value}"
    assert knative.environment([entry])[0] == entry


def test_modes() -> None:
    assert network.mode({}) == network.mode({"com.urunc.network": ""}) == "redirect"
    assert network.mode({"com.urunc.network": "nat"}) == "nat"
    assert network.mode({NAME: "user-container"}) == "nat"
    assert network.mode({NAME: "user-container", "com.urunc.network": "redirect"}) == "redirect"
    assert network.is_knative_proxy({NAME: "queue-proxy"})
    assert not network.is_knative_proxy({NAME: "queue-proxy", "com.urunc.network": "redirect"})
    assert not network.is_knative_proxy({NAME: "web"})


def write(folder: Path, **changes: object) -> Path:
    config = {
        "ociVersion": "1.0.2",
        "process": {"args": ["/proxy"], "env": ["A=1"], "user": {"uid": 2**40}},
        "annotations": {NAME: "queue-proxy"},
        "odd": [1, 1.5, None, "ü"],
        **changes,
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    path.chmod(0o640)
    return path


@pytest.mark.root
def test_only_the_environment_is_changed_and_only_once(tmp_path: Path) -> None:
    path = write(tmp_path)
    os.chown(path, 1234, 2345)
    before = json.loads(path.read_text())
    knative.adapt(str(tmp_path))
    after = json.loads(path.read_text())
    assert after["process"].pop("env") == ["A=1", "REDIRECT_IP=172.16.1.2"]
    before["process"].pop("env")
    assert after == before
    status = path.stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 1234, 2345)
    knative.adapt(str(tmp_path))
    assert path.stat().st_ino == status.st_ino
    assert os.listdir(tmp_path) == ["config.json"]


@pytest.mark.parametrize(
    "changes",
    [
        {"annotations": {NAME: "web"}},
        {"annotations": {NAME: "queue-proxy", "com.urunc.network": "redirect"}},
        {"annotations": ["odd"]},
        {"annotations": None},
        {"process": "odd"},
        {"process": {"env": [1]}},
        {"process": {"args": []}},
    ],
)
def test_others_are_left_alone(tmp_path: Path, changes: dict[str, object]) -> None:
    path = write(tmp_path, **changes)
    before = path.stat().st_ino, path.read_text()
    knative.adapt(str(tmp_path))
    assert (path.stat().st_ino, path.read_text()) == before


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    """What a link leads to is not the bundle's."""
    outside = tmp_path / "outside"
    outside.mkdir()
    target = write(outside)
    before = target.read_text()
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "config.json").symlink_to(target)
    knative.adapt(str(bundle))
    assert target.read_text() == before
    assert "REDIRECT_IP" in (bundle / "config.json").read_text()


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    before = path.read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(HostError, match=r"cannot tell Knative's proxy of the guest: .*: no space left"):
        knative.adapt(str(tmp_path))
    assert path.read_text() == before
    assert os.listdir(tmp_path) == ["config.json"]
