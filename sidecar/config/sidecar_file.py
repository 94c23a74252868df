"""A sidecar's settings file → ``SidecarSettings``."""

from __future__ import annotations

from collections.abc import Mapping
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
from sidecar.config.loading import Findings, load_model
from sidecar.config.platform_checks import above_ceiling, loosened
from sidecar.config.platform_file import Platform, load_platform
from sidecar.config.sections import KeySource, RecordsSection, TlsSection
from sidecar.config.settings import InboundSettings, OutboundSettings, RecordSettings, SidecarSettings
from sidecar.config.sidecar_checks import sidecar_problems
from sidecar.config.sidecar_model import (
    DenySection,
    ExchangeSection,
    SidecarFile,
)
from sidecar.config.sidecar_routes import inbound_routes_of, outbound_routes_of, upstream_of
from sidecar.delegation.policy import Deny, Entry, LoginKind, UserIssuer
from sidecar.delegation.profile import TrustedIssuer
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.errors import Problem
from sidecar.exchange.sts import ExchangeSettings
from sidecar.identity.issuer import JwksSettings
from sidecar.observe.unproven import RecordRate
from sidecar.proxy.admission import ConnectionLimits
from sidecar.proxy.bypass import ListenerRule
from sidecar.proxy.memory import MemoryLimits
from sidecar.wire.h1_client import ClientLimits
from sidecar.wire.h1_server import ServerLimits
from sidecar.wire.resolver import ResolverSettings

_IN_A_POD: Final = "KUBERNETES_SERVICE_HOST"  # the kubelet sets it in every container


def load_sidecar(path: Path, environ: Mapping[str, str], platform: Path | None = None) -> SidecarSettings:
    """The settings of one sidecar, from its file and the environment, below the ceiling of the ``platform`` file.

    Raises:
        ConfigError: every problem, each with its field and its cure.
    """
    found: list[SidecarSettings] = []
    of_platform = Findings()
    ceiling = None if platform is None else of_platform.attempt("platform", load_platform, platform)

    def look_over(document: dict[str, object]) -> list[Problem]:
        return [*of_platform.problems, *(loosened(document, ceiling) if ceiling is not None else ())]

    def cross_check(file: SidecarFile) -> list[Problem]:
        findings = Findings()
        findings.problems += sidecar_problems(file)
        settings = _Build(file, environ, findings, ceiling).settings()
        if settings is not None:
            found.append(settings)
        return findings.problems

    load_model(path, environ, SidecarFile, cross_check=cross_check, look_over=look_over)
    return found[0]


class _Build:
    """Makes every room's settings from one file; what a room refuses becomes a problem of the field it came from."""

    def __init__(
        self, file: SidecarFile, environ: Mapping[str, str], findings: Findings, platform: Platform | None
    ) -> None:
        self._platform = platform
        self._file = file
        self._environ = environ
        self._findings = findings

    def settings(self) -> SidecarSettings | None:
        """All of it; None if anything is wrong."""
        file, findings = self._file, self._findings
        identity = findings.attempt("identity", identity_of, file.identity, self._environ)
        keys = self._keys()
        issuers = self._trusted_issuers()
        inbound_routes = inbound_routes_of(file, list(issuers), findings)
        outbound_routes = outbound_routes_of(file, findings)
        exchange = findings.attempt("exchange", self._exchange)
        if identity is not None and exchange is not None:
            findings.problems += actor_token_problems(identity, exchange.issuer)
        entry = findings.attempt("entry", self._entry)
        inbound = findings.attempt("inbound", self._inbound)
        outbound = findings.attempt("outbound", self._outbound)
        if self._platform is not None:
            findings.problems += above_ceiling(
                file, self._platform, issuers=issuers, keys=keys, exchange=exchange, entry=entry
            )
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
            listener_rule=self._listener_rule(),
        )

    def _keys(self) -> tuple[JwksSettings, ...]:
        file = self._file
        sections: list[tuple[str, KeySource]] = [
            *((f"issuers[{number}]", section) for number, section in enumerate(file.issuers)),
            *((f"entry.issuers[{n}]", section) for n, section in enumerate(file.entry.issuers if file.entry else [])),
        ]
        keys: dict[str, JwksSettings] = {}
        for field, section in sections:
            made = self._findings.attempt(field, key_settings, section, self._tls_of(section))
            if made is not None and keys.setdefault(section.issuer, made) != made:
                self._findings.add(field, "has other keys than the same issuer elsewhere", "write both alike")
        return tuple(keys.values())

    def _tls_of(self, section: KeySource) -> TlsSection | None:
        """Who answers at the issuer's URL. The token service need not be told twice who it is."""
        exchange = self._file.exchange
        if section.tls is not None or exchange is None or section.issuer != exchange.issuer:
            return section.tls
        return _exchange_tls(exchange) if same_origin(section.jwks, _token_endpoint(exchange)) else None

    def _trusted_issuers(self) -> dict[str, TrustedIssuer]:
        issuers: dict[str, TrustedIssuer] = {}
        for section in self._file.issuers:
            try:
                issuers[section.issuer] = trusted_issuer(section)
            except ValueError:  # told by the cross-check already
                continue
        return issuers

    def _exchange(self) -> ExchangeSettings | None:
        section = self._file.exchange
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

    def _entry(self) -> Entry | None:
        section = self._file.entry
        if section is None:
            return None
        users = [
            with_usable_profile(user, f"entry.issuers[{number}]", self._findings)
            for number, user in enumerate(section.issuers)
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

    def _inbound(self) -> InboundSettings | None:
        section = self._file.inbound
        if section is None:
            return None
        return InboundSettings(
            listen=parse_address(section.listen),
            agent=upstream_of(section.agent),
            connections=ConnectionLimits(**section.connections.model_dump()),
            limits=ServerLimits(**section.limits.model_dump()),
            upstream_limits=ClientLimits(**section.upstream_limits.model_dump()),
        )

    def _listener_rule(self) -> ListenerRule | None:
        section = self._file.inbound
        if section is None:
            return None
        pod = section.network == "pod" or (section.network == "auto" and _IN_A_POD in self._environ)
        return ListenerRule(
            agent_port=parse_origin(section.agent).port,
            allowed=frozenset(section.other_listeners),
            pod=pod,
            refuse=self._platform is not None and self._platform.refuse_other_listeners,
        )

    def _outbound(self) -> OutboundSettings | None:
        section = self._file.outbound
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
    """Where records go."""
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
