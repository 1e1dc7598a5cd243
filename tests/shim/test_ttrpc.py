"""The server over a socketpair: right calls, hostile frames, slow and vanishing clients."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from urunc.shim import codes, ttrpc
from urunc.shim.codes import StatusError
from urunc.shim.frames import MAX_FRAME, MAX_UNREAD, Frames
from urunc.shim.loop import Loop
from urunc.shim.messages import REQUEST, RESPONSE
from urunc.shim.ttrpc import Call, Client, Server
from urunc.shim.wire import Table, decode, encode

Values = dict[str, Any]

ECHO = Table("test.Echo", (1, "text", "string"), (2, "data", "bytes"))
SERVICE = "test.Service"


class World:
    """A server in its loop, and the raw client's end of one connection."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.waiting: list[Call] = []
        self.cancelled: list[str] = []
        self.loop = Loop(self.errors.append)
        methods = {
            "Echo": (ECHO, ECHO, lambda values, call: values),
            "Wait": (ECHO, ECHO, self._wait),
            "Refuse": (ECHO, ECHO, self._refuse),
            "Fault": (ECHO, ECHO, self._fault),
            "Huge": (ECHO, ECHO, lambda values, call: {"data": bytes(MAX_FRAME)}),
            "Misfit": (ECHO, ECHO, lambda values, call: {"text": 5}),
        }
        self.server = Server(self.loop, {SERVICE: methods}, self.errors.append)
        self.peer = self.connect()

    def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.server.add(ours)
        theirs.setblocking(False)
        return theirs

    def close(self) -> None:
        self.server.close()
        self.peer.close()
        self.loop.close()

    def _wait(self, values: Values, call: Call) -> None:
        call.on_cancel = lambda: self.cancelled.append(values["text"])
        self.waiting.append(call)

    @staticmethod
    def _refuse(values: Values, call: Call) -> Values:
        raise StatusError(codes.FAILED_PRECONDITION, "container is `stopped`")

    @staticmethod
    def _fault(values: Values, call: Call) -> Values:
        raise KeyError("lost")

    def turn(self, times: int = 4) -> None:
        for _ in range(times):
            self.loop.once(0)

    def received(self, peer: socket.socket | None = None) -> list[tuple[int, Values]]:
        """Serve until nothing more comes; return what the client got: stream and response."""
        peer = peer or self.peer
        frames, found = Frames(), []
        while True:
            self.turn()
            try:
                data = peer.recv(1 << 20)
            except BlockingIOError:
                break
            if not data:
                break
            for stream, kind, content in frames.feed(data):
                assert kind == 2
                assert content is not None
                found.append((stream, decode(RESPONSE, content)))
        return found


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    assert world.errors == []
    world.close()


def frame(stream: int, content: bytes, kind: int = 1, flags: int = 0) -> bytes:
    return struct.pack(">IIBB", len(content), stream, kind, flags) + content


def request(stream: int, method: str, text: str = "", service: str = SERVICE, **more: Any) -> bytes:
    payload = encode(ECHO, {"text": text})
    return frame(stream, encode(REQUEST, {"service": service, "method": method, "payload": payload, **more}))


def code_of(answer: Values) -> int:
    return answer["status"]["code"] if answer["status"] else 0


def test_a_call_is_answered_on_its_stream(world: World) -> None:
    world.peer.send(request(1, "Echo", "hello"))
    [(stream, answer)] = world.received()
    assert stream == 1
    assert answer["status"] is None
    assert decode(ECHO, answer["payload"])["text"] == "hello"


def test_requests_may_be_pipelined_and_cut_anywhere(world: World) -> None:
    data = b"".join(request(2 * n + 1, "Echo", str(n)) for n in range(20))
    for at in range(0, len(data), 7):
        world.peer.send(data[at : at + 7])
        world.turn(1)
    answers = world.received()
    assert [decode(ECHO, answer["payload"])["text"] for _, answer in answers] == [str(n) for n in range(20)]


def test_a_call_that_waits_does_not_stop_the_next(world: World) -> None:
    world.peer.send(request(1, "Wait") + request(3, "Echo", "b"))
    assert [stream for stream, _ in world.received()] == [3]
    world.waiting[0].answer({"text": "now"})
    world.waiting[0].answer({"text": "twice"})
    [(stream, answer)] = world.received()
    assert (stream, decode(ECHO, answer["payload"])["text"]) == (1, "now")


