"""Builders of trust from the sections of issuers, logins and the token service, and checks of issuer sections."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, Protocol, TypeVar
from urllib.parse import urlsplit

from sidecar.config.exchange_model import ExchangeEndpointSection, ExchangeSection
from sidecar.config.sections import (
    ActorRow,
    CountersignSection,
    IssuerSection,
    KeySource,
    PlatformIssuerSection,
    ProfileSection,
    TlsSection,
    UserIssuerSection,
)
from sidecar.config.sidecar_model import EntrySection, SidecarFile, exchange_sections
from sidecar.config.validation import Findings
from sidecar.delegation.door import Door
from sidecar.delegation.policy import Entry, LoginKind, ScopeFrom, UserIssuer
from sidecar.delegation.profile import PRESETS, ActorForm, IssuerProfile, TrustedIssuer
from sidecar.delegation.spiffe_id import SpiffeId, TrustDomain
from sidecar.errors import Problem
from sidecar.exchange.countersigner import CountersignSettings
from sidecar.exchange.revocations import RevocationListSettings
from sidecar.identity.endpoint import Endpoint, is_loopback
from sidecar.identity.issuer import JwksSettings

MakeDoor = Callable[[EntrySection, Mapping[str, UserIssuer]], Door | None]

U = TypeVar("U", bound=UserIssuerSection)
_KINDS: Final = {"oidc-id-token": LoginKind.ID_TOKEN, "oidc-access-token": LoginKind.ACCESS_TOKEN}
LOGIN_PRESETS: Final = frozenset(_KINDS)
DOOR_COOLDOWN_S: Final = 5.0  # in place of 30
_TABLES: Final = frozenset({ActorForm.TABLE, ActorForm.CLIENT_TABLE})


def key_settings(section: KeySource, tls: TlsSection | None) -> JwksSettings:
    """Make the settings for fetching the issuer's keys. Raises ValueError as ``JwksSettings`` does."""
    times = {
        name: value
        for name in ("refresh_s", "max_age_s", "cooldown_s", "timeout_s")
        if (value := getattr(section, name)) is not None
    }
    with renamed("url", "jwks"):
        return JwksSettings(
            issuer=section.issuer,
            url=section.jwks,
            peer=SpiffeId(tls.peer) if tls is not None and tls.peer is not None else None,
            ca_file=tls.ca if tls is not None else None,
            **times,
        )


@contextmanager
def renamed(member: str, setting: str) -> Iterator[None]:
    """Name the ``setting`` in a room's refusal, which names the room's own ``member``."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).replace(f"{member}: ", f"{setting}: ", 1)) from error


def same_origin(first: str, second: str) -> bool:
    """Return True if two URLs have the same scheme, host and port."""
    one, other = urlsplit(first), urlsplit(second)
    return (one.scheme, one.hostname, one.port) == (other.scheme, other.hostname, other.port)


def profile_of(section: str | ProfileSection) -> IssuerProfile:
    """Make the profile: the preset with the section's changes. Raises ValueError for a contradiction."""
    if isinstance(section, str):
        return PRESETS[section]
    changes: dict[str, object] = {
        name: value
        for name in (
            "act_iss",
            "subject_claim",
            "subject_issuer",
            "client_claim",
            "scope_claim",
            "scope_shape",
            "max_act_depth",
            "leeway_s",
            "max_lifetime_s",
        )
        if (value := getattr(section, name)) is not None
    }
    if section.actor is not None:
        changes["actor"] = ActorForm(section.actor)
    if section.typ is not None:
        changes["typ"] = frozenset(
            None if typ is None else typ.lower().removeprefix("application/") for typ in section.typ
        )
    if section.algorithms is not None:
        changes["algorithms"] = frozenset(section.algorithms)
    if section.required_claims is not None:
        changes["required_claims"] = PRESETS[section.preset].required_claims.union(section.required_claims)
    if section.required_values is not None:
        values = {claim: frozenset(texts) for claim, texts in section.required_values.items()}
        changes["required_values"] = {**PRESETS[section.preset].required_values, **values}
    if section.actor_table is not None:
        changes["actor_table"] = _table(section.actor_table)
    return dataclasses.replace(PRESETS[section.preset], **changes)  # type: ignore[arg-type]  # checked by the model


def trusted_issuer(section: IssuerSection) -> TrustedIssuer:
    """Make an issuer of delegated tokens, with its limits. Raises ValueError as ``profile_of`` does."""
    return TrustedIssuer(
        issuer=section.issuer,
        profile=profile_of(section.profile),
        scopes=frozenset(section.scopes),
        actor_trust_domains=frozenset(map(TrustDomain, section.actor_trust_domains)),
    )


