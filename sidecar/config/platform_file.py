"""Schema and loader of a platform file: the ceiling that every workload's settings must stay below.

It ignores the environment: that belongs to the workload, which the file limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from delegation_core.crossing import Crossing
from delegation_core.errors import ConfigError, Problem
from delegation_core.login_issuer import LoginKind, ScopeFrom
from delegation_core.profile import TrustedIssuer
from sidecar.config.crossing_checks import crossing_of
from sidecar.config.endpoints import endpoint_of, token_endpoint_of, token_endpoint_problems, token_endpoints_of
from sidecar.config.field_types import Hosts, Line, TunnelText, UrlText
from sidecar.config.issuers import key_settings, login_issuer, revocation_list, scope_from, trusted_issuer
from sidecar.config.profiles import kind_of, kind_problems, profile_problems
from sidecar.config.sections import CrossingSection, PlatformIssuerSection, Section, TlsSection, UserIssuerSection
from sidecar.config.validation import Findings, load_validated, repetitions
from sidecar.exchange.revocations import RevocationListSettings
from sidecar.identity.endpoint import Endpoint
from sidecar.identity.issuer import JwksSettings


class PlatformCrossingSection(CrossingSection):
    """A crossing that workloads may list on their routes, with the most scopes that it grants."""

    to: Line = Field(description="issuer of the tokens that they are exchanged for")


class ExchangeEndpointCeiling(Section):
    """An endpoint that adapters of workloads may ask, and the identity that must answer there."""

    url: UrlText = Field(description="its URL")
    tls: TlsSection | None = Field(default=None, description="the identity that must answer there")
    issuers: list[Line] = Field(min_length=1, description="issuers whose tokens it may be shown, logins included")


class PlatformFile(Section):
    """Ceiling of the settings of workloads. Anything not listed is denied to every workload."""

    issuers: list[PlatformIssuerSection] = Field(
        default=[], description="issuers that workloads may trust, and their limits"
    )
    login_issuers: list[UserIssuerSection] = Field(
        default=[], description="issuers where users of workloads may log in"
    )
    allow_self: bool = Field(
        default=False,
        description="true: a route may set it, and an agent may act for itself (`workload_handle`, `token: self`)",
    )
    pass_token: bool = Field(default=False, description="true: a route may set it")
    passthrough: Hosts = Field(
        default=[], description="hosts outside the mesh that agents may call with a credential of their own"
    )
    inject: Hosts = Field(
        default=[], description="hosts outside the mesh that may be called with a static key of the sidecar"
    )
    federate: Hosts = Field(
        default=[],
        description=(
            "hosts outside the mesh that may be called with a provider's token for the workload's identity, and token"
            " endpoints of providers other than the public ones"
        ),
    )
    crossings: list[PlatformCrossingSection] = Field(
        default=[], description="issuers whose tokens a route may exchange for those of another issuer"
    )
    static_client_auth: list[Line] = Field(
        default=[],
        description=(
            "issuers, and URLs of `exchange_endpoints`, where workloads may authenticate by a secret or a static key"
        ),
    )
    exchange_endpoints: list[ExchangeEndpointCeiling] = Field(
        default=[], description="endpoints beside the issuers' own that an adapter may ask"
    )
    redirect_uris: list[UrlText] = Field(
        default=[],
        description="front apps' own URLs where a browser may come back from a login at a token service",
    )
    collectors: list[UrlText] = Field(
        default=[], description="OpenTelemetry collectors that workloads may send spans to, as their `tracing.endpoint`"
    )
    doors: list[UrlText] = Field(
        default=[], description="URLs of the doors that entries may have, as their `entry.door.resource`"
    )
    connect: list[TunnelText] = Field(
        default=[], description="hosts and ports to which agents may open tunnels, as `api.example:443`"
    )
    connect_without_handle: bool = Field(
        default=False, description="true: a tunnel's route may set `without_handle`, so that records name no user"
    )
    observe_until: bool = Field(default=False, description="true: a route may only observe")
    plain: bool = Field(default=False, description="true: a workload may have a port without TLS, `inbound.plain`")
    refuse_other_listeners: bool = Field(
        default=False, description="serve no call while the agent can be reached past its sidecar"
    )
    linger_s: float = Field(default=0.0, ge=0, le=86_400, description="the largest `linger_s` of a route")


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerCeiling:
    """An issuer that workloads may trust, and the URLs where they may exchange tokens of it."""

    trusted: TrustedIssuer
    keys: JwksSettings
    token_endpoints: tuple[str, ...]
    authorization_endpoint: str | None = None
    revocations: RevocationListSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginCeiling:
    """A user issuer whose logins entries may accept, and the most scopes a login may grant."""

    trusted: TrustedIssuer
    keys: JwksSettings
    kind: LoginKind
    scope_from: ScopeFrom
    subject_prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """The ceiling: the flags permit a setting at all, ``linger_s`` is its largest value; ``path`` is the file."""

    issuers: dict[str, IssuerCeiling]
    logins: dict[str, LoginCeiling]
    allow_self: bool
    pass_token: bool
    passthrough: frozenset[str]
    inject: frozenset[str]
    federate: frozenset[str]
    crossings: dict[tuple[str, str], Crossing]  # by both issuers: from, to
    static_client_auth: frozenset[str]
    exchange_endpoints: dict[Endpoint, frozenset[str]]  # with the issuers whose tokens each may be shown
    redirect_uris: frozenset[str]
    collectors: frozenset[str]
    doors: frozenset[str]
    connect: frozenset[str]
    connect_without_handle: bool
    observe_until: bool
    plain: bool
    refuse_other_listeners: bool
    linger_s: float
    path: str = ""

    def names(self) -> set[str]:
        """Return the audiences, without a trailing slash, for which the platform's servers may accept a JWT-SVID."""
        names = {url for issuer in self.issuers for url in (issuer, token_endpoint_of(issuer))}
        names |= {url for one in self.issuers.values() for url in one.token_endpoints} | set(self.logins)
        return {name.rstrip("/") for name in names}


