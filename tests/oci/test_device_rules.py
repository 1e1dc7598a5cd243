"""Device rules settled: the same answers, by one rule for all and exceptions to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc.errors import SpecError
from urunc.oci import device_rules
from urunc.oci.spec import DeviceRule


def rule(text: str) -> DeviceRule:
    """Return the rule of `+c 1:* rw`."""
    sign, (kind, numbers, access) = text[0], text[1:].split()
    major, minor = (None if word == "*" else int(word) for word in numbers.split(":"))
    return DeviceRule(allow=sign == "+", kind=kind, major=major, minor=minor, access=access)


def settled(*texts: str) -> list[str]:
    found = device_rules.settle(rule(text) for text in texts)
    return [
        f"{'+' if one.allow else '-'}{one.kind} "
        f"{'*' if one.major is None else one.major}:{'*' if one.minor is None else one.minor} {one.access}"
        for one in found
    ]


def test_the_start_is_deny_all() -> None:
    assert settled() == ["-a *:* rwm"]


def test_exceptions_merge() -> None:
    assert settled("-a *:* rwm", "+c 1:3 r", "+c 1:3 w", "+b *:* m") == ["-a *:* rwm", "+c 1:3 rw", "+b *:* m"]


def test_allow_all_then_denials() -> None:
    assert settled("+c 1:3 r", "+a *:* rwm", "-c 1:5 w") == ["+a *:* rwm", "-c 1:5 w"]


def test_a_wide_denial_takes_back_the_narrow_allowances() -> None:
    assert settled("+c 1:3 rwm", "+c 1:5 rw", "+c 2:1 r", "-c 1:* w") == [
        "-a *:* rwm",
        "+c 1:3 rm",
        "+c 1:5 r",
        "+c 2:1 r",
    ]


def test_a_hole_in_a_wildcard_is_refused() -> None:
    with pytest.raises(SpecError, match=r"^linux\.resources\.devices\[1\]: "):
        settled("+c 1:* rwm", "-c 1:3 w")
    assert settled("+c 1:* r", "-c 1:3 w") == ["-a *:* rwm", "+c 1:* r"]


def test_the_plan_adds_after_the_spec() -> None:
    kvm = DeviceRule(allow=True, kind="c", major=10, minor=232, access="rw")
    assert device_rules.settle([rule("-a *:* rwm")], [kvm])[-1] == kvm


numbers = st.none() | st.integers(0, 2)
rules = st.builds(
    DeviceRule,
    allow=st.booleans(),
    kind=st.sampled_from("aabbccc"),
    major=numbers,
    minor=numbers,
    access=st.sets(st.sampled_from("rwm"), min_size=1).map(lambda letters: "".join(sorted(letters))),
)


def allowed(listed: list[DeviceRule], kind: str, major: int, minor: int, letter: str) -> bool:
    """Return what the rules say, one after the other, the last that matches deciding."""
    answer = False
    for one in listed:
        same = one.kind == kind and one.major in (None, major) and one.minor in (None, minor)
        if one.kind == "a" or (same and letter in one.access):
            answer = one.allow
    return answer


@given(st.lists(rules, max_size=6))
def test_settling_changes_no_answer(listed: list[DeviceRule]) -> None:
    try:
        short = list(device_rules.settle(listed))
    except SpecError:
        return
    assert short[0].kind == "a"
    assert all(one.kind != "a" and one.allow != short[0].allow for one in short[1:])
    for kind in "bc":
        for major in range(3):
            for minor in range(3):
                for letter in "rwm":
                    place = (kind, major, minor, letter)
                    assert allowed(short, *place) == allowed(listed, *place), place
