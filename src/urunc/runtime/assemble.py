"""From the network that the hooks left to the Launch: what could not be decided before the fork.

Runs in `create`, which still has the host's rights, and not in init.
"""

from __future__ import annotations

import os

from .. import log
from ..errors import KernelError, SpecError, reason
from ..linux import ns
from ..oci import network as networks
from ..vm import guests, monitors
from ..vm.machine import GuestFile, Host, Network
from .plan_machine import guest_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..oci.spec import Mount, Spec
    from ..vm.machine import Launch, Machine
    from .load import Request

_ENGINE_FILE_LIMIT = 1 << 20
_MAX_ARGUMENT = 128 * 1024  # the kernel's MAX_ARG_STRLEN, with the NUL: execve would fail only at `start`


def attach_network(request: Request, open_namespace: Callable[[], int]) -> tuple[Network, dict[str, int]]:
    """Look at init's network namespace and put taps beside its interfaces, or behind them (NAT).

    `open_namespace` returns its descriptor, which stays the caller's. Returns the guest's network, and the taps'
    descriptors by name where they are not persistent. Raises HostError, KernelError; what a failing call has made is
    undone.
    """
    plan = request.plan
    servers, search = _name_servers(request)
    network = Network(dns=servers, search=search, hostname=request.spec.hostname)
    if not plan.taps or not _may_have_interfaces(request.spec):
        return network, {}
    from ..linux.rtnl import Rtnl

    if plan.network == networks.NAT:
        from . import nat as mode
    else:
        from . import net as mode  # type: ignore[no-redef]

    with ns.inside(open_namespace(), "network"), Rtnl() as rtnl:
        found = mode.look(rtnl, plan.taps)
        seen = found.limited(plan.machine.boot.nics)
        taps = mode.attach(
            rtnl, seen, plan.host_uid, plan.host_gid, persistent=plan.persistent_taps, vnet_hdr=plan.vnet_hdr
        )
    _say_left_out(found, seen)
    if seen.nics and not servers:
        log.info("the guest gets no name server: the engine gave none that it can reach, nor does [network] dns")
    return network.replace(nics=seen.nics), taps


def _may_have_interfaces(spec: Spec) -> bool:
    """A namespace that `create` has made, with no device of the host and seen by no hook, is as the kernel makes it."""
    namespace, hooks = spec.namespace("network"), spec.hooks
    return bool((namespace and namespace.path) or hooks.prestart or hooks.create_runtime or spec.net_devices)


def _say_left_out(found: Network, seen: Network) -> None:
    left = ", ".join(nic.ifname for nic in found.nics if nic not in seen.nics)
    if left:
        taken = ", ".join(nic.ifname for nic in seen.nics) or "none"
        log.info(f"the guest takes fewer network interfaces than there are: it gets {taken}; left out: {left}")


def _name_servers(request: Request) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the guest's name servers and search domains: the engine's resolv.conf, else the configuration's."""
    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    given = request.mounts.resolv_conf
    if given:
        from . import net

        servers, search = net.parse_resolv_conf(_read_source(request, given.source).decode("utf-8", "replace"))
    return servers or request.config.dns, search


def _read_source(request: Request, source: str) -> bytes:
    """Return the content of a file that the engine mounts. Raises SpecError."""
    path = os.path.join(request.bundle, source)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            return file.read(_ENGINE_FILE_LIMIT)
    except OSError as error:
        raise SpecError(f"mounts: cannot read `{path}`: {reason(error)}") from None


def finish_machine(request: Request, network: Network) -> Machine:
    """Return the plan's machine with its network, and the boot string that speaks of it."""
    plan, machine = request.plan, request.plan.machine
    files = tuple(
        GuestFile(path=mount.destination, content=_engine_file(request, mount, network.dns), mode=0o644)
        for mount in request.mounts.given
    )
    files += _copies(request)
    context = guest_context(
        request.spec, request.facts, machine.model, machine.accel, files, plan.mounts, balloon=machine.balloon
    )
    can = monitors.load(plan.monitor).CAPABILITIES
    boot = guests.load(plan.guest).boot(request.app, network, plan.root, can, context)
    for message in boot.messages:
        if message not in plan.messages:
            log.info(message)
    return machine.replace(network=network, boot=boot)


def _engine_file(request: Request, mount: Mount, servers: tuple[str, ...]) -> bytes:
    content = _read_source(request, mount.source)
    return resolv_conf(content, servers) if mount.destination == "/etc/resolv.conf" else content


def resolv_conf(content: bytes, servers: tuple[str, ...]) -> bytes:
    """Return the engine's resolv.conf for the guest, with `servers` instead where it cannot reach all that it names."""
    from . import net

    lines = content.decode("utf-8", "surrogateescape").splitlines()
    named = {line for line in lines if line.split()[:1] == ["nameserver"]}
    reachable = len(net.parse_resolv_conf("\n".join(named))[0])
    if reachable == len(named) and (named or not servers):
        return content
    lines = [line for line in lines if line not in named] + [f"nameserver {server}" for server in servers]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _copies(request: Request) -> tuple[GuestFile, ...]:
    """Return the files of the volumes that are copied for the guest."""
    copied = [volume.mount for volume in request.mounts.volumes if volume.way == "copy"]
    if not copied:
        return ()
    from . import volumes

    return tuple(file for mount in copied for file in volumes.read(request.bundle, mount))


def make_launch(request: Request, machine: Machine) -> Launch:
    """Return the monitor's command line and all that it must be given.

    Raises ImageError, SpecError or HostError; KernelError where the monitor's module and the plan disagree.
    """
    facts = request.facts
    host = Host(binary=facts.binary, version=facts.version, data_path=facts.data_path)
    launch = monitors.load(request.plan.monitor).launch(machine, host)
    missing = set(launch.devices) - {node.path for node in request.plan.nodes}
    if missing:
        raise KernelError(
            f"the monitor wants the devices {', '.join(sorted(missing))}, which the plan does not give it"
        )
    longest = max(len(os.fsencode(word)) for word in launch.argv)
    if longest >= _MAX_ARGUMENT:
        raise SpecError(
            f"process: arguments and environment make a boot string of {longest} bytes, "
            f"and a program's argument has {_MAX_ARGUMENT - 1} at most"
        )
    log.debug(f"the monitor's command line: {' '.join(launch.argv)}")
    return launch
