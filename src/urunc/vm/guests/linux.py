"""Linux: a kernel that runs one program, started by urunc's own init (guest/init) from an initrd.

The kernel's command line knows double quotes but neither quotes inside them nor newlines, at most 32 arguments for
init and 2048 bytes on x86; Debian's kernels have no IP_PNP. So arguments, environment, user, directory, names and
network go to init whole, in a file of the initrd. A root that is a disk or a share is mounted by init too: the initrd
is then urunc's alone, with those modules that the kernel needs to see it.

The file `/.urunc/config` is a sequence of records `key NUL value NUL`, bytes as they are, in order:

========================= ==============================================================================
`arg`, `env`              one each, in order
`cwd`, `uid`, `gid`       of the program; `group` for each supplementary group; `umask`, in decimal
`rlimit`                  `RLIMIT_NOFILE SOFT HARD`, one for each limit
`hostname`, `dns`, `search`
`nic`                     a MAC; up to the next `nic` follow `mtu`, `addr` (IP/PREFIX), `route`
                          (`DEST/PREFIX|default [via GW] [onlink] [scope X] [metric N] [src IP]`),
                          `neigh` (IP MAC)
`file`                    an absolute path: init copies `/.urunc/files` + path to it; `needed-file`: or fails
`balloon`                 `virtio`: the machine has a memory balloon, whose driver is wanted
`root`                    `/dev/vda TYPE rw|ro` or `9p TAG rw|ro`: what becomes the root
`readonly`                `1`: the root, an initrd's, is so from the program's start on
`mount`                   `SOURCE TYPE rw|ro[,noexec] TARGET`, a disk or share; of a tmpfs, SOURCE is its options
`mount-file`              of the `mount` before it: the one file of it that is to stand at TARGET
`terminal`                `1`: the console is a terminal, and the program's controlling one; `size` `ROWS COLUMNS`
`end`                     `poweroff` or `reboot`: what ends the machine
`exit`                    `debug-exit`: a failure goes to isa-debug-exit at I/O port 0x501; `triple-fault`: it is one
`control`                 the virtio-serial port that brings signals and takes the exit status
`stdin`                   the virtio-serial port that brings standard input, or `null`; without it, it is the console
`stdout`                  the virtio-serial port that takes standard output; without it, it is the console, and so is
                          standard error. `stderr` is then `console`, or `stdout` where both are one
========================= ==============================================================================
"""

from __future__ import annotations

from ...errors import HostError, ImageError
from .. import bootstring, port
from ..machine import Boot, GuestFile, driver, share_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...oci.app import App
    from ..infer import Signs
    from ..machine import Capabilities, Context, GuestMount, KernelInfo, Network, Nic, Root, Route

NAME = "linux"
MONITORS = ("qemu", "firecracker")
X86_64_ONLY: tuple[str, ...] = ()
ROOTS = ("initrd", "none", "block", "9p")
FILESYSTEMS = ("ext4", "ext2", "erofs", "squashfs", "xfs", "btrfs")
OWN_INIT = True
FULL_CPU = True

FOLDER = "/.urunc"

_MIB = 1 << 20
_TO_COME_UP_MIB = 12  # Debian's cloud kernel under QEMU: see tests/cli/test_memory.py
_PORT_MIB = 4  # for each that is not counted there: virtio-mmio's queues have 1024 places, each filled with a page

# Measured with Debian's cloud kernel under TCG: 1.5 s to init becomes 1.2 s. None of it changes what a program sees;
# the mitigations guard against a CPU that is not there.
_TCG = (
    "mitigations=off",
    "no_timer_check",
    "lpj=1000000",
    "cryptomgr.notests",
    "audit=0",
    "apparmor=0",
)

# A keyboard controller that is there for its reset and Ctrl-Alt-Del alone: probing it for more costs time.
_FEW_KEYS = ("i8042.noaux", "i8042.nomux", "i8042.dumbkbd")


