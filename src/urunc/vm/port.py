"""The ports between a guest's init and the outside: what both of their ends call them.

The control port, by which signals come in and an exit status out, is a pair of fifos, since a fifo, unlike a socket,
keeps what is written by one who does not stay until the guest's init listens; and anyone may write to it while the
shim reads. The others are the monitor's own standard input and output: the monitor reads no more than the guest takes
and passes the end on, and the guest writes no more than is taken, at a memory's pace; a serial line can do none of it.
"""

from __future__ import annotations

NAME = "org.urunc.control"
STDIN = "org.urunc.stdin"
STDOUT = "org.urunc.stdout"
"""The names of the virtio-serial ports in the guest."""

FIFOS = ("control.in", "control.out")
"""Lines to the guest and lines from it, in the container's folder and in the monitor's root."""
