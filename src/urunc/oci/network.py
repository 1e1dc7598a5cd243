"""How the guest is connected to the container's network namespace: what the engine's annotations ask for.

`redirect`, the default, lets the guest take the place of the engine's interfaces. `nat` leaves them to the namespace,
for pods whose other containers need the network, and puts the guest behind it. Only the engine chooses, by the
container's or the pod's annotations: an image has no say in it.
"""

from __future__ import annotations

from ..errors import SpecError
from .node import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "com.urunc.network"
REDIRECT, NAT = "redirect", "nat"

GATEWAY, GUEST, PREFIX = "172.16.1.1", "172.16.1.2", 24
"""The two ends of the network between a namespace and the guest behind its NAT; a known one, for Knative's proxy."""

GATEWAY6, GUEST6, PREFIX6 = "fd75:7275:6e63::1", "fd75:7275:6e63::2", 64
"""The same for IPv6, where the namespace has it: a unique local network, whose number is `urunc` in ASCII."""

CONTAINER_NAME = "io.kubernetes.cri.container-name"
_KNATIVE_GUEST, _KNATIVE_PROXY = "user-container", "queue-proxy"


def mode(annotations: Mapping[str, str]) -> str:
    """Return the mode of a unikernel's network. Raises SpecError for a word that is none.

    Knative's user container shares its namespace with a proxy that takes the requests, and is behind NAT unasked.
    """
    asked = annotations.get(KEY)
    if not asked:
        return NAT if annotations.get(CONTAINER_NAME) == _KNATIVE_GUEST else REDIRECT
    if asked not in (REDIRECT, NAT):
        raise SpecError(f"annotations: `{KEY}` is {REDIRECT} or {NAT}, not {show(asked)}")
    return asked


def is_knative_proxy(annotations: Mapping[str, str]) -> bool:
    """Return whether the container is Knative's proxy, in front of a guest behind NAT."""
    return annotations.get(CONTAINER_NAME) == _KNATIVE_PROXY and annotations.get(KEY) != REDIRECT