def boot(app: App, network: Network, root: Root, monitor: Capabilities, context: Context) -> Boot:
    """Return the boot string, and init and its configuration for the initrd.

    Raises HostError without urunc's init, ImageError without a program, SpecError for what cannot be passed.
    """
    if not app.args:
        raise ImageError("a Linux guest has no program to run: process.args is empty and so is the image's cmdline")
    if context.init is None:
        raise HostError("urunc's init for Linux guests is not installed", hint="run `make install`")
    config = _config(app, network, root, monitor, context)
    return Boot(
        command_line=" ".join((*_kernel_words(monitor, context), f"rdinit={FOLDER}/init")),
        initrd_tail=(
            GuestFile(path=f"{FOLDER}/init", content=context.init, mode=0o755),
            GuestFile(path=f"{FOLDER}/config", content=config, mode=0o600),
            *context.modules,
            *(file.replace(path=f"{FOLDER}/files{file.path}") for file in context.files),
        ),
        control=monitor.control,
        streams=_ports(monitor, context),
        ctrl_alt_del=_hears_ctrl_alt_del(monitor, context),
        exit_device=monitor.exit_device,
        panic_device=monitor.panic_device,
        balloon=context.balloon,
        min_memory_mib=_least_memory(monitor, context),
        messages=_clock_warning(context),
    )


