"""The origins of outbound routes, each pinned to the SPIFFE ID that the route names."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.route import OutboundRoute
from delegation_core.spiffe_id import SpiffeId
from sidecar.identity.pinned_origin import Address, PinnedOrigins, Retire
from sidecar.identity.source import IdentitySource
from sidecar.wire.dialer import Origin
from sidecar.wire.stream import Stream

if TYPE_CHECKING:
    from delegation_core.connect import ConnectRoute
    from delegation_core.outside import OutsideRoute
    from sidecar.identity.file_trust import FileTrust


@dataclass(frozen=True, slots=True)
class _Known:
    route: OutboundRoute
    workload: SpiffeId
    origin: Origin


class Origins:
    """Origins of all outbound routes. ``retire`` is the pool's; it closes the connections of a replaced SVID.

    ``http2``: calls may use HTTP/2 if their route allows it.
    """

    def __init__(
        self, source: IdentitySource, clock: Callable[[], float], retire: Retire, *, http2: bool = False
    ) -> None:
        self._http2 = http2
        self._source = source
        self._retire_in_pool = retire
        self._pinned = PinnedOrigins(source, clock, self._retire)
        self._known: dict[str, _Known] = {}
        self._trusts: dict[str | None, FileTrust] = {}

    def of(
        self, route: OutboundRoute, workload: SpiffeId, bound_to: str | None = None, call: Stream | None = None
    ) -> Origin:
        """Return the origin of a route for a call made as ``workload``.

        ``bound_to`` is the SVID's fingerprint in the issued token; None: the token is not bound. ``call`` is the
        agent's request: with ``http_version: same`` the next hop is called by its version of HTTP.

        Raises:
            Denied: UPSTREAM_IDENTITY, the route uses TLS and pins no peer; CNF_MISMATCH, as ``PinnedOrigins.of``.
            Unavailable: NOT_READY, our identity is no longer ``workload``.
        """
        if self._http2 and call is not None and _offers_http2(route, call):
            return self._make(route, workload, bound_to, http2=True)
        if bound_to is not None:
            return self._make(route, workload, bound_to)
        known = self._known.get(route.name)
        if known is not None and known.route is route and known.workload == workload:
            return known.origin
        origin = self._make(route, workload)
        self._known[route.name] = _Known(route, workload, origin)
        return origin

    def outside(self, route: OutsideRoute) -> Origin:
        """Return the origin of a route to a host outside the mesh.

        Raises:
            Denied: UPSTREAM_IDENTITY, the file of its certificate authorities is not readable.
        """
        trust = self._trusts.get(route.ca_file)
        if trust is None:
            from sidecar.identity.file_trust import FileTrust, public_authorities  # loaded with ``features/outside``

            trust = self._trusts[route.ca_file] = FileTrust(route.ca_file or public_authorities())
        upstream = route.upstream
        return self._pinned.of(Address(upstream.scheme, upstream.host, upstream.port), trust)

    def tunnel(self, route: ConnectRoute) -> Origin:
        """Return the far end of a tunnel, without TLS of ours. A host name must not resolve to a local address."""
        from delegation_core.connect import reachable_by_name

        host, port = route.address
        admits = None if route.is_literal else reachable_by_name
        return Origin(host, port, ("CONNECT", host, port), admits=admits)

    def _make(
        self, route: OutboundRoute, workload: SpiffeId, bound_to: str | None = None, *, http2: bool = False
    ) -> Origin:
        upstream = route.upstream
        if route.peer is None:
            if (
                upstream.scheme != "http"
            ):  # settings refuse this too; without this check a token would leave in clear text
                raise Denied(Reason.UPSTREAM_IDENTITY, "the route names nobody who must answer")
        else:
            identity = self._source.current
            if identity is None or identity.spiffe_id != workload:  # else we would present another workload's token
                raise Unavailable(Reason.NOT_READY, "the identity that this call was decided for is gone")
        address = Address(upstream.scheme, upstream.host, upstream.port)
        return self._pinned.of(address, route.peer, bound_to=bound_to, http2=http2)

    def _retire(self, of: Callable[[Hashable], bool]) -> None:
        self._known.clear()
        self._retire_in_pool(of)


def _offers_http2(route: OutboundRoute, call: Stream) -> bool:
    """Return True if a call offers HTTP/2 to its next hop. An upgrade, as to WebSocket, needs HTTP/1.1."""
    upgrades = call.head is not None and call.head.upgrade is not None
    return not upgrades and (route.http_version == "2" or (route.http_version == "same" and call.http2))
