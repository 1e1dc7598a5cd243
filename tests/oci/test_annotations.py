"""Annotations: plain or base64 value by value, and every hostile value refused by name."""

from __future__ import annotations

import base64
import shlex
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from urunc.errors import ImageError
from urunc.oci import annotations
from urunc.oci.annotations import BadValueError, decode_base64, split_words

WORDS = ("linux", "mewz", "unikraft", "qemu", "spt")


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def read(**values: Any) -> dict[str, Any]:
    return annotations.read({annotations.PREFIX + key: value for key, value in values.items()}, "annotations", WORDS)[0]


VALUES = [
    ("unikernelType", "unikraft", "guest", "unikraft"),
    ("unikernelType", "mewz", "guest", "mewz"),
    ("unikernelType", "hermit", "guest", "hermit"),
    ("hypervisor", "qemu", "monitor", "qemu"),
    ("binary", "/unikernel/app", "kernel", "/unikernel/app"),
    ("binary", "unikernel//./app", "kernel", "/unikernel/app"),
    ("initrd", "/a b,c/d=e", "initrd", "/a b,c/d=e"),
    ("block", "/disk.img", "block", "/disk.img"),
    ("blkMntPoint", "/", "block_mount", "/"),
    ("blkMntPoint", "/data/", "block_mount", "/data"),
    ("cmdline", "nginx -c '/etc/my conf'", "command_line", "nginx -c '/etc/my conf'"),
    ("cmdline", "naïve ☃", "command_line", "naïve ☃"),
    ("unikernelVersion", "0.16.1", "guest_version", "0.16.1"),
    ("unikernelVersion", "v1", "guest_version", "v1"),
    ("unikernelVersion", "12345678", "guest_version", "12345678"),
    ("mountRootfs", "true", "mount_rootfs", True),
    ("mountRootfs", "True", "mount_rootfs", True),
    ("mountRootfs", "1", "mount_rootfs", True),
    ("mountRootfs", "F", "mount_rootfs", False),
    ("useDMBlock", "0", "mount_rootfs", False),
    ("solo5NetDev", "service", "net_device", "service"),
    ("solo5NetDev", "net0", "net_device", "net0"),
    ("solo5BlkDev", "a" * 67, "block_device", "a" * 67),
]


@pytest.mark.parametrize(("key", "value", "field", "want"), VALUES)
def test_plain_values(key: str, value: str, field: str, want: Any) -> None:
    assert read(**{key: value}) == {field: want}


@pytest.mark.parametrize(("key", "value", "field", "want"), VALUES)
def test_the_same_values_in_base64(key: str, value: str, field: str, want: Any) -> None:
    assert read(**{key: encode(value)}) == {field: want}


def test_words_that_are_base64_as_well_stay_plain() -> None:
    for value in ("qemu", "true", "mewz", "/abc", "init", "date", "0123", "True", "unikraft"):
        assert len(value) % 4 == 0
    assert read(unikernelType="mewz", hypervisor="qemu", mountRootfs="true", binary="/abc", cmdline="init") == {
        "guest": "mewz",
        "monitor": "qemu",
        "mount_rootfs": True,
        "kernel": "/abc",
        "command_line": "init",
    }


def test_the_one_ambiguity_goes_to_base64_as_documented() -> None:
    assert read(cmdline="film")["command_line"] == "~)f"
    assert read(cmdline=encode("film"))["command_line"] == "film"


def test_empty_is_absent() -> None:
    assert read(unikernelType="", cmdline="", block=None) == {}


def test_the_newer_name_wins() -> None:
    assert read(useDMBlock="false", mountRootfs="true") == {"mount_rootfs": True}
    assert read(useDMBlock="true", mountRootfs="false") == {"mount_rootfs": False}


def test_unknown_keys_are_said_and_foreign_ones_are_not() -> None:
    fields, messages = annotations.read(
        {"com.urunc.unikernel.colour": "red", "org.example": "x", "com.urunc.other": "y"}, "annotations", WORDS
    )
    assert fields == {}
    assert messages == ("annotations: unknown key `com.urunc.unikernel.colour` is ignored",)