def _least_memory(monitor: Capabilities, context: Context) -> int:
    """Return what the guest needs beside its initrd, in MiB: room for the kernel where it lies, and to come up."""
    least = max(48, -(-context.kernel.least_bytes // _MIB) + _TO_COME_UP_MIB)
    return least + _PORT_MIB * len(_ports(monitor, context)) if context.model == "microvm" else least


def may_be(kernel: KernelInfo, signs: Signs) -> bool:
    """Return whether it is Linux: an arm64 `Image`, which Unikraft makes too, holds the banner of init/version.c."""
    return kernel.linux or (kernel.format == "arm64" and signs.contains(b"Linux version "))


def _kernel_words(monitor: Capabilities, context: Context) -> tuple[str, ...]:
    words = ["panic=-1", f"console={_console(monitor, context)}", "quiet"]
    if context.arch == "x86_64" and _ends_by_reset(monitor, context):
        words += ["reboot=t" if monitor.power_off else "reboot=k"]
        words.append("pci=off")  # there is none, which the kernel would report as an error
    if context.arch == "x86_64" and not monitor.power_off:
        words += _FEW_KEYS
    if context.accel == "tcg" and context.arch == "x86_64":
        words += _TCG
        if context.tsc_khz:
            # A wrong figure makes the guest's clock run wrong; without any, the kernel measures on q35 and hangs on
            # microvm, which has none of the timers to measure by.
            words.append(f"tsc_early_khz={context.tsc_khz}")
    return tuple(words)


def _clock_warning(context: Context) -> tuple[str, ...]:
    if context.accel == "tcg" and context.model == "microvm" and not context.tsc_khz:
        return ("the frequency of the host's TSC is not known, without which Linux hangs on microvm",)
    return ()


def _console(monitor: Capabilities, context: Context) -> str:
    return monitor.arm_console if context.arch == "aarch64" else "ttyS0"


def _ends_by_reset(monitor: Capabilities, context: Context) -> bool:
    """Return whether the machine has no power-off that Linux can reach, and ends by a reset."""
    return context.model == "microvm" or not monitor.power_off


def _hears_ctrl_alt_del(monitor: Capabilities, context: Context) -> bool:
    """Return whether Ctrl-Alt-Del ends the guest: urunc's init takes it for a TERM, the kernel alone for a reset."""
    return monitor.ctrl_alt_del and context.arch == "x86_64"


def _config(app: App, network: Network, root: Root, monitor: Capabilities, context: Context) -> bytes:
    bootstring.check(app.args, "process.args")
    bootstring.check(app.env, "process.env")
    records: list[tuple[str, str]] = [("arg", word) for word in app.args]
    records += [("env", entry) for entry in app.env]
    records += [("cwd", app.cwd), ("uid", str(context.uid)), ("gid", str(context.gid))]
    records += [("group", str(group)) for group in context.groups]
    if context.umask is not None:
        records.append(("umask", str(context.umask)))
    records += [("rlimit", f"{kind} {soft} {hard}") for kind, soft, hard in context.rlimits]
    if network.hostname:
        records.append(("hostname", network.hostname))
    records += [("dns", server) for server in network.dns]
    records += [("search", domain) for domain in network.search]
    for nic in network.nics:
        records += _nic_records(nic)
    if context.balloon:
        records.append(("balloon", "virtio"))
    records += [("root", words) for words in _root(root)]
    if root.readonly and root.kind in ("initrd", "none"):
        records.append(("readonly", "1"))
    for mount in context.mounts:
        records += _mount(mount)
    records += [("needed-file" if file.needed else "file", file.path) for file in context.files]
    if context.terminal:
        records.append(("terminal", "1"))
        if context.console_size:
            records.append(("size", "{} {}".format(*context.console_size)))
    records.append(("end", "reboot" if _ends_by_reset(monitor, context) else "poweroff"))
    if monitor.exit_device:
        records.append(("exit", "debug-exit"))
    elif monitor.fault_fails and context.arch == "x86_64":
        records.append(("exit", "triple-fault"))
    if monitor.control:
        records.append(("control", port.NAME))
    records += _streams(monitor, context)
    return b"".join(_encode(key) + b"\0" + _encode(value) + b"\0" for key, value in records)


def _ports(monitor: Capabilities, context: Context) -> tuple[str, ...]:
    """Return which standard streams have a port of their own: with one, output always has."""
    streams = context.streams
    if not monitor.stream_ports or streams.stdout != "port":
        return ()
    return ("stdin", "stdout") if streams.stdin == "port" else ("stdout",)


def _streams(monitor: Capabilities, context: Context) -> list[tuple[str, str]]:
    ports, records = _ports(monitor, context), []
    if "stdin" in ports:
        records.append(("stdin", port.STDIN))
    elif context.streams.stdin == "null":
        records.append(("stdin", "null"))
    if "stdout" in ports:
        records += [("stdout", port.STDOUT), ("stderr", "stdout" if context.streams.merged else "console")]
    return records


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _root(root: Root) -> tuple[str, ...]:
    mode = "ro" if root.readonly else "rw"
    if root.kind == "block":
        return (f"/dev/vda {driver(root.fstype)} {mode}",)
    return (f"9p {share_tag(0)} {mode}",) if root.kind == "9p" else ()


def _mount(mount: GuestMount) -> list[tuple[str, str]]:
    mode = ("ro" if mount.readonly else "rw") + (",noexec" if mount.noexec else "")
    records = [("mount", f"{mount.source} {driver(mount.fstype)} {mode} {mount.target}")]
    return records + ([("mount-file", mount.name)] if mount.name else [])


def _nic_records(nic: Nic) -> list[tuple[str, str]]:
    records = [("nic", nic.mac), ("mtu", str(nic.mtu))]
    records += [("addr", f"{address.ip}/{address.prefix}") for address in nic.addresses]
    records += [("route", _route(route)) for route in nic.routes]
    records += [("neigh", f"{neighbour.ip} {neighbour.mac}") for neighbour in nic.neighbours]
    return records


def _route(route: Route) -> str:
    words = ["default" if route.destination is None else f"{route.destination}/{route.prefix}"]
    if route.gateway:
        words += ["via", route.gateway]
    if route.onlink:
        words.append("onlink")
    if route.scope != "global":
        words += ["scope", route.scope]
    if route.metric:
        words += ["metric", str(route.metric)]
    if route.source:
        words += ["src", route.source]
    return " ".join(words)
