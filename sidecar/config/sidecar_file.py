"""Loader of a sidecar's settings file: validates it and makes ``SidecarSettings``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from sidecar.config.addresses import parse_address, parse_origin
from sidecar.config.identity import actor_token_problems, identity_of
from sidecar.config.issuers import (
    key_settings,
    kind_of,
    login_issuer,
    renamed,
    same_origin,
    scope_from,
    trusted_issuer,
    with_usable_profile,
)
from sidecar.config.platform_checks import CEILING_CHECKS, Own, loosened
from sidecar.config.platform_file import Platform, load_platform
from sidecar.config.sections import KeySource, RecordsSection, TlsSection
from sidecar.config.settings import InboundSettings, OutboundSettings, RecordSettings, SidecarSettings
from sidecar.config.sidecar_checks import CHECKS
from sidecar.config.sidecar_model import (
    DenySection,
    ExchangeSection,
    SidecarFile,
)
from sidecar.config.sidecar_routes import inbound_routes_of, outbound_routes_of, upstream_of
from sidecar.config.validation import Findings, load_validated
from sidecar.delegation.policy import Deny, Entry, LoginKind, UserIssuer
from sidecar.delegation.profile import TrustedIssuer
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Problem
from sidecar.exchange.sts import ExchangeSettings
from sidecar.identity.issuer import JwksSettings
from sidecar.observe.unproven import RecordRate
from sidecar.proxy.bypass import ListenerRule
from sidecar.proxy.connection_limits import ConnectionLimits
from sidecar.proxy.memory_pressure import MemoryLimits
from sidecar.wire.h1_client import ClientLimits
from sidecar.wire.h1_server import ServerLimits
from sidecar.wire.resolver import ResolverSettings

_IN_A_POD: Final = "KUBERNETES_SERVICE_HOST"  # the kubelet sets it in every container


def load_sidecar(path: Path, environ: Mapping[str, str], platform: Path | None = None) -> SidecarSettings:
    """Load the settings of one sidecar from its file and the environment, below the ceiling of the ``platform`` file.

    Raises:
        ConfigError: every problem, each with its field and its cure.
    """
    of_platform = Findings()
    ceiling = None if platform is None else of_platform.attempt("platform", load_platform, platform)

    def look_over(document: dict[str, object]) -> list[Problem]:
        return [*of_platform.problems, *(loosened(document, ceiling) if ceiling is not None else ())]

    def build(file: SidecarFile, findings: Findings) -> SidecarSettings | None:
        for check in CHECKS:
            findings.extend(check, file)
        return _settings(file, environ, findings, ceiling)

    return load_validated(path, environ, SidecarFile, build, look_over=look_over)


def _settings(
    file: SidecarFile, environ: Mapping[str, str], findings: Findings, platform: Platform | None
) -> SidecarSettings | None:
    """Make every room's settings. A refusal by a room is a problem of the field it came from; None if there is any."""
    identity = findings.attempt("identity", lambda: identity_of(file.identity, environ))
    keys = findings.attempt("issuers", _keys, file, findings) or ()
    issuers = findings.attempt("issuers", _trusted_issuers, file) or {}
    inbound_routes = findings.attempt("inbound.routes", inbound_routes_of, file, list(issuers), findings)
    outbound_routes = findings.attempt("outbound.routes", outbound_routes_of, file, findings)
    exchange = findings.attempt("exchange", _exchange, file)
    if identity is not None and exchange is not None:
        findings.extend(actor_token_problems, identity, exchange.issuer)
    entry = findings.attempt("entry", _entry, file, findings)
    inbound = findings.attempt("inbound", _inbound, file)
    outbound = findings.attempt("outbound", _outbound, file)
    if platform is not None:
        own = Own(issuers=issuers, keys=keys, exchange=exchange, entry=entry)
        for check in CEILING_CHECKS:
            findings.extend(check, file, platform, own)
    if findings.problems or identity is None or inbound_routes is None or outbound_routes is None:
        return None
    return SidecarSettings(
        identity=identity,
        keys=keys,
        needed_issuers=frozenset().union(
            *(route.issuers for route in inbound_routes.routes), {exchange.issuer} if exchange else ()
        ),
        issuers=issuers,
        audiences=frozenset(file.inbound.audiences if file.inbound is not None else ()),
        inbound=inbound,
        outbound=outbound,
        inbound_routes=inbound_routes,
        outbound_routes=outbound_routes,
        exchange=exchange,
        entry=entry,
        deny=_deny(file.deny),
        records=records(file.records),
        probe=parse_address(file.probe.listen),
        agent_probes=tuple(file.probe.agent),
        drain_s=file.drain_s,
        memory=MemoryLimits(**file.memory.model_dump()),
        max_memory_mib=file.max_memory_mib,
        admin_socket=None if file.admin.socket is None else Path(file.admin.socket),
        listener_rule=_listener_rule(file, environ, refuse=platform is not None and platform.refuse_other_listeners),
    )


