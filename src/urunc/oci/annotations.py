"""The one table of annotations under `com.urunc.unikernel.`: key, field, reader. Hostile input: judged value by value.

**Plain or base64.** Old images encode each value, new ones do not, and one document may hold both. Per value:

1. A value that is certainly plain is taken as it is. Certain are: a known guest or monitor (`qemu`), a boolean as
   Go's strconv.ParseBool takes it (`true`), a path that starts with `/`, a version that starts with a digit.
   No base64 text of such a value looks like one: base64 that starts with `/` or a digit does not decode to UTF-8.
2. Else, where the value is canonical base64 (standard alphabet, padded, no stray bits) of UTF-8 text that is itself a
   valid value of that key, or certain by rule 1, the decoded text is taken (and judged: `/../etc` is refused). A
   single newline at its end (`echo qemu | base64`) is an error.
3. Else it is plain, and the key's check says what is wrong with it, if anything is.

So only a command line, a relative path and a device's name are ever ambiguous: one word without blanks, of a length
divisible by four, that happens to decode to printable text (`film` is the base64 of `~)f`). Whoever means such a word
writes it in base64.

Knows nothing of which container is a unikernel (`app`), and does not look at any file.
"""

from __future__ import annotations

from .. import booleans
from ..errors import ImageError
from ..record import Record
from .node import describe, plain, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

PREFIX = "com.urunc.unikernel."
MAX_VALUE = 64 * 1024
"""Characters of a value, before decoding."""

MAX_PATH = 4095  # PATH_MAX without its NUL
_MAX_DEVICE_NAME = 67  # of a Solo5 manifest
_MAX_VERSION = 64
_MOST_MESSAGES = 8  # about unknown keys: an image can hold as many as it likes, and the log is the host's
_INVISIBLE = "\u2028\u2029" + "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Unicode's ends of a line, and what turns the direction of the text around it: it hides a name from its reader."""


class BadValueError(Exception):
    """What is wrong with a value, for the end of an error's sentence; `hint` says what to do."""

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.hint = hint


class Key(Record):
    """A row of the table. `read` returns the field's value or raises BadValueError; `certain`: it cannot be base64."""

    name: str
    field: str
    read: Callable[[str], Any]
    certain: Callable[[str], bool]


def _no_control(text: str) -> None:
    """Refuse what ends or hides a word in an option, a boot string or a log line."""
    for char in text:
        if char < " " or "\x7f" <= char <= "\x9f" or char in _INVISIBLE or "\ud800" <= char <= "\udfff":
            name = {"\n": "a newline", "\0": "a NUL character"}.get(char, "a control character")
            raise BadValueError(f"{show(text)} holds {name}")


def read_word(text: str) -> str:
    """Read the name of a guest or monitor. Whether it is a known one is `app`'s to say, with the list."""
    _no_control(text)
    if text.startswith("-"):
        raise BadValueError(f"{show(text)} starts with a dash")
    return text


def read_path(text: str) -> str:
    """Read a path inside the rootfs and return it from `/`, clean. A relative one counts from `/`."""
    _no_control(text)
    if len(text.encode()) > MAX_PATH:
        raise BadValueError(f"the path is longer than {MAX_PATH} bytes")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadValueError(f"`..` is not allowed in {show(text)}")
    if any(part.startswith("-") for part in parts):
        raise BadValueError(f"a name in {show(text)} starts with a dash")
    return "/" + "/".join(parts)


def read_file_path(text: str) -> str:
    """Read the path of a file inside the rootfs; `/` is none."""
    path = read_path(text)
    if path == "/":
        raise BadValueError(f"{show(text)} names no file")
    return path


def read_bool(text: str) -> bool:
    """Read a boolean as Go's strconv.ParseBool does."""
    value = booleans.parse(text)
    if value is None:
        raise BadValueError(f"want true or false, got {show(text)}")
    return value


def read_version(text: str) -> str:
    """Read the version of a guest's framework, such as 0.16.1."""
    tame = text.isascii() and text[:1].isalnum() and all(char.isalnum() or char in "._+-" for char in text)
    if not tame or len(text) > _MAX_VERSION:
        raise BadValueError(f"want a version such as 0.16.1, got {show(text)}")
    return text


def read_device_name(text: str) -> str:
    """Read a device name of a Solo5 manifest: `[A-Za-z0-9]{1,67}`."""
    if not (text.isascii() and text.isalnum() and len(text) <= _MAX_DEVICE_NAME):
        raise BadValueError(f"want 1 to {_MAX_DEVICE_NAME} letters and digits, got {show(text)}")
    return text


def read_command_line(text: str) -> str:
    """Read a command line: one line of text. `split_words` makes its words."""
    _no_control(text.replace("\t", " "))
    split_words(text)
    return text


def _never(_: str) -> bool:
    return False


def _is_bool(text: str) -> bool:
    return booleans.parse(text) is not None


def _is_version(text: str) -> bool:
    return text[:1].isdigit() or (text[:1] == "v" and text[1:2].isdigit())


def _is_absolute(text: str) -> bool:
    return text.startswith("/")


