"""Issuers of a sidecar or token service: their keys, their limits, their lists of revocations. Builders and checks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from delegation_core.errors import Problem
from delegation_core.login_issuer import ScopeFrom
from delegation_core.profile import TrustedIssuer
from delegation_core.spiffe_id import SpiffeId, TrustDomain
from sidecar.config.endpoints import endpoint_of, rename_member, same_origin, tls_of, token_endpoints_of
from sidecar.config.profiles import profile_of
from sidecar.config.sections import CountersignSection, IssuerSection, KeySource, TlsSection, UserIssuerSection
from sidecar.config.validation import Findings
from sidecar.exchange.countersigner import CountersignSettings
from sidecar.exchange.revocations import RevocationListSettings
from sidecar.identity.endpoint import is_loopback
from sidecar.identity.issuer import JwksSettings

if TYPE_CHECKING:
    from sidecar.config.sidecar_model import SidecarFile

DOOR_COOLDOWN_S: Final = 5.0  # in place of 30


def key_settings(section: KeySource, tls: TlsSection | None) -> JwksSettings:
    """Make the settings for fetching the issuer's keys. Raises ValueError as ``JwksSettings`` does."""
    times = {
        name: value
        for name in ("refresh_s", "max_age_s", "cooldown_s", "timeout_s")
        if (value := getattr(section, name)) is not None
    }
    with rename_member("url", "jwks"):
        return JwksSettings(
            issuer=section.issuer,
            url=section.jwks,
            peer=SpiffeId(tls.peer) if tls is not None and tls.peer is not None else None,
            ca_file=tls.ca if tls is not None else None,
            **times,
        )


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


def scope_from(section: UserIssuerSection) -> ScopeFrom:
    """Make the map from values of a login token's claim to scopes."""
    return ScopeFrom(
        claim=section.scope_from.claim,
        map={value: frozenset(scopes) for value, scopes in section.scope_from.map.items()},
    )


def is_production(section: KeySource) -> bool:
    """Return True for a production issuer: its name and its ``jwks`` are remote https URLs."""
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
                "is for development only, but a production issuer is configured too",
                "remove it, or use issuers on loopback alone",
            )


def _is_remote_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and not is_loopback(parts.hostname or "localhost")


def key_sets(
    file: SidecarFile, findings: Findings, at_door: Callable[[SidecarFile], Collection[str]]
) -> tuple[JwksSettings, ...]:
    """Make the key settings of all issuers of a sidecar, one for each issuer.

    Issuers of ``at_door`` get a shorter cooldown between fetches for unknown keys. Strangers can name unknown keys
    without end there, and the cooldown also delays a new key of the issuer.
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
            findings.add(field, "has different keys than the same issuer elsewhere", "give both the same value")
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
    """Make the settings of an issuer's revocation list; None without one. ``tls`` is the server's identity.

    Raises:
        ValueError: the endpoint or the profile is contradictory.
    """
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
    """Return the TLS identity expected at ``url`` (default ``jwks``). None if none is set for its origin."""
    url = url or section.jwks
    exchange = next((one for _, one in file.exchange_sections() if one.issuer == section.issuer), None)
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
    with rename_member("url", "endpoint"):
        return CountersignSettings(
            issuer=section.issuer,
            endpoint=endpoint_of(section.endpoint or f"{section.issuer.rstrip('/')}/countersign", tls),
            every_s=section.every_s,
        )