def login_issuer(section: UserIssuerSection) -> TrustedIssuer:
    """Make a user issuer: it names no actors, and its tokens grant the scopes of ``scope_from``."""
    return TrustedIssuer(
        issuer=section.issuer,
        profile=profile_of(section.profile),
        scopes=frozenset().union(*section.scope_from.map.values()),
        actor_trust_domains=frozenset(),
    )


def with_usable_profile(section: U, field: str, findings: Findings) -> U:
    """Return the section; if its profile is contradictory, report that and return it with the preset alone."""
    if findings.attempt(f"{field}.profile", profile_of, section.profile) is not None:
        return section
    return section.model_copy(update={"profile": preset_of(section.profile)})


def scope_from(section: UserIssuerSection) -> ScopeFrom:
    """Make the map from a login token to scopes."""
    return ScopeFrom(
        claim=section.scope_from.claim,
        map={value: frozenset(scopes) for value, scopes in section.scope_from.map.items()},
    )


def kind_of(section: UserIssuerSection) -> LoginKind | None:
    """Return the kind of login token: as written, else that of the preset; None if neither has one."""
    if section.kind is not None:
        return LoginKind(section.kind)
    return _KINDS.get(preset_of(section.profile))


def kind_problems(section: UserIssuerSection, field: str) -> Iterator[Problem]:
    """Report a missing kind, or one that contradicts the preset: sidecar and token service must have the same."""
    told = _KINDS.get(preset_of(section.profile))
    if kind_of(section) is None:
        yield Problem(f"{field}.kind", "is missing, and the profile does not tell", "write id_token or access_token")
    elif told is not None and told is not kind_of(section):
        yield Problem(f"{field}.kind", "is not the kind that the profile is for", "remove it, or change the profile")


def is_production(section: KeySource) -> bool:
    """Return True for an issuer in production: its name and its keys are on the network, over https."""
    return all(_is_remote_https(url) for url in (section.issuer, section.jwks))


def development_problems(sections: Sequence[tuple[str, KeySource]]) -> Iterator[Problem]:
    """Report an issuer over clear http beside a production one: it accepts anybody who knows a name.

    ``sections`` are the issuers with their fields.
    """
    if not any(is_production(section) for _, section in sections):
        return
    for field, section in sections:
        if section.issuer.lower().startswith("http:"):
            yield Problem(
                f"{field}.issuer",
                "is for development only, and stands beside a production issuer",
                "remove it, or use issuers on loopback alone",
            )


class Profiled(Protocol):
    """A section with a profile."""

    @property
    def profile(self) -> str | ProfileSection:
        """The preset, or a preset with changes."""


def profile_problems(section: Profiled, field: str) -> Iterator[Problem]:
    """Report a profile from which no actor can be read: an issuer of delegated tokens has to name them."""
    if preset_of(section.profile) in LOGIN_PRESETS:
        yield Problem(f"{field}.profile", "is for login tokens, which name no actor", "list it where users log in")
        return
    findings = Findings()
    profile = findings.attempt(f"{field}.profile", lambda: profile_of(section.profile))
    yield from findings.problems
    if profile is not None and profile.actor in _TABLES and not profile.actor_table:
        yield Problem(f"{field}.profile", "maps no actor at all", "write a mapping with preset and actor_table")


def _is_remote_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and not is_loopback(parts.hostname or "localhost")


def preset_of(profile: str | ProfileSection) -> str:
    """Return the preset that a profile is, or changes."""
    return profile if isinstance(profile, str) else profile.preset


def _table(rows: list[ActorRow]) -> dict[tuple[str | None, str], SpiffeId]:
    table: dict[tuple[str | None, str], SpiffeId] = {}
    for row in rows:
        if (row.iss, row.sub) in table:
            raise ValueError("actor_table: one actor has two rows; keep one of them")
        table[row.iss, row.sub] = SpiffeId(row.spiffe_id)
    return table


def key_sets(
    file: SidecarFile, findings: Findings, at_door: Callable[[SidecarFile], Collection[str]]
) -> tuple[JwksSettings, ...]:
    """Make the key settings of all issuers of a sidecar, one for each issuer.

    Those of ``at_door`` are asked for unknown keys more often: strangers can name such keys there without end, and
    until the next fetch a new key of the issuer's is unknown as well.
    """
    sections: list[tuple[str, KeySource]] = [
        *((f"issuers[{number}]", section) for number, section in enumerate(file.issuers)),
        *((f"entry.issuers[{n}]", section) for n, section in enumerate(file.entry.issuers if file.entry else [])),
    ]
    often = at_door(file)
    found = [
        (field, findings.attempt(field, key_settings, _asked_often(one, often), _tls_of(one, file)))
        for field, one in sections
    ]
    if (txn := file.txn_tokens) is not None:
        source = KeySource(issuer=txn.issuer, jwks=txn.jwks, tls=txn.tls)
        found.append(("txn_tokens", findings.attempt("txn_tokens", key_settings, source, txn.tls)))
    keys: dict[str, JwksSettings] = {}
    for field, made in found:
        if made is not None and keys.setdefault(made.issuer, made) != made:
            findings.add(field, "has other keys than the same issuer elsewhere", "write both alike")
    return tuple(keys.values())