def load_platform(path: Path) -> Platform:
    """Load the ceiling of a platform file.

    Raises:
        ConfigError: every problem; its field starts with ``platform``.
    """
    try:
        return replace(load_validated(path, {}, PlatformFile, _platform), path=str(path))
    except ConfigError as error:
        raise ConfigError(
            [Problem(f"platform {problem.field}", problem.wrong, problem.fix) for problem in error.problems]
        ) from error


def _platform(file: PlatformFile, findings: Findings) -> Platform | None:
    findings.extend(_duplicates, file)
    issuers = findings.attempt("issuers", _issuers, file, findings) or {}
    logins = findings.attempt("login_issuers", _logins, file, findings) or {}
    crossings = findings.attempt("crossings", _crossings, file) or {}
    endpoints = findings.attempt("exchange_endpoints", _endpoints, file) or {}
    if findings.problems:
        return None
    return Platform(
        issuers=issuers,
        logins=logins,
        allow_self=file.allow_self,
        pass_token=file.pass_token,
        passthrough=frozenset(file.passthrough),
        inject=frozenset(file.inject),
        federate=frozenset(file.federate),
        crossings=crossings,
        static_client_auth=frozenset(file.static_client_auth),
        exchange_endpoints=endpoints,
        redirect_uris=frozenset(file.redirect_uris),
        collectors=frozenset(file.collectors),
        doors=frozenset(file.doors),
        connect=frozenset(file.connect),
        connect_without_handle=file.connect_without_handle,
        observe_until=file.observe_until,
        plain=file.plain,
        refuse_other_listeners=file.refuse_other_listeners,
        linger_s=file.linger_s,
    )


def _duplicates(file: PlatformFile) -> Iterator[Problem]:
    yield from repetitions("issuers", (section.issuer for section in file.issuers))
    for number, section in enumerate(file.issuers):
        yield from token_endpoint_problems(section, f"issuers[{number}]")
    yield from repetitions("login_issuers", (section.issuer for section in file.login_issuers))
    yield from repetitions("crossings", (f"from {section.from_} to {section.to}" for section in file.crossings))


def _issuers(file: PlatformFile, findings: Findings) -> dict[str, IssuerCeiling]:
    issuers: dict[str, IssuerCeiling] = {}
    for number, section in enumerate(file.issuers):
        errors = list(profile_problems(section, f"issuers[{number}]"))
        findings.problems += errors
        if not errors and (ceiling := findings.attempt(f"issuers[{number}]", _issuer, section)) is not None:
            issuers[section.issuer] = ceiling
    return issuers


def _logins(file: PlatformFile, findings: Findings) -> dict[str, LoginCeiling]:
    logins: dict[str, LoginCeiling] = {}
    for number, user in enumerate(file.login_issuers):
        findings.problems += kind_problems(user, f"login_issuers[{number}]")
        if (login := findings.attempt(f"login_issuers[{number}]", _login, user)) is not None:
            logins[user.issuer] = login
    return logins


def _crossings(file: PlatformFile) -> dict[tuple[str, str], Crossing]:
    return {(section.from_, section.to): crossing_of(section) for section in file.crossings}


def _endpoints(file: PlatformFile) -> dict[Endpoint, frozenset[str]]:
    return {endpoint_of(one.url, one.tls): frozenset(one.issuers) for one in file.exchange_endpoints}


def _issuer(section: PlatformIssuerSection) -> IssuerCeiling:
    found = section.revocations
    return IssuerCeiling(
        trusted=trusted_issuer(section),
        keys=key_settings(section, section.tls),
        token_endpoints=token_endpoints_of(section),
        authorization_endpoint=section.authorization_endpoint,
        revocations=revocation_list(section, section.tls if found is None else found.tls or section.tls),
    )


def _login(section: UserIssuerSection) -> LoginCeiling:
    return LoginCeiling(
        trusted=login_issuer(section),
        keys=key_settings(section, section.tls),
        kind=kind_of(section) or LoginKind.ACCESS_TOKEN,  # a missing kind is a problem of its own
        scope_from=scope_from(section),
        subject_prefix=section.subject_prefix,
    )
