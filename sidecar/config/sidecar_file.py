"""Loader of a sidecar's settings file: validates it and makes ``SidecarSettings``.

A refusal by a room, or two routes that match the same request, is a problem of the field that it came from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from delegation_core.deny_list import DenyListError, parse_deny_list
from delegation_core.errors import ConfigError, Problem
from delegation_core.inbound_routes import InboundRoutes, inbound_overlaps
from delegation_core.outbound_routes import OutboundRoutes, outbound_overlaps
from delegation_core.policy import Deny
from delegation_core.route import Overlap
from delegation_core.steps import at_once
from sidecar.config.addresses import parse_address
from sidecar.config.exchange_checks import (
    adapter_problems,
    audience_problems,
    client_actor_problems,
    exchange_ceiling_problems,
    exchange_of,
    svid_problems,
)
from sidecar.config.identity import identity_of
from sidecar.config.inbound_checks import inbound_of, inbound_route, listener_rule_of
from sidecar.config.issuers import countersign_of, key_sets, revocation_lists, trusted_issuers
from sidecar.config.outbound_checks import outbound_of, outbound_route
from sidecar.config.own_authority_checks import workload_handle_of
from sidecar.config.platform_checks import (
    CEILING_CHECKS,
    Own,
    forbidden_settings,
)
from sidecar.config.platform_file import Platform, load_platform
from sidecar.config.record_settings import RecordSettings
from sidecar.config.sections import RecordsSection
from sidecar.config.settings import ProtocolSettings, SidecarSettings
from sidecar.config.sidecar_checks import CHECKS
from sidecar.config.sidecar_model import DenySection, SidecarFile
from sidecar.config.tracing_checks import tracing_of, tracing_problems
from sidecar.config.validation import Findings, load_validated
from sidecar.exchange.sts import ExchangeSettings
from sidecar.exchange.txn_service import TxnTokenSettings
from sidecar.features.door.settings import door_ceiling_problems, door_problems, door_settings_of, issuers_at_door
from sidecar.features.logins.settings import entry_of, login_ceiling_problems, login_problems
from sidecar.features.observing.settings import observe_problems, plain_problems
from sidecar.features.operations.settings import named_operations
from sidecar.features.outside.federate_settings import provider_svid_problems
from sidecar.features.outside.settings import ConnectRouteSection, outside_ceiling_problems
from sidecar.features.transaction_tokens.settings import txn_ceiling_problems, txn_token_problems, txn_tokens_of
from sidecar.observe.record_rate import RecordRate
from sidecar.proxy.listening.memory_pressure import MemoryLimits


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
        ConfigError: every problem, each with its field and its fix.
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
    """Make the settings; None if there are problems. A ValueError of a part is a problem of the field it comes from."""
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
    entry = findings.attempt("entry", entry_of, file, findings)
    findings.extend(door_problems, file)
    inbound = findings.attempt("inbound", inbound_of, file)
    outbound = findings.attempt("outbound", outbound_of, file)
    findings.extend(outside_ceiling_problems, file, platform)
    findings.extend(plain_problems, file, platform)
    if platform is not None:
        own = Own(issuers=issuers, keys=keys, revocations=lists, exchanges=exchanges, entry=entry)
        _check_ceiling(file, platform, own, txn_tokens, findings)
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
        deny_file=None if file.deny_file is None else Path(file.deny_file),
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
        included=tuple(findings.included.followed),
        used=findings.included.used,
        listener_rule=listener_rule_of(file, environ, refuse=platform is not None and platform.refuse_other_listeners),
    )


def _check_ceiling(
    file: SidecarFile, platform: Platform, own: Own, txn_tokens: TxnTokenSettings | None, findings: Findings
) -> None:
    findings.extend(exchange_ceiling_problems, file, platform, own.exchanges)
    findings.extend(login_ceiling_problems, file, platform)
    findings.extend(door_ceiling_problems, file, platform)
    findings.extend(txn_ceiling_problems, file, platform, txn_tokens)
    for check in CEILING_CHECKS:
        findings.extend(check, file, platform, own)


def _exchanges(file: SidecarFile, findings: Findings) -> tuple[ExchangeSettings, ...]:
    """Make the settings of the token services, without those that have a problem."""
    made = [findings.attempt(field, exchange_of, section) for field, section in file.exchange_sections()]
    return tuple(exchange for exchange in made if exchange is not None)


def records(section: RecordsSection) -> RecordSettings:
    """Make the settings of records. Raises ValueError for an unusable endpoint."""
    return RecordSettings(
        file=None if isinstance(section.sink, str) else Path(section.sink.file),
        spill=None if section.spill is None else Path(section.spill),
        unproven=RecordRate(per_s=section.unproven_per_s, burst=section.unproven_burst),
        countersign=countersign_of(section.countersign),
    )


def with_deny_file(settings: SidecarSettings) -> SidecarSettings:
    """Return the settings with the rows of their deny file, if it exists here. For commands that decide offline.

    Raises:
        ConfigError: it cannot be used.
    """
    path = settings.deny_file
    if path is None or missing_deny_file(settings) is not None:
        return settings
    try:
        return replace(settings, deny=settings.deny.joined(at_once(parse_deny_list(path.read_bytes()))))
    except (DenyListError, OSError) as error:
        wrong, fix = f"{path} cannot be used: {error}", 'write {"deny": [rows]}, with rows as those of deny'
        raise ConfigError([Problem("deny_file", wrong, fix)]) from None


def missing_deny_file(settings: SidecarSettings) -> Path | None:
    """Return the deny file that the settings name, if it does not exist here."""
    path = settings.deny_file
    return None if path is None or path.exists() else path


def _deny(rows: list[DenySection]) -> Deny:
    return Deny(
        subjects=frozenset((row.issuer, row.subject) for row in rows if row.subject is not None),
        actors=frozenset(row.actor for row in rows if row.actor is not None),
        jtis=frozenset(row.jti for row in rows if row.jti is not None),
        txns=frozenset(row.txn for row in rows if row.txn is not None),
    )


def _inbound_routes(file: SidecarFile, issuers: list[str], findings: Findings) -> InboundRoutes | None:
    """Make the inbound routes; a route that names no issuers has ``issuers``. Return None if there is any problem."""
    named = named_operations(file)
    make = partial(inbound_route, grpc=_agent_speaks_grpc(file))
    made = [
        findings.attempt(field, make, section, issuers, named)
        for field, section in file.inbound_routes()
        if (section.match.path is None) != (section.match.path_prefix is None)
    ]
    routes = [route for route in made if route is not None]
    _report(findings, "inbound.routes", inbound_overlaps(routes))
    return None if findings.problems else InboundRoutes(routes)


def _outbound_routes(file: SidecarFile, findings: Findings) -> OutboundRoutes | None:
    """Make the outbound routes. Return None if there is any problem."""
    named = named_operations(file)
    made = [
        findings.attempt(field, outbound_route, section, file, named)
        for field, section in file.outbound_routes()
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