def _keys(file: SidecarFile, findings: Findings) -> tuple[JwksSettings, ...]:
    sections: list[tuple[str, KeySource]] = [
        *((f"issuers[{number}]", section) for number, section in enumerate(file.issuers)),
        *((f"entry.issuers[{n}]", section) for n, section in enumerate(file.entry.issuers if file.entry else [])),
    ]
    keys: dict[str, JwksSettings] = {}
    for field, section in sections:
        made = findings.attempt(field, key_settings, section, _tls_of(section, file.exchange))
        if made is not None and keys.setdefault(section.issuer, made) != made:
            findings.add(field, "has other keys than the same issuer elsewhere", "write both alike")
    return tuple(keys.values())


def _tls_of(section: KeySource, exchange: ExchangeSection | None) -> TlsSection | None:
    """Return the identity that must answer at the issuer's URL. That of the token service may be written once."""
    if section.tls is not None or exchange is None or section.issuer != exchange.issuer:
        return section.tls
    return _exchange_tls(exchange) if same_origin(section.jwks, _token_endpoint(exchange)) else None


def _trusted_issuers(file: SidecarFile) -> dict[str, TrustedIssuer]:
    issuers: dict[str, TrustedIssuer] = {}
    for section in file.issuers:
        with suppress(ValueError):  # the checks report it
            issuers[section.issuer] = trusted_issuer(section)
    return issuers


def _exchange(file: SidecarFile) -> ExchangeSettings | None:
    section = file.exchange
    if section is None:
        return None
    tls = _exchange_tls(section)
    with renamed("url", "token_endpoint"):
        return ExchangeSettings(
            issuer=section.issuer,
            token_endpoint=_token_endpoint(section),
            peer=SpiffeId(tls.peer) if tls.peer is not None else None,
            ca_file=tls.ca,
            timeout_s=section.timeout_s,
            max_response_bytes=section.max_response_bytes,
            retries=section.retries,
            adapter=section.adapter,
        )


def _entry(file: SidecarFile, findings: Findings) -> Entry | None:
    section = file.entry
    if section is None:
        return None
    users = [
        with_usable_profile(user, f"entry.issuers[{number}]", findings) for number, user in enumerate(section.issuers)
    ]
    logins = {
        user.issuer: UserIssuer(
            trusted=login_issuer(user),
            kind=kind_of(user) or LoginKind.ACCESS_TOKEN,  # a missing kind is a problem of its own
            client_id=user.client_id,
            scope_from=scope_from(user),
            subject_prefix=user.subject_prefix,
        )
        for user in users
    }
    return Entry(issuers=logins, may_call=frozenset(section.may_call), delegation_life_s=section.delegation_life_s)


def _inbound(file: SidecarFile) -> InboundSettings | None:
    section = file.inbound
    if section is None:
        return None
    return InboundSettings(
        listen=parse_address(section.listen),
        agent=upstream_of(section.agent),
        connections=ConnectionLimits(**section.connections.model_dump()),
        limits=ServerLimits(**section.limits.model_dump()),
        upstream_limits=ClientLimits(**section.upstream_limits.model_dump()),
    )


def _listener_rule(file: SidecarFile, environ: Mapping[str, str], *, refuse: bool) -> ListenerRule | None:
    section = file.inbound
    if section is None:
        return None
    return ListenerRule(
        agent_port=parse_origin(section.agent).port,
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
    """Make the settings of records."""
    return RecordSettings(
        file=None if isinstance(section.sink, str) else Path(section.sink.file),
        spill=None if section.spill is None else Path(section.spill),
        unproven=RecordRate(per_s=section.unproven_per_s, burst=section.unproven_burst),
    )


def _exchange_tls(section: ExchangeSection) -> TlsSection:
    return section.tls if section.tls is not None else TlsSection(peer=section.peer)


def _token_endpoint(section: ExchangeSection) -> str:
    return section.token_endpoint or f"{section.issuer.rstrip('/')}/token"


def _deny(rows: list[DenySection]) -> Deny:
    return Deny(
        subjects=frozenset((row.issuer, row.subject) for row in rows if row.subject is not None),
        actors=frozenset(row.actor for row in rows if row.actor is not None),
        jtis=frozenset(row.jti for row in rows if row.jti is not None),
        txns=frozenset(row.txn for row in rows if row.txn is not None),
    )
