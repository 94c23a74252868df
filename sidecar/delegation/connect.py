"""Routes of opaque tunnels: an agent's CONNECT to one listed host and port, through which TLS is never opened.

The name is trusted no further than its addresses: one that leads to this machine, to its link or to a cloud's metadata
is refused, since a tunnel there would reach what only this machine may ask. Who means such an address lists it as one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from sidecar.delegation.route import require_name

_HOST: Final = re.compile(r"(?:([a-z0-9_][a-z0-9._-]{0,254})|\[([0-9a-f:.]{2,45})\]):([1-9][0-9]{0,4})")
# Metadata of clouds beyond the link-local range: Alibaba, Azure, Oracle, AWS, Google.
_METADATA: Final = frozenset(
    map(ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)
_THIS_HOST: Final = IPv4Network("0.0.0.0/8")
_NAT64: Final = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRoute:
    """One host and port, lower case, exactly as CONNECT names them.

    ``without_handle`` also admits a CONNECT that shows no handle, whose subject nobody knows.

    Raises:
        ValueError: a name without a port, or neither a name nor an address.
    """

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
        """Tell if the host is listed as an address, and no name decides about it."""
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
    """Tell if a tunnel to a name may end at this address of it."""
    found = _parsed(address)
    if found is None:
        return False
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if inner is None and found in _NAT64:
            inner = IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None and not reachable_by_name(str(inner)):
            return False
        if found.is_site_local:
            return False
    elif found in _THIS_HOST or found.is_reserved:
        return False
    return not (
        found.is_loopback or found.is_link_local or found.is_unspecified or found.is_multicast or found in _METADATA
    )


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(address)
    except ValueError:
        return None
