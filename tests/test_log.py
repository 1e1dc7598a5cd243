"""The log: forms, levels, files, and messages that try to be more than one line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from urunc import log
from urunc.errors import HostError, UsageError


@pytest.fixture(autouse=True)
def fresh_log() -> Iterator[None]:
    yield
    if log.descriptor() != 2:
        os.close(log.descriptor())
    log._fd, log._json, log._lowest = 2, False, 2


def test_json_lines_are_what_engines_read(tmp_path: Path) -> None:
    file = tmp_path / "log.json"
    file.write_text("before\n")
    log.open_log(str(file), "json")
    log.debug("not shown")
    log.info("a")
    log.warn('quote " backslash \\ newline \n snowman ☃ face 😀 lone \udcff')
    log.fail("the cause")
    first, *lines = file.read_text().splitlines()
    assert first == "before"
    entries = [json.loads(line) for line in lines]
    assert [entry["level"] for entry in entries] == ["info", "warning", "error"]
    assert entries[1]["msg"] == 'quote " backslash \\ newline \n snowman ☃ face 😀 lone \udcff'
    assert entries[-1]["msg"] == "the cause"
    assert all(set(entry) == {"level", "msg", "time"} for entry in entries)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entries[0]["time"])


def test_the_text_form_is_logruss(tmp_path: Path) -> None:
    log.open_log(f"{tmp_path}/log", "text", debug=True)
    log.debug('a "b"')
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert re.fullmatch(r'time="[^"]+Z" level=debug msg="a \\"b\\""', line)


def test_an_error_is_on_stderr_too_where_the_log_is_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log.open_log(f"{tmp_path}/log", "json")
    log.warn("only in the log")
    log.fail("cannot start `web`")
    assert capfd.readouterr().err == "urunc: cannot start `web`\n"


def test_without_a_file_everything_is_for_a_person(capfd: pytest.CaptureFixture[str]) -> None:
    log.info("stderr may be the container's own")
    log.warn("beware")
    log.fail("it broke\nerror: forged \x1b[31m")
    assert capfd.readouterr().err == "urunc: warning: beware\nurunc: it broke\\nerror: forged \\x1b[31m\n"


def test_json_on_stderr_comes_once(capfd: pytest.CaptureFixture[str]) -> None:
    log.open_log("", "json")
    log.fail("x")
    (line,) = capfd.readouterr().err.splitlines()
    assert json.loads(line)["msg"] == "x"


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"cannot open the log `.*/none/log`: no such file or directory"):
        log.open_log(f"{tmp_path}/none/log")
    with pytest.raises(HostError, match="cannot open the log"):
        log.open_log("a\0b")
    with pytest.raises(UsageError, match="`xml`"):
        log.open_log("", "xml")


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    log.open_log("/dev/full", "json")
    log.warn("x")


def test_levels(tmp_path: Path) -> None:
    log.open_log(f"{tmp_path}/log", "text")
    log.set_level("warn")
    log.info("no")
    log.warn("yes")
    assert (tmp_path / "log").read_text().count("\n") == 1
    log.open_log("", "text", debug=True)
    log.set_level("error")
    assert log._lowest == 0


def test_the_log_is_not_inherited(tmp_path: Path) -> None:
    log.open_log(f"{tmp_path}/log")
    assert not os.get_inheritable(log.descriptor())
