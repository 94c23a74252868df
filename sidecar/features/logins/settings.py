"""Settings of user logins: the entry, where logins start chains, and routes for which a user logs in.

Section, builder and checks. Pure; each problem has its field and its fix.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from delegation_core.errors import Problem
from delegation_core.login_issuer import LoginKind, UserIssuer
from delegation_core.policy import Entry
from delegation_core.profile_presets import ACTOR_PROFILE
from delegation_core.validity import DELEGATION_LIFE_S, FIRST_TOKEN_LIFE_S
from sidecar.config.field_types import Line, RouteName, UrlText
from sidecar.config.issuers import login_issuer, scope_from
from sidecar.config.profiles import kind_of, kind_problems, preset_of, profile_of, with_usable_profile
from sidecar.config.sections import ProfileSection, Section, UserIssuerSection
from sidecar.config.validation import repetitions
from sidecar.exchange.metadata import is_web_url
from sidecar.features.door.settings import DoorSection, door_of

if TYPE_CHECKING:
    from sidecar.config.outbound_model import OutboundRouteSection
    from sidecar.config.platform_file import Platform
    from sidecar.config.sidecar_model import SidecarFile
    from sidecar.config.validation import Findings
    from sidecar.exchange.adapters.adapter import Adapter
    from sidecar.exchange.sts_settings import ExchangeSettings


class EntryIssuerSection(UserIssuerSection):
    """A user issuer, with the OAuth client of this workload there."""

    client_id: Line = Field(description="OAuth client ID of this workload at that issuer")


class EntrySection(Section):
    """Only for workloads where users log in: a delegation chain starts here and nowhere else."""

    issuers: list[EntryIssuerSection] = Field(
        default=[], description="issuers whose login tokens start a chain; none if users log in at token services alone"
    )
    may_call: list[RouteName] = Field(description="the outbound routes that such a request may use")
    delegation_life_s: int | None = Field(
        default=None,
        ge=1,
        le=86_400,
        description=(
            "ceiling of `first_token_life_s`; if set, a first token may outlive the login, if not set, it is the rest "
            "of the login, an hour at most; the same as at the token service"
        ),
    )
    first_token_life_s: int | None = Field(
        default=None,
        ge=1,
        le=86_400,
        description=(
            f"longest lifetime of the first token of a chain; if not set, {FIRST_TOKEN_LIFE_S} or the ceiling; the "
            "same as at the token service"
        ),
    )
    redirect_uris: list[UrlText] = Field(
        default=[],
        description="for `token: login`: the front app's own URLs where a browser may come back, as registered",
    )
    door: DoorSection | None = Field(default=None, description="a listener for people's own clients ([door](door.md))")


def entry_of(file: SidecarFile, findings: Findings) -> Entry | None:
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
        door=door_of(section.door, logins),
    )


def entry_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report an entry from which no call could start, and contradictory logins."""
    entry = file.entry
    if entry is None:
        return
    if file.inbound is not None and file.inbound.subjects_at_once is not None:
        yield Problem(
            "inbound.subjects_at_once",
            "has no effect at an entry: users call without a peer",
            "remove it, or have users log in at another workload",
        )
    exchanges = {section.issuer for _, section in file.exchange_sections()}
    if file.outbound is None or not exchanges:
        yield Problem("entry", "needs outbound and exchange", "add them: a chain starts with a call out")
    yield from file.unknown_routes(entry.may_call, "entry.may_call")
    yield from repetitions("entry.issuers", (section.issuer for section in entry.issuers))
    for number, section in enumerate(entry.issuers):
        yield from kind_problems(section, f"entry.issuers[{number}]")
        if section.issuer in exchanges:
            yield from _own_login(file, section, f"entry.issuers[{number}]")
        elif section.subject_prefix and section.issuer in _kept(file, exchanges):
            where = f"entry.issuers[{number}].subject_prefix"
            yield Problem(where, "changes subjects, but subject_issuer says that they stay the same", "remove it")


