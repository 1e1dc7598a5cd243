"""The protocol between create and init, without init."""

from __future__ import annotations

import os

import pytest

from urunc.errors import HookError, KernelError, SpecError
from urunc.runtime import channel
from urunc.runtime.channel import Sequence


def test_the_messages_have_an_order() -> None:
    sequence = Sequence(user_namespace=True)
    for kind in ("user", "maps", "ns", "joined", "go", "ready"):
        sequence.take(kind)
    with pytest.raises(KernelError, match="`nothing` was due"):
        sequence.take("ready")


def test_without_a_user_namespace_two_are_left_out() -> None:
    sequence = Sequence(user_namespace=False)
    with pytest.raises(KernelError, match="got `user`, `ns` was due"):
        sequence.take("user")


def test_after_an_error_nothing_is_due() -> None:
    sequence = Sequence(user_namespace=False)
    sequence.take("error")
    with pytest.raises(KernelError, match="`nothing` was due"):
        sequence.take("ns")


def test_a_message_carries_data_descriptors_and_the_senders_pid() -> None:
    ours, theirs = channel.pair(user_namespace=False)
    reader, writer = os.pipe()
    theirs.send("ns", {"a": [1, "ä"]}, fds=(writer,))
    os.close(writer)
    message = ours.receive()
    assert message is not None
    assert (message.data, message.pid) == ({"a": [1, "ä"]}, os.getpid())
    os.write(message.fds[0], b"through")
    os.close(message.fds[0])
    assert os.read(reader, 10) == b"through"
    os.close(reader)
    ours.close()
    theirs.close()


def test_the_pid_is_the_one_that_the_kernel_sees() -> None:
    ours, theirs = channel.pair(user_namespace=False)
    child = os.fork()
    if child == 0:
        theirs.send("ns")
        os._exit(0)
    message = ours.receive()
    assert message is not None
    assert message.pid == child
    os.waitpid(child, 0)
    ours.close()
    theirs.close()


def test_a_dead_side_is_none_to_read_and_an_error_to_write() -> None:
    ours, theirs = channel.pair(user_namespace=False)
    theirs.close()
    assert ours.receive() is None
    ours.sequence = Sequence(user_namespace=False)
    with pytest.raises(KernelError, match="cannot send `ns` to the other side: broken pipe"):
        ours.send("ns")
    ours.close()


def test_a_message_that_is_too_large_says_so() -> None:
    ours, theirs = channel.pair(user_namespace=False)
    with pytest.raises(KernelError, match="cannot send `ns` to the other side: message too long"):
        theirs.send("ns", {"a": "x" * 8 * channel.MAX_MESSAGE})
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (SpecError("process.cwd: odd", hint="mend it"), SpecError, "process.cwd: odd (mend it)"),
        (HookError("hook `/x`: exit status 1"), HookError, "hook `/x`: exit status 1"),
        (
            FileNotFoundError(2, "No such file or directory", "/dev/kvm"),
            KernelError,
            "`/dev/kvm`: no such file or directory",
        ),
        (ValueError("a bug"), KernelError, "internal error: ValueError: a bug"),
    ],
)
def test_an_error_travels_with_class_and_hint(error: Exception, kind: type[Exception], text: str) -> None:
    ours, theirs = channel.pair(user_namespace=False)
    theirs.send("error", channel.error_data(error))
    with pytest.raises(kind) as caught:
        ours.receive()
    assert str(caught.value) == text
    ours.close()
    theirs.close()
