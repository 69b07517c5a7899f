"""Which addresses a client may send us to: public ones, and those that the operator allows."""

import ipaddress
from collections.abc import Iterable, Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_UNICAST = ipaddress.ip_network("2000::/3")
_SIX_TO_FOUR = ipaddress.ip_network("2002::/16")
# Forms that end in an IPv4 address: compatible (RFC 4291), translated (RFC 2765), NAT64 (RFC 6052).
_CARRIERS = tuple(ipaddress.ip_network(text) for text in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96"))
# Where clouds answer their own machines with credentials (as of 2026-11): allowed by no setting. Link-local is where
# nearly all of them do; then Azure, Alibaba Cloud, Oracle Cloud, and the IPv6 forms of AWS, Google Cloud and Scaleway.
_METADATA = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",
        "fe80::/10",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fd00:42::42",
    )
)


def networks(entries: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and CIDR blocks as networks. Raises ValueError."""
    return tuple(ipaddress.ip_network(entry, strict=False) for entry in entries)


def allowed_by(address: str, own: Sequence[Network]) -> bool:
    """Whether the operator's own networks hold the address, which is no cloud's metadata service."""
    meant = _meant(address)
    return meant is not None and _inside(meant, own) and not _inside(meant, _METADATA)


def is_public(address: str) -> bool:
    """Whether anybody on the internet is at the address, also when it wraps another one."""
    meant = _meant(address)
    if meant is None or meant.is_multicast or not meant.is_global or _inside(meant, _METADATA):
        return False
    return meant.version == 4 or meant in _UNICAST


def _meant(text: str) -> Address | None:
    """The address that is reached in the end: inside the forms of IPv6 that lead to an IPv4 address, that one."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.version == 4 or address.is_loopback:
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _SIX_TO_FOUR:
        return ipaddress.IPv4Address(int(address) >> 80 & 0xFFFFFFFF)
    if _inside(address, _CARRIERS):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _inside(address: Address, blocks: Iterable[Network]) -> bool:
    return any(address in block for block in blocks)
