"""Every error that a user can be shown.

::

    UruncError
    ├── UsageError        the command line is wrong
    ├── SpecError         config.json breaks the OCI runtime specification, or asks for what cannot be given
    ├── ImageError        the image's unikernel is broken: annotation, kernel, initrd, block image
    ├── ConfigError       urunc's own configuration file is wrong
    ├── HostError         the host lacks something: a monitor, a device, a kernel facility
    ├── StateError        the container is not in a status that allows the verb, or the id is taken or unknown
    ├── HookError         an OCI hook failed or took too long
    └── KernelError       a system call that should have worked did not

A message is lower case, has no full stop, names the object in backquotes and the cause last. It is written
once, at the edge (`cli`, `shim`); everything below raises and never logs what it raises.
"""

from __future__ import annotations

import os


class UruncError(Exception):
    """An error for the user: one sentence, and a hint where there is something to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(UruncError):
    """The command line is wrong."""


class SpecError(UruncError):
    """config.json breaks the specification, or asks for what cannot be given. The message starts with the JSON path."""


class ImageError(UruncError):
    """The unikernel in the image is broken; such a container never falls through to the delegate."""


class ConfigError(UruncError):
    """urunc's configuration file is wrong. The message names file and line."""


class HostError(UruncError):
    """The host lacks something that the container needs."""


class StateError(UruncError):
    """The container's status, or its absence, does not allow the verb."""


class HookError(UruncError):
    """An OCI hook failed or took longer than its timeout."""


class KernelError(UruncError):
    """A system call failed. Carries `errno` so that callers can map it."""

    def __init__(self, message: str, *, errno: int = 0, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno


def reason(error: OSError) -> str:
    """Return why a system call failed, as a message ends: lower case, without number and file."""
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def describe(error: OSError) -> str:
    """Return the sentence of a failed system call: its file, where it names one, and what is said beside the number."""
    why = reason(error)
    said = str(error.strerror or "")
    if said and said.lower() != why:
        why = said
    return f"`{error.filename}`: {why}" if error.filename else why
