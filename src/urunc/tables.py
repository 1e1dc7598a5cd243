"""What `list`, `ps`, `check` and `timeline` print."""

from __future__ import annotations

from . import jsonio
from .errors import HostError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_MIN_WIDTH, _GAP = 12, 3


def ids(states: list[dict[str, Any]]) -> str:
    """Return one id a line."""
    return "".join(f"{state['id']}\n" for state in states)


def containers(states: list[dict[str, Any]], form: str) -> str:
    """Return the containers' state documents as JSON, or as runc's table."""
    if form == "json":
        states = [{**state, "owner": _user_name(state["owner"])} for state in states]
        return jsonio.dumps(states).decode("ascii") + "\n"
    rows: list[tuple[str, ...]] = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
    keys = ("id", "pid", "status", "bundle", "created")
    rows += [(*(str(state[key]) for key in keys), _user_name(state["owner"])) for state in states]
    return "".join(f"{line}\n" for line in _columns(rows))


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def processes(pids: list[int], form: str, ps_options: list[str]) -> str:
    """Return the pids as a JSON list, or their lines of ps(1), which gets the options, or `-ef`. Raises HostError."""
    if form == "json":
        return jsonio.dumps(pids).decode("ascii") + "\n"
    title, *lines = _ps_lines(ps_options or ["-ef"])
    columns = title.split()
    if "PID" not in columns:
        raise HostError("cannot list processes: the options leave ps without a PID column")
    at = columns.index("PID")
    wanted = {str(pid) for pid in pids}
    return "".join(f"{line}\n" for line in [title, *(line for line in lines if _field(line, at) in wanted)])


def report(data: dict[str, Any], form: str) -> str:
    """Return what `check` found as JSON, or as three tables and what is to be done."""
    if form == "json":
        return jsonio.indented(data) + "\n"
    programs: list[tuple[str, ...]] = [("MONITOR", "OK", "VERSION", "PROGRAM", "NOTE")]
    programs += [
        (row["name"], _yes(row["ok"]), row["version"] or "-", row["path"] or "-", _note(row))
        for row in data["monitors"]
    ]
    facilities: list[tuple[str, ...]] = [("FACILITY", "OK", "USED FOR", "WHAT")]
    facilities += [(row["name"], _yes(row["ok"]), row["used"], row["what"]) for row in data["facilities"]]
    pairs: list[tuple[str, ...]] = [("GUEST", "RUNS HERE ON", "NOT ON")]
    for guest in data["guests"]:
        mine = [row for row in data["pairs"] if row["guest"] == guest]
        pairs.append(
            (guest, *(" ".join(row["monitor"] for row in mine if row["ok"] == ok) or "-" for ok in (True, False)))
        )
    lines = [*_columns(programs), "", *_columns(facilities), "", *_columns(pairs)]
    if data["todo"]:
        lines += ["", "what to do for the rest:", *(f"  {hint}" for hint in data["todo"])]
    return "".join(f"{line}\n" for line in lines)


def steps(data: dict[str, Any]) -> str:
    """Return a container's steps as a table, in milliseconds, and what all of them took."""
    rows: list[tuple[str, ...]] = [("WHO", "STEP", "FROM", "TOOK")]
    rows += [(row["track"], row["name"], _ms(row["at"]), _ms(row["took"])) for row in data["steps"]]
    rows += [(track, "all of it", "", _ms(took)) for track, took in data["took"].items()]
    return "".join(f"{line}\n" for line in _columns(rows))


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.2f} ms"


def _yes(ok: bool) -> str:
    return "yes" if ok else "no"


def _note(row: dict[str, Any]) -> str:
    return str(row["note"] or ("with KVM" if row["accel"] == "kvm" else "needs no KVM"))


def _field(line: str, at: int) -> str:
    fields = line.split()
    return fields[at] if at < len(fields) else ""


def _ps_lines(options: list[str]) -> list[str]:
    import subprocess

    try:
        done = subprocess.run(["ps", *options], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise HostError(f"cannot run ps: {reason(error)}", hint="install procps, or use --format json") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[:1]
        raise HostError(f"ps failed: {said[0] if said else f'exit status {done.returncode}'}")
    return done.stdout.decode(errors="replace").splitlines() or [""]


def _columns(rows: Iterable[tuple[str, ...]]) -> list[str]:
    rows = list(rows)
    widths = [max(_MIN_WIDTH, *(len(row[column]) + _GAP for row in rows)) for column in range(len(rows[0]))]
    return ["".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
