"""The configuration file: every key, and every mistake named with file, line and key."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc import jsonio
from urunc.errors import ConfigError
from urunc.oci.config import Config, MonitorConfig, from_data, from_toml

MONITORS = ("qemu", "hvt", "spt")

FULL = """
[log]
level = "debug"
syslog = true

[timestamps]
enabled = true
destination = "/var/log/urunc/timestamps.log"

[monitors.qemu]
default_memory_mb = 512
default_vcpus = 2
path = "/usr/local/bin/qemu-system-x86_64"
data_path = "/usr/local/share"
vhost = true
balloon = true
accel = "tcg"
machine = "microvm"
overhead_mb = 40

[monitors.firecracker]
default_memory_mb = 128

[extra_binaries.virtiofsd]
path = "/usr/libexec/virtiofsd"
options = "--cache always --sandbox none"

[runtime]
delegate = "/usr/sbin/runc"
unsupported_mounts = "warn"

[network]
dns = ["192.0.2.53", "2001:db8::53"]
"""

WANT = Config(
    log_level="debug",
    log_syslog=True,
    timestamps_enabled=True,
    timestamps_destination="/var/log/urunc/timestamps.log",
    monitors=(
        (
            "qemu",
            MonitorConfig(
                default_memory_mb=512,
                default_vcpus=2,
                path="/usr/local/bin/qemu-system-x86_64",
                data_path="/usr/local/share",
                vhost=True,
                balloon=True,
                accel="tcg",
                machine="microvm",
                overhead_mb=40,
            ),
        ),
        ("firecracker", MonitorConfig(default_memory_mb=128)),
    ),
    virtiofsd_path="/usr/libexec/virtiofsd",
    virtiofsd_options="--cache always --sandbox none",
    delegate="/usr/sbin/runc",
    unsupported_mounts="warn",
    dns=("192.0.2.53", "2001:db8::53"),
)


def read(text: str) -> Config:
    return from_toml(tomllib.loads(text), "/etc/urunc/config.toml", monitors=MONITORS, text=text)


def test_everything() -> None:
    assert read(FULL) == WANT


def test_nothing() -> None:
    assert read("") == Config()
    assert Config().monitor("qemu") == MonitorConfig()
    assert WANT.monitor("qemu").accel == "tcg"


@pytest.mark.parametrize("config", [WANT, Config()])
def test_through_json_and_back(config: Config) -> None:
    assert from_data(jsonio.loads(jsonio.dumps(config.to_data()))) == config


@pytest.mark.parametrize("data", [{}, {"monitors": []}, {**Config().to_data(), "odd": 1}, {"monitors": 5}])
def test_data_of_another_version_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError, KeyError)):
        from_data(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n[logs]\n", "2: [logs]: unknown table, want one of log, timestamps, runtime, network, monitors, extra_bina"),
        ("[log]\nlevle = 'x'\n", "2: log.levle: unknown key, want one of level, syslog"),
        ("[log]\nlevel = 5\n",
         "2: log.level: want one of trace, debug, info, warn, warning, error, fatal, panic, got 5"),
        ("[log]\n\nsyslog = 'yes'\n", "3: log.syslog: want true or false, got `yes`"),
        ("log.syslog = 1\n", "1: log.syslog: want true or false, got 1"),
        ("log = 5\n", " [log]: want a table, got 5"),
        ("[monitors.quemu]\n", "1: [monitors.quemu]: unknown monitor, want one of hvt, qemu, spt"),
        ("[monitors.qemu]\nmemory = 1\n", "2: monitors.qemu.memory: unknown key, want one of default_memory_mb, "),
        ("[monitors.hvt]\npath='/x'\n[monitors.qemu]\npath = 'bin/qemu' # no\n",
         "4: monitors.qemu.path: want an absolute path, got `bin/qemu`"),
        ("[monitors.qemu]\ndefault_memory_mb = 0\n",
         "2: monitors.qemu.default_memory_mb: want a number from 1 to 1048576, got 0"),
        ("[monitors.qemu]\ndefault_memory_mb = true\n",
         "2: monitors.qemu.default_memory_mb: want a number from 1 to 1048576, got true"),
        ("[monitors.qemu]\ndefault_vcpus = 1.5\n",
         "2: monitors.qemu.default_vcpus: want a number from 1 to 1024, got 1.5"),
        ("[monitors.qemu]\naccel = 'hvf'\n", "2: monitors.qemu.accel: want one of auto, kvm, tcg, got `hvf`"),
        ("[monitors.qemu]\nmachine = 'q35,x=y'\n",
         "2: monitors.qemu.machine: want a machine type such as q35, got `q35,x=y`"),
        ("[monitors.qemu]\npath = \"/x\\u0000y\"\n", "2: monitors.qemu.path: `/x\\x00y` holds a control character"),
        ("[extra_binaries.dnsd]\npath = '/x'\n", "1: [extra_binaries.dnsd]: unknown binary, want virtiofsd"),
        ("[runtime]\ndelegate = ''\n", "2: runtime.delegate: want a program's name or absolute path, got ``"),
        ("[runtime]\ndelegate = 'bin/runc'\n",
         "2: runtime.delegate: want a program's name or absolute path, got `bin/runc`"),
        ("[runtime]\ndelegate = '-x'\n", "2: runtime.delegate: want a program's name or absolute path, got `-x`"),
        ("[runtime]\nunsupported_mounts = 'ignore'\n",
         "2: runtime.unsupported_mounts: want one of error, warn, got `ignore`"),
        ("[network]\ndns = '1.1.1.1'\n", "2: network.dns: want a list of addresses, got `1.1.1.1`"),
        ("[network]\ndns = ['1.1.1']\n", "2: network.dns: want an IP address, got `1.1.1`"),
        ("[network]\ndns = ['a\\u0000']\n".replace("'", '"'), "2: network.dns: want an IP address, got `a\\x00`"),
        ("[network]\ndns = [1979-05-27]\n", "2: network.dns: want an IP address, got 1979-05-27"),
    ],
)  # fmt: skip
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert caught.value.message.startswith("/etc/urunc/config.toml:" + message)


toml_values = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.times(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(["log", "timestamps", "monitors", "extra_binaries", "runtime", "network", "x"]),
        toml_values
        | st.dictionaries(
            st.sampled_from(["level", "enabled", "qemu", "virtiofsd", "delegate", "dns"]),
            toml_values | st.dictionaries(st.sampled_from(["path", "options", "accel", "vhost"]), toml_values),
        ),
    )
)
def test_any_document_is_read_or_refused(data: dict[str, Any]) -> None:
    try:
        from_toml(data, "f", monitors=MONITORS)
    except ConfigError as error:
        assert error.message.isprintable()
