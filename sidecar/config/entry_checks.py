"""Checks and builder of an entry, where users log in and chains start. Pure; each problem has its field and fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from sidecar.config.issuers import login_issuer, scope_from
from sidecar.config.profiles import kind_of, kind_problems, preset_of, profile_of, with_usable_profile
from sidecar.config.sections import ProfileSection
from sidecar.config.sidecar_model import EntryIssuerSection, EntrySection, SidecarFile
from sidecar.config.validation import Findings, repetitions
from sidecar.delegation.door import Door
from sidecar.delegation.login_issuer import LoginKind, UserIssuer
from sidecar.delegation.policy import Entry
from sidecar.delegation.profile import ACTOR_PROFILE
from sidecar.delegation.validity import DELEGATION_LIFE_S
from sidecar.errors import Problem


def entry_problems(file: SidecarFile) -> Iterator[Problem]:
    """Report an entry from which no call could start, and contradictory logins."""
    entry = file.entry
    if entry is None:
        return
    if file.inbound is not None and file.inbound.subjects_at_once is not None:
        yield Problem(
            "inbound.subjects_at_once",
            "says nothing of an entry, whose users call without a peer",
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
            yield Problem(where, "changes a subject that subject_issuer says is kept", "remove it")


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
        yield Problem(f"{where}.subject_prefix", "changes a subject that its own issuer keeps", "remove it")
    login, trust = login_issuer(section).profile, None if trusted is None else profile_of(trusted.profile)
    if "aud" in login.audience_claims[1:] and login.required_claims.isdisjoint({"azp", "client_id"}):
        yield Problem(
            f"{where}.profile",
            "reads the client from aud where azp and client_id are missing, and aud is what an exchange asked for",
            "write required_claims: [azp], or [client_id], as this issuer names its clients",
        )
    exchange = next(one for _, one in file.exchange_sections() if one.issuer == section.issuer)
    if trust is not None and trust.names_actor_by_client:
        clients = {exchange.client_id, *(sub for _, sub in trust.actor_table)}
        if section.client_id in clients or section.client_id.startswith("spiffe://"):
            yield Problem(
                f"{where}.client_id",
                "is also the client that exchanges, so whoever is given its token could log in with it",
                "register a client of its own for one of the two",
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
            yield Problem(where, "says nothing where no chain starts", "remove it, or add the route to entry.may_call")
        if audiences.setdefault(route.audience, route.first_token_life_s) != route.first_token_life_s:
            yield Problem(where, "differs from an earlier route to this audience", "write both alike")


MakeDoor = Callable[[EntrySection, Mapping[str, UserIssuer]], Door | None]


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
