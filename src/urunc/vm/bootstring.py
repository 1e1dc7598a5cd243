"""Words of a boot string: refusing what no boot string can carry. The quoting itself lives with each guest's syntax."""

from __future__ import annotations

from ..errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .machine import Address, Network, Nic


def check(
    words: tuple[str, ...],
    what: str,
    *,
    empty: bool = True,
    newline: bool = True,
    quote: bool = True,
    single_quote: bool = True,
    backslash: bool = True,
) -> None:
    """Raise SpecError where one of `words` cannot be passed on; `what` is the property, such as `process.args`.

    A NUL can never be. `empty`, `newline`, `quote`, `single_quote` and `backslash` say whether the guest's syntax can
    carry an empty word, a newline, a double quote and so on.
    """
    for index, word in enumerate(words):
        if "\0" in word:
            reason = "it holds a NUL"
        elif not word and not empty:
            reason = "this guest's command line cannot carry an empty argument"
        elif not newline and ("\n" in word or "\r" in word):
            reason = "this guest's command line cannot carry a newline"
        elif not quote and '"' in word:
            reason = "this guest's command line cannot carry a double quote"
        elif not single_quote and "'" in word:
            reason = "this guest's command line cannot carry a single quote"
        elif not backslash and "\\" in word:
            reason = "this guest's command line cannot carry a backslash"
        else:
            continue
        raise SpecError(f"{what}[{index}] cannot be given to the guest: {reason}")


def ipv4(nic: Nic) -> Address | None:
    """Return the NIC's first IPv4 address, or None."""
    return _first(nic, 4)


def ipv6(nic: Nic) -> Address | None:
    """Return the NIC's first IPv6 address, or None."""
    return _first(nic, 6)


def _first(nic: Nic, family: int) -> Address | None:
    for address in nic.addresses:
        if address.family == family:
            return address
    return None


def gateway(nic: Nic) -> str:
    """Return the IPv4 gateway of the NIC's IPv4 default route, "" without one."""
    return _gateway(nic, 4)


def gateway_ipv6(nic: Nic) -> str:
    """Return the gateway of the NIC's IPv6 default route, "" without one."""
    return _gateway(nic, 6)


def _gateway(nic: Nic, family: int) -> str:
    for route in nic.routes:
        if route.destination is None and route.family == family and route.gateway:
            return route.gateway if (":" in route.gateway) == (family == 6) else ""  # IPv4 by IPv6: RFC 5549
    return ""


def without_ipv6(guest: str, *nics: Nic | None) -> tuple[str, ...]:
    """Return what to tell the user where a guest that has no IPv6 gets these NICs.

    Raises SpecError where none of them would get an address, although the container's interfaces have some: nobody
    could reach the guest, and it could reach nobody.
    """
    given = [nic for nic in nics if nic]
    left_out = [nic.ifname for nic in given if ipv6(nic)]
    names = ", ".join(left_out)
    if left_out and not any(ipv4(nic) for nic in given):
        raise SpecError(
            f"linux.namespaces: {names} has IPv6 addresses alone, and the guest `{guest}` cannot be given any",
            hint="give the container's network IPv4 addresses too, or take a guest with IPv6, such as linux",
        )
    return (f"the guest `{guest}` cannot be given IPv6 addresses: those of {names} are left out",) if left_out else ()


def resolvers(network: Network) -> tuple[str, ...]:
    """Return the IPv4 nameservers."""
    return tuple(server for server in network.dns if ":" not in server)


def netmask(prefix: int) -> str:
    """Return `255.255.255.0` for 24."""
    return dotted((0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF)


def dotted(number: int) -> str:
    """Return a number as an IPv4 address."""
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


def number(ip: str) -> int:
    """Return an IPv4 address as a number."""
    result = 0
    for part in ip.split("."):
        result = result << 8 | int(part)
    return result


def covering_prefix(address: Address, gateway: str) -> int:
    """Return the prefix of the narrowest network, not narrower than the address's own, that holds the gateway too."""
    if not gateway:
        return address.prefix
    differing = (number(address.ip) ^ number(gateway)).bit_length()
    return min(address.prefix, 32 - differing)
