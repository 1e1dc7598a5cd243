"""The command line's edge: parses, picks the verb, and alone prints an error and sets the exit status.

Imports are start-up time, so this module imports only what every call needs; `verbs` imports the rest, verb by
verb. It must not know what a verb does.
"""

from __future__ import annotations

import os
import sys

from . import booleans, log
from .errors import UruncError, UsageError, describe
from .flags import FLAGS_FIRST, GLOBALS, HELP, NEW, OWN, VERBS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .flags import Flag


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit status: 0, 1 for an error, the container's own for `run`.

    `argv` is the whole command line, the program's name first; None for the process's own.
    """
    argv = list(sys.argv if argv is None else argv)
    debug = False
    try:
        _want_stdio()
        flags, rest = parse(argv[1:], GLOBALS, flags_first=True)
        debug = flags.get("debug", False)
        return _run(argv, flags, rest)
    except UruncError as error:
        log.fail(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except OSError as error:  # of the state directory, most often: it is no folder, or not to be read
        log.fail(describe(error))
        return 1
    except Exception as error:
        log.fail(f"internal error: {type(error).__name__}: {error}")
        if debug:
            _print_traceback(error)
        return 1


def _run(argv: list[str], flags: dict[str, Any], rest: list[str]) -> int:
    if flags.get("version"):
        return _print_help("version", None)
    name = rest[0] if rest else "help"
    if flags.get("help") or name in ("help", "h"):
        return _print_help("help", rest[1] if name in ("help", "h") and len(rest) > 1 else None)
    log.open_log(flags.get("log", ""), flags.get("log_format", "text"), debug=flags.get("debug", False))
    if name not in VERBS:
        raise UsageError(f"`{name}` is not a verb", hint="see `urunc --help`")
    return _run_verb(name, argv, flags, rest[1:])


def _run_verb(name: str, argv: list[str], common: dict[str, Any], rest: list[str]) -> int:
    wanted = VERBS[name][0]
    flags, args = parse(rest, (HELP, *VERBS[name][2]), flags_first=name in FLAGS_FIRST, verb=name)
    if flags.get("help"):
        return _print_help("help", name)
    _check_count(name, wanted, args)
    from . import verbs

    call = verbs.Call(argv, common, flags, args)
    if wanted and name not in NEW | OWN and not verbs.is_ours(call):
        return verbs.delegate(name, call)
    return verbs.TABLE[name](call)


def _check_count(name: str, wanted: str, args: list[str]) -> None:
    """`wanted` is the verb's arguments as the help writes them: `ID`, `ID [SIGNAL]`, `ID COMMAND [ARGS]`."""
    least = 1 if wanted else 0
    most = None if name in ("exec", "ps") else len(wanted.split())
    if len(args) >= least and (most is None or len(args) <= most):
        return
    takes = f"takes `{wanted}`" if wanted else "takes no argument"
    given = "1 argument" if len(args) == 1 else f"{len(args)} arguments"
    raise UsageError(f"`{name}` {takes}, not {given}", hint=f"see `urunc {name} --help`")


def parse(
    args: list[str], flags: tuple[Flag, ...], *, flags_first: bool = False, verb: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """Return the flags' values by long name (`-` as `_`), and the arguments that are left.

    The meanings are those of Go's flag package, which runc uses: one dash or two, `--flag value` or
    `--flag=value`, `--switch=false`, and `--` ends the flags. With `flags_first` they end at the first
    argument too. Raises UsageError.
    """
    known = {name: flag for flag in flags for name in flag[0].split()}
    values: dict[str, Any] = {}
    left: list[str] = []
    index = 0
    while index < len(args):
        arg = args[index]
        index += 1
        if len(arg) < 2 or arg[0] != "-":
            left.append(arg)
            if flags_first:
                break
            continue
        if arg == "--":
            break
        name, equals, value = arg[2 if arg[1] == "-" else 1 :].partition("=")
        flag = known.get(name)
        if flag is None:
            raise _usage(verb, f"unknown flag `{arg.partition('=')[0]}`")
        if flag[1] and not equals:
            if index == len(args):
                raise _usage(verb, f"flag `--{name}` needs a value")
            value = args[index]
            index += 1
        values[flag[0].split()[0].replace("-", "_")] = _value(
            verb, name, flag[1], value if equals or flag[1] else "true"
        )
    return values, left + args[index:]


def _value(verb: str, name: str, kind: str, text: str) -> str | int | bool:
    if kind == "N":
        if text.isascii() and text.isdecimal() and len(text) < 10:
            return int(text)
        raise _usage(verb, f"flag `--{name}` needs a whole number, not `{text}`")
    if kind:
        return text
    switch = booleans.parse(text)
    if switch is None:
        raise _usage(verb, f"switch `--{name}` is true or false, not `{text}`")
    return switch


def _usage(verb: str, message: str) -> UsageError:
    return UsageError(message, hint=f"see `urunc {verb} --help`" if verb else "see `urunc --help`")


def _want_stdio() -> None:
    """Open /dev/null where descriptor 0, 1 or 2 is closed: a file opened there would receive our messages."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)  # for the monitor, and for hooks


def _print_help(what: str, verb: str | None) -> int:
    from .usage import text
    from .verbs import write

    write(text(what, verb))
    return 0


def _print_traceback(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error)
