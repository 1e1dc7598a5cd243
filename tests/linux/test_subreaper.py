"""Becoming the parent of one's descendants' orphans."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from urunc.linux import libc, subreaper


@pytest.fixture(autouse=True)
def give_back() -> Iterator[None]:
    yield
    libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 0)


def test_an_orphan_becomes_a_child() -> None:
    subreaper.become()
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        orphan = os.fork()
        if orphan == 0:
            os._exit(7)
        os.write(writer, str(orphan).encode())
        os._exit(0)
    os.waitpid(middle, 0)
    orphan = int(os.read(reader, 20))
    assert os.waitstatus_to_exitcode(os.waitpid(orphan, 0)[1]) == 7
    os.close(reader)
    os.close(writer)


def test_it_is_the_number_that_libc_has() -> None:
    assert subreaper.PR_SET_CHILD_SUBREAPER == libc.PR_SET_CHILD_SUBREAPER
