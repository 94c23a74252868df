"""Loader of a sidecar's settings file: validates it and makes ``SidecarSettings``.

A refusal by a room, or two routes that match the same request, is a problem of the field that it came from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from sidecar.config.addresses import parse_address, parse_origin, upstream_of
from sidecar.config.crossing_checks import crossings_of
from sidecar.config.door_checks import door_ceiling_problems, door_of, door_problems, door_settings_of, issuers_at_door
from sidecar.config.exchange_checks import (
    adapter_problems,
    audience_problems,
    client_actor_problems,
    exchange_ceiling_problems,
    exchange_of,
    svid_problems,
)
from sidecar.config.federate_checks import provider_svid_problems
from sidecar.config.field_types import start_of
from sidecar.config.identity import identity_of
from sidecar.config.issuers import countersign_of, entry_of, key_sets, revocation_lists, trusted_issuers
from sidecar.config.login_checks import login_ceiling_problems, login_problems
from sidecar.config.observe_checks import observe_problems
from sidecar.config.operation_checks import (
    a2a_rules,
    human_of,
    inbound_operations,
    methods_of,
    named_operations,
    outbound_operations,
    resource_of,
)
from sidecar.config.outbound_model import AnyOutboundSection, ConnectRouteSection, OutboundRouteSection
from sidecar.config.outside_checks import connect_route, outside_route
from sidecar.config.own_authority_checks import workload_handle_of
from sidecar.config.platform_checks import (
    CEILING_CHECKS,
    Own,
    forbidden_settings,
    outside_ceiling_problems,
    plain_problems,
)
from sidecar.config.platform_file import Platform, load_platform
from sidecar.config.sections import RecordsSection
from sidecar.config.settings import (
    InboundSettings,
    OutboundSettings,
    PlainSettings,
    ProtocolSettings,
    RecordSettings,
    SidecarSettings,
)
from sidecar.config.sidecar_checks import CHECKS
from sidecar.config.sidecar_model import (
    AgentKeySection,
    DenySection,
    InboundRouteSection,
    SidecarFile,
    exchange_sections,
    route_issuer,
)
from sidecar.config.tracing_checks import tracing_of, tracing_problems
from sidecar.config.txn_token_checks import txn_ceiling_problems, txn_token_problems, txn_tokens_of
from sidecar.config.validation import Findings, load_validated
from sidecar.delegation.outbound_routes import AnyRoute, OutboundRoutes, outbound_overlaps
from sidecar.delegation.policy import Deny
from sidecar.delegation.route import (
    MAX_MESSAGE_BYTES,
    InboundRoute,
    InboundRoutes,
    OutboundRoute,
    Overlap,
    overlaps,
)
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Problem
from sidecar.exchange.sts import ExchangeSettings
from sidecar.observe.record_rate import RecordRate
from sidecar.proxy.agent_key import AgentKeySettings
from sidecar.proxy.bypass import ListenerRule
from sidecar.proxy.connection_limits import ConnectionLimits
from sidecar.proxy.memory_pressure import MemoryLimits
from sidecar.wire.limits import ClientLimits, ServerLimits
from sidecar.wire.resolver import ResolverSettings

_IN_A_POD: Final = "KUBERNETES_SERVICE_HOST"  # the kubelet sets it in every container


def load_sidecar(
    path: Path,
    environ: Mapping[str, str],
    platform: Path | None = None,
    *,
    clock: Callable[[], float] = time.time,
) -> SidecarSettings:
    """Load the settings of one sidecar from its file and the environment, below the ceiling of the ``platform`` file.

    ``clock`` is wall time in seconds, read once: a route observes for a limited time from now.

    Raises:
        ConfigError: every problem, each with its field and its cure.
    """
    of_platform = Findings()
    ceiling = None if platform is None else of_platform.attempt("platform", load_platform, platform)

    def check_document(document: dict[str, object]) -> list[Problem]:
        return [*of_platform.problems, *(forbidden_settings(document, ceiling) if ceiling is not None else ())]

    def build(file: SidecarFile, findings: Findings) -> SidecarSettings | None:
        for check in CHECKS:
            findings.extend(check, file)
        findings.extend(observe_problems, file, clock())
        return _settings(file, environ, findings, ceiling)

    return load_validated(path, environ, SidecarFile, build, check_document=check_document)


def _settings(
    file: SidecarFile, environ: Mapping[str, str], findings: Findings, platform: Platform | None
) -> SidecarSettings | None:
    """Make every room's settings. A refusal by a room is a problem of the field it came from; None if there is any."""
    identity = findings.attempt("identity", lambda: identity_of(file.identity, environ))
    keys = findings.attempt("issuers", key_sets, file, findings, issuers_at_door) or ()
    issuers = findings.attempt("issuers", trusted_issuers, file) or {}
    lists = findings.attempt("issuers", revocation_lists, file, findings) or ()
    inbound_routes = findings.attempt("inbound.routes", _inbound_routes, file, list(issuers), findings)
    outbound_routes = findings.attempt("outbound.routes", _outbound_routes, file, findings)
    exchanges = findings.attempt("exchange", _exchanges, file, findings) or ()
    findings.extend(adapter_problems, file, exchanges)
    findings.extend(login_problems, file, exchanges)
    findings.extend(txn_token_problems, file)
    txn_tokens = findings.attempt("txn_tokens", lambda: txn_tokens_of(file))
    findings.extend(audience_problems, file, platform)
    findings.extend(client_actor_problems, file)
    if identity is not None:
        findings.extend(svid_problems, identity, exchanges, txn_tokens)
        findings.extend(provider_svid_problems, file, identity)
    tracing = findings.attempt("tracing", tracing_of, file)
    findings.extend(tracing_problems, file, platform)
    records_settings = findings.attempt("records.countersign", lambda: records(file.records))
    entry = findings.attempt("entry", entry_of, file, findings, door_of)
    findings.extend(door_problems, file)
    inbound = findings.attempt("inbound", _inbound, file)
    outbound = findings.attempt("outbound", _outbound, file)
    findings.extend(outside_ceiling_problems, file, platform)
    findings.extend(plain_problems, file, platform)
    if platform is not None:
        own = Own(issuers=issuers, keys=keys, revocations=lists, exchanges=exchanges, entry=entry)
        findings.extend(exchange_ceiling_problems, file, platform, exchanges)
        findings.extend(login_ceiling_problems, file, platform)
        findings.extend(door_ceiling_problems, file, platform)
        findings.extend(txn_ceiling_problems, file, platform, txn_tokens)
        for check in CEILING_CHECKS:
            findings.extend(check, file, platform, own)
    if findings.problems or identity is None or records_settings is None:
        return None
    if inbound_routes is None or outbound_routes is None:
        return None
    return SidecarSettings(
        identity=identity,
        keys=keys,
        needed_issuers=frozenset().union(
            *(route.issuers for route in inbound_routes.routes),
            (exchange.issuer for exchange in exchanges),
            () if txn_tokens is None else (txn_tokens.source.issuer,),
        ),
        issuers=issuers,
        audiences=frozenset(file.inbound.audiences if file.inbound is not None else ()),
        inbound=inbound,
        outbound=outbound,
        inbound_routes=inbound_routes,
        outbound_routes=outbound_routes,
        exchanges=exchanges,
        entry=entry,
        door=door_settings_of(file),
        txn_tokens=txn_tokens,
        tracing=tracing,
        deny=_deny(file.deny),
        records=records_settings,
        revocations=lists,
        probe=parse_address(file.probe.listen),
        agent_probes=tuple(file.probe.agent),
        drain_s=file.drain_s,
        protocols=ProtocolSettings(**file.protocols.model_dump()),
        engine=file.engine,
        memory=MemoryLimits(**file.memory.model_dump()),
        max_memory_mib=file.max_memory_mib,
        workload_handle=workload_handle_of(file.workload_handle),
        own_may_call=frozenset(file.workload_handle.may_call if file.workload_handle is not None else ()),
        admin_socket=None if file.admin.socket is None else Path(file.admin.socket),
        platform_issuers=frozenset() if platform is None else frozenset({*platform.issuers, *platform.logins}),
        listener_rule=_listener_rule(file, environ, refuse=platform is not None and platform.refuse_other_listeners),
    )


