"""What the flags of `update`, and its documents, mean."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from urunc.errors import SpecError, UsageError
from urunc.oci.spec import Resources
from urunc.runtime import limits

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024),
        ("512m", 512 * MIB),
        ("512MiB", 512 * MIB),
        ("1.5g", 1536 * MIB),
        ("2 GB", 2048 * MIB),
        ("10b", 10),
        ("-1", -1),
        ("0", 0),
        ("", None),
        ("m", None),
        ("1.m", None),
        ("-5", None),
        ("12q", None),
        ("1e3", None),
        ("9" * 30, None),
    ],
)
def test_sizes(text: str, size: int | None) -> None:
    assert limits.parse_size(text) == size


def test_flags_are_the_documents_fields() -> None:
    found = limits.from_flags(
        {
            "memory": "300m",
            "memory_swap": "-1",
            "cpu_quota": "5000",
            "cpu_share": "512",
            "cpuset_cpus": "0-1",
            "pids_limit": "-1",
            "blkio_weight": "100",
            "cpu_idle": "0",
            "cpu_period": "",
        }
    )
    assert found == Resources(
        memory_limit=300 * MIB,
        memory_swap=-1,
        cpu_quota=5000,
        cpu_shares=512,
        cpus="0-1",
        pids_limit=-1,
        block_io_weight=100,
        cpu_idle=0,
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"memory": "much"}, "flag `--memory` needs a size such as 512m, or -1, not `much`"),
        ({"cpu_quota": "1.5"}, "flag `--cpu-quota` needs a whole number, not `1.5`"),
        ({"l3_cache_schema": "x"}, "flag `--l3-cache-schema`: urunc has no way to give it"),
    ],
)
def test_flags_that_cannot_be(flags: dict[str, str | int], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        limits.from_flags(flags)
    assert caught.value.message == message


def test_a_flag_out_of_range_names_the_field() -> None:
    with pytest.raises(SpecError, match=r"resources\.cpu\.idle"):
        limits.from_flags({"cpu_idle": "7"})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "resources: not JSON"),
        (b"[]", "resources: want an object"),
        (b'{"memory": {"limit": "1"}}', "resources.memory.limit: want"),
        (b'{"blockIO": {"weightDevice": [{}]}}', "resources.blockIO.weightDevice[0]: want weight or leafWeight"),
        (b'{"rdma": {"mlx5": {}}}', "resources.rdma.mlx5: want hcaHandles or hcaObjects"),
        (b'{"memory": {"kernel": 1}}', "resources.memory.kernel: urunc has no way to give it"),
    ],
)
def test_documents_that_cannot_be(data: bytes, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        limits.parse(data)
    assert caught.value.message.startswith(message)


def test_what_docker_sends_is_taken() -> None:
    document = b'{"blockIO":{"weight":0},"cpu":{"shares":0,"quota":0,"period":0},"memory":{"limit":314572800,"swap":0}}'
    assert limits.parse(document) == Resources(memory_limit=300 * MIB)


def test_files_and_standard_input(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"pids": {"limit": 200}}')
    assert limits.read(str(tmp_path / "r.json")) == Resources(pids_limit=200)
    with pytest.raises(SpecError, match=r"cannot read `.*/none`: no such file"):
        limits.read(str(tmp_path / "none"))
    saved, reader = os.dup(0), os.open(tmp_path / "r.json", os.O_RDONLY)
    try:
        os.dup2(reader, 0)
        assert limits.read("-") == Resources(pids_limit=200)
        assert io.FileIO(0, closefd=False).read() == b""  # it is left open
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(reader)
