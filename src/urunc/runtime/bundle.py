"""The bundle's config.json as it is: what it says is `oci.spec`'s to read."""

from __future__ import annotations

import os

from .. import jsonio
from ..errors import SpecError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read_config(bundle: str) -> Any:
    """Return the bundle's config.json, decoded. Raises SpecError where it is missing, unreadable or no JSON."""
    path = f"{bundle}/config.json"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(fd, "rb", buffering=0) as file:
            data = file.read(jsonio.MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(f"cannot read `{path}`: {reason(error)}") from None
    try:
        return jsonio.loads(data)
    except ValueError as error:
        raise SpecError(f"`{path}` is not JSON: {error}") from None
