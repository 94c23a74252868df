"""Builder of the core's routes from route sections. A refusal by the core, or an overlap of two, is a problem."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from sidecar.config.addresses import parse_origin
from sidecar.config.sidecar_model import InboundRouteSection, OutboundRouteSection, SidecarFile
from sidecar.config.validation import Findings
from sidecar.delegation.route import (
    InboundRoute,
    InboundRoutes,
    OutboundRoute,
    OutboundRoutes,
    Overlap,
    Upstream,
    outbound_overlaps,
    overlaps,
)
from sidecar.delegation.spiffe_id import SpiffeId

_PORTS: Final = {"http": 80, "https": 443}


def inbound_routes_of(file: SidecarFile, issuers: list[str], findings: Findings) -> InboundRoutes | None:
    """Make the inbound routes; a route that names no issuers has ``issuers``. Return None if there is any problem."""
    sections = file.inbound.routes if file.inbound is not None else []
    made = [
        findings.attempt(f"inbound.routes[{number}]", _inbound_route, section, issuers)
        for number, section in enumerate(sections)
        if (section.match.path is None) != (section.match.path_prefix is None)
    ]
    routes = [route for route in made if route is not None]
    _report(findings, "inbound.routes", overlaps(routes))
    return None if findings.problems else InboundRoutes(routes)


def outbound_routes_of(file: SidecarFile, findings: Findings) -> OutboundRoutes | None:
    """Make the outbound routes. Return None if there is any problem."""
    sections = file.outbound.routes if file.outbound is not None else []
    made = [
        findings.attempt(f"outbound.routes[{number}]", _outbound_route, section)
        for number, section in enumerate(sections)
        if (section.match.host is None) != (section.match.prefix is None)
    ]
    routes = [route for route in made if route is not None]
    _report(findings, "outbound.routes", outbound_overlaps(routes))
    return None if findings.problems else OutboundRoutes(routes)


def upstream_of(origin: str) -> Upstream:
    """Return the address of an origin, with the scheme's port if it names none."""
    parts = parse_origin(origin)
    scheme: Literal["http", "https"] = "https" if parts.scheme == "https" else "http"
    return Upstream(scheme=scheme, host=parts.hostname or "", port=parts.port or _PORTS[scheme])


def _report(findings: Findings, field: str, found: Iterable[Overlap]) -> None:
    for pair in found:
        if pair.first == pair.second:
            findings.add(field, f"two routes are called {pair.first}", "rename one of them")
        else:
            findings.add(
                field, f"{pair.first} and {pair.second} both match {pair.what}", "make one of them more specific"
            )


def _inbound_route(section: InboundRouteSection, issuers: list[str]) -> InboundRoute:
    path = section.match.path if section.match.path is not None else section.match.path_prefix
    return InboundRoute(
        name=section.name,
        path=path or "",
        prefix=section.match.path is None,
        methods=frozenset(section.match.methods),
        scopes=frozenset(section.scopes),
        peers=frozenset(map(SpiffeId, section.peers)),
        issuers=frozenset(issuers if section.issuers is None else section.issuers),
        may_call=frozenset(section.may_call),
        pass_token=section.pass_token,
        forwarded=section.forwarded,
        allow_self=section.allow_self,
        linger_s=section.linger_s,
        max_calls=section.max_calls,
    )


def _outbound_route(section: OutboundRouteSection) -> OutboundRoute:
    return OutboundRoute(
        name=section.name,
        host=section.match.host,
        prefix=section.match.prefix,
        upstream=upstream_of(section.upstream),
        peer=None if section.peer is None else SpiffeId(section.peer),
        audience=section.audience,
        scopes=frozenset(section.scopes),
        token=section.token,
    )
