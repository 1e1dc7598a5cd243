"""Read the host's configuration file once, and remember the result: decoding TOML costs twice an interpreter.

The cache is a JSON file in a folder of urunc's state, keyed by the configuration file's path, device, inode, size
and times. Holds no policy: what the keys mean is `oci.config`'s.
"""

from __future__ import annotations

import errno
import os
import time

from .. import __version__, jsonio
from ..errors import ConfigError, reason
from ..linux import kept
from ..oci.config import Config, from_data, from_toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for that the configuration does not name, in an environment without PATH."""

DEFAULT_FILE = "/etc/urunc/config.toml"
VARIABLE = "URUNC_CONFIG_FILE"
MAX_BYTES = 1024 * 1024
SETTLED_NS = 1_000_000_000
_CACHE_NAME = "config.json"


def load(cache: str | None = None, named: str = "") -> Config:
    """Return the configuration: of `named`, else of what URUNC_CONFIG_FILE names, else of /etc/urunc/config.toml.

    `cache` is the folder for the decoded result, None for none; a cache that cannot be used is no error. Without
    a file at the default place the defaults hold; a named file that is missing, and any bad file, is a ConfigError.
    """
    hint = None if named else f"{VARIABLE} names this file"
    named = named or os.environ.get(VARIABLE, "")
    path = named or DEFAULT_FILE
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        if not named and error.errno in (errno.ENOENT, errno.ENOTDIR):
            return Config()
        raise ConfigError(f"{path}: {reason(error)}", hint=hint if named else None) from None
    try:
        return _read(fd, path, cache)
    finally:
        os.close(fd)


def _read(fd: int, path: str, cache: str | None) -> Config:
    info = os.fstat(fd)
    key = _key(path, info)
    known = _read_cache(cache, key) if cache else None
    if known is not None:
        return known
    config = _decode(_read_all(fd, path), path)
    if cache and _is_settled(info):
        kept.write(cache, _CACHE_NAME, jsonio.dumps({"key": key, "config": config.to_data()}))
    return config


def _is_settled(info: os.stat_result) -> bool:
    """A file changed this moment may change again without a difference in size and (coarse) time."""
    return time.time_ns() - max(info.st_mtime_ns, info.st_ctime_ns) > SETTLED_NS


def _key(path: str, info: os.stat_result) -> list[Any]:
    return [__version__, path, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]


def _read_all(fd: int, path: str) -> bytes:
    try:
        data = os.read(fd, MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {reason(error)}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_BYTES} bytes")
    return data


def _decode(data: bytes, path: str) -> Config:
    import tomllib

    from ..vm.monitors import MONITORS

    try:
        text = data.decode("utf-8")
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _toml_error(path, error) from None
    return from_toml(document, path, monitors=MONITORS, text=text)


def _toml_error(path: str, error: Exception) -> ConfigError:
    """Return tomllib's message, which ends in `(at line 2, column 9)`, with the line behind the file's name."""
    message = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    message, _, place = message.partition(" (at line ")
    line = place.partition(",")[0]
    return ConfigError(f"{path}{':' + line if line else ''}: {message[:1].lower()}{message[1:]}")


def _read_cache(folder: str, key: list[Any]) -> Config | None:
    content = kept.read(folder, _CACHE_NAME, MAX_BYTES)
    if content is None:
        return None
    try:
        document = jsonio.loads(content)
        return from_data(document["config"]) if document["key"] == key else None
    except (ValueError, TypeError, KeyError):
        return None