def test_a_refusal_is_a_status(world: World) -> None:
    world.peer.send(request(1, "Refuse"))
    [(_, answer)] = world.received()
    assert answer["status"]["code"] == codes.FAILED_PRECONDITION
    assert answer["status"]["message"] == "container is `stopped`"


def test_a_fault_is_answered_and_reported(world: World) -> None:
    world.peer.send(request(1, "Fault") + request(3, "Echo"))
    assert [code_of(answer) for _, answer in world.received()] == [codes.UNKNOWN, 0]
    assert [type(error) for error in world.errors] == [KeyError]
    world.errors.clear()


def test_an_answer_that_cannot_be_sent_is_a_status(world: World) -> None:
    world.peer.send(request(1, "Huge") + request(3, "Misfit"))
    assert [code_of(answer) for _, answer in world.received()] == [codes.RESOURCE_EXHAUSTED, codes.INTERNAL]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (request(1, "Echo", service="another.Service"), codes.UNIMPLEMENTED),
        (request(1, "Unheard"), codes.UNIMPLEMENTED),
        (request(2, "Echo"), codes.INVALID_ARGUMENT),
        (request(0, "Echo"), codes.INVALID_ARGUMENT),
        (frame(1, b"\xff"), codes.INVALID_ARGUMENT),
        (frame(1, encode(REQUEST, {"service": SERVICE, "method": "Echo", "payload": b"\x0a\x05"})), 3),
        (frame(1, b"", kind=3), codes.INVALID_ARGUMENT),
        (request(1, "Wait", timeout_nano=-1), codes.DEADLINE_EXCEEDED),
        (frame(1, b""), codes.UNIMPLEMENTED),
    ],
)
def test_what_is_wrong_gets_a_status_and_the_connection_lives(world: World, data: bytes, code: int) -> None:
    world.peer.send(data + request(99, "Echo"))
    answers = world.received()
    assert [code_of(answer) for _, answer in answers] == [code, 0]


def test_a_stream_is_used_once_and_upwards(world: World) -> None:
    world.peer.send(request(5, "Echo") + request(5, "Echo") + request(3, "Echo") + request(7, "Echo"))
    assert [code_of(answer) for _, answer in world.received()] == [0, 3, 3, 0]


def test_unknown_frame_types_are_ignored(world: World) -> None:
    world.peer.send(frame(1, b"x", kind=9) + frame(3, b"", kind=2) + request(5, "Echo"))
    assert [stream for stream, _ in world.received()] == [5]


def test_a_frame_too_long_is_refused_without_being_kept(world: World) -> None:
    length = MAX_FRAME + 1
    world.peer.send(struct.pack(">IIBB", length, 1, 1, 0))
    assert [code_of(answer) for _, answer in world.received()] == [codes.RESOURCE_EXHAUSTED]
    for at in range(0, length, 65536):
        world.peer.send(bytes(min(65536, length - at)))
        world.turn(2)
    world.peer.send(request(3, "Echo"))
    assert [code_of(answer) for _, answer in world.received()] == [0]


def test_frames_keeps_nothing_of_a_frame_too_long() -> None:
    frames = Frames()
    assert frames.feed(struct.pack(">IIBB", 0xFFFFFFFF, 1, 1, 0)) == [(1, 1, None)]
    for _ in range(100):
        assert frames.feed(bytes(65536)) == []
    assert len(frames._buffer) == 0


def test_a_deadline_that_passes(world: World) -> None:
    world.peer.send(request(1, "Wait", "late", timeout_nano=1) + request(3, "Wait", "early", timeout_nano=2**62))
    [(stream, answer)] = world.received()
    assert (stream, code_of(answer)) == (1, codes.DEADLINE_EXCEEDED)
    assert world.cancelled == ["late"]
    for call in world.waiting:
        call.answer({})
    assert [stream for stream, _ in world.received()] == [3]


def test_a_client_that_goes_away_cancels_its_calls(world: World) -> None:
    peer = world.connect()
    peer.send(request(1, "Wait", "gone"))
    world.turn()
    peer.close()
    world.turn()
    assert world.cancelled == ["gone"]
    world.waiting[0].answer({"text": "to nobody"})


