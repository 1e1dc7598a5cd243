"""Unikraft: `APP PARAMETERS -- ARGUMENTS`, in the syntax of its own parsers.

lib/ukargparse splits the string into words (quotes and backslashes), lib/uklibparam takes `prefix.name=value` words
up to `--`, and the rest is the application's argv. Without the `--` every parameter silently becomes an argument.
Releases before 0.16.1 have other names for the network's parameters. What their root is, they are told up to 0.13; in
0.14 to 0.16.0 it is built in (LIBVFSCORE_ROOTFS), and the word is passed over.
"""

from __future__ import annotations

from .. import bootstring
from ..machine import Boot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...oci.app import App
    from ..infer import Signs
    from ..machine import Capabilities, Context, KernelInfo, Network, Nic, Root

NAME = "unikraft"
MONITORS = ("qemu", "firecracker")
X86_64_ONLY: tuple[str, ...] = ()
ROOTS = ("initrd", "none", "9p")
FILESYSTEMS: tuple[str, ...] = ()
OWN_INIT = False
FULL_CPU = True

# From 0.16.2 on, an archive is extracted onto a root that is there: ramfs=2 makes one where the kernel has none built
# in. Earlier releases always have one built in, and pass over the option (lib/vfscore/automount.c).
_INITRD_ROOT = 'vfs.fstab=[ "initrd0:/:extract::ramfs=2:" ]'
_SHARED_ROOT = 'vfs.fstab=[ "fs0:/:9pfs:::" ]'
_NEW_SYNTAX = (0, 16, 1)
_NO_ADDRESS = ":"  # an empty field counts as none
_MAX_WORDS = 60  # CONFIG_LIBUKBOOT_MAXNBARGS's default: the words after it are silently dropped
_MAX_BYTES = 4096  # CONFIG_LIBUKBOOT_CMDLINE_MAX_LEN's default: a longer string stops the boot


def boot(app: App, network: Network, root: Root, monitor: Capabilities, context: Context) -> Boot:
    """Return the boot string. Raises SpecError for an argument that Unikraft's parser cannot carry."""
    bootstring.check(app.args, "process.args", empty=False)
    bootstring.check(app.env, "process.env")
    old = _is_old(app.guest_version)
    program = _program(app.args)
    parameters = _environment(app.env)
    parameters += _old_network(network) if old else _network(network)
    if root.kind == "initrd":
        parameters.append("vfs.rootfs=initrd" if old else _INITRD_ROOT)
    elif root.kind == "9p":
        parameters.append("vfs.rootfs=9pfs vfs.rootdev=fs0" if old else _SHARED_ROOT)
    if not parameters and not context.kernel.multiboot:
        # the parser leaves a `--` that comes first in the application's argv; a word that is no parameter is
        # skipped. Under multiboot the kernel's path comes first, so that APP is such a word already.
        parameters.append(program)
    arguments = [quote(word) for word in app.args[1:]]
    if not arguments and monitor.inserts_words:
        arguments.append('""')  # no word for Unikraft: the monitor's own words stay in front of the `--`
    line = " ".join((program, *parameters, "--", *arguments))
    return Boot(
        command_line=line,
        nics=1 if old else None,
        messages=_left_out(network, old) + _limits(line, app) + _ends(context),
    )


def may_be(kernel: KernelInfo, signs: Signs) -> bool:
    """Return whether it is Unikraft, whose tables are sections of their own; an arm64 `Image` has a library's name."""
    if kernel.format == "arm64":
        return signs.contains(b"libukboot")
    return any(name.startswith(".uk_") for name in signs.sections)


def quote(word: str) -> str:
    """Return `word` so that lib/ukargparse reads it whole: by quotes, as older releases know no backslashes."""
    if not any(letter in " \t\n\r\v'\"\\" for letter in word):
        return word
    if '"' not in word and "\\" not in word:
        return f'"{word}"'
    if "'" not in word:
        return f"'{word}'"
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _program(args: tuple[str, ...]) -> str:
    """Return argv[0]; a fixed name where the parameters' parser would take the image's for one of its own words."""
    if not args or args[0] in ("help", "--") or "=" in args[0]:
        return NAME
    return quote(args[0])