def _kept(file: SidecarFile, exchanges: set[str]) -> set[str | None]:
    """Return each ``subject_issuer`` in the profiles of these token services; may contain None."""
    profiles = [one.profile for one in file.issuers if one.issuer in exchanges]
    return {profile.subject_issuer for profile in profiles if isinstance(profile, ProfileSection)}


def _own_login(file: SidecarFile, section: EntryIssuerSection, where: str) -> Iterator[Problem]:
    """Report contradictory settings of an issuer that is both login issuer and token service."""
    trusted = next((one for one in file.issuers if one.issuer == section.issuer), None)
    if trusted is not None and preset_of(trusted.profile) in {"sts", ACTOR_PROFILE}:
        yield Problem(f"{where}.issuer", "is the token service itself", "name the issuer where users log in")
        return
    if section.subject_prefix:
        yield Problem(f"{where}.subject_prefix", "changes subjects, but this issuer keeps them the same", "remove it")
    login, trust = login_issuer(section).profile, None if trusted is None else profile_of(trusted.profile)
    if "aud" in login.audience_claims[1:] and login.required_claims.isdisjoint({"azp", "client_id"}):
        yield Problem(
            f"{where}.profile",
            "takes the client from aud if azp and client_id are missing, but an exchange can choose aud",
            "write required_claims: [azp], or [client_id], as this issuer names its clients",
        )
    exchange = next(one for _, one in file.exchange_sections() if one.issuer == section.issuer)
    if trust is not None and trust.names_actor_by_client:
        clients = {exchange.client_id, *(sub for _, sub in trust.actor_table)}
        if section.client_id in clients or section.client_id.startswith("spiffe://"):
            yield Problem(
                f"{where}.client_id",
                "is also the client that exchanges, so a token issued to it could pass as a login",
                "register two clients",
            )


