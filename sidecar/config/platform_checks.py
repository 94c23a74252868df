"""Checks of a workload's settings against the platform's ceiling. Pure; each problem has its field and its fix.

The settings that would be in force are compared, not their text: a key that is left out counts with its default. Lists
may be smaller, times shorter, profiles stricter; the sources of keys and tokens must be the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from delegation_core.errors import Problem
from delegation_core.login_issuer import UserIssuer
from delegation_core.policy import Entry
from delegation_core.profile import IssuerProfile, TrustedIssuer
from sidecar.config.inbound_model import InboundRouteSection
from sidecar.config.platform_file import IssuerCeiling, LoginCeiling, Platform
from sidecar.config.sidecar_model import SidecarFile
from sidecar.config.validation import forbidden
from sidecar.exchange.revocations import RevocationListSettings
from sidecar.exchange.sts import ExchangeSettings
from sidecar.features.outside.settings import tunnel_ceiling_problems
from sidecar.identity.issuer import DEFAULT_REFRESH_S, JwksSettings

_ABOVE: Final = "is above the platform's ceiling"

# Loosening keys, matched in the raw document: a key stays forbidden when a later release makes it available.
_KEYS: Final = {
    "inbound.routes.*.observe_until": "observe_until",
    "outbound.routes.*.observe_until": "observe_until",
    "outbound.observe": "observe_until",
    "workload_handle": "allow_self",
}
_TOKENS: Final = {"self": "allow_self"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """The workload's issuers, keys, token services, revocation lists and entry, made from its file."""

    issuers: Mapping[str, TrustedIssuer]
    keys: Iterable[JwksSettings]
    exchanges: Sequence[ExchangeSettings]
    revocations: Sequence[RevocationListSettings]
    entry: Entry | None


def forbidden_settings(document: dict[str, object], platform: Platform) -> list[Problem]:
    """Return a problem for each loosening in the document that the platform forbids."""
    problems = [
        forbidden(field)
        for pattern, word in _KEYS.items()
        for field, section, key in _found(document, pattern)
        if section[key] is not None and not getattr(platform, word)
    ]
    for field, section, key in _found(document, "outbound.routes.*.token"):
        kind = section[key]
        if isinstance(kind, str) and kind in _TOKENS and not getattr(platform, _TOKENS[kind]):
            problems.append(forbidden(field))
    return problems


def _issuers(file: SidecarFile, platform: Platform, own: Own) -> Iterator[Problem]:
    keys_of = {one.issuer: one for one in own.keys}
    for number, section in enumerate(file.issuers):
        field = f"issuers[{number}]"
        ceiling = platform.issuers.get(section.issuer)
        if ceiling is None:
            yield Problem(f"{field}.issuer", "is not one of the platform's issuers", "remove it, or list it there")
            continue
        if section.issuer in keys_of:
            yield from _source(keys_of[section.issuer], ceiling.keys, field)
        lists = {one.issuer: one for one in own.revocations}
        if ceiling.revocations is not None:
            yield from _revocations(lists.get(section.issuer), ceiling.revocations, f"{field}.revocations")
        if section.issuer in own.issuers:
            yield from _trust(own.issuers[section.issuer], ceiling.trusted, field)


def _revocations(own: RevocationListSettings | None, ceiling: RevocationListSettings, field: str) -> Iterator[Problem]:
    if own is None:
        yield Problem(field, "is missing, but the platform has one", "write the platform's")
        return
    if own.endpoint != ceiling.endpoint:
        yield Problem(f"{field}.url", "differs from the platform's list, or from its server", "write the platform's")
    if own.every_s > ceiling.every_s:
        yield Problem(f"{field}.every_s", _ABOVE, f"at most {ceiling.every_s:g}")
    if own.max_stale_s > ceiling.max_stale_s:
        yield Problem(f"{field}.max_stale_s", _ABOVE, f"at most {ceiling.max_stale_s:g}")


