"""JSON by the C accelerator alone: the same answers as the standard library's `json`, and its messages."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkout import SOURCE
from urunc import jsonio

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(values)
def test_there_and_back(value: Any) -> None:
    assert jsonio.loads(jsonio.dumps(value)) == value
    assert json.loads(jsonio.dumps(value)) == value
    assert jsonio.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) == value


@given(values)
def test_the_indented_form_is_the_same_document(value: Any) -> None:
    assert json.loads(jsonio.indented(value)) == value


def test_tuples_are_lists() -> None:
    assert jsonio.dumps({"a": (1, 2)}) == b'{"a":[1,2]}'


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:0123456789.eE+-ntrueflas \\u', max_size=30).map(str.encode))
@settings(max_examples=300)
def test_the_same_verdict_as_json(data: bytes) -> None:
    try:
        want = json.loads(data.decode("utf-8-sig"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        with pytest.raises(ValueError):
            jsonio.loads(data)
        return
    assert jsonio.loads(data) == want


def _refuse(name: str) -> float:
    raise ValueError(name)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "Expecting value: line 1 column 1"),
        (b'{"a": 1,\n  b}', "line 2 column 3"),
        (b'{"a": 1} x', "Extra data"),
        (b"[NaN]", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b'"\n"', "Invalid control character"),
        (b"\xff", "codec can't decode"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "Exceeds the limit"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jsonio.loads(data)


def test_a_huge_document_is_refused_unread() -> None:
    with pytest.raises(ValueError, match="larger than 16777216 bytes"):
        jsonio.loads(b" " * (jsonio.MAX_BYTES + 1))


def test_what_is_no_data_is_refused() -> None:
    with pytest.raises(TypeError, match="object is not JSON data"):
        jsonio.dumps({"a": object()})


def test_good_input_never_imports_json() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from urunc import jsonio; "
        "jsonio.loads(jsonio.dumps({'a': [1, 2.5, None]})); print('json' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
