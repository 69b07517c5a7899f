"""Where a request comes from: the peer's address, or the one that a trusted proxy vouches for."""

import ipaddress
from collections.abc import Iterable, Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def networks(entries: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and CIDR blocks as networks. Raises ValueError."""
    return tuple(ipaddress.ip_network(entry, strict=False) for entry in entries)


def source_of(peer: str | None, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The caller's address, or ``unknown``. ``forwarded`` are the X-Forwarded-For headers, read from the last hop back
    for as long as the one that reported it is trusted: what stands before that was written by the caller."""
    address = _address(peer or "")
    if address is None:
        return "unknown"
    hops = ",".join(forwarded).split(",")
    while hops and any(address in network for network in trusted):
        reported = _address(hops.pop())
        if reported is None:
            break
        address = reported
    return str(address)


def _address(text: str) -> Address | None:
    """An address without port and zone; one of IPv4 that came in IPv6's clothes is taken as what it is."""
    text = text.strip().partition("%")[0]
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
