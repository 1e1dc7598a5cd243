"""The runtime's options, as containerd carries them: with the bootstrap parameters, and with each Create.

runc's message is sent by clients that know the shim for one like runc's. ctr and the CRI plug-in go by its name: to any
other than runc's own they send a file's path, and the plug-in, from containerd 1.7 on, the handler's table as TOML.
"""

from __future__ import annotations

from ..errors import ConfigError
from ..record import Record
from .messages import RUNC_OPTIONS, RUNTIME_OPTIONS, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .wire import Values


class Options(Record):
    """What may be asked of the shim; "", 0 and False where it is not."""

    root: str = ""
    binary: str = ""
    systemd: bool = False
    no_pivot: bool = False
    no_new_keyring: bool = False
    shim_cgroup: str = ""
    io_uid: int = 0
    io_gid: int = 0
    config: str = ""  # the path of urunc's own configuration


_KEYS = {
    "Root": "root",
    "BinaryName": "binary",
    "SystemdCgroup": "systemd",
    "NoPivotRoot": "no_pivot",
    "NoNewKeyring": "no_new_keyring",
    "ShimCgroup": "shim_cgroup",
    "IoUid": "io_uid",
    "IoGid": "io_gid",
    "ConfigPath": "config",
}
_IGNORED = frozenset({"CriuPath", "CriuImagePath", "CriuWorkPath", "TypeUrl"})
"""There are no checkpoints; the type says that it is TOML."""


def read(packed: Values | None) -> Options:
    """Return the options in an Any; the defaults where it is None or of another runtime. Raises ConfigError."""
    runc = unpack(RUNC_OPTIONS, packed)
    if runc is not None:
        return Options(
            root=runc["root"],
            binary=runc["binary_name"],
            systemd=runc["systemd_cgroup"],
            no_pivot=runc["no_pivot_root"],
            no_new_keyring=runc["no_new_keyring"],
            shim_cgroup=runc["shim_cgroup"],
            io_uid=runc["io_uid"],
            io_gid=runc["io_gid"],
        )
    other = unpack(RUNTIME_OPTIONS, packed)
    if other is None:
        return Options()
    options = _from_table(other["config_body"]) if other["config_body"] else Options()
    return options.replace(config=other["config_path"]) if other["config_path"] else options


def of_bootstrap(params: Values) -> Options:
    """Return the options among the extensions of BootstrapParams. Raises ConfigError."""
    for extension in params["extensions"]:
        found = read(extension["value"])
        if found != Options():
            return found
    return Options()


def _from_table(body: bytes) -> Options:
    """Return the options in the handler's table of containerd's configuration."""
    import tomllib  # 17 ms and a megabyte, for the pods whose handler has such a table

    try:
        table = tomllib.loads(body.decode())
    except ValueError as error:
        raise ConfigError(f"the runtime's options are not TOML: {error}") from None
    return Options(**dict(_checked(key, value) for key, value in table.items() if key not in _IGNORED))


def _checked(key: str, value: Any) -> tuple[str, Any]:
    """Return the option's field and value. Raises ConfigError."""
    if key not in _KEYS:
        raise ConfigError(f"the runtime's option `{key}` is unknown", hint=", ".join(_KEYS))
    wanted = type(getattr(Options(), _KEYS[key]))
    if type(value) is not wanted or (wanted is int and value < 0):
        raise ConfigError(f"the runtime's option `{key}` is not {_NAMES[wanted]}")
    return _KEYS[key], value


_NAMES = {str: "a string", bool: "true or false", int: "a whole number"}
