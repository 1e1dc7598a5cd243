"""The host's configuration file, `/etc/urunc/config.toml`, as a record. Finding and caching it is `runtime.settings`'s.

The tables are those of the Go urunc, so that its files work: `[log]`, `[timestamps]`, `[monitors.<name>]`,
`[extra_binaries.virtiofsd]`; and ours: `[runtime]`, `[network]`. An unknown table or key is an error, as is a
wrong type.
"""

from __future__ import annotations

from ..record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any


class MonitorConfig(Record):
    """`[monitors.<name>]`: sizes in MiB; an empty path means: look on PATH."""

    default_memory_mb: int = 256
    default_vcpus: int = 1
    path: str = ""
    data_path: str = ""
    vhost: bool = False
    balloon: bool = False  # a device by which `update` takes memory from a guest and gives it back
    accel: str = "auto"  # auto, kvm or tcg
    machine: str = ""  # the monitor's machine type, such as q35 or microvm
    overhead_mb: int | None = None  # what the monitor needs beside the guest's memory; None: as it was measured


class Config(Record):
    """The whole file, with the defaults where it says nothing."""

    log_level: str = ""
    log_syslog: bool = False
    timestamps_enabled: bool = False
    timestamps_destination: str = ""
    monitors: tuple[tuple[str, MonitorConfig], ...] = ()
    virtiofsd_path: str = ""
    virtiofsd_options: str = ""
    delegate: str = "runc"  # [runtime] delegate
    unsupported_mounts: str = "error"  # [runtime] unsupported_mounts: error or warn
    dns: tuple[str, ...] = ()  # [network] dns

    def monitor(self, name: str) -> MonitorConfig:
        """Return the table of that monitor, the defaults where there is none."""
        return dict(self.monitors).get(name, MonitorConfig())


def from_toml(data: dict[str, Any], file: str, *, monitors: Collection[str], text: str = "") -> Config:
    """Return the Config of a decoded TOML document.

    `monitors` are the known names; `text` is the document itself, to find the line of what is wrong. Raises
    ConfigError, which names `file`, the line where it can be told, and the key.
    """
    from .parse_config import read_config

    return read_config(data, file, monitors, text)


def from_data(data: dict[str, Any]) -> Config:
    """Return the Config whose `to_data` this is. Raises TypeError or ValueError where it is none of this version's."""
    monitors = tuple((name, MonitorConfig(**table)) for name, table in data["monitors"])
    if set(data) != set(Config().to_data()):
        raise ValueError("the fields of another version")
    return Config(**{**data, "monitors": monitors, "dns": tuple(data["dns"])})
