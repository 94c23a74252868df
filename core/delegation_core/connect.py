"""Routes of opaque tunnels: an agent's CONNECT to one listed host and port. The sidecar never decrypts the TLS inside.

A host name must not resolve to loopback, link-local or cloud metadata addresses, where a tunnel would reach services
that trust this machine. To permit such an address, list the address itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import ClassVar, Final, Literal

from delegation_core.route_checks import require_name

_HOST: Final = re.compile(r"(?:([a-z0-9_][a-z0-9._-]{0,254})|\[([0-9a-f:.]{2,45})\]):([1-9][0-9]{0,4})")
# True: a name may resolve to these addresses. From IANA's special-purpose registries (RFC 6890), multicast, and cloud
# metadata outside the link-local range (Alibaba, Azure, Oracle, AWS, Google). The most specific row decides; an address
# in no row is allowed. Private networks are allowed, since tunnels often lead there.
SPECIAL: Final[Mapping[str, bool]] = {
    "0.0.0.0/8": False, "10.0.0.0/8": True, "100.64.0.0/10": True, "100.100.100.200/32": False, "127.0.0.0/8": False,
    "168.63.129.16/32": False, "169.254.0.0/16": False, "172.16.0.0/12": True, "192.0.0.0/24": False,
    "192.0.0.9/32": True, "192.0.0.10/32": True, "192.0.2.0/24": False, "192.31.196.0/24": True,
    "192.52.193.0/24": True, "192.88.99.0/24": False, "192.168.0.0/16": True, "192.175.48.0/24": True,
    "198.18.0.0/15": False, "198.51.100.0/24": False, "203.0.113.0/24": False, "224.0.0.0/4": False,
    "240.0.0.0/4": False,
    "::/96": False, "::ffff:0:0/96": True, "::ffff:0:0:0/96": False, "64:ff9b::/96": True, "64:ff9b:1::/48": False,
    "100::/64": False, "100:0:0:1::/64": False, "2001::/23": False, "2001::/32": True, "2001:1::1/128": True,
    "2001:1::2/128": True, "2001:1::3/128": True, "2001:3::/32": True, "2001:4:112::/48": True, "2001:20::/28": True,
    "2001:30::/28": True, "2001:db8::/32": False, "2002::/16": True, "2620:4f:8000::/48": True, "3fff::/20": False,
    "5f00::/16": False, "fc00::/7": True, "fd00:ec2::254/128": False, "fd20:ce::254/128": False, "fe80::/10": False,
    "fec0::/10": False, "ff00::/8": False,
}  # fmt: skip
_SPECIAL: Final = sorted(
    ((ip_network(text), may) for text, may in SPECIAL.items()), key=lambda row: row[0].prefixlen, reverse=True
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
_ISATAP: Final = frozenset({0x00005EFE, 0x02005EFE})  # RFC 5214: the upper half of the interface identifier


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRoute:
    """A route for one ``host``: HOST:PORT in lower case, exactly as in the CONNECT target.

    ``without_handle``: also admit a CONNECT without a handle, whose subject is unknown.

    Raises:
        ValueError: an invalid route name, or ``host`` is not a lower-case name or address with its port.
    """

    protocol: ClassVar[Literal["connect"]] = "connect"  # discriminates it from other outbound routes
    name: str
    host: str
    without_handle: bool = False

    def __post_init__(self) -> None:
        require_name(self.name)
        parse_tunnel(self.host)

    @property
    def address(self) -> tuple[str, int]:
        """The host, without brackets, and the port."""
        return parse_tunnel(self.host)

    @property
    def is_literal(self) -> bool:
        """True if the host is an IP address, so that no name resolution takes place."""
        return _parsed(self.address[0]) is not None


def parse_tunnel(host: str) -> tuple[str, int]:
    """Return the host, without brackets, and the port.

    Raises:
        ValueError: it is not a lower-case name or address with its port.
    """
    match = _HOST.fullmatch(host)
    bad_address = match is not None and match[2] is not None and _parsed(match[2]) is None
    if match is None or bad_address or int(match[3]) > 65535:
        raise ValueError("is not HOST:PORT; write the lower-case name or address with its port")
    return match[1] or match[2], int(match[3])


def reachable_by_name(address: str) -> bool:
    """True if a host name may resolve to ``address`` (see ``SPECIAL``); False for text that is no IP address."""
    found = _parsed(address)
    if found is None:
        return False
    if isinstance(found, IPv6Address):
        found = IPv6Address(int(found))  # without its zone
        if not all(reachable_by_name(str(inner)) for inner in _embedded(found)):
            return False
    return next((may for network, may in _SPECIAL if found in network), True)


def _embedded(address: IPv6Address) -> Iterator[IPv4Address]:
    """Yield the IPv4 addresses embedded in ``address``, which a translator or tunnel endpoint may extract."""
    last = IPv4Address(int(address) & 0xFFFFFFFF)
    if address.ipv4_mapped or address in _NAT64 or int(address) >> 32 & 0xFFFFFFFF in _ISATAP:
        yield last
    if address.sixtofour:
        yield address.sixtofour
    yield from address.teredo or ()


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(address)
    except ValueError:
        return None
