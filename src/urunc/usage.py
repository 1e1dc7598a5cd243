"""The texts of `--help` and `--version`, made from the flag tables."""

from __future__ import annotations

import os

from . import __version__
from .errors import UsageError
from .flags import GLOBALS, HELP, VERBS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .flags import Flag

SPEC_VERSION = "1.3.0"
"""The newest runtime specification whose config.json is read."""


def text(what: str, verb: str | None) -> str:
    """Return the version (`what` is "version"), the help of a verb, or the whole help. Raises UsageError."""
    if what == "version":
        return version()
    if verb is None:
        return whole()
    if verb in VERBS:
        return of_verb(verb)
    raise UsageError(f"`{verb}` is not a verb", hint="see `urunc --help`")


def version() -> str:
    """Return what engines parse: Docker and containerd look for `version`, `commit:` and `spec:`."""
    commit = find_commit()
    lines = [f"urunc version {__version__}", f"commit: {commit}" if commit else "", f"spec: {SPEC_VERSION}"]
    return "".join(f"{line}\n" for line in lines if line)


def find_commit() -> str | None:
    """Return the commit that was installed, as `make install` wrote it beside the modules; None in a checkout."""
    try:
        with open(os.path.join(os.path.dirname(__file__), "commit"), encoding="utf-8") as file:
            return file.read().strip() or None
    except OSError:
        return None


def whole() -> str:
    """Return the help of urunc."""
    lines = [
        "urunc - runc for unikernels: an OCI runtime whose containers are unikernels and microVMs",
        "",
        "usage: urunc [FLAGS] VERB [FLAGS] [ARGUMENTS]",
        "",
        "verbs:",
        *(f"  {name:<11} {verb[1]}" for name, verb in VERBS.items()),
        "",
        "flags:",
        *_flag_lines(GLOBALS),
        "",
        "A container that is not a unikernel is handed to runc, whatever the verb.",
    ]
    return "\n".join(lines) + "\n"


def of_verb(name: str) -> str:
    """Return the help of one verb."""
    arguments, summary, flags = VERBS[name]
    lines = [
        f"urunc {name} - {summary}",
        "",
        " ".join(f"usage: urunc [FLAGS] {name} [FLAGS] {arguments}".split()),
        "",
        "flags:",
        *_flag_lines((*flags, HELP)),
    ]
    return "\n".join(lines) + "\n"


def _flag_lines(flags: tuple[Flag, ...]) -> list[str]:
    rows = [(_names(flag), flag[2]) for flag in flags]
    width = max(len(names) for names, _ in rows)
    return [f"  {names:<{width}}  {text}".rstrip() for names, text in rows]


def _names(flag: Flag) -> str:
    names = ", ".join(f"--{name}" if len(name) > 1 else f"-{name}" for name in flag[0].split())
    return f"{names} {flag[1]}".rstrip()
