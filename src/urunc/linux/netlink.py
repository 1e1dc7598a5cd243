"""Netlink, spoken directly: messages, their attributes, and a socket that asks and waits for the answer.

By hand since it costs 1 ms where `ip` and `tc` cost 10 and pyroute2 160 to import. A socket belongs for good to
the network namespace it was made in, so that another namespace can be worked on without staying in it.
Must not know what the messages say: `rtnl`, `tc` and `nftables` do.

References: netlink(7), and the kernel's include/uapi/linux/netlink.h.
"""

from __future__ import annotations

import _socket
import os
from _struct import Struct, unpack_from
from errno import EINTR, EPROTO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x4, 0x200, 0x400, 0x800
NLMSG_ERROR = 2

_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_RECEIVE_BYTES = 64 * 1024  # the kernel fills at most 32 KiB of a dump at a time

_NLM_F_REQUEST, _NLM_F_DUMP_INTR, _NLM_F_DUMP = 0x1, 0x10, 0x300
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NLMSG_NOOP, _NLMSG_DONE = 1, 3
_NLMSGERR_ATTR_MSG = 1
_NLA_F_NESTED = 0x8000
_NLA_TYPE_MASK = 0x3FFF

_HEADER = Struct("IHHII")
_ATTRIBUTE = Struct("HH")

Attributes = dict[int, bytes]


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute of a message."""
    padding = b"\0" * (-len(payload) % 4)
    return _ATTRIBUTE.pack(len(payload) + 4, kind) + payload + padding


def nest(kind: int, *inner: bytes) -> bytes:
    """Return an attribute that holds others."""
    return attribute(kind | _NLA_F_NESTED, b"".join(inner))


def text(kind: int, value: str) -> bytes:
    """Return an attribute of text with a NUL at its end."""
    return attribute(kind, os.fsencode(value) + b"\0")


def attributes(data: bytes, offset: int = 0) -> Attributes:
    """Split a message's attributes; raise OSError EPROTO where a length does not fit."""
    found: Attributes = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            raise OSError(EPROTO, "netlink: an attribute of an impossible length")
        found[kind & _NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def string(value: bytes | None) -> str:
    """Return the text of an attribute, "" where there is none."""
    return "" if value is None else os.fsdecode(value.partition(b"\0")[0])


def number(value: bytes | None) -> int:
    """Return the 32-bit number of an attribute, 0 where there is none."""
    return 0 if value is None else int(unpack_from("I", value)[0])


class Netlink:
    """A netlink socket of the current network namespace: requests, their acknowledgements, dumps. All raise OSError."""

    def __init__(self, protocol: int) -> None:
        kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
        self._socket = _socket.socket(_socket.AF_NETLINK, kind, protocol)
        try:
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
            self._socket.bind((0, 0))
            self._port = self._socket.getsockname()[0]
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self.send_all([(kind, flags, body)])

    def send_all(self, messages: Sequence[tuple[int, int, bytes]]) -> None:
        """Send messages as one datagram, and under one number: all answers are to them."""
        self._sequence += 1
        data = b""
        for kind, flags, body in messages:
            size = _HEADER.size + len(body)
            data += _HEADER.pack(size, kind, flags | _NLM_F_REQUEST, self._sequence, self._port) + body
            data += b"\0" * (-size % 4)
        self._socket.sendto(data, (0, 0))

    def receive(self) -> list[tuple[int, int, bytes]]:
        """Return (kind, flags, body) of the messages of one datagram that answer the last request."""
        data, _ancillary, flags, sender = self._socket.recvmsg(_RECEIVE_BYTES)
        if sender[0] != 0:
            return []  # only the kernel answers; anybody may send
        if flags & _socket.MSG_TRUNC:
            raise OSError(EPROTO, "netlink: an answer larger than the buffer")
        messages = []
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, port = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size or offset + length > len(data):
                raise OSError(EPROTO, "netlink: a message of an impossible length")
            if sequence == self._sequence and port == self._port and kind != _NLMSG_NOOP:
                messages.append((kind, flags, data[offset + _HEADER.size : offset + length]))
            offset += (length + 3) & ~3
        return messages

    def do(self, what: str, kind: int, flags: int, body: bytes) -> None:
        """Have the kernel do one thing and wait for its acknowledgement; `what` stands in the error."""
        self._send(kind, flags | NLM_F_ACK, body)
        while True:
            for answer, answer_flags, payload in self.receive():
                if answer == NLMSG_ERROR:
                    raise_error(what, answer_flags, payload)
                    return

    def dump(self, what: str, kind: int, body: bytes) -> list[bytes]:
        """Return the bodies of a whole dump; begin again where the kernel says that it changed under way."""
        while True:
            try:
                return self._dump_once(what, kind, body)
            except InterruptedError:
                continue

    def _dump_once(self, what: str, kind: int, body: bytes) -> list[bytes]:
        self._send(kind, _NLM_F_DUMP, body)
        found = []
        interrupted = False
        while True:
            for answer, flags, payload in self.receive():
                interrupted = interrupted or bool(flags & _NLM_F_DUMP_INTR)
                if answer == NLMSG_ERROR:
                    raise_error(what, flags, payload)
                elif answer != _NLMSG_DONE:
                    found.append(payload)
                    continue
                elif len(payload) >= 4:
                    raise_error(what, flags | _NLM_F_CAPPED, payload, header=0)
                if interrupted:
                    raise InterruptedError(EINTR, what)
                return found


def raise_error(what: str, flags: int, payload: bytes, header: int = 16) -> None:
    """Raise the error of an NLMSG_ERROR (or NLMSG_DONE) body, nothing where it holds none."""
    (code,) = unpack_from("i", payload)
    if code == 0:
        return
    message = f"cannot {what}: {os.strerror(-code)}"
    if flags & _NLM_F_ACK_TLVS:
        skipped = header if flags & _NLM_F_CAPPED else (unpack_from("I", payload, 4)[0] + 3) & ~3
        reason = string(attributes(payload, 4 + skipped).get(_NLMSGERR_ATTR_MSG))
        if reason:
            message = f"{message} ({reason})"
    raise OSError(-code, message)
