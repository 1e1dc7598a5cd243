"""The runtime's options: runc's message, a file's path, a handler's table; what is no option is said."""

from __future__ import annotations

from typing import Any

import pytest

from urunc.errors import ConfigError
from urunc.shim.messages import ANY, RUNC_OPTIONS, RUNTIME_OPTIONS, bootstrap, pack
from urunc.shim.options import Options, of_bootstrap, read
from urunc.shim.wire import encode

ALL = {
    "root": "/state",
    "binary_name": "crun",
    "systemd_cgroup": True,
    "no_pivot_root": True,
    "no_new_keyring": True,
    "shim_cgroup": "/shims",
    "io_uid": 1000,
    "io_gid": 100,
}
READ = Options(
    root="/state",
    binary="crun",
    systemd=True,
    no_pivot=True,
    no_new_keyring=True,
    shim_cgroup="/shims",
    io_uid=1000,
    io_gid=100,
)
TABLE = """
BinaryName = "crun"
CriuImagePath = ""
IoGid = 100
IoUid = 1000
NoNewKeyring = true
NoPivotRoot = true
Root = "/state"
ShimCgroup = "/shims"
SystemdCgroup = true
"""
"""As containerd 1.7 and later writes a handler's table out."""


def runtime_options(**values: Any) -> dict[str, Any]:
    return pack(RUNTIME_OPTIONS, values)


def test_runcs_message() -> None:
    assert read(pack(RUNC_OPTIONS, ALL)) == READ


def test_a_handlers_table() -> None:
    assert read(runtime_options(config_body=TABLE.encode())) == READ


def test_a_path() -> None:
    assert read(runtime_options(type_url="x", config_path="/etc/other.toml")) == Options(config="/etc/other.toml")
    body = b'ConfigPath = "/etc/other.toml"'
    assert read(runtime_options(config_body=body)) == Options(config="/etc/other.toml")


@pytest.mark.parametrize("packed", [None, pack(RUNC_OPTIONS, {}), runtime_options(), {"type_url": "x", "value": b"y"}])
def test_none(packed: dict[str, Any] | None) -> None:
    assert read(packed) == Options()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"SystemdCgroups = true", "option `SystemdCgroups` is unknown"),
        (b"SystemdCgroup = 1", "option `SystemdCgroup` is not true or false"),
        (b'IoUid = "1"', "option `IoUid` is not a whole number"),
        (b"IoUid = true", "option `IoUid` is not a whole number"),
        (b"IoUid = -1", "option `IoUid` is not a whole number"),
        (b"Root = []", "option `Root` is not a string"),
        (b"Root", "are not TOML"),
        (b"\xff", "are not TOML"),
    ],
)
def test_what_is_wrong(body: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(runtime_options(config_body=body))


def test_those_of_the_start() -> None:
    params = bootstrap(encode(ANY, pack(RUNC_OPTIONS, ALL)))
    assert of_bootstrap(params) == READ
    assert of_bootstrap(bootstrap(b"")) == Options()
