"""Where outbound calls go: one TLS context per pinned peer, one pool key per target, peer and own SVID.

A connection proves two identities, and lives no longer than they are fresh: with a renewed SVID, calls go out on new
connections at once, and those of the old one close as their calls end. New bundles end only what they no longer vouch
for: each kept connection is judged again before its next call.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from sidecar.delegation.route import OutboundRoute, Upstream
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Denied, Reason, Unavailable
from sidecar.identity.pinned_origin import leaf_of, life_s, still_trusted
from sidecar.identity.source import Identity, IdentitySource
from sidecar.identity.tls import client_context
from sidecar.wire.pool import Origin

Retire = Callable[[Callable[[Hashable], bool]], None]


class _Key(NamedTuple):
    """Who shares connections. ``own`` is the leaf of our SVID, None where no identity is shown.

    Looked up with each call: plain members, since a dataclass would work out its hash in Python.
    """

    scheme: str
    host: str
    port: int
    peer: SpiffeId | None
    own: bytes | None


@dataclass(frozen=True, slots=True)
class _Known:
    route: OutboundRoute
    workload: SpiffeId
    origin: Origin


class Origins:
    """The origins of all outbound routes. ``retire`` is the pool's: it ends the connections of an SVID that is gone."""

    def __init__(self, source: IdentitySource, clock: Callable[[], float], retire: Retire) -> None:
        self._source = source
        self._clock = clock
        self._retire = retire
        self._own = leaf_of(source.current)
        self._contexts: dict[SpiffeId, ssl.SSLContext] = {}
        self._known: dict[str, _Known] = {}
        source.subscribe(self._follow)

    def of(self, route: OutboundRoute, workload: SpiffeId) -> Origin:
        """The origin of a route, for calls made as ``workload``.

        Raises:
            Denied: UPSTREAM_IDENTITY, the route wants TLS and does not say with whom.
            Unavailable: NOT_READY, we are ``workload`` no more.
        """
        known = self._known.get(route.name)
        if known is not None and known.route is route and known.workload == workload:
            return known.origin
        origin = self._make(route, workload)
        self._known[route.name] = _Known(route, workload, origin)
        return origin

    def _make(self, route: OutboundRoute, workload: SpiffeId) -> Origin:
        upstream = route.upstream
        if route.peer is None:
            if upstream.scheme != "http":  # settings refuse this; a token in clear text would be the way to notice
                raise Denied(Reason.UPSTREAM_IDENTITY, "the route names nobody who must answer")
            return Origin(upstream.host, upstream.port, _Key(upstream.scheme, upstream.host, upstream.port, None, None))
        identity = self._source.current
        if identity is None or identity.spiffe_id != workload:  # its token would be presented by somebody else
            raise Unavailable(Reason.NOT_READY, "the identity that this call was decided for is gone")
        context = self._contexts.get(route.peer)
        if context is None:
            context = self._contexts[route.peer] = client_context(self._source, expected=route.peer)
        return Origin(
            upstream.host,
            upstream.port,
            _Key(upstream.scheme, upstream.host, upstream.port, route.peer, self._own),
            context,
            still_good=self._still_trusted,
            life_s=self._life_s,
        )

    def _follow(self, identity: Identity | None) -> None:
        """Another SVID is another key. New bundles alone change nothing here."""
        own = leaf_of(identity)
        if own != self._own:
            self._own = own
            self._known.clear()
            self._retire(lambda key: isinstance(key, _Key) and key.own is not None and key.own != own)

    def _life_s(self, transport: asyncio.BaseTransport) -> float:
        return life_s(self._source, transport, self._clock())

    def _still_trusted(self, transport: asyncio.BaseTransport) -> bool:
        return still_trusted(transport, self._clock())


def authority_of(upstream: Upstream | Origin) -> bytes:
    """The Host of a request to an upstream (RFC 9112 section 3.2)."""
    return _authority(upstream.host, upstream.port)


@lru_cache(maxsize=1024)
def _authority(host: str, port: int) -> bytes:
    return f"[{host}]:{port}".encode("ascii") if ":" in host else f"{host}:{port}".encode("ascii")
