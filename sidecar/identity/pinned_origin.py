"""Origins with a pinned identity: one TLS context per pin, one pool key per address, pin and own SVID.

Used by outbound routes and for the token service. A connection proves two identities and lives no longer than
both are fresh. With a renewed SVID, calls go out on new connections at once, and the old ones close as their calls
end. New bundles end trust in peers that they no longer vouch for: each idle connection is re-evaluated before its next
call, because the proof of an old handshake may no longer hold. Connections to the token service end with any new
bundles.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from delegation_core.errors import Denied, Reason, SidecarError, Unavailable
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import thumbprint_of
from sidecar.identity.generation import ALPN, ALPN_WITH_HTTP2
from sidecar.identity.source import Identity, IdentitySource
from sidecar.identity.tls import client_context, guard_of, own_certificate_of
from sidecar.wire.dialer import Origin

if TYPE_CHECKING:
    from sidecar.identity.file_trust import FileTrust

Retire = Callable[[Callable[[Hashable], bool]], None]
Pin: TypeAlias = "SpiffeId | FileTrust | None"


class Address(NamedTuple):
    """Address of an upstream."""

    scheme: str
    host: str
    port: int


class OriginKey(NamedTuple):
    """Everything that shared connections must have in common. Plain members: it is hashed for every call.

    ``own``: the leaf of our SVID, None if not presented. ``trust`` is the SPIFFE ID or the CA file's context that
    verifies the other end. ``bound_to``: the thumbprint of our SVID, for calls with a token bound to it.
    ``http2``: the upstream may choose HTTP/2; without TLS it always speaks it.
    """

    address: Address
    trust: Hashable
    own: bytes | None
    bound_to: str | None = None
    http2: bool = False


class PinnedOrigins:
    """The origins of one pool. ``clock``: wall time, for the validity of certificates.

    ``retire``: the pool's method; called for connections whose SVID or CA file has changed, with ``per_generation``
    also for new bundles.
    """

    def __init__(
        self,
        source: IdentitySource,
        clock: Callable[[], float],
        retire: Retire,
        *,
        per_generation: bool = False,
    ) -> None:
        self._source = source
        self._clock = clock
        self._retire = retire
        self._per_generation = per_generation
        self._own = leaf_of(source.current)
        self._contexts: dict[tuple[SpiffeId, bool], ssl.SSLContext] = {}
        self._origins: dict[tuple[Address, Pin, str | None, bool], Origin] = {}
        source.subscribe(self._follow)

    def of(self, address: Address, pin: Pin, *, bound_to: str | None = None, http2: bool = False) -> Origin:
        """Return the origin for a call that begins now. ``pin`` None: plain HTTP, without a proven peer.

        ``http2``: a workload of the mesh may choose HTTP/2 by ALPN; without TLS the upstream always speaks it.

        ``bound_to``: the thumbprint in the call's token: only connections with this SVID are used, even if it is
        renewed meanwhile.

        Raises:
            Denied: UPSTREAM_IDENTITY, the CA file is unusable; CNF_MISMATCH: the token is bound to another SVID than
            ours. Unavailable: NOT_READY: there is no identity to present.
        """
        identity = self._source.current
        if isinstance(pin, SpiffeId) and identity is None:
            raise Unavailable(Reason.NOT_READY, "this workload has no identity")
        if bound_to is not None and not (
            isinstance(pin, SpiffeId) and identity is not None and thumbprint_of(identity.svid.leaf_sha256) == bound_to
        ):
            raise Denied(Reason.CNF_MISMATCH, "the token is bound to another certificate than ours")
        known = self._origins.get((address, pin, bound_to, http2))
        context = None if pin is None or isinstance(pin, SpiffeId) else pin.context()
        if known is not None and (context is None or known.tls is context):
            return known
        if known is not None:
            self._retire(lambda key: key == known.key)
        origin = self._origins[address, pin, bound_to, http2] = self._make(address, pin, context, bound_to, http2=http2)
        return origin

    def close(self) -> None:
        """Stop following our identity."""
        self._source.unsubscribe(self._follow)

    def _make(
        self, address: Address, pin: Pin, context: ssl.SSLContext | None, bound_to: str | None, *, http2: bool
    ) -> Origin:
        _, host, port = address
        if isinstance(pin, SpiffeId):
            context = self._contexts.get((pin, http2))
            if context is None:
                alpn = ALPN_WITH_HTTP2 if http2 else ALPN
                context = self._contexts[pin, http2] = client_context(self._source, expected=pin, alpn=alpn)
            key = OriginKey(address, pin, self._own, bound_to, http2)
            still_good = self._still_trusted if bound_to is None else partial(self._still_bound, bound_to)
            chosen: Literal["", "alpn"] = "alpn" if http2 else ""
            return Origin(host, port, key, context, still_good=still_good, life_s=self._life_s, http2=chosen)
        life_s = None if context is None else self._certificate_life_s
        own = self._own if pin is not None and pin.shows_svid else None
        known: Literal["", "prior"] = "prior" if http2 and pin is None else ""
        key = OriginKey(address, context, own, http2=bool(known))
        return Origin(host, port, key, context, life_s=life_s, http2=known)

    def _follow(self, identity: Identity | None) -> None:
        own = leaf_of(identity)
        if own != self._own or self._per_generation:
            self._own = own
            self._origins.clear()
            self._retire(lambda key: isinstance(key, OriginKey) and key.own is not None)

    def _life_s(self, transport: asyncio.BaseTransport) -> float:
        return life_s(self._source, transport, self._clock())

    def _certificate_life_s(self, transport: asyncio.BaseTransport) -> float:
        """Return the remaining validity, in seconds, of the certificate of a host trusted by a CA file."""
        certificate = transport.get_extra_info("peercert") or {}
        return max(0.0, ssl.cert_time_to_seconds(certificate["notAfter"]) - self._clock())

    def _still_trusted(self, transport: asyncio.BaseTransport) -> bool:
        return still_trusted(transport, self._clock())

    def _still_bound(self, bound_to: str, transport: asyncio.BaseTransport) -> bool:
        """True if the peer is still trusted, and the connection presented the SVID in ``bound_to``."""
        shown = own_certificate_of(transport)
        return shown is not None and thumbprint_of(shown) == bound_to and self._still_trusted(transport)


def life_s(source: IdentitySource, transport: asyncio.BaseTransport, now: float) -> float:
    """Return half of our own SVID's life, never past its end or the peer's. Seconds from ``now``, never below 0.

    Raises:
        Denied: NO_CLIENT_CERT: the connection has no proven peer.
    """
    identity = source.current
    if identity is None:
        return 0.0
    svid = identity.svid
    half = (svid.not_after - svid.not_before) / 2
    return max(0.0, min(half, svid.not_after - now, guard_of(transport).peer.not_after - now))


def still_trusted(transport: asyncio.BaseTransport, now: float) -> bool:
    """True if the peer of an idle connection is still trusted at ``now``."""
    try:
        guard_of(transport).check(int(now))
    except SidecarError:
        return False
    return True


def leaf_of(identity: Identity | None) -> bytes | None:
    """Return the leaf certificate of an identity, DER; None without an identity."""
    return None if identity is None else identity.svid.chain[0]
