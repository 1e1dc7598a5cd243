"""A monitor's HTTP API, on a socket in a folder of the monitor's own root: what both of its ends call it."""

from __future__ import annotations

FOLDER = "/api"
"""The one folder that the monitor may write to: a small tmpfs that nothing outside its root sees."""

SOCKET = "api.sock"

GET_INSTANCE = b"GET / HTTP/1.1\r\n\r\n"
"""The request for the machine's state."""

GET_BALLOON = b"GET /balloon/statistics HTTP/1.1\r\n\r\n"
"""The request for the balloon's size, and what the guest says of its memory."""


def _with_body(line: bytes, body: bytes) -> bytes:
    return b"%s HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (line, len(body), body)


CTRL_ALT_DEL = _with_body(b"PUT /actions", b'{"action_type":"SendCtrlAltDel"}')
"""The request that presses Ctrl-Alt-Del."""


def set_balloon(mib: int) -> bytes:
    """Return the request for a balloon of that size."""
    return _with_body(b"PATCH /balloon", b'{"amount_mib":%d}' % mib)
