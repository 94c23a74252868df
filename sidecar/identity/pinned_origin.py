"""For how long a kept connection may be used, because of who is at its two ends.

A connection proves two identities. It lives no longer than both are fresh, and each is judged again before a new
request goes out on it: what a handshake proved an hour ago is no proof of now.
"""

from __future__ import annotations

import asyncio

from sidecar.errors import SidecarError
from sidecar.identity.source import Identity, IdentitySource
from sidecar.identity.tls import guard_of


def life_s(source: IdentitySource, transport: asyncio.BaseTransport, now: float) -> float:
    """Half of our own SVID's life, and never past its end or that of the peer's. Seconds from ``now``, never below 0.

    Raises:
        Denied: NO_CLIENT_CERT, the connection proved no peer.
    """
    identity = source.current
    if identity is None:
        return 0.0
    svid = identity.svid
    half = (svid.not_after - svid.not_before) / 2
    return max(0.0, min(half, svid.not_after - now, guard_of(transport).peer.not_after - now))


def still_trusted(transport: asyncio.BaseTransport, now: float) -> bool:
    """Whether a kept connection's other end would still be believed if it came now."""
    try:
        guard_of(transport).check(int(now))
    except SidecarError:
        return False
    return True


def leaf_of(identity: Identity | None) -> bytes | None:
    """The certificate that an identity shows, DER; None without one."""
    return None if identity is None else identity.svid.chain[0]
