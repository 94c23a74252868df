"""Checks and builders of the inbound side. Pure; each problem has its field and its fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from delegation_core.errors import Problem
from delegation_core.route import InboundRoute
from delegation_core.spiffe_id import SpiffeId
from sidecar.config.addresses import parse_address, parse_origin, upstream_of
from sidecar.config.crossing_checks import crosses
from sidecar.config.field_types import start_of
from sidecar.config.inbound_model import InboundRouteSection
from sidecar.config.sections import IssuerSection, scalars
from sidecar.config.settings import InboundSettings
from sidecar.config.sidecar_model import SidecarFile
from sidecar.features.a2a.settings import a2a_rules
from sidecar.features.mcp.settings import resource_of
from sidecar.features.observing.settings import plain_of
from sidecar.features.operations.settings import human_of, inbound_operations, methods_of
from sidecar.features.outside.settings import agent_key_of
from sidecar.proxy.journeys.bypass import ListenerRule
from sidecar.proxy.listening.connection_limits import ConnectionLimits
from sidecar.wire.limits import ClientLimits, ServerLimits


def inbound_route_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report inbound routes that no call could use, and ``human`` sections without a requirement."""
    for where, route in file.inbound_routes():
        if (route.match.path is None) == (route.match.path_prefix is None):
            yield Problem(f"{where}.match", "needs exactly one of path and path_prefix", "keep one of them")
        yield from file.unknown_routes(route.may_call, f"{where}.may_call")
        yield from _route_issuers(file, route, where)
        yield from _reachable(file, route, where)
        yield from _human(route, f"{where}.human")


def _human(route: InboundRouteSection, where: str) -> Iterator[Problem]:
    if route.human is None:
        return
    if route.human.max_age_s is None and not route.human.acr:
        yield Problem(where, "requires nothing", "write max_age_s, acr or both, or remove it")
    if route.allow_self and route.protocol != "mcp":
        yield Problem(where, "is set beside allow_self, whose callers have no user", "keep one of them")


def _route_issuers(file: SidecarFile, route: InboundRouteSection, where: str) -> Iterator[Problem]:
    known = {section.issuer for section in file.issuers}
    if route.issuers is None and len(file.issuers) > 1:
        yield Problem(
            f"{where}.issuers", "is missing, and there are several issuers", "list those whose tokens are accepted here"
        )
    for issuer in route.issuers or []:
        if issuer not in known:
            yield Problem(f"{where}.issuers", f"{issuer} is not a configured issuer", "list it under issuers")
    for _, target in file.mesh_routes():
        asked, counting = file.issuer_of(target), set(route.issuers or known)
        if target.name in route.may_call and asked is not None and not crosses(file, target, counting):
            yield Problem(
                f"{where}.may_call",
                f"{target.name} cannot be used: its tokens are from {asked}, which this route does not accept",
                "add that issuer to the route's issuers, list a crossing, or remove the name",
            )


def _reachable(file: SidecarFile, route: InboundRouteSection, where: str) -> Iterator[Problem]:
    """Report scopes above an issuer's ceiling, and peers whose trust domain no issuer may speak for."""
    for section in _counting(file, route):
        needed = set(route.scopes).union(*(one.scopes for one in route.operations))
        for scope in sorted(needed - set(section.scopes)):
            yield Problem(
                f"{where}.scopes",
                f"{scope} is above the ceiling of {section.issuer}",
                "add it to that issuer's scopes, or remove it here",
            )
    domains = {domain for section in _counting(file, route) for domain in section.actor_trust_domains}
    for peer in route.peers:
        if _counting(file, route) and SpiffeId(peer).trust_domain not in domains:
            yield Problem(
                f"{where}.peers",
                f"no issuer of this route may speak for actors of {SpiffeId(peer).trust_domain}",
                "add the trust domain to actor_trust_domains, or remove the peer",
            )


def _counting(file: SidecarFile, route: InboundRouteSection) -> list[IssuerSection]:
    return [section for section in file.issuers if route.issuers is None or section.issuer in route.issuers]


def inbound_of(file: SidecarFile) -> InboundSettings | None:
    """Make the settings of the inbound side; None if there is none."""
    section = file.inbound
    if section is None:
        return None
    return InboundSettings(
        listen=parse_address(section.listen),
        agent=upstream_of(section.agent),
        agent_grpc=None if section.agent_grpc is None else upstream_of(section.agent_grpc),
        connections=ConnectionLimits(**section.connections.model_dump()),
        limits=ServerLimits(**section.limits.model_dump()),
        upstream_limits=ClientLimits(**section.upstream_limits.model_dump()),
        one_subject=section.subjects_at_once is not None,
        plain=plain_of(section.plain),
        agent_key=agent_key_of(section.agent_key),
        **scalars(section, InboundSettings),
    )


def listener_rule_of(file: SidecarFile, environ: Mapping[str, str], *, refuse: bool) -> ListenerRule | None:
    """Make the rule for further listeners of the agent; None without an inbound side."""
    section = file.inbound
    if section is None:
        return None
    return ListenerRule(
        agent_port=parse_origin(section.agent).port,
        agent_grpc_port=None if section.agent_grpc is None else parse_origin(section.agent_grpc).port,
        allowed=frozenset(section.other_listeners),
        pod=section.network == "pod" or (section.network == "auto" and _IN_A_POD in environ),
        refuse=refuse,
    )


def inbound_route(
    section: InboundRouteSection, issuers: list[str], named: frozenset[str], *, grpc: bool
) -> InboundRoute:
    """Make one route. ``issuers`` is the default for a route without its own; ``grpc`` is True for a gRPC agent."""
    path = section.match.path if section.match.path is not None else section.match.path_prefix
    route = InboundRoute(
        name=section.name,
        path=path or "",
        prefix=section.match.path is None,
        methods=methods_of(section),
        scopes=frozenset(section.scopes),
        peers=frozenset(map(SpiffeId, section.peers)),
        issuers=frozenset(issuers if section.issuers is None else section.issuers),
        may_call=frozenset(section.may_call),
        record_first=section.records == "before_answer",
        observe_until=0 if section.observe_until is None else start_of(section.observe_until),
        human=human_of(section.human),
        sessions=section.sessions or "per_subject",
        resource=resource_of(section, issuers),
        a2a=a2a_rules(section.a2a, grpc=grpc),
        **scalars(section, InboundRoute),
    )
    return inbound_operations(section, route, named)


_IN_A_POD: Final = "KUBERNETES_SERVICE_HOST"  # the kubelet sets it in every container