def _exchanges(file: SidecarFile, findings: Findings) -> tuple[ExchangeSettings, ...]:
    """Make the settings of the token services, without those that have a problem."""
    made = [findings.attempt(field, exchange_of, section) for field, section in exchange_sections(file)]
    return tuple(exchange for exchange in made if exchange is not None)


def _inbound(file: SidecarFile) -> InboundSettings | None:
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
        txn_token=section.txn_token,
        plain=None
        if section.plain is None
        else PlainSettings(listen=parse_address(section.plain.listen), until=start_of(section.plain.until)),
        agent_key=None if section.agent_key is None else _agent_key(section.agent_key),
    )


def _agent_key(section: AgentKeySection) -> AgentKeySettings:
    scheme = "" if section.scheme is None else f"{section.scheme} "
    return AgentKeySettings(file=section.file, field=section.field, scheme=scheme)


def _listener_rule(file: SidecarFile, environ: Mapping[str, str], *, refuse: bool) -> ListenerRule | None:
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


def _outbound(file: SidecarFile) -> OutboundSettings | None:
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


def records(section: RecordsSection) -> RecordSettings:
    """Make the settings of records. Raises ValueError for an unusable endpoint."""
    return RecordSettings(
        file=None if isinstance(section.sink, str) else Path(section.sink.file),
        spill=None if section.spill is None else Path(section.spill),
        unproven=RecordRate(per_s=section.unproven_per_s, burst=section.unproven_burst),
        countersign=countersign_of(section.countersign),
    )