TABLE: tuple[Key, ...] = (
    Key(name="unikernelType", field="guest", read=read_word, certain=_never),
    Key(name="hypervisor", field="monitor", read=read_word, certain=_never),
    Key(name="binary", field="kernel", read=read_file_path, certain=_is_absolute),
    Key(name="cmdline", field="command_line", read=read_command_line, certain=_never),
    Key(name="unikernelVersion", field="guest_version", read=read_version, certain=_is_version),
    Key(name="initrd", field="initrd", read=read_file_path, certain=_is_absolute),
    Key(name="block", field="block", read=read_file_path, certain=_is_absolute),
    Key(name="blkMntPoint", field="block_mount", read=read_path, certain=_is_absolute),
    Key(name="useDMBlock", field="mount_rootfs", read=read_bool, certain=_is_bool),  # the older name comes first:
    Key(name="mountRootfs", field="mount_rootfs", read=read_bool, certain=_is_bool),  # the newer one replaces it
    Key(name="solo5NetDev", field="net_device", read=read_device_name, certain=_never),
    Key(name="solo5BlkDev", field="block_device", read=read_device_name, certain=_never),
)
"""Every key that urunc takes. A field that two keys name is the last one's."""

HOST_KEYS = ("bootKernel", "bootInitrd")
"""Keys of the Go urunc whose values are paths of the host: refused, whether an image or an engine gives them."""


def read(values: Mapping[str, Any], source: str, words: tuple[str, ...]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the fields that `values` gives, and messages for the log about keys that urunc does not know.

    `source` names the document in errors; `words` are the known guests and monitors. An empty value counts as
    absent. Raises ImageError.
    """
    fields: dict[str, Any] = {}
    for key in TABLE:
        value = _value(values, key.name, source)
        if value:
            fields[key.field] = _read_value(key, value, source, words)
    for name in HOST_KEYS:
        if values.get(PREFIX + name):
            raise ImageError(
                f"{source}: `{PREFIX}{name}` is not supported, and a path of the host is never taken from an image"
            )
    known = {PREFIX + key.name for key in TABLE} | {PREFIX + name for name in HOST_KEYS}
    odd = sorted(name for name in values if name.startswith(PREFIX) and name not in known)
    messages = [f"{source}: unknown key `{plain(name)}` is ignored" for name in odd[:_MOST_MESSAGES]]
    if len(odd) > _MOST_MESSAGES:
        messages.append(f"{source}: {len(odd) - _MOST_MESSAGES} more unknown keys are ignored")
    return fields, tuple(messages)


def read_one(values: Mapping[str, Any], name: str, source: str) -> Any:
    """Return the value of one key (the part behind the prefix), None where it is absent. Raises ImageError."""
    value = _value(values, name, source)
    key = next(key for key in TABLE if key.name == name)
    return _read_value(key, value, source, ()) if value else None


def _value(values: Mapping[str, Any], name: str, source: str) -> str:
    value = values.get(PREFIX + name)
    if value is None:
        return ""
    if type(value) is not str:
        raise ImageError(f"{source}: `{PREFIX}{name}`: want a string, got {describe(value)}")
    if len(value) > MAX_VALUE:
        raise ImageError(f"{source}: `{PREFIX}{name}`: {len(value)} characters, want {MAX_VALUE} at most")
    return value


def _read_value(key: Key, value: str, source: str, words: tuple[str, ...]) -> Any:
    try:
        return key.read(_choose(key, value, words))
    except BadValueError as bad:
        raise ImageError(f"{source}: `{PREFIX}{key.name}`: {bad}", hint=bad.hint) from None


def _choose(key: Key, value: str, words: tuple[str, ...]) -> str:
    """Return the value's text, by the rule in the module's docstring."""
    if value in words or key.certain(value):
        return value
    text = decode_base64(value)
    if text is None:
        return value
    if text.endswith("\n") and _passes(key, text[:-1]):
        what = f"{show(value)} is the base64 of a text that ends with a newline"
        raise BadValueError(what, "encode it with printf, not echo")
    return text if key.certain(text) or _passes(key, text) else value


def _passes(key: Key, text: str) -> bool:
    try:
        key.read(text)
    except BadValueError:
        return False
    return bool(text)


def decode_base64(value: str) -> str | None:
    """Return the UTF-8 text whose canonical base64 `value` is, None where there is none."""
    if not value or len(value) % 4 or not value.isascii():
        return None
    from binascii import a2b_base64, b2a_base64  # 70 us, and plain values need it seldom

    try:
        data = a2b_base64(value, strict_mode=True)
        if b2a_base64(data, newline=False).decode("ascii") != value:
            return None
        return data.decode("utf-8")
    except ValueError:
        return None


def split_words(line: str) -> tuple[str, ...]:
    """Split a command line as a POSIX shell does: blanks, quotes, backslashes; nothing is expanded.

    XCU 2.2 "Quoting": nothing is special inside single quotes; inside double quotes a backslash escapes only
    itself, `"`, `$` and a backquote. Raises BadValueError for a quote that is not closed or a backslash at the end.
    """
    words: list[str] = []
    word: list[str] | None = None
    index = 0
    while index < len(line):
        char = line[index]
        if char in " \t\r\n":
            if word is not None:
                words.append("".join(word))
            word = None
            index += 1
            continue
        word = [] if word is None else word
        text, index = _quoted(line, index) if char in "'\"" else _bare(line, index)
        word.append(text)
    if word is not None:
        words.append("".join(word))
    return tuple(words)


def _bare(line: str, index: int) -> tuple[str, int]:
    if line[index] != "\\":
        return line[index], index + 1
    if index + 1 == len(line):
        raise BadValueError("the command line ends in a backslash")
    return line[index + 1], index + 2


def _quoted(line: str, index: int) -> tuple[str, int]:
    quote = line[index]
    text: list[str] = []
    index += 1
    while index < len(line):
        char = line[index]
        if char == quote:
            return "".join(text), index + 1
        if char == "\\" and quote == '"' and line[index + 1 : index + 2] in ("\\", '"', "$", "`"):
            index += 1
            char = line[index]
        text.append(char)
        index += 1
    raise BadValueError(f"a quote is not closed in {show(line)}")
