"""The D-Bus codec against bytes worked out by hand and round trips; the client against a scripted systemd."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc.errors import HostError
from urunc.linux import dbus
from urunc.linux.dbus import MalformedError, Message

# The codec


@pytest.mark.parametrize(
    ("signature", "values", "expected"),
    [
        ("y", [7], "07"),
        ("yu", [1, 2], "01000000 02000000"),
        ("b", [True], "01000000"),
        ("s", ["foo"], "03000000 666f6f00"),
        ("g", ["a{sv}"], "05 617b73767d 00"),
        ("as", [["a", "bc"]], "0f000000 01000000 61000000 02000000 626300"),
        ("at", [[]], "00000000 00000000"),
        ("at", [[5]], "08000000 00000000 0500000000000000"),
        ("v", [("u", 1)], "017500 00 01000000"),
        ("(yt)", [(1, 2)], "0100000000000000 0200000000000000"),
        ("ay", [b"\1\2"], "02000000 0102"),
        ("a{yu}", [{1: 2}], "08000000 00000000 01000000 02000000"),
        ("x", [-1], "ffffffffffffffff"),
    ],
)
def test_values_by_hand(signature: str, values: list[Any], expected: str) -> None:
    data = bytes.fromhex(expected)
    assert dbus.encode(signature, values) == data
    assert dbus.decode(signature, data) == values


def test_big_endian_is_read() -> None:
    assert dbus.decode("us", bytes.fromhex("00000005 00000001 6100"), ">") == [5, "a"]


@pytest.mark.parametrize(
    "signature",
    ["a", "(", "()", "(s", "a{s}", "a{sss}", "{su}", "a{vs}", "a{(s)s}", "z", ")", "a" * 70 + "s", "s" * 256],
)
def test_bad_signatures(signature: str) -> None:
    with pytest.raises(MalformedError):
        dbus.split_signature(signature)


@pytest.mark.parametrize(
    ("signature", "value"),
    [("u", -1), ("u", 2**32), ("s", 5), ("s", "a\0b"), ("y", "a"), ("v", ("uu", 1)), ("(su)", ("a",)), ("as", 5)],
)
def test_values_that_do_not_fit(signature: str, value: object) -> None:
    with pytest.raises(MalformedError):
        dbus.encode(signature, [value])


@pytest.mark.parametrize(
    ("signature", "data"),
    [
        ("s", "ffffffff 6100"),  # longer than what is there
        ("s", "01000000 6161"),  # not ended
        ("s", "01000000 ff00"),  # not UTF-8
        ("s", "02000000 610000"),  # NUL inside
        ("as", "f0ffffff"),  # an array over the end
        ("at", "04000000 00000000 00000000"),  # an item over the array's end
        ("b", "02000000"),
        ("yu", "01 ff 00 00 01000000"),  # padding that is not zero
        ("v", "0275 7500 00000000"),  # a variant of two types
        ("u", "0100"),
        ("u", "01000000 00"),  # a byte too many
    ],
)
def test_hostile_bytes(signature: str, data: str) -> None:
    with pytest.raises(MalformedError):
        dbus.decode(signature, bytes.fromhex(data))


def test_nested_variants_have_a_bottom() -> None:
    with pytest.raises(MalformedError, match="deep"):
        dbus.decode("v", b"\x01v\x00" * 500 + b"\x01y\x00\x00")


text = st.text(alphabet="ab /.\u00e9\u20ac\U0001f600", max_size=8)
leaves: dict[str, st.SearchStrategy[Any]] = {
    "y": st.integers(0, 255),
    "b": st.booleans(),
    "n": st.integers(-(2**15), 2**15 - 1),
    "q": st.integers(0, 2**16 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "u": st.integers(0, 2**32 - 1),
    "x": st.integers(-(2**63), 2**63 - 1),
    "t": st.integers(0, 2**64 - 1),
    "d": st.floats(allow_nan=False),
    "s": text,
    "o": text,
    "g": st.sampled_from(["", "s", "a{sv}", "(ii)"]),
    "ay": st.binary(max_size=9),
}


@st.composite
def typed_values(draw: st.DrawFn, depth: int = 3) -> tuple[str, Any]:
    """Draw a complete type and a value of it."""
    shape = draw(st.sampled_from(["leaf", "array", "struct", "dict", "variant"])) if depth else "leaf"
    if shape == "leaf":
        kind = draw(st.sampled_from(sorted(leaves)))
        return kind, draw(leaves[kind])
    if shape == "variant":
        return "v", draw(typed_values(depth - 1))
    if shape == "struct":
        parts = draw(st.lists(typed_values(depth - 1), min_size=1, max_size=3))
        return "(" + "".join(kind for kind, _ in parts) + ")", tuple(value for _, value in parts)
    kind, value = draw(typed_values(depth - 1).filter(lambda pair: pair[0] != "y"))
    if shape == "array":
        return "a" + kind, draw(st.sampled_from([[], [value], [value, value]]))
    return f"a{{s{kind}}}", dict.fromkeys(draw(st.lists(text, max_size=2, unique=True)), value)


@given(st.lists(typed_values(), max_size=3), st.integers(0, 9))
def test_round_trips(pairs: list[tuple[str, Any]], start: int) -> None:
    signature, values = "".join(kind for kind, _ in pairs), [value for _, value in pairs]
    if len(signature) > 255:
        return
    data = dbus.encode(signature, values, start)
    assert dbus.decode(signature, bytes(start) + data, start=start) == values


@given(st.binary(max_size=200), st.sampled_from(["a(yv)", "v", "a{sv}", "ssa(sv)a(sa(sv))", "aas"]))
def test_any_bytes_are_a_value_or_malformed(data: bytes, signature: str) -> None:
    try:
        dbus.decode(signature, data)
    except MalformedError:
        pass


@given(st.binary(max_size=120))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    for head in (b"", b"l\x02\x00\x01"):
        try:
            dbus.from_bytes(head + data)
        except MalformedError:
            pass


@given(st.data())
def test_a_broken_message_is_a_message_or_malformed(data: st.DataObject) -> None:
    good = bytearray(
        dbus.to_bytes(Message(kind=1, serial=9, path="/a", member="M", signature="sa(sv)", body=("x", [])))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        dbus.from_bytes(bytes(good))
    except MalformedError:
        pass


def test_a_message_round_trips() -> None:
    message = Message(
        kind=dbus.METHOD_CALL,
        serial=3,
        path="/org/x",
        interface="org.x.Y",
        member="Do",
        destination="org.x",
        signature="su",
        body=("hello", 7),
    )
    data = dbus.to_bytes(message)
    assert dbus.frame_length(data[:16]) == len(data)
    assert dbus.from_bytes(data) == message


def test_a_length_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(MalformedError):
        dbus.frame_length(bytes.fromhex("6c020001 ffffffff 01000000 00000000"))
    with pytest.raises(MalformedError):
        dbus.frame_length(bytes.fromhex("6c020002 00000000 01000000 00000000"))
    with pytest.raises(MalformedError):
        dbus.frame_length(bytes.fromhex("41020001 00000000 01000000 00000000"))


# A scripted systemd


class Systemd:
    """The far end of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.calls: list[Message] = []

    def greet(self) -> None:
        user = str(os.geteuid()).encode().hex().encode()
        expected = b"\0AUTH EXTERNAL " + user + b"\r\nBEGIN\r\n"
        assert self.read(len(expected)) == expected
        self.sock.sendall(b"OK 0123456789abcdef\r\n")

    def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def call(self) -> Message:
        head = self.read(16)
        message = dbus.from_bytes(head + self.read(dbus.frame_length(head) - 16))
        self.calls.append(message)
        return message

    def reply(self, to: Message, signature: str = "", *body: object) -> None:
        self.send(Message(kind=2, serial=1, reply_serial=to.serial, signature=signature, body=body))

    def fail(self, to: Message, name: str, text: str = "No.") -> None:
        self.send(Message(kind=3, serial=1, reply_serial=to.serial, error_name=name, signature="s", body=(text,)))

    def job_removed(self, job: str, result: str = "done") -> None:
        self.send(
            Message(
                kind=4,
                serial=1,
                path="/m",
                interface="i",
                member="JobRemoved",
                signature="uoss",
                body=(1, job, "u", result),
            )
        )

    def send(self, message: Message) -> None:
        self.sock.sendall(dbus.to_bytes(message))


