"""What of a workload's settings is above the platform's ceiling: each with its field and cure. Pure.

What will be in force is compared, not how it is written: a key that is left out counts with its default. Lists may be
smaller, times shorter, profiles stricter; where keys and tokens come from must be the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from sidecar.config.not_yet import found
from sidecar.config.platform_file import LoginCeiling, Platform
from sidecar.config.sidecar_model import InboundRouteSection, SidecarFile
from sidecar.delegation.policy import Entry, UserIssuer
from sidecar.delegation.profile import IssuerProfile, TrustedIssuer
from sidecar.errors import Problem
from sidecar.exchange.sts import ExchangeSettings
from sidecar.identity.issuer import DEFAULT_REFRESH_S, JwksSettings

_ABOVE: Final = "is above the platform's ceiling"

# Loosenings by name in the document as it is written: they stay forbidden on the day that one becomes available.
_KEYS: Final = {
    "inbound.routes.*.observe_until": "observe_until",
    "outbound.routes.*.observe_until": "observe_until",
    "outbound.observe": "observe_until",
    "outbound.routes.*.passthrough": "passthrough",
    "outbound.routes.*.inject": "inject",
}
_TOKENS: Final = {"self": "allow_self", "passthrough": "passthrough", "inject": "inject"}


def loosened(document: dict[str, object], platform: Platform) -> list[Problem]:
    """The loosenings that are written but may not be used at all."""
    problems = [
        _forbidden(field)
        for pattern, word in _KEYS.items()
        for field, section, key in found(document, (pattern,))
        if section[key] is not None and not getattr(platform, word)
    ]
    for field, section, key in found(document, ("outbound.routes.*.token",)):
        kind = section[key]
        if isinstance(kind, str) and kind in _TOKENS and not getattr(platform, _TOKENS[kind]):
            problems.append(_forbidden(field))
    return problems


def above_ceiling(
    file: SidecarFile,
    platform: Platform,
    *,
    issuers: Mapping[str, TrustedIssuer],
    keys: Iterable[JwksSettings],
    exchange: ExchangeSettings | None,
    entry: Entry | None,
) -> Iterator[Problem]:
    """Everything that the file has and the platform has not, or has less of."""
    keys_of = {one.issuer: one for one in keys}
    for number, section in enumerate(file.issuers):
        field = f"issuers[{number}]"
        ceiling = platform.issuers.get(section.issuer)
        if ceiling is None:
            yield Problem(f"{field}.issuer", "is none of the platform's issuers", "remove it, or list it there")
            continue
        if section.issuer in keys_of:
            yield from _source(keys_of[section.issuer], ceiling.keys, field)
        if section.issuer in issuers:
            yield from _trust(issuers[section.issuer], ceiling.trusted, field)
    for number, route in enumerate(file.inbound.routes if file.inbound is not None else []):
        yield from _route(route, platform, f"inbound.routes[{number}]")
    if exchange is not None:
        yield from _exchange(exchange, platform)
    for number, user in enumerate(file.entry.issuers if file.entry is not None and entry is not None else []):
        field = f"entry.issuers[{number}]"
        login = platform.logins.get(user.issuer)
        if login is None:
            yield Problem(f"{field}.issuer", "is none of the platform's login issuers", "remove it, or list it there")
            continue
        if user.issuer in keys_of:
            yield from _source(keys_of[user.issuer], login.keys, field)
        if entry is not None:
            yield from _login(entry.issuers[user.issuer], login, field)


def _route(route: InboundRouteSection, platform: Platform, field: str) -> Iterator[Problem]:
    if route.allow_self and not platform.allow_self:
        yield _forbidden(f"{field}.allow_self")
    if route.pass_token and not platform.pass_token:
        yield _forbidden(f"{field}.pass_token")
    if route.linger_s > platform.linger_s:
        yield Problem(f"{field}.linger_s", _ABOVE, f"write at most {platform.linger_s:g}")


def _source(keys: JwksSettings, ceiling: JwksSettings, field: str) -> Iterator[Problem]:
    if keys.url != ceiling.url:
        yield Problem(f"{field}.jwks", "is not where the platform has the keys from", "write the platform's URL")
    if (keys.peer, keys.ca_file) != (ceiling.peer, ceiling.ca_file):
        yield Problem(f"{field}.tls", "is not whom the platform has the keys from", "write the platform's peer or ca")
    if keys.max_age_s > ceiling.max_age_s:
        yield Problem(f"{field}.max_age_s", _ABOVE, f"write at most {ceiling.max_age_s:g}")
    refresh_s = ceiling.refresh_s or DEFAULT_REFRESH_S
    # Both unset is the issuer's own word on both sides. A ceiling bounds what is unset too: the issuer might say more.
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
    """A profile may believe less than the platform's, and never reads a token differently."""
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
        yield Problem(f"{field}.profile", "reads tokens otherwise than the platform's", "write the platform's profile")
    for name, is_looser in looser.items():
        if is_looser:
            yield Problem(f"{field}.profile", f"{name} {_ABOVE}", f"remove {name}, or write the platform's")


def _exchange(exchange: ExchangeSettings, platform: Platform) -> Iterator[Problem]:
    ceiling = platform.issuers.get(exchange.issuer)
    if ceiling is None:
        yield Problem("exchange.issuer", "is none of the platform's issuers", "ask one of those")
        return
    if exchange.token_endpoint != ceiling.token_endpoint:
        yield Problem("exchange.token_endpoint", "is not the platform's", "write the platform's URL")
    if (exchange.peer, exchange.ca_file) != (ceiling.keys.peer, ceiling.keys.ca_file):
        yield Problem("exchange.tls", "is not whom the platform asks for tokens", "write the platform's peer or ca")


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


def _forbidden(field: str) -> Problem:
    return Problem(field, "is forbidden by the platform", "remove it, or have the platform allow it")
