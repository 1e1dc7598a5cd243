"""The guest's control port, by which a signal comes in and an exit status out: what both of its ends call it.

A pair of fifos, since a fifo, unlike a socket, keeps what is written by one who does not stay until the guest's
init listens; and anyone may write to it while the shim reads.
"""

from __future__ import annotations

NAME = "org.urunc.control"
"""The name of the virtio-serial port in the guest."""

FIFOS = ("control.in", "control.out")
"""Lines to the guest and lines from it, in the container's folder and in the monitor's root."""