def test_a_client_that_does_not_read_is_dropped_and_stalls_no_other(world: World) -> None:
    stalled = world.connect()
    message = request(1, "Echo", "x" * 60_000)
    stream, dropped = 1, False
    while not dropped and stream < 2000:
        try:
            stalled.send(struct.pack(">II", len(message) - 10, stream) + message[8:])
            stream += 2
        except BlockingIOError:
            pass
        except OSError:
            dropped = True
        world.turn(1)
        assert world.server.unsent <= MAX_UNREAD + 61_000
    assert dropped
    world.peer.send(request(1, "Echo", "served"))
    assert len(world.received()) == 1
    stalled.close()


def test_too_many_calls_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ttrpc, "MAX_CALLS", 2)
    world.peer.send(b"".join(request(n, "Wait") for n in (1, 3, 5)))
    assert [(stream, code_of(answer)) for stream, answer in world.received()] == [(5, codes.RESOURCE_EXHAUSTED)]


def test_names_that_are_not_utf8_can_stand_in_an_error(world: World) -> None:
    world.peer.send(request(1, "Wait"))
    world.turn()
    world.waiting[0].fail(2, "no such file: \udcff")
    [(_, answer)] = world.received()
    assert answer["status"]["message"] == "no such file: ?"


class TestListening:
    """The listening socket, and our own client."""

    @pytest.fixture
    def path(self, world: World, tmp_path: Any) -> str:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        world.server.listen(socket.socket(fileno=listener.detach()))
        return str(tmp_path / "s")

    def test_client_and_server(self, world: World, path: str) -> None:
        closed: list[bool] = []
        answers: list[tuple[int, str]] = []
        client = Client(world.loop, path, lambda: closed.append(True))
        client.call(SERVICE, "Echo", b"", lambda code, message: answers.append((code, message)))
        client.call(SERVICE, "Refuse", b"", lambda code, message: answers.append((code, message)))
        world.turn(8)
        assert answers == [(0, ""), (9, "container is `stopped`")]
        world.server.close()
        world.turn()
        assert closed == [True]

    def test_a_crowd_is_turned_away(self, world: World, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ttrpc, "MAX_CONNECTIONS", 1)
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(path)
        world.turn()
        assert peer.recv(1) == b""
        peer.close()

    def test_another_user_is_turned_away(self, world: World, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.geteuid", lambda: 12345)
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(path)
        world.turn()
        assert peer.recv(1) == b""
        peer.close()

    def test_without_descriptors_accepting_pauses(
        self, world: World, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ttrpc, "_ACCEPT_PAUSE", 0.0)
        server_socket = world.server._listener

        class Full:
            def fileno(self) -> int:
                return server_socket.fileno()

            def _accept(self) -> None:
                raise OSError(24, "Too many open files")

        peer = socket.socket(socket.AF_UNIX)
        monkeypatch.setattr(world.server, "_listener", Full())
        peer.connect(path)
        world.turn(1)
        assert len(world.server._connections) == 1
        monkeypatch.undo()
        world.turn()
        peer.setblocking(False)
        peer.send(request(1, "Echo"))
        assert len(world.received(peer)) == 1
        peer.close()


frames = st.one_of(
    st.binary(max_size=40),
    st.builds(frame, st.integers(0, 2**32 - 1), st.binary(max_size=60), st.integers(0, 255), st.integers(0, 255)),
    st.builds(
        request,
        st.integers(0, 40),
        st.sampled_from(["Echo", "Wait", "Refuse", "Nothing", "Misfit"]),
        st.text(max_size=5),
        st.sampled_from([SERVICE, SERVICE, "other"]),
        timeout_nano=st.integers(-(2**63), 2**63 - 1),
    ),
)


@given(st.lists(frames, max_size=12), st.integers(1, 64))
@settings(max_examples=400, deadline=None)
def test_no_input_harms_the_server(pieces: list[bytes], cut: int) -> None:
    world = World()
    data = b"".join(pieces)
    for at in range(0, len(data), cut):
        world.peer.send(data[at : at + cut])
        world.turn(1)
    world.received()
    for call in world.waiting:
        call.answer({})
    answers = world.received()
    assert len({stream for stream, _ in answers if stream % 2}) <= len(answers)
    assert world.errors == []
    fresh = world.connect()
    fresh.send(request(1, "Echo", "alive"))
    assert decode(ECHO, world.received(fresh)[0][1]["payload"])["text"] == "alive"
    fresh.close()
    world.close()
