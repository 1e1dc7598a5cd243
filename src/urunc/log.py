"""urunc's own log: one line for each message, as text or as JSON, to stderr or to the file of `--log`.

Its lines have the form of runc's (logrus), because engines read them: containerd and Podman show their user
the last line of the file. `logging` costs 17 ms to import. A message that cannot be written is dropped: a full
disk must not stop a container. On stderr, which an engine may have made the container's own, only warnings and
errors appear, unless `--debug` asks for more. Errors are written by the edge alone (`cli`, `shim`), through `fail`.
"""

from __future__ import annotations

import os
import time

from .errors import HostError, UsageError, reason

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

_ALSO = {"trace": "debug", "warn": "warning", "fatal": "error", "panic": "error"}

_fd = 2
_json = False
_lowest = 2


def open_log(path: str = "", form: str = "text", *, debug: bool = False) -> None:
    """Send what follows to the file `path`, appended, or to stderr where it is "".

    `form` is "text" or "json". Raises UsageError for another form, HostError where the file cannot be opened:
    as with runc, a container does not start without the log that its engine asked for.
    """
    global _fd, _json, _lowest
    if form not in FORMATS:
        raise UsageError(f"log format `{form}` is unknown", hint=" or ".join(FORMATS))
    if path:
        try:
            _fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY, 0o644)
        except (OSError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise HostError(f"cannot open the log `{path}`: {why}") from None
    _json = form == "json"
    _lowest = 0 if debug else 1 if path else 2


def set_level(name: str) -> None:
    """Drop messages below that level, which is one of logrus's. `--debug`, where it was given, stays stronger."""
    global _lowest
    if _lowest:
        _lowest = LEVELS.index(_ALSO.get(name, name))


def use(descriptor: int, *, debug: bool = False) -> None:
    """Send what follows to an open descriptor, as text: the shim logs to a fifo that containerd reads."""
    global _fd, _json, _lowest
    _fd, _json, _lowest = descriptor, False, 0 if debug else 1


def descriptor() -> int:
    """Return the descriptor that the log is written to, for a child that closes all others."""
    return _fd


def debug(message: str) -> None:
    """Say what only a developer wants to know."""
    _log(0, message)


def info(message: str) -> None:
    """Say something that is as it should be."""
    _log(1, message)


def warn(message: str) -> None:
    """Say that something is not as the user asked for, and that urunc goes on."""
    _log(2, message)


def fail(message: str) -> None:
    """Write the error that ends the command: the log's last line, and on stderr too where the log is a file."""
    _log(3, message)
    if _fd != 2:
        _write(2, f"urunc: {one_line(message)}\n")


def one_line(text: str) -> str:
    """Return the text with everything unprintable escaped: names from an image must not forge lines or colours."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _log(level: int, message: str) -> None:
    if level >= _lowest:
        _write(_fd, _line(LEVELS[level], message))


def _line(level: str, message: str) -> str:
    if _fd == 2 and not _json:
        return f"urunc: {one_line(message)}\n" if level == "error" else f"urunc: {level}: {one_line(message)}\n"
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if _json:
        return f'{{"level":"{level}","msg":{_quote(message)},"time":"{now}"}}\n'
    return f'time="{now}" level={level} msg={_quote(message)}\n'


def _quote(message: str) -> str:
    """Quote as JSON does, which is how logrus's text form quotes as well, in ASCII."""
    text = message.replace("\\", "\\\\").replace('"', '\\"')
    if text.isascii() and text.isprintable():
        return f'"{text}"'
    return '"' + "".join(char if " " <= char <= "~" else _escape(char) for char in text) + '"'


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def _write(fd: int, line: str) -> None:
    try:
        os.write(fd, line.encode("utf-8", "backslashreplace"))
    except OSError:
        pass