def _routes(file: SidecarFile, platform: Platform, _own: Own) -> Iterator[Problem]:
    for field, route in file.inbound_routes():
        yield from _route(route, platform, field)


def _entry(file: SidecarFile, platform: Platform, own: Own) -> Iterator[Problem]:
    if file.entry is None or own.entry is None:
        return
    keys_of = {one.issuer: one for one in own.keys}
    for number, user in enumerate(file.entry.issuers):
        field = f"entry.issuers[{number}]"
        login = platform.logins.get(user.issuer)
        if login is None:
            yield Problem(
                f"{field}.issuer", "is not one of the platform's login issuers", "remove it, or list it there"
            )
            continue
        if user.issuer in keys_of:
            yield from _source(keys_of[user.issuer], login.keys, field)
        yield from _login(own.entry.issuers[user.issuer], login, field)


def _route(route: InboundRouteSection, platform: Platform, field: str) -> Iterator[Problem]:
    if route.allow_self and not platform.allow_self:
        yield forbidden(f"{field}.allow_self")
    if route.pass_token and not platform.pass_token:
        yield forbidden(f"{field}.pass_token")
    if route.linger_s > platform.linger_s:
        yield Problem(f"{field}.linger_s", _ABOVE, f"write at most {platform.linger_s:g}")


def _source(keys: JwksSettings, ceiling: JwksSettings, field: str) -> Iterator[Problem]:
    if keys.url != ceiling.url:
        yield Problem(f"{field}.jwks", "differs from the platform's URL of the keys", "write the platform's URL")
    if (keys.peer, keys.ca_file) != (ceiling.peer, ceiling.ca_file):
        yield Problem(
            f"{field}.tls", "differs from the platform's server of the keys", "write the platform's peer or ca"
        )
    if keys.max_age_s > ceiling.max_age_s:
        yield Problem(f"{field}.max_age_s", _ABOVE, f"write at most {ceiling.max_age_s:g}")
    refresh_s = ceiling.refresh_s or DEFAULT_REFRESH_S
    # Both unset: both follow the issuer. If only the ceiling is set, the issuer could exceed it.
    if (keys.refresh_s is None and ceiling.refresh_s is not None) or (keys.refresh_s or 0) > refresh_s:
        yield Problem(f"{field}.refresh_s", _ABOVE, f"write at most {refresh_s:g}")


def _trust(trusted: TrustedIssuer, ceiling: TrustedIssuer, field: str) -> Iterator[Problem]:
    for name in ("scopes", "actor_trust_domains"):
        yield from _beyond(getattr(trusted, name), getattr(ceiling, name), f"{field}.{name}")
    yield from _profile(trusted.profile, ceiling.profile, field)


def _beyond(own: Iterable[str], ceiling: Iterable[str], field: str) -> Iterator[Problem]:
    for one in sorted(set(map(str, own)) - set(map(str, ceiling))):
        yield Problem(field, f"{one} {_ABOVE}", f"remove {one}")


def _profile(own: IssuerProfile, ceiling: IssuerProfile, field: str) -> Iterator[Problem]:
    """Report a profile that accepts more than the platform's, or reads tokens differently."""
    looser = {
        "typ": not own.typ <= ceiling.typ,
        "algorithms": not own.algorithms <= ceiling.algorithms,
        "required_claims": not own.required_claims >= ceiling.required_claims,
        "actor_table": not own.actor_table.items() <= ceiling.actor_table.items(),
        "max_act_depth": own.max_act_depth > ceiling.max_act_depth,
        "leeway_s": own.leeway_s > ceiling.leeway_s,
        "max_lifetime_s": ceiling.max_lifetime_s is not None
        and (own.max_lifetime_s is None or own.max_lifetime_s > ceiling.max_lifetime_s),
    }
    narrowed = {name: getattr(ceiling, name) for name in looser}
    if dataclasses.replace(own, **narrowed) != ceiling:
        yield Problem(f"{field}.profile", "differs from the platform's profile", "write the platform's profile")
    for name, is_looser in looser.items():
        if is_looser:
            yield Problem(f"{field}.profile", f"{name} {_ABOVE}", f"remove {name}, or write the platform's")


