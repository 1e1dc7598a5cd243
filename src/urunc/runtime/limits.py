"""What `update` is asked for: the flags, or a document of `linux.resources`, as the record of it."""

from __future__ import annotations

from .. import jsonio, log
from ..errors import SpecError, UsageError, reason
from ..oci.node import Node
from ..oci.parse_linux import read_resources, unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..oci.spec import Resources

_SIZES = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}

FLAGS = {
    "blkio_weight": ("blockIO", "weight"),
    "cpu_period": ("cpu", "period"),
    "cpu_quota": ("cpu", "quota"),
    "cpu_burst": ("cpu", "burst"),
    "cpu_share": ("cpu", "shares"),
    "cpu_rt_period": ("cpu", "realtimePeriod"),
    "cpu_rt_runtime": ("cpu", "realtimeRuntime"),
    "cpu_idle": ("cpu", "idle"),
    "cpuset_cpus": ("cpu", "cpus"),
    "cpuset_mems": ("cpu", "mems"),
    "memory": ("memory", "limit"),
    "memory_reservation": ("memory", "reservation"),
    "memory_swap": ("memory", "swap"),
    "pids_limit": ("pids", "limit"),
}
"""What each flag is in `linux.resources`. The values of `memory*` are sizes, of `cpuset*` lists, the rest numbers."""

_IGNORED = ("kernel_memory", "kernel_memory_tcp")
_IMPOSSIBLE = ("l3_cache_schema", "mem_bw_schema")


def read(source: str) -> Resources:
    """Return what the file `source`, or standard input for `-`, holds: JSON of `linux.resources`. Raises SpecError."""
    try:
        with open(0 if source == "-" else source, "rb", closefd=source != "-") as file:
            return parse(file.read(jsonio.MAX_BYTES + 1))
    except OSError as error:
        raise SpecError(f"cannot read `{source}`: {reason(error)}") from None


def parse(data: bytes) -> Resources:
    """Return the Resources of a JSON document. Raises SpecError, with the JSON path."""
    try:
        document = jsonio.loads(data)
    except ValueError as error:
        raise SpecError(f"resources: not JSON: {error}") from None
    return _resources(document)


def _resources(document: Any) -> Resources:
    found = read_resources(Node(document, "resources"))
    for path in unsupported(Node({"resources": document}, "linux")):
        raise SpecError(f"{path.removeprefix('linux.')}: urunc has no way to give it")
    return found


def from_flags(flags: Mapping[str, str | int]) -> Resources:
    """Return what the verb's flags ask for, `flags` by their names with `_` for `-`. Raises UsageError, SpecError."""
    document: dict[str, dict[str, Any]] = {}
    for name, value in flags.items():
        flag = "--" + name.replace("_", "-")
        if name in _IMPOSSIBLE:
            raise UsageError(f"flag `{flag}`: urunc has no way to give it")
        if name in _IGNORED:
            log.warn(f"flag `{flag}` is ignored: the kernel's memory counts as the container's")
        elif name in FLAGS and value != "":
            section, key = FLAGS[name]
            document.setdefault(section, {})[key] = _flag_value(name, flag, str(value))
    return _resources(document)


def _flag_value(name: str, flag: str, text: str) -> int | str:
    if name.startswith("cpuset"):
        return text
    number = parse_size(text) if name.startswith("memory") else _number(text)
    if number is None:
        want = "a size such as 512m, or -1" if name.startswith("memory") else "a whole number"
        raise UsageError(f"flag `{flag}` needs {want}, not `{text}`")
    return number


def _number(text: str) -> int | None:
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else None


def parse_size(text: str) -> int | None:
    """Return the bytes that `512m`, `1.5GiB` or `1024` are (units of 1024), -1 for `-1`; None where it is no size."""
    if text == "-1":
        return -1
    stem = text.strip().lower().removesuffix("b").removesuffix("i")
    unit = stem[-1:] if stem[-1:] in _SIZES else ""
    whole, dot, part = stem.removesuffix(unit).strip().partition(".")
    if not (whole.isascii() and whole.isdecimal() and len(whole) < 20) or (dot and not part.isdecimal()):
        return None
    number = int(whole) << _SIZES[unit]
    return number + (int(part) << _SIZES[unit]) // 10 ** len(part) if dot else number
