"""The one way to stdout: whole, or an error."""

from __future__ import annotations

import os

from .errors import HostError


def write(text: str) -> None:
    """Write the text to stdout. Raises HostError; a reader that has left ends the process, as SIGPIPE would."""
    data = memoryview(text.encode("utf-8", "surrogateescape"))
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:
        raise SystemExit(141) from None
    except OSError as failure:
        raise HostError(f"cannot write to stdout: {failure.strerror}") from None