def _environment(env: tuple[str, ...]) -> list[str]:
    """Return `env.vars` (lib/posix-environ). A value that ends in `]` would end a list, so it stands alone."""
    listed = [quote(entry) for entry in env if not entry.endswith("]")]
    alone = ["env.vars=" + quote(entry) for entry in env if entry.endswith("]")]
    return ([f"env.vars=[ {' '.join(listed)} ]"] if listed else []) + alone


def _network(network: Network) -> list[str]:
    """Return `netdev.ip` (lib/uknetdev): cidr[:gw[:dns0[:dns1[:hostname[:domain]]]]] for each NIC in order."""
    configs = [_nic(nic, network) for nic in network.nics]
    while configs and configs[-1] == _NO_ADDRESS:
        configs.pop()
    if not configs:
        return []
    return [f"netdev.ip={configs[0]}" if len(configs) == 1 else f"netdev.ip=[ {' '.join(configs)} ]"]


def _nic(nic: Nic, network: Network) -> str:
    address = bootstring.ipv4(nic)
    if address is None:
        return _NO_ADDRESS
    servers = (*bootstring.resolvers(network), "", "")[:2]
    hostname = network.hostname if _is_host_name(network.hostname) else ""
    fields = (f"{address.ip}/{address.prefix}", bootstring.gateway(nic), *servers, hostname)
    return ":".join(fields).rstrip(":")


def _is_host_name(name: str) -> bool:
    """Return whether the name is one (RFC 1123): a blank, colon or quote in it would begin another field or word."""
    return name.isascii() and name.replace("-", "").replace(".", "").replace("_", "").isalnum()


def _old_network(network: Network) -> list[str]:
    nic = network.primary()
    address = bootstring.ipv4(nic) if nic else None
    if nic is None or address is None:
        return []
    gateway = bootstring.gateway(nic)
    return [
        f"netdev.ipv4_addr={address.ip}",
        *([f"netdev.ipv4_gw_addr={gateway}"] if gateway else []),
        f"netdev.ipv4_subnet_mask={bootstring.netmask(address.prefix)}",
    ]


def _left_out(network: Network, old: bool) -> tuple[str, ...]:
    """Return what of the network the guest is not given: neither lib/uknetdev nor lib-lwip's start knows IPv6."""
    messages = bootstring.without_ipv6(NAME, *((network.primary(),) if old else network.nics))
    if network.hostname and not old and not _is_host_name(network.hostname):
        messages += ("the guest is not given its host name, in which there are other letters than a name has",)
    return messages


def _is_old(version: str | None) -> bool:
    """Return whether a release such as "0.15.0" or "v0.16" is older than 0.16.1. What is no version counts as new."""
    if not version:
        return False
    numbers = []
    for part in version.lstrip("vV").split("-")[0].split("+")[0].split("."):
        if not part.isdecimal():
            return False
        numbers.append(int(part))
    return tuple([*numbers, 0, 0][:3]) < _NEW_SYNTAX


def _ends(context: Context) -> tuple[str, ...]:
    if context.model == "microvm":
        return ("Unikraft cannot power off a microvm: the container runs until it is stopped",)
    return ()


def _limits(line: str, app: App) -> tuple[str, ...]:
    words = 4 + len(app.args) + len(app.env)
    if words > _MAX_WORDS:
        return (f"the boot string has about {words} words, and Unikraft's default is to drop those after {_MAX_WORDS}",)
    if len(line.encode("utf-8", "surrogateescape")) >= _MAX_BYTES:
        return (f"the boot string is longer than {_MAX_BYTES} bytes, at which Unikraft stops by default",)
    return ()
