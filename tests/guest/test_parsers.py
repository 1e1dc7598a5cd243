"""The init's parsers on this machine, under the sanitizers: addresses as inet_pton reads them, any octets as a file."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guest.machines import GUEST

HERE = Path(__file__).resolve().parent
KEYS = (b"arg", b"env", b"cwd", b"uid", b"nic", b"addr", b"route", b"file", b"rlimit", b"terminal")
ROUNDS = settings(max_examples=100, deadline=None)


@pytest.fixture(scope="module")
def parsers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    program = tmp_path_factory.mktemp("parsers") / "parsers"
    names = ("init/address.c", "init/config.c", "init/text.c", "common/freestanding.c")
    sources = [str(GUEST / name) for name in names]
    flags = ["-g", "-O1", "-fno-builtin", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(
        [
            "gcc",
            *flags,
            f"-I{GUEST / 'init'}",
            f"-I{GUEST / 'common'}",
            "-o",
            str(program),
            str(HERE / "parsers.c"),
            *sources,
        ],
        check=True,
    )
    return program


def ask(parsers: Path, kind: str, *texts: str) -> list[str]:
    run = subprocess.run([parsers, kind, *texts], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    return run.stdout.splitlines()


def expected(text: str) -> str:
    """Return what inet_pton makes of `text`."""
    family, bits = (socket.AF_INET6, 128) if ":" in text else (socket.AF_INET, 32)
    try:
        return f"{socket.inet_pton(family, text).hex()}/{bits}"
    except OSError:
        return "bad"


KNOWN = (
    *("0.0.0.0", "255.255.255.255", "1.2.3", "1.2.3.4.5", "1.2.3.256", "1..2.3", "", ".", "1.2.3.4 ", " 1.2.3.4"),
    *(
        "::",
        "::1",
        "1::",
        "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7::",
        "::2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7:8:9",
    ),
    *(
        ":",
        ":::",
        "1:::2",
        "1::2::3",
        ":1",
        "1:",
        "fe80::1%eth0",
        "12345::",
        "g::",
        "::ffff:192.0.2.1",
        "1:2:3:4:5:6:1.2.3.4",
    ),
    *("::1.2.3", "1.2.3.4::", "1:2:3:4:5:6:7:1.2.3.4", "::1:", "FE80::aBcD", "64:ff9b::1.2.3.4", "1.2.3.4:1"),
)


def test_addresses_that_have_bitten_others(parsers: Path) -> None:
    assert ask(parsers, "ip", *KNOWN) == [expected(text) for text in KNOWN]


@ROUNDS
@given(texts=st.lists(st.ip_addresses().map(str) | st.text(alphabet="0123456789abcdefF:.", max_size=40), min_size=20))
def test_addresses_are_read_as_inet_pton_reads_them(parsers: Path, texts: list[str]) -> None:
    # inet_pton takes leading zeros in IPv6 groups up to four digits, as we do, but none in IPv4.
    texts = [
        text for text in texts if not any(part[:1] == "0" and len(part) > 1 for part in text.split(":")[-1].split("."))
    ]
    assert ask(parsers, "ip", *texts) == [expected(text) for text in texts]


def test_prefixes_and_macs(parsers: Path) -> None:
    network = ipaddress.ip_interface("2001:db8::3/64")
    assert ask(parsers, "cidr", "10.0.0.1/24", "2001:db8::3/64") == ["0a000001/24", f"{network.ip.packed.hex()}/64"]
    assert set(ask(parsers, "cidr", "10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "::/129", "/24", "10.0.0.1/-1")) == {"bad"}
    assert ask(parsers, "mac", "52:54:00:AA:bb:0c") == ["good"]
    assert set(ask(parsers, "mac", "", "52:54", "52:54:00:aa:bb:cc:dd", "52:54:00:aa:bb:g0", "525400aabbcc")) == {"bad"}


VALUES = st.binary(max_size=50).map(lambda value: value.replace(b"\0", b""))
RECORDS = st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1)


@ROUNDS
@given(records=RECORDS, cut=st.integers(min_value=0, max_value=20))
def test_a_configuration_is_read_whole_or_not_at_all(
    parsers: Path, records: list[tuple[bytes, bytes]], cut: int
) -> None:
    file = parsers.parent / "config"
    whole = b"".join(key + b"\0" + value + b"\0" for key, value in records)
    file.write_bytes(whole[: len(whole) - cut])
    run = subprocess.run([parsers, "config", str(file)], capture_output=True, check=False)
    left = whole[: len(whole) - cut]
    good = left.endswith(b"\0") and left.count(b"\0") % 2 == 0
    assert (run.returncode, run.stdout) == ((0, left) if good else (1, b""))


@ROUNDS
@given(data=st.binary())
def test_any_octets_are_no_crash(parsers: Path, data: bytes) -> None:
    file = parsers.parent / "config"
    file.write_bytes(data)
    run = subprocess.run([parsers, "config", str(file)], capture_output=True, check=False)
    assert run.returncode == 1 and run.stderr.startswith(b"urunc-init: ")
