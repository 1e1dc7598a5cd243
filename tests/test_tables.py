"""What `list` and `ps` print."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from urunc import tables
from urunc.errors import HostError

STATE: dict[str, Any] = {
    "id": "web",
    "pid": 7,
    "status": "running",
    "bundle": "/a/bundle/with/a/long/name",
    "created": "2026-01-02T03:04:05Z",
    "owner": 0,
}


def test_the_table_is_runcs() -> None:
    title, row = tables.containers([STATE], "table").splitlines()
    assert title.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert row.split() == ["web", "7", "running", STATE["bundle"], STATE["created"], "root"]
    assert title.index("CREATED") == row.index(STATE["created"])


def test_json_has_every_field_and_the_owners_name() -> None:
    assert json.loads(tables.containers([STATE], "json")) == [{**STATE, "owner": "root"}]
    assert json.loads(tables.containers([{**STATE, "owner": 987654}], "json"))[0]["owner"] == "#987654"


def test_ids() -> None:
    assert tables.ids([STATE, {**STATE, "id": "b"}]) == "web\nb\n"


def test_processes_as_json_and_as_lines_of_ps() -> None:
    mine = os.getpid()
    assert json.loads(tables.processes([mine, 1], "json", [])) == [mine, 1]
    title, *lines = tables.processes([mine], "table", []).splitlines()
    column = title.split().index("PID")
    assert [line.split()[column] for line in lines] == [str(mine)]
    title, line = tables.processes([mine], "table", ["-o", "comm,pid", "-A"]).splitlines()
    assert title.split() == ["COMMAND", "PID"]
    assert line.split()[-1] == str(mine)


def test_ps_that_fails_or_shows_no_pid() -> None:
    with pytest.raises(HostError, match="ps failed: "):
        tables.processes([1], "table", ["--no-such-option"])
    with pytest.raises(HostError, match="without a PID column"):
        tables.processes([1], "table", ["-o", "comm"])