def _asked_often(source: KeySource, at_door: Collection[str]) -> KeySource:
    if source.cooldown_s is not None or source.issuer not in at_door:
        return source
    return source.model_copy(update={"cooldown_s": DOOR_COOLDOWN_S})


def revocation_lists(file: SidecarFile, findings: Findings) -> tuple[RevocationListSettings, ...]:
    """Make the settings of the lists of revocations, one for each issuer that has one."""
    made = [
        findings.attempt(f"issuers[{number}].revocations", _revocation_list, section, file)
        for number, section in enumerate(file.issuers)
        if section.revocations is not None
    ]
    return tuple(one for one in made if one is not None)


def _revocation_list(section: IssuerSection, file: SidecarFile) -> RevocationListSettings | None:
    found = section.revocations
    return None if found is None else revocation_list(section, found.tls or _tls_of(section, file, url=found.url))


def revocation_list(section: IssuerSection, tls: TlsSection | None) -> RevocationListSettings | None:
    """Make the settings of an issuer's list, at whose URL ``tls`` must answer. Raises ValueError as ``Endpoint``."""
    found = section.revocations
    if found is None:
        return None
    return RevocationListSettings(
        issuer=section.issuer,
        endpoint=endpoint_of(found.url, tls),
        algorithms=profile_of(section.profile).algorithms,
        every_s=found.every_s,
        max_stale_s=found.max_stale_s,
    )


def _tls_of(section: KeySource, file: SidecarFile, *, url: str | None = None) -> TlsSection | None:
    """Return the identity that must answer at the issuer's URL. That of its token service may be written once."""
    url = url or section.jwks
    exchange = next((one for _, one in exchange_sections(file) if one.issuer == section.issuer), None)
    if section.tls is not None or exchange is None:
        return section.tls if same_origin(url, section.jwks) else None
    return tls_of(exchange) if any(same_origin(url, one) for one in token_endpoints_of(exchange)) else None


def trusted_issuers(file: SidecarFile) -> dict[str, TrustedIssuer]:
    """Make the issuers of delegated tokens, without those that a check reports."""
    issuers: dict[str, TrustedIssuer] = {}
    for section in file.issuers:
        with suppress(ValueError):
            issuers[section.issuer] = trusted_issuer(section)
    return issuers


def countersign_of(section: CountersignSection | None) -> CountersignSettings | None:
    """Make the settings of the token service that countersigns records; None if there is none."""
    if section is None:
        return None
    tls = section.tls if section.tls is not None else TlsSection(peer=section.peer)
    with renamed("url", "endpoint"):
        return CountersignSettings(
            issuer=section.issuer,
            endpoint=endpoint_of(section.endpoint or f"{section.issuer.rstrip('/')}/countersign", tls),
            every_s=section.every_s,
        )


def entry_of(file: SidecarFile, findings: Findings, make_door: MakeDoor | None = None) -> Entry | None:
    """Make the logins that may start a chain, and the door; None if this workload is not an entry."""
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
    return Entry(
        issuers=logins,
        may_call=frozenset(section.may_call),
        delegation_life_s=section.delegation_life_s,
        first_token_life_s=section.first_token_life_s,
        redirect_uris=frozenset(section.redirect_uris),
        door=None if make_door is None else make_door(section, logins),
    )


def tls_of(section: ExchangeSection | ExchangeEndpointSection) -> TlsSection:
    """Return the identity that must answer at an endpoint, which may be written in two ways."""
    return section.tls if section.tls is not None else TlsSection(peer=section.peer)


def endpoint_of(url: str, tls: TlsSection | None) -> Endpoint:
    """Make an endpoint. Raises ValueError as ``Endpoint``."""
    return Endpoint(
        url=url,
        peer=SpiffeId(tls.peer) if tls is not None and tls.peer is not None else None,
        ca_file=tls.ca if tls is not None else None,
    )


def token_endpoint_of(issuer: str) -> str:
    """Return the URL of an issuer's token endpoint where none is written: ``token`` below the issuer."""
    return f"{issuer.rstrip('/')}/token"


def token_endpoints_of(section: ExchangeSection | PlatformIssuerSection) -> tuple[str, ...]:
    """Return the URLs of an issuer's token endpoints, the preferred first."""
    return tuple(section.token_endpoints or (section.token_endpoint or token_endpoint_of(section.issuer),))


def token_endpoint_problems(section: ExchangeSection | PlatformIssuerSection, field: str) -> Iterator[Problem]:
    """Report token endpoints that are written in both ways."""
    if section.token_endpoints is not None and section.token_endpoint is not None:
        yield Problem(f"{field}.token_endpoint", "is set, and token_endpoints too", "keep one of them")