def _deny(rows: list[DenySection]) -> Deny:
    return Deny(
        subjects=frozenset((row.issuer, row.subject) for row in rows if row.subject is not None),
        actors=frozenset(row.actor for row in rows if row.actor is not None),
        jtis=frozenset(row.jti for row in rows if row.jti is not None),
        txns=frozenset(row.txn for row in rows if row.txn is not None),
    )


def _inbound_routes(file: SidecarFile, issuers: list[str], findings: Findings) -> InboundRoutes | None:
    """Make the inbound routes; a route that names no issuers has ``issuers``. Return None if there is any problem."""
    sections = file.inbound.routes if file.inbound is not None else []
    named = named_operations(file)
    make = partial(_inbound_route, grpc=_agent_speaks_grpc(file))
    made = [
        findings.attempt(f"inbound.routes[{number}]", make, section, issuers, named)
        for number, section in enumerate(sections)
        if (section.match.path is None) != (section.match.path_prefix is None)
    ]
    routes = [route for route in made if route is not None]
    _report(findings, "inbound.routes", overlaps(routes))
    return None if findings.problems else InboundRoutes(routes)


def _outbound_routes(file: SidecarFile, findings: Findings) -> OutboundRoutes | None:
    """Make the outbound routes. Return None if there is any problem."""
    sections = file.outbound.routes if file.outbound is not None else []
    named = named_operations(file)
    made = [
        findings.attempt(f"outbound.routes[{number}]", _outbound_route, section, file, named)
        for number, section in enumerate(sections)
        if isinstance(section, ConnectRouteSection) or (section.match.host is None) != (section.match.prefix is None)
    ]
    routes = [route for route in made if route is not None]
    _report(findings, "outbound.routes", outbound_overlaps(routes))
    return None if findings.problems else OutboundRoutes(routes)


def _report(findings: Findings, field: str, found: Iterable[Overlap]) -> None:
    for pair in found:
        if pair.first == pair.second:
            findings.add(field, f"two routes are called {pair.first}", "rename one of them")
        else:
            findings.add(
                field, f"{pair.first} and {pair.second} both match {pair.what}", "make one of them more specific"
            )


def _agent_speaks_grpc(file: SidecarFile) -> bool:
    own_port = file.inbound is not None and file.inbound.agent_grpc is not None
    return file.protocols.http2 and (own_port or file.protocols.agent == "h2c")


def _inbound_route(
    section: InboundRouteSection, issuers: list[str], named: frozenset[str], *, grpc: bool
) -> InboundRoute:
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
        pass_token=section.pass_token,
        forwarded=section.forwarded,
        allow_self=section.allow_self,
        delegate_self=section.delegate_self,
        linger_s=section.linger_s,
        max_calls=section.max_calls,
        observe_until=0 if section.observe_until is None else start_of(section.observe_until),
        human=human_of(section.human),
        max_message_bytes=section.max_message_bytes or MAX_MESSAGE_BYTES,
        sessions=section.sessions or "per_subject",
        resource=resource_of(section, issuers),
        filter_lists=section.filter_lists,
        a2a=a2a_rules(section.a2a, grpc=grpc),
    )
    return inbound_operations(section, route, named)


def _outbound_route(section: AnyOutboundSection, file: SidecarFile, named: frozenset[str]) -> AnyRoute | None:
    """Make one route; None without an issuer, which is a problem of its own."""
    if isinstance(section, ConnectRouteSection):
        return connect_route(section)
    if not isinstance(section, OutboundRouteSection):
        return outside_route(section)
    issuer = route_issuer(file, section)
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
        first_token_life_s=section.first_token_life_s,
        observe_until=0 if section.observe_until is None else start_of(section.observe_until),
        crossings=crossings_of(section),
        txn_token=section.txn_token,
        max_message_bytes=section.max_message_bytes or MAX_MESSAGE_BYTES,
        a2a=a2a_rules(section.a2a, grpc=http2 and section.http_version != "1.1"),
        http_version=section.http_version,
    )
    return outbound_operations(section, route, named)
