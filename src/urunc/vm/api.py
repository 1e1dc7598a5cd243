"""A monitor's HTTP API, on a socket in a folder of the monitor's own root: what both of its ends call it."""

from __future__ import annotations

FOLDER = "/api"
"""The one folder that the monitor may write to: a small tmpfs that nothing outside its root sees."""

SOCKET = "api.sock"

_PRESS = b'{"action_type":"SendCtrlAltDel"}'
CTRL_ALT_DEL = b"PUT /actions HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(_PRESS),
    _PRESS,
)
"""The request that presses Ctrl-Alt-Del."""
