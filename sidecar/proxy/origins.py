"""Where outbound calls go: one TLS context per pinned peer, one pool key per target and own identity."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.delegation.route import OutboundRoute, Upstream
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Denied, Reason, SidecarError
from sidecar.identity.source import IdentitySource
from sidecar.identity.tls import client_context, guard_of
from sidecar.wire.pool import Origin


@dataclass(frozen=True, slots=True)
class _Known:
    route: OutboundRoute
    workload: SpiffeId
    origin: Origin


class Origins:
    """The origins of all outbound routes. Connections are never shared across peers or own identities."""

    def __init__(self, source: IdentitySource, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self._contexts: dict[SpiffeId, ssl.SSLContext] = {}
        self._known: dict[str, _Known] = {}

    def of(self, route: OutboundRoute, workload: SpiffeId) -> Origin:
        """The origin of a route, for calls made as ``workload``.

        Raises:
            Denied: UPSTREAM_IDENTITY, the route wants TLS and does not say with whom.
        """
        known = self._known.get(route.name)
        if known is not None and known.route is route and known.workload == workload:
            return known.origin
        origin = self._make(route, workload)
        self._known[route.name] = _Known(route, workload, origin)
        return origin

    def _make(self, route: OutboundRoute, workload: SpiffeId) -> Origin:
        upstream = route.upstream
        key = (upstream, route.peer, workload)
        if route.peer is None:
            if upstream.scheme != "http":  # settings refuse this; a token in clear text would be the way to notice
                raise Denied(Reason.UPSTREAM_IDENTITY, "the route names nobody who must answer")
            return Origin(upstream.host, upstream.port, key)
        context = self._contexts.get(route.peer)
        if context is None:
            context = self._contexts[route.peer] = client_context(self._source, expected=route.peer)
        return Origin(upstream.host, upstream.port, key, context, still_good=self._still_trusted)

    def _still_trusted(self, transport: asyncio.BaseTransport) -> bool:
        """Whether a kept connection's other end would still be believed if it came now."""
        try:
            guard_of(transport).check(int(self._clock()))
        except SidecarError:
            return False
        return True


def authority_of(upstream: Upstream | Origin) -> bytes:
    """The Host of a request to an upstream (RFC 9112 section 3.2)."""
    host = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
    return f"{host}:{upstream.port}".encode("ascii")
