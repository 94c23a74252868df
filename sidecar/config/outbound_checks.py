"""Checks and builders of the outbound side: routes into the mesh, and the token services that they need. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from delegation_core.errors import Problem
from delegation_core.outbound_routes import AnyRoute
from delegation_core.route import OutboundRoute
from delegation_core.spiffe_id import SpiffeId
from sidecar.config.addresses import parse_address, parse_origin, upstream_of
from sidecar.config.crossing_checks import crossings_of
from sidecar.config.field_types import start_of
from sidecar.config.outbound_model import AnyOutboundSection, OutboundRouteSection
from sidecar.config.sections import scalars
from sidecar.config.settings import OutboundSettings
from sidecar.config.sidecar_model import SidecarFile
from sidecar.features.a2a.settings import a2a_rules
from sidecar.features.operations.settings import outbound_operations
from sidecar.features.outside.settings import ConnectRouteSection, connect_route, outside_route
from sidecar.identity.endpoint import is_loopback
from sidecar.proxy.listening.connection_limits import ConnectionLimits
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.resolver import ResolverSettings


def outbound_route_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report ambiguous matches, and routes into the mesh without a verified peer, scopes or a token service."""
    for where, route in file.outbound_routes():
        if isinstance(route, ConnectRouteSection):
            continue
        if (route.match.host is None) == (route.match.prefix is None):
            yield Problem(f"{where}.match", "needs exactly one of host and prefix", "keep one of them")
        if f"{route.match.prefix}/".startswith("/.sidecar/"):
            yield Problem(f"{where}.match.prefix", "is below the sidecar's own paths", "choose another prefix")
    for where, mesh_route in file.mesh_routes():
        yield from _upstream(mesh_route, where)
        if not mesh_route.scopes and mesh_route.observe_until is None:
            yield Problem(f"{where}.scopes", "is empty, so every call is refused", "list the scopes to request")
        yield from _route_exchange(file, mesh_route, f"{where}.exchange")
    if file.mesh_routes() and not file.exchange_sections():
        yield Problem(
            "exchange", "is missing, but outbound routes need tokens", "name the token service that issues them"
        )


def _upstream(route: OutboundRouteSection, where: str) -> Iterator[Problem]:
    upstream = parse_origin(route.upstream)
    if upstream.scheme == "https" and route.peer is None:
        yield Problem(f"{where}.peer", "is missing, so anybody could answer", "name the SPIFFE ID of the next hop")
    if upstream.scheme == "http" and route.peer is not None:
        yield Problem(f"{where}.upstream", "is plain http, which does not verify the peer", "use https")
    if upstream.scheme == "http" and not is_loopback(upstream.hostname or ""):
        yield Problem(f"{where}.upstream", "is plain http beyond loopback", "use https and name the peer")


def _route_exchange(file: SidecarFile, route: OutboundRouteSection, where: str) -> Iterator[Problem]:
    issuers = {section.issuer for _, section in file.exchange_sections()}
    if route.exchange is None and len(issuers) > 1:
        yield Problem(where, "is missing, and there are several token services", "name the issuer of one of them")
    if route.exchange is not None and route.exchange not in issuers:
        yield Problem(where, f"{route.exchange} has no token service", "list it under exchange, or name another")


def outbound_of(file: SidecarFile) -> OutboundSettings | None:
    """Make the settings of the outbound side; None if there is none."""
    section = file.outbound
    if section is None:
        return None
    return OutboundSettings(
        listen=parse_address(section.listen),
        connections=ConnectionLimits(**section.connections.model_dump()),
        limits=ServerLimits(**section.limits.model_dump()),
        upstream_limits=ClientLimits(**section.upstream_limits.model_dump()),
        dns=ResolverSettings(**section.dns.model_dump()),
    )


def outbound_route(section: AnyOutboundSection, file: SidecarFile, named: frozenset[str]) -> AnyRoute | None:
    """Make one route; None without an issuer, which is a problem of its own."""
    if isinstance(section, ConnectRouteSection):
        return connect_route(section)
    if not isinstance(section, OutboundRouteSection):
        return outside_route(section)
    issuer = file.issuer_of(section)
    return None if issuer is None else _mesh_route(section, issuer, named, http2=file.protocols.http2)


def _mesh_route(section: OutboundRouteSection, issuer: str, named: frozenset[str], *, http2: bool) -> OutboundRoute:
    route = OutboundRoute(
        name=section.name,
        host=section.match.host,
        prefix=section.match.prefix,
        upstream=upstream_of(section.upstream),
        peer=None if section.peer is None else SpiffeId(section.peer),
        audience=section.audience,
        issuer=issuer,
        scopes=frozenset(section.scopes),
        token=section.token,
        observe_until=0 if section.observe_until is None else start_of(section.observe_until),
        crossings=crossings_of(section),
        a2a=a2a_rules(section.a2a, grpc=http2 and section.http_version != "1.1"),
        http_version=section.http_version,
        record_first=section.records == "before_answer",
        **scalars(section, OutboundRoute),
    )
    return outbound_operations(section, route, named)
