"""What a netlink socket makes of answers, broken ones too, from a socket that the test has written."""

from __future__ import annotations

import errno
from _struct import pack

import pytest

from urunc.linux.rtnl import Rtnl


class FakeSocket:
    """A netlink socket whose answers the test writes."""

    def __init__(self, *answers: bytes, sender: int = 0, flags: int = 0) -> None:
        self.answers = list(answers)
        self.sent: list[bytes] = []
        self.sender = sender
        self.flags = flags

    def sendto(self, data: bytes, _address: object) -> None:
        self.sent.append(data)

    def recvmsg(self, _size: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        return self.answers.pop(0), [], self.flags, (self.sender, 0)

    def close(self) -> None:
        pass


def _message(kind: int, flags: int, sequence: int, body: bytes, port: int = 77) -> bytes:
    return pack("IHHII", 16 + len(body), kind, flags, sequence, port) + body


def _rtnl(fake: FakeSocket) -> Rtnl:
    rtnl = Rtnl()
    rtnl.close()
    rtnl._socket = fake  # type: ignore[assignment]
    rtnl._port = 77
    return rtnl


LINK = pack("BxHiII", 0, 1, 5, 1, 0) + pack("HH", 8, 3) + b"eth\0"
DONE = pack("i", 0)


def test_answers_to_others_are_passed_over() -> None:
    fake = FakeSocket(
        _message(16, 2, 9, LINK) + _message(3, 2, 9, DONE),  # an old request's
        _message(16, 2, 1, LINK, port=78),  # another socket's
        _message(16, 2, 1, LINK),
        _message(3, 2, 1, DONE),
    )
    assert [link.name for link in _rtnl(fake).links()] == ["eth"]


def test_a_dump_that_changed_under_way_begins_again() -> None:
    fake = FakeSocket(
        _message(16, 2 | 0x10, 1, LINK) + _message(16, 2, 1, LINK),
        _message(3, 2, 1, DONE),
        _message(16, 2, 2, LINK),
        _message(3, 2, 2, DONE),
    )
    assert len(_rtnl(fake).links()) == 1
    assert len(fake.sent) == 2


def test_an_error_at_the_end_of_a_dump() -> None:
    fake = FakeSocket(_message(16, 2, 1, LINK) + _message(3, 2, 1, pack("i", -errno.ENOMEM)))
    with pytest.raises(OSError, match="cannot list the links: Cannot allocate memory"):
        _rtnl(fake).links()


@pytest.mark.parametrize(
    "answer",
    [
        pack("IHHII", 8, 16, 2, 1, 77),
        pack("IHHII", 400, 16, 2, 1, 77),
        _message(16, 2, 1, pack("BxHiII", 0, 1, 5, 1, 0) + pack("HH", 2, 3)),
        _message(16, 2, 1, pack("BxHiII", 0, 1, 5, 1, 0) + pack("HH", 80, 3)),
    ],
)
def test_broken_answers_are_errors(answer: bytes) -> None:
    fake = FakeSocket(answer, _message(3, 2, 1, DONE))
    with pytest.raises(OSError, match="impossible length"):
        _rtnl(fake).links()


def test_a_cut_answer_is_an_error() -> None:
    with pytest.raises(OSError, match="larger than the buffer"):
        _rtnl(FakeSocket(_message(16, 2, 1, LINK), flags=0x20)).links()