def first_token_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report lifetimes of first tokens that exceed their ceiling, have no effect, or differ for one audience."""
    entry, routes = file.entry, file.mesh_routes()
    ceiling_s = DELEGATION_LIFE_S if entry is None else entry.delegation_life_s or DELEGATION_LIFE_S
    lives = [(field, route.first_token_life_s) for field, route in routes]
    lives.append(("entry", None if entry is None else entry.first_token_life_s))
    for where, life_s in lives:
        if life_s is not None and life_s > ceiling_s:
            yield Problem(
                f"{where}.first_token_life_s",
                f"is above the {ceiling_s} s of entry.delegation_life_s",
                "shorten it, or raise entry.delegation_life_s here and at the token service",
            )
    opened = set() if entry is None else set(entry.may_call)
    audiences: dict[str, int | None] = {}
    for field, route in routes:
        where = f"{field}.first_token_life_s"
        if route.first_token_life_s is not None and route.name not in opened:
            yield Problem(
                where, "has no effect: no chain starts on this route", "remove it, or add the route to entry.may_call"
            )
        if audiences.setdefault(route.audience, route.first_token_life_s) != route.first_token_life_s:
            yield Problem(where, "differs from an earlier route to this audience", "give both the same value")


def login_problems(file: SidecarFile, exchanges: tuple[ExchangeSettings, ...]) -> Iterator[Problem]:
    """Report login routes that no entry opens, and entries whose logins open no route."""
    adapters = {one.issuer: one.known for one in exchanges}
    for field, route in file.mesh_routes():
        adapter = adapters.get(file.issuer_of(route) or "")
        if adapter is not None:
            yield from _adapter(field, route, adapter)
        if is_login(route):
            yield from _route(file, field, route)
    yield from _without_issuers(file)
    yield from _redirect_uris(file, adapters)


def login_ceiling_problems(file: SidecarFile, platform: Platform) -> Iterator[Problem]:
    """Report login and redirect URLs that the platform file does not list."""
    for field, section in file.exchange_sections():
        ceiling = platform.issuers.get(section.issuer)
        listed = None if ceiling is None else ceiling.authorization_endpoint
        if section.authorization_endpoint not in (None, listed):
            yield Problem(
                f"{field}.authorization_endpoint",
                f"is not the one that {platform.path} has for {section.issuer}",
                "remove it, so that the issuer's metadata counts, or write it as authorization_endpoint there",
            )
    for number, uri in enumerate(file.entry.redirect_uris if file.entry is not None else []):
        if uri not in platform.redirect_uris:
            yield Problem(
                f"entry.redirect_uris[{number}]",
                f"{uri} is not in redirect_uris of {platform.path}",
                "remove it, or list it there",
            )


def is_login(route: OutboundRouteSection) -> bool:
    """True for a route whose token service asks the user to log in."""
    return route.token == "login"  # noqa: S105 - a kind


def _adapter(field: str, route: OutboundRouteSection, adapter: Adapter) -> Iterator[Problem]:
    if is_login(route) and not adapter.capabilities.needs_user:
        yield Problem(
            f"{field}.token",
            f"is login, but {adapter.name} has no logins of users",
            "remove it, or set another adapter",
        )
    if route.token == "exchange" and adapter.capabilities.needs_user:  # noqa: S105 - a kind
        yield Problem(
            f"{field}.token", f"is exchange, but {adapter.name} needs a login for each token", "write token: login"
        )


def _route(file: SidecarFile, field: str, route: OutboundRouteSection) -> Iterator[Problem]:
    if file.entry is None or route.name not in file.entry.may_call:
        yield Problem(f"{field}.token", "is login, but no entry opens the route", "list it in entry.may_call")
    for where, inbound in file.inbound_routes():
        if route.name in inbound.may_call:
            yield Problem(
                f"{where}.may_call", f"{route.name} is a login route, which only its own logins open", "remove it"
            )
    if route.crossings:
        yield Problem(f"{field}.crossings", "has no effect on a login route, which exchanges no token", "remove it")
    if route.txn_token:
        yield Problem(
            f"{field}.txn_token", "has no effect on a login route, which requests no transaction token", "remove it"
        )
    if route.observe_until is not None:
        yield Problem(f"{field}.observe_until", "is set on a login route", "remove it: only a login opens the route")


def _without_issuers(file: SidecarFile) -> Iterator[Problem]:
    """Report an entry without issuers of login tokens that opens a route which needs one."""
    if file.entry is None or file.entry.issuers:
        return
    by_login = {route.name for _, route in file.mesh_routes() if is_login(route)}
    if not file.entry.may_call:
        yield Problem("entry.issuers", "is empty, and so is may_call", "list what logins open, or remove the entry")
    for name in sorted(set(file.entry.may_call) - by_login):
        yield Problem(
            "entry.issuers", f"is empty, but {name} is opened by login tokens", "list the issuer, or write token: login"
        )


def _has_browser(adapter: Adapter | None) -> bool:
    return adapter is not None and adapter.login is not None and adapter.login.browser


def _redirect_uris(file: SidecarFile, adapters: dict[str, Adapter]) -> Iterator[Problem]:
    entry = file.entry
    if entry is None:
        return
    for number, uri in enumerate(entry.redirect_uris):
        if not is_web_url(uri):
            yield Problem(f"entry.redirect_uris[{number}]", "is plain http beyond loopback", "use https")
    logins = [route for _, route in file.mesh_routes() if is_login(route)]
    browser = any(_has_browser(adapters.get(file.issuer_of(route) or "")) for route in logins)
    issuers = {file.issuer_of(route) for route in logins}
    by_browser = sorted(name for name in issuers if name is not None and _has_browser(adapters.get(name)))
    if len(by_browser) > 1:
        yield Problem(
            "entry.redirect_uris",
            f"serves browser logins at {' and '.join(by_browser)}, so one could pass off the other's answer",
            "have users log in at one of them here, and at the other in another workload",
        )
    if browser and not entry.redirect_uris:
        yield Problem("entry.redirect_uris", "is empty, but a login returns there", "list the front app's callback")
    if entry.redirect_uris and not logins:
        yield Problem("entry.redirect_uris", "has no effect: no route has token: login", "remove it")