@contextmanager
def systemd(
    monkeypatch: pytest.MonkeyPatch, folder: Path, script: Callable[[Systemd], None], *, daemon: bool = False
) -> Iterator[list[Systemd]]:
    """Serve one connection by the script; at the end its failure is the test's."""
    path = str(folder / "s")
    monkeypatch.setattr(dbus, "BUS_SOCKET" if daemon else "SYSTEMD_SOCKET", path)
    monkeypatch.setattr(dbus, "SYSTEMD_SOCKET" if daemon else "BUS_SOCKET", str(folder / "none"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    ends: list[Systemd] = []
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(10)
                ends.append(Systemd(sock))
                ends[0].greet()
                script(ends[0])
        except BaseException as error:
            failures.append(error)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield ends
        finally:
            thread.join()
    if failures:
        raise failures[0]


PROPERTIES = (("Slice", "s", "a.slice"), ("PIDs", "au", [5]), ("DeviceAllow", "a(ss)", [("/dev/null", "rw")]))


def test_a_scope_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(far: Systemd) -> None:
        call = far.call()
        far.job_removed("/job/6")  # of somebody else
        far.job_removed("/job/7")  # ours, even before the reply
        far.reply(call, "o", "/job/7")

    with systemd(monkeypatch, tmp_path, script) as ends:
        dbus.start_scope("x.scope", PROPERTIES)
    (call,) = ends[0].calls
    assert (call.member, call.signature, call.destination) == ("StartTransientUnit", "ssa(sv)a(sa(sv))", "")
    assert call.body == ("x.scope", "replace", [(name, (kind, value)) for name, kind, value in PROPERTIES], [])


def test_a_failed_unit_of_that_name_is_reset_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(far: Systemd) -> None:
        far.fail(far.call(), "org.freedesktop.systemd1.UnitExists")
        far.reply(far.call())
        far.reply(far.call(), "o", "/job/7")
        far.job_removed("/job/7")

    with systemd(monkeypatch, tmp_path, script) as ends:
        dbus.start_scope("x.scope", PROPERTIES)
    assert [call.member for call in ends[0].calls] == ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]


def test_a_unit_that_is_in_use_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(far: Systemd) -> None:
        for _ in range(3):
            far.fail(far.call(), "org.freedesktop.systemd1.UnitExists", "Unit x.scope already exists.")

    with (
        systemd(monkeypatch, tmp_path, script),
        pytest.raises(HostError, match=r"^systemd does not start `x\.scope`: Unit x\.scope already exists$"),
    ):
        dbus.start_scope("x.scope", PROPERTIES)


def test_a_job_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(far: Systemd) -> None:
        far.reply(far.call(), "o", "/job/7")
        far.job_removed("/job/7", "failed")
        far.reply(far.call())

    with (
        systemd(monkeypatch, tmp_path, script) as ends,
        pytest.raises(HostError, match="the job ended as `failed`"),
    ):
        dbus.start_scope("x.scope", PROPERTIES)
    assert ends[0].calls[-1].member == "ResetFailedUnit"


def test_stop_waits_for_the_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(far: Systemd) -> None:
        far.reply(far.call(), "o", "/job/8")
        far.job_removed("/job/8")
        far.reply(far.call())

    with systemd(monkeypatch, tmp_path, script) as ends:
        dbus.stop_unit("x.scope")
    assert [call.member for call in ends[0].calls] == ["StopUnit", "ResetFailedUnit"]


def test_stopping_what_is_not_there_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(far: Systemd) -> None:
        far.fail(far.call(), "org.freedesktop.systemd1.NoSuchUnit")
        far.fail(far.call(), "org.freedesktop.systemd1.NoSuchUnit")

    with systemd(monkeypatch, tmp_path, script):
        dbus.stop_unit("x.scope")


def test_over_the_bus_it_says_hello_and_subscribes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(far: Systemd) -> None:
        for _ in range(3):
            far.reply(far.call())
        far.reply(far.call(), "o", "/unit/x")

    with systemd(monkeypatch, tmp_path, script, daemon=True) as ends:
        assert dbus.find_unit("x.scope") == "/unit/x"
    assert [call.member for call in ends[0].calls] == ["Hello", "AddMatch", "Subscribe", "GetUnit"]
    assert ends[0].calls[-1].destination == "org.freedesktop.systemd1"


def test_properties_change_at_run_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with systemd(monkeypatch, tmp_path, lambda far: far.reply(far.call())) as ends:
        dbus.set_properties("x.scope", (("TasksMax", "t", 9),))
    assert ends[0].calls[0].body == ("x.scope", True, [("TasksMax", ("t", 9))])


def test_an_unknown_unit_is_not_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def script(far: Systemd) -> None:
        far.fail(far.call(), "org.freedesktop.systemd1.NoSuchUnit")

    with systemd(monkeypatch, tmp_path, script):
        assert dbus.find_unit("x.scope") is None


def say_nothing(far: Systemd) -> None:
    far.call()
    time.sleep(0.3)


def hang_up(far: Systemd) -> None:
    far.call()


def say_nonsense(far: Systemd) -> None:
    far.call()
    far.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def announce_gigabytes(far: Systemd) -> None:
    far.call()
    far.sock.sendall(bytes.fromhex("6c020001 00000006 01000000 00000000"))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (say_nothing, "systemd does not answer"),
        (hang_up, "systemd closed the connection"),
        (say_nonsense, "systemd's answer is not D-Bus"),
        (announce_gigabytes, "systemd's answer is not D-Bus"),
    ],
)
def test_a_bad_answer_is_an_error_in_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: Callable[[Systemd], None], message: str
) -> None:
    with systemd(monkeypatch, tmp_path, script), pytest.raises(HostError, match=message):
        dbus.start_scope("x.scope", PROPERTIES, seconds=0.2)


def test_without_systemd_the_hint_says_what_asked_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dbus, "SYSTEMD_SOCKET", str(tmp_path / "a"))
    monkeypatch.setattr(dbus, "BUS_SOCKET", str(tmp_path / "b"))
    with pytest.raises(HostError, match="cannot reach systemd") as caught:
        dbus.start_scope("x.scope", PROPERTIES)
    assert "slice:prefix:name" in (caught.value.hint or "")
    dbus.stop_unit("x.scope")
