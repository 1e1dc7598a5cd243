"""Unikraft's boot string, read back by a model of Unikraft's own parsers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from urunc.errors import SpecError
from urunc.oci.app import App
from urunc.vm.guests import unikraft
from urunc.vm.machine import Context, KernelInfo, Network, Root
from urunc.vm.monitors import qemu
from vmcases import MULTIBOOT_KERNEL, NETWORKS

NONE = Root(kind="none")


def boot(app: App, network: Network = NETWORKS["none"], root: Root = NONE, kernel: KernelInfo = MULTIBOOT_KERNEL):
    return unikraft.boot(app, network, root, qemu.CAPABILITIES, Context(kernel=kernel))


def make(*args: str, **fields: object) -> App:
    return App(guest="unikraft", monitor="qemu", kernel="/k", args=args, **fields)  # type: ignore[arg-type]


def split(line: str) -> list[str]:
    """Split as uk_argnparse does: quotes of both kinds, a backslash outside quotes and before `"` and itself inside."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    index = 0
    while index < len(line):
        letter = line[index]
        if letter == "\\" and quote != "'" and index + 1 < len(line) and (not quote or line[index + 1] in '"\\'):
            word = (word or "") + line[index + 1]
            index += 1
        elif quote and letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote = letter
        elif not quote and letter in " \r\n\t\v":
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + letter
        index += 1
    return words + ([word] if word is not None else [])


def parse(line: str, kernel_first: bool = True) -> tuple[dict[str, list[str]], list[str]]:
    """Return (parameters, the application's argv) as uk_libparam_parse and uk_boot_early_init_parse_cmdl do."""
    argv = (["/kernel"] if kernel_first else []) + split(line)
    rest = argv[1:]
    stop = stop_of(rest)
    if not 0 < stop < len(rest):
        return {}, argv
    parameters: dict[str, list[str]] = {}
    listing = ""
    for word in rest[:stop]:
        if listing:
            value, ends = (word[:-1], True) if word.endswith("]") else (word, False)
            parameters[listing] += [value] if value else []
            listing = "" if ends else listing
            continue
        assert word != "help"
        if "." not in word:
            continue
        name, _, value = word.partition("=")
        parameters.setdefault(name, [])
        if value.startswith("["):
            listing = name
            assert value == "["
        else:
            parameters[name].append(value)
    return parameters, [argv[0], *rest[stop + 1 :]]


def stop_of(words: list[str]) -> int:
    listing = False
    for index, word in enumerate(words):
        if listing:
            listing = not word.endswith("]")
        elif word == "--":
            return index
        elif "." in word:
            listing = word.partition("=")[2].startswith("[")
    return len(words)


def test_current_syntax() -> None:
    line = boot(make("nginx", "-c", "/nginx.conf"), NETWORKS["plain"], Root(kind="initrd")).command_line
    assert line == (
        "nginx netdev.ip=172.17.0.2/16:172.17.0.1:10.0.0.53:10.0.0.54:web "
        'vfs.fstab=[ "initrd0:/:extract::ramfs=2:" ] -- -c /nginx.conf'
    )


@pytest.mark.parametrize("version", ["0.16.0", "v0.15.2", "0.5", "0.16"])
def test_old_syntax(version: str) -> None:
    line = boot(make("nginx", guest_version=version), NETWORKS["plain"], Root(kind="initrd")).command_line
    assert line == (
        "nginx netdev.ipv4_addr=172.17.0.2 netdev.ipv4_gw_addr=172.17.0.1 "
        "netdev.ipv4_subnet_mask=255.255.0.0 vfs.rootfs=initrd --"
    )


@pytest.mark.parametrize("version", [None, "", "0.16.1", "0.17", "1.0", "latest", "0.16.1-rc1", "0.20.0+dirty"])
def test_current_syntax_is_the_rule(version: str | None) -> None:
    assert "netdev.ip=" in boot(make("nginx", guest_version=version), NETWORKS["plain"]).command_line


def test_every_nic_is_configured() -> None:
    line = boot(make("app"), NETWORKS["two"]).command_line
    assert parse(line)[0]["netdev.ip"] == ["192.168.7.9/24::10.0.0.53::web", "172.17.0.2/16:172.17.0.1:10.0.0.53::web"]


def test_a_host_name_that_is_none_stays_outside() -> None:
    """Any text can be a container's host name: in the boot string it would be words of its own."""
    for name in ("x -- evil", "a:b", 'a"b', "a\nb", "é"):
        made = boot(make("app"), NETWORKS["plain"].replace(hostname=name))
        assert made.command_line == boot(make("app"), NETWORKS["plain"].replace(hostname="")).command_line
        assert any("host name" in message for message in made.messages)
    assert "a.b-c_1" in boot(make("app"), NETWORKS["plain"].replace(hostname="a.b-c_1")).command_line


def test_old_takes_one_nic() -> None:
    assert boot(make("app", guest_version="0.15"), NETWORKS["two"]).nics == 1


def test_without_parameters_the_stop_word_does_not_reach_the_application() -> None:
    line = boot(make("app", "x"), kernel=KernelInfo(format="elf64")).command_line
    assert parse(line, kernel_first=False)[1] == ["app", "x"]
    assert parse(boot(make("app", "x")).command_line)[1] == ["/kernel", "x"]


@pytest.mark.parametrize("program", ["help", "--", "a.b=[", "x=y"])
def test_a_program_name_is_never_a_word_of_the_parser(program: str) -> None:
    parameters, argv = parse(boot(make(program, "x"), NETWORKS["plain"]).command_line)
    assert list(parameters) == ["netdev.ip"]
    assert argv[1:] == ["x"]


def test_environment_value_that_would_end_the_list() -> None:
    env = ("A=[1 2]", "B=x", "C=]")
    parameters, _ = parse(boot(make("app", env=env)).command_line)
    assert sorted(parameters["env.vars"]) == sorted(env)


def test_empty_argument_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"process\.args\[1\] cannot be given to the guest"):
        boot(make("app", ""))


def test_nul_is_an_error() -> None:
    with pytest.raises(SpecError, match=r"process\.env\[0\].*NUL"):
        boot(make("app", env=("A=\0",)))


def test_too_many_words_are_said() -> None:
    assert "60" in boot(make("app", *["x"] * 60)).messages[0]
    assert "4096" in boot(make("app", "x" * 5000)).messages[0]
    assert not boot(make("app", "x")).messages


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(st.lists(WORDS, max_size=5), st.lists(WORDS.map(lambda text: "E=" + text), max_size=4))
def test_every_word_arrives_whole(args: list[str], env: list[str]) -> None:
    parameters, argv = parse(boot(make("app", *args, env=tuple(env)), NETWORKS["plain"]).command_line)
    assert argv[1:] == args
    assert sorted(parameters.get("env.vars", [])) == sorted(env)