def test_an_image_full_of_unknown_keys_does_not_fill_the_log() -> None:
    _fields, messages = annotations.read({f"com.urunc.unikernel.x{n}": "" for n in range(10_000)}, "/urunc.json", WORDS)
    assert len(messages) == 9
    assert messages[-1] == "/urunc.json: 9992 more unknown keys are ignored"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("binary", "/a/../../etc/passwd", "`..` is not allowed in `/a/../../etc/passwd`"),
        ("binary", encode("/../etc"), "`..` is not allowed in `/../etc`"),
        ("binary", encode("/kernel\n"), "`L2tlcm5lbAo=` is the base64 of a text that ends with a newline"),
        ("binary", encode("/x\n/y"), "`/x\\n/y` holds a newline"),
        ("binary", "..", "`..` is not allowed in `..`"),
        ("binary", "/", "`/` names no file"),
        ("binary", "/a\nb", "`/a\\nb` holds a newline"),
        ("binary", "/a\0b", "`/a\\x00b` holds a NUL character"),
        ("binary", "/a\x1b[0m", "`/a\\x1b[0m` holds a control character"),
        ("binary", "/x/-drive", "a name in `/x/-drive` starts with a dash"),
        ("binary", "-kernel", "a name in `-kernel` starts with a dash"),
        ("initrd", "/" + "x" * 4095, "the path is longer than 4095 bytes"),
        ("block", "/" + "x" * 100_000, "100001 characters, want 65536 at most"),
        ("cmdline", "a\nb", "`a\\nb` holds a newline"),
        ("cmdline", "a 'b", "a quote is not closed in `a 'b`"),
        ("cmdline", "a\\", "the command line ends in a backslash"),
        ("cmdline", "x" * 100_000, "100000 characters, want 65536 at most"),
        ("unikernelType", "-drive", "`-drive` starts with a dash"),
        ("unikernelType", encode("linux\n"), "`bGludXgK` is the base64 of a text that ends with a newline"),
        ("mountRootfs", "yes", "want true or false, got `yes`"),
        ("mountRootfs", encode("maybe"), "want true or false, got `bWF5YmU=`"),
        ("unikernelVersion", "0.16 -x", "want a version such as 0.16.1, got `0.16 -x`"),
        ("solo5NetDev", "net=tap,x", "want 1 to 67 letters and digits, got `net=tap,x`"),
        ("solo5NetDev", "a" * 68, "want 1 to 67 letters and digits, got `" + "a" * 60 + "..`"),
        ("solo5BlkDev", "disqué", "want 1 to 67 letters and digits, got `disqué`"),
        ("cmdline", 5, "want a string, got 5"),
        ("cmdline", ["a"], "want a string, got a list"),
    ],
)  # fmt: skip
def test_bad_values(key: str, value: Any, message: str) -> None:
    with pytest.raises(ImageError) as caught:
        read(**{key: value})
    assert caught.value.message == f"annotations: `com.urunc.unikernel.{key}`: {message}"
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("key", annotations.HOST_KEYS)
def test_paths_of_the_host_are_refused(key: str) -> None:
    with pytest.raises(ImageError, match="never taken from an image"):
        read(**{key: "/boot/vmlinuz"})


def test_read_one() -> None:
    assert annotations.read_one({"com.urunc.unikernel.binary": encode("/k")}, "binary", "annotations") == "/k"
    assert annotations.read_one({}, "binary", "annotations") is None


@given(st.text(max_size=40))
def test_base64_of_any_text_decodes_to_it(text: str) -> None:
    assume(text)
    assert decode_base64(encode(text)) == text


@pytest.mark.parametrize(
    "value", ["", "a", "abc", "YQ=", "YR==", "YQ==\n", "Y Q==", "=YQ=", "____", "é123", "YQ==YQ=="]
)
def test_what_is_not_canonical_base64(value: str) -> None:
    assert decode_base64(value) is None


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), min_size=1, max_size=60))
def test_an_encoded_command_line_comes_back_whole(text: str) -> None:
    assume(not any(char in "\u2028\u2029" for char in text))
    try:
        split_words(text)
    except BadValueError:
        return
    assert read(cmdline=encode(text)) == {"command_line": text}


any_base64 = st.binary(max_size=30).map(lambda data: base64.b64encode(data).decode())


@given(st.sampled_from([key.name for key in annotations.TABLE]), st.text(max_size=40) | any_base64)
def test_any_text_is_read_or_refused(key: str, value: str) -> None:
    try:
        fields = read(**{key: value})
    except ImageError as error:
        assert error.message.isprintable()
        return
    for field, found in fields.items():
        if isinstance(found, str):
            assert "\0" not in found and "\n" not in found
        if field in ("kernel", "initrd", "block", "block_mount"):
            assert found.startswith("/") and ".." not in found.split("/")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", ()),
        ("  ", ()),
        ("a  b\tc", ("a", "b", "c")),
        ("a 'b c' \"d e\"", ("a", "b c", "d e")),
        ("''", ("",)),
        ("a''b", ("ab",)),
        ("'a\\b'", ("a\\b",)),
        ('"a\\"b\\\\c\\$d\\`e\\f"', ('a"b\\c$d`e\\f',)),
        ("a\\ b", ("a b",)),
        ("a'b\"c'd", ('ab"cd',)),
        ("$HOME `x` #y", ("$HOME", "`x`", "#y")),
    ],
)
def test_words(line: str, words: tuple[str, ...]) -> None:
    assert split_words(line) == words


@given(st.text(alphabet="ab '\"\\\t", max_size=20))
def test_words_are_those_of_shlex(line: str) -> None:
    try:
        want = tuple(shlex.split(line))
    except ValueError:
        with pytest.raises(BadValueError):
            split_words(line)
        return
    assert split_words(line) == want


@given(st.lists(st.text(max_size=12), max_size=5))
def test_quoted_words_come_back(words: list[str]) -> None:
    assert split_words(shlex.join(words)) == tuple(words)