def _exchanges(file: SidecarFile, platform: Platform, own: Own) -> Iterator[Problem]:
    made = {exchange.issuer: exchange for exchange in own.exchanges}
    for field, section in file.exchange_sections():
        ceiling = platform.issuers.get(section.issuer)
        exchange = made.get(section.issuer)
        if ceiling is None:
            yield Problem(f"{field}.issuer", "is not one of the platform's issuers", "use one of those")
        elif exchange is not None:
            yield from _exchange(exchange, ceiling, field)


def _exchange(exchange: ExchangeSettings, ceiling: IssuerCeiling, field: str) -> Iterator[Problem]:
    for number, endpoint in enumerate(exchange.token_endpoints):
        if endpoint.url not in ceiling.token_endpoints:
            where = f"token_endpoints[{number}]" if exchange.further_token_endpoints else "token_endpoint"
            yield Problem(f"{field}.{where}", "is not the platform's", "write the platform's URL")
    if (exchange.peer, exchange.ca_file) != (ceiling.keys.peer, ceiling.keys.ca_file):
        yield Problem(f"{field}.tls", "differs from the platform's token service", "write the platform's peer or ca")


def _crossings(file: SidecarFile, platform: Platform, _own: Own) -> Iterator[Problem]:
    for field, route in file.mesh_routes():
        for number, section in enumerate(route.crossings):
            where = f"{field}.crossings[{number}]"
            ceiling = platform.crossings.get((section.from_, file.issuer_of(route) or ""))
            if ceiling is None:
                yield Problem(where, "is not one of the platform's crossings", "remove it, or list it there")
                continue
            if section.subject_prefix != ceiling.subject_prefix:
                yield Problem(f"{where}.subject_prefix", "is not the platform's", "write the platform's")
            for scope, granted in section.scopes.items():
                yield from _beyond(granted, ceiling.scopes.get(scope, ()), f"{where}.scopes")


def _login(own: UserIssuer, ceiling: LoginCeiling, field: str) -> Iterator[Problem]:
    if own.kind is not ceiling.kind:
        yield Problem(f"{field}.kind", "is not the platform's", "write the platform's")
    if own.subject_prefix != ceiling.subject_prefix:
        yield Problem(f"{field}.subject_prefix", "is not the platform's", "write the platform's")
    if own.scope_from.claim != ceiling.scope_from.claim:
        yield Problem(f"{field}.scope_from.claim", "is not the platform's", "write the platform's")
    for value, scopes in own.scope_from.map.items():
        yield from _beyond(scopes, ceiling.scope_from.map.get(value, ()), f"{field}.scope_from.map")
    yield from _profile(own.trusted.profile, ceiling.trusted.profile, field)


# Each check reports every setting that exceeds the platform's or is missing there.
CEILING_CHECKS: Final[tuple[Callable[[SidecarFile, Platform, Own], Iterator[Problem]], ...]] = (
    _issuers,
    _routes,
    tunnel_ceiling_problems,
    _exchanges,
    _crossings,
    _entry,
)


def _found(document: dict[str, object], pattern: str) -> Iterator[tuple[str, dict[str, object], str]]:
    """Yield field, section and key of each match of a dotted pattern. ``*`` matches each item of a list."""
    *parents, key = pattern.split(".")
    for prefix, section in _walk(document, parents, ""):
        if key in section:
            yield f"{prefix}{key}", section, key


def _walk(value: object, path: list[str], field: str) -> Iterator[tuple[str, dict[str, object]]]:
    if not path:
        if isinstance(value, dict):
            yield field, value
    elif path[0] == "*" and isinstance(value, list):
        for number, item in enumerate(value):
            yield from _walk(item, path[1:], f"{field.removesuffix('.')}[{number}].")
    elif isinstance(value, dict) and path[0] in value:
        yield from _walk(value[path[0]], path[1:], f"{field}{path[0]}.")
