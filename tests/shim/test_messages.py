"""The tables against the interface's own definition, and against Google's protobuf."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shim.googles import Pool, fill, plain, values_of
from urunc.shim import messages, metrics
from urunc.shim.messages import ANY, BOOTSTRAP_PARAMS, RUNC_OPTIONS, bootstrap, pack, timestamp, unpack
from urunc.shim.wire import Table, decode, encode

TABLES = [
    value
    for module in (messages, metrics)
    for value in vars(module).values()
    if isinstance(value, Table) and value.fields
]
GOOGLE = Pool()
# What Debian's golang-github-containerd-{containerd,cgroups}-dev install, or the folders of checkouts.
DEFINITIONS = os.environ.get("URUNC_PROTO_PATH", "/usr/share/gocode/src/github.com/containerd").split(":")
NOT_IN_FILES = {"google.protobuf.Any", "google.protobuf.Timestamp", "google.rpc.Status"}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_both_ways(table: Table) -> None:
    google = GOOGLE.message_class(table)

    @settings(max_examples=15)
    @given(values_of(table))
    def check(values: dict[str, object]) -> None:
        message = google()
        message.ParseFromString(encode(table, values))
        assert plain(message, table) == values
        assert decode(table, fill(google(), table, values).SerializeToString()) == values

    check()


def defined_fields() -> dict[str, dict[int, tuple[str, str, bool]]]:
    """Return what the .proto files say: full message name to number to (name, type, repeated)."""
    found: dict[str, dict[int, tuple[str, str, bool]]] = {}
    for file in (file for folder in DEFINITIONS for file in Path(folder).rglob("*.proto")):
        text = re.sub(r"//[^\n]*|/\*.*?\*/", "", file.read_text(), flags=re.DOTALL)
        package = re.search(r"^package\s+([\w.]+);", text, re.MULTILINE)
        if package is None or "runtime/v1/" in str(file) or "sandbox/v1" in str(file):
            continue
        for name, body in re.findall(r"^message\s+(\w+)\s*\{([^{}]*)\}", text, re.MULTILINE):
            fields = found.setdefault(f"{package[1]}.{name}", {})
            for label, kind, field, number in re.findall(
                r"(repeated\s+|optional\s+)?(map<[^>]*>|[\w.]+)\s+(\w+)\s*=\s*(\d+)\s*(?:\[[^\]]*\])?;", body
            ):
                fields[int(number)] = (field, kind, label.strip() == "repeated")
    return found


DEFINED = defined_fields()
# What a containerd as old as Debian 12's does not define, or defines in another package.
NEWER_FIELDS = ("config_body", "max_usage", "swap_max_usage")
NEWER = ("containerd.runtime.bootstrap.", "containerd.types.Runtime", "containerd.types.Envelope", "ttrpc.")


@pytest.mark.skipif(
    not DEFINED, reason="needs golang-github-containerd-containerd-dev and -cgroups-dev, or URUNC_PROTO_PATH"
)
@pytest.mark.parametrize("table", [t for t in TABLES if t.name not in NOT_IN_FILES], ids=lambda table: table.name)
def test_as_defined(table: Table) -> None:
    if table.name not in DEFINED and table.name.startswith(NEWER):
        pytest.skip("these definitions are older than the message")
    defined = DEFINED[table.name]
    for field in table.fields:
        if field.number not in defined and field.name in NEWER_FIELDS:
            continue
        name, kind, repeated = defined[field.number]
        assert field.name == snake_case(name), f"{table.name} {field.number}"
        assert bool(field.label) == repeated
        if field.table is not None:
            assert field.table.name.endswith(kind.rpartition(".")[2])
        elif field.kind == "map":
            assert kind.replace(" ", "") == "map<string,string>"
        else:
            assert field.kind == kind or (field.kind == "enum" and kind[0].isupper()) or kind.endswith("Status")


def snake_case(name: str) -> str:
    return {"throttledTime": "throttled_time"}.get(name, name)


@pytest.mark.skipif(not DEFINED, reason="needs golang-github-containerd-containerd-dev, or URUNC_PROTO_PATH")
def test_every_method_is_there() -> None:
    files = [file for folder in DEFINITIONS for file in Path(folder).rglob("shim.proto")]
    text = next(text for file in files if "package containerd.task.v2;" in (text := file.read_text()))
    methods = {
        name: (request, answer)
        for name, request, answer in re.findall(r"rpc\s+(\w+)\(([\w.]+)\)\s+returns\s+\(([\w.]+)\)", text)
    }
    assert methods.keys() == messages.TASK_METHODS.keys()
    for name, (request, answer) in messages.TASK_METHODS.items():
        assert (request.name.rpartition(".")[2], answer.name.rpartition(".")[2]) == tuple(
            part.rpartition(".")[2] for part in methods[name]
        )


def test_an_any_is_opened_only_as_what_it_is() -> None:
    packed = pack(RUNC_OPTIONS, {"binary_name": "crun"})
    assert packed["type_url"] == "containerd.runc.v1.Options"
    opened = unpack(RUNC_OPTIONS, packed)
    assert opened is not None
    assert opened["binary_name"] == "crun"
    assert unpack(RUNC_OPTIONS, {"type_url": "type.googleapis.com/containerd.runc.v1.Options", "value": b""})
    assert unpack(RUNC_OPTIONS, None) is None
    assert unpack(RUNC_OPTIONS, {"type_url": "another.Options", "value": packed["value"]}) is None


def test_a_timestamp_before_the_epoch_has_positive_nanoseconds() -> None:
    assert timestamp(-1) == {"seconds": -1, "nanos": 999_999_999}
    assert timestamp(1_500_000_000) == {"seconds": 1, "nanos": 500_000_000}


class TestBootstrap:
    """What containerd writes to the standard input of `start`."""

    def test_nothing(self) -> None:
        assert bootstrap(b"") == BOOTSTRAP_PARAMS.new()

    def test_options_in_an_any(self) -> None:
        options = pack(RUNC_OPTIONS, {"systemd_cgroup": True})
        assert bootstrap(encode(ANY, options))["extensions"] == [{"value": options}]

    def test_params(self) -> None:
        params = BOOTSTRAP_PARAMS.new()
        params.update(instance_id="web", namespace="k8s.io", containerd_ttrpc_address="/run/t.sock", log_level=-4)
        params["extensions"] = [{"value": pack(RUNC_OPTIONS, {"root": "/run/runc"})}]
        assert bootstrap(encode(BOOTSTRAP_PARAMS, params)) == params

    @given(st.binary(max_size=100))
    def test_anything_else_is_ignored(self, data: bytes) -> None:
        assert bootstrap(data).keys() == BOOTSTRAP_PARAMS.new().keys()
