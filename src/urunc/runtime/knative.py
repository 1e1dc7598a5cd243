"""Knative's proxy: an ordinary container, which must be told that what it serves is a guest behind NAT.

`queue-proxy` takes the requests for the pod and passes them to the user container at 127.0.0.1, where an ordinary
container would listen. A guest is at an address of its own: the proxy gets it as `REDIRECT_IP`, and as the host of the
readiness probe that it makes in the kubelet's place. The delegate reads both from the bundle's config.json, so that
file is changed; a second time changes nothing.
"""

from __future__ import annotations

import os

from .. import jsonio, log
from ..errors import HostError, reason
from ..linux import atomic
from ..oci.network import GUEST, is_knative_proxy
from . import bundle as bundles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ADDRESS, _PROBE = "REDIRECT_IP", "SERVING_READINESS_PROBE"
_WITH_HOST = ("httpGet", "tcpSocket")  # the actions of a Kubernetes probe that name a host


def adapt(bundle: str) -> None:
    """Change the bundle's config.json where it is the proxy's. Raises SpecError, HostError."""
    document = bundles.read_config(bundle)
    annotations, process = (document.get(key) for key in ("annotations", "process"))
    if not isinstance(annotations, dict) or not is_knative_proxy(annotations):
        return
    env = process.get("env") if isinstance(process, dict) else None
    if not isinstance(env, list) or not all(isinstance(entry, str) for entry in env):
        return  # the delegate will say what is wrong with it
    changed = environment(env)
    if changed == env:
        return
    process["env"] = changed
    _replace(f"{bundle}/config.json", jsonio.dumps(document))


def environment(env: list[str]) -> list[str]:
    """Return the proxy's environment with the guest's address in it."""
    kept = [_with_guest(entry) for entry in env if not entry.startswith(f"{_ADDRESS}=")]
    return [*kept, f"{_ADDRESS}={GUEST}"]


def _with_guest(entry: str) -> str:
    name, _, value = entry.partition("=")
    if name != _PROBE or not value:
        return entry
    try:
        probes = jsonio.loads(value.encode(errors="surrogatepass"))
    except ValueError as error:
        log.warn(f"{_PROBE} is left as it is, which is no JSON: {error}")
        return entry
    for probe in probes if isinstance(probes, list) else [probes]:
        _set_host(probe)
    return f"{name}={jsonio.dumps(probes).decode()}"


def _set_host(probe: Any) -> None:
    if not isinstance(probe, dict):
        return
    for kind in _WITH_HOST:
        if isinstance(probe.get(kind), dict):
            probe[kind]["host"] = GUEST


def _replace(path: str, content: bytes) -> None:
    """Write the file anew, for the same owner and with the same mode."""
    try:
        atomic.write(path, content, like=os.stat(path))
    except OSError as error:
        raise HostError(f"cannot tell Knative's proxy of the guest: `{path}`: {reason(error)}") from None
