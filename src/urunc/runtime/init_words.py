"""The one word between init and `start`, in a module of its own: `start` must not import all of init for it."""

from __future__ import annotations

STARTED = b"started"
"""What init answers just before execve: the end-of-file behind it is success."""
