"""Checks for contradictions in a policy of the token service, each with its fix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Final, Protocol
from urllib.parse import urlsplit

from delegation_core.act import MAX_ACT_DEPTH
from delegation_core.claims import is_name
from delegation_core.crossing import collide
from delegation_core.door_url import is_resource
from delegation_core.errors import Problem
from delegation_core.near_names import meant
from delegation_core.scope import ScopeError, parse_scope
from delegation_core.spiffe_id import SpiffeId
from sidecar.sts.rules import ANYONE, EntryWorkload, ForeignIssuer, LoginIssuer, Rule, SelfDelegation, SelfRule, Target

MAX_TOKEN_LIFE_S: Final = 3600
MAX_DELEGATION_LIFE_S: Final = 86_400


class Declared(Protocol):
    """The declared parts of a policy, as ``StsPolicy`` has them."""

    @property
    def issuer(self) -> str:
        """Our own identifier."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """The workloads that tokens can be issued for."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules for subjects."""

    @property
    def self_rules(self) -> tuple[SelfRule, ...]:
        """The rules without a subject."""

    @property
    def self_delegations(self) -> tuple[SelfDelegation, ...]:
        """The rules for chains that a workload started for itself."""

    @property
    def entries(self) -> Mapping[SpiffeId, EntryWorkload]:
        """The workloads where users log in."""

    @property
    def login_issuers(self) -> Mapping[str, LoginIssuer]:
        """The issuers of users."""

    @property
    def foreign_issuers(self) -> Mapping[str, ForeignIssuer]:
        """The foreign token services."""

    @property
    def token_life_s(self) -> int:
        """The life of a token."""

    @property
    def max_depth(self) -> int:
        """The most actors of a token."""

    @property
    def act_iss(self) -> str | None:
        """The ``iss`` of new actors."""

    def target_of(self, audience: str) -> Target | None:
        """Return the target that owns an audience."""


_MOST_SEARCHED: Final = 20  # names: a search among thousands of targets takes tens of milliseconds


def contradictions(policy: Declared) -> Iterator[Problem]:
    """Return every contradiction in the policy; ``field`` is relative to it, such as ``rules[2].scopes``."""
    return chain(
        _own_problems(policy),
        _target_problems(policy),
        _rule_problems(policy),
        _entry_problems(policy),
        _prefix_problems(policy),
        _foreign_problems(policy),
    )


def _own_problems(policy: Declared) -> Iterator[Problem]:
    if not is_issuer_url(policy.issuer):
        yield Problem(
            "issuer",
            "is not an https URL without query and fragment",
            "write the URL that consumers configure (RFC 8414)",
        )
    if not 1 <= policy.token_life_s <= MAX_TOKEN_LIFE_S:
        yield Problem("token_life_s", f"is outside 1 to {MAX_TOKEN_LIFE_S} seconds", "300 is a good value")
    if not 1 <= policy.max_depth <= MAX_ACT_DEPTH:
        yield Problem("max_depth", f"is outside 1 to {MAX_ACT_DEPTH} actors", "leave it at the default")
    if policy.act_iss is not None and not is_name(policy.act_iss):
        yield Problem("act_iss", "is empty or unprintable", "write the URI of the namespace, or remove it")


def _target_problems(policy: Declared) -> Iterator[Problem]:
    for name in _find_repeated(name for target in policy.targets for name in target.names):
        yield Problem("targets", f"the audience {name} names two targets", "give each audience to one workload")
    for number, target in enumerate(policy.targets):
        where = f"targets[{number}]"
        if not all(is_name(name) for name in target.audiences):
            yield Problem(f"{where}.audiences", "holds an empty or unprintable name", "remove it")
        if any(name.lower().startswith("spiffe:") for name in target.audiences):
            yield Problem(f"{where}.audiences", "holds a SPIFFE ID, which is its workload's alone", "remove it")
        if policy.issuer in target.audiences:
            yield Problem(f"{where}.audiences", "holds this service's own name", "remove it")
        if not all(_is_scope(scope) for scope in target.scopes):
            yield Problem(f"{where}.scopes", "holds an invalid scope (RFC 6749 section 3.3)", "write it without spaces")


def _rule_problems(policy: Declared) -> Iterator[Problem]:
    listed = [(f"rules[{number}]", rule) for number, rule in enumerate(policy.rules)]
    listed_self = [(f"self_rules[{number}]", rule) for number, rule in enumerate(policy.self_rules)]
    onwards = [(f"self_delegations[{number}]", rule) for number, rule in enumerate(policy.self_delegations)]
    both: list[tuple[str, Rule | SelfRule | SelfDelegation]] = [*listed, *listed_self, *onwards]
    audiences = [name for target in policy.targets for name in target.names]
    unknown = sorted({rule.audience for _, rule in both} - set(audiences))
    fixes = {name: meant(name, audiences, "list it under targets") for name in unknown[:_MOST_SEARCHED]}
    for where, rule in both:
        target = policy.target_of(rule.audience)
        if target is None:
            fix = fixes.get(rule.audience, "list it under targets")
            yield Problem(f"{where}.audience", f"{rule.audience} is not a target", fix)
        elif not rule.scopes <= target.scopes:
            wrong = f"{rule.audience} does not have {', '.join(sorted(rule.scopes - target.scopes))}"
            yield Problem(f"{where}.scopes", wrong, "add it to the target's scopes, or remove it")
    known = policy.login_issuers.keys() | policy.foreign_issuers.keys()
    for where, onward in onwards:
        if onward.actor == onward.workload:
            yield Problem(
                f"{where}.actor", "is the workload itself, which needs a row of self_rules", "name another actor"
            )
    for where, spoken in listed:
        issuers = {match.issuer for match in spoken.subjects if isinstance(match.issuer, str)}
        for issuer in sorted(issuers - known):
            fix = meant(issuer, known, "list it under login_issuers or foreign_issuers")
            yield Problem(f"{where}.subjects", f"{issuer} is an unknown user issuer", fix)


def _entry_problems(policy: Declared) -> Iterator[Problem]:
    for name, issuer in policy.login_issuers.items():
        if name != issuer.trusted.issuer:
            yield Problem(f"login_issuers.{name}", "is listed under another name than its own", "use its iss")
        if name == policy.issuer:
            yield Problem(f"login_issuers.{name}", "is this service itself", "list only issuers where users log in")
        if issuer.subject_prefix.lower().startswith("spiffe:"):
            yield Problem(f"login_issuers.{name}.subject_prefix", "would make users look like workloads", "change it")
    doors = [entry.door for entry in policy.entries.values() if entry.door is not None]
    for workload, entry in policy.entries.items():
        if entry.door is not None and not is_resource(entry.door):
            yield Problem(f"entries.{workload}.door", "is not the URL of a door", "write it as the entry has it")
        if doors.count(entry.door or "") > 1:
            yield Problem(
                f"entries.{workload}.door", "is also the door of another entry", "give each door a URL of its own"
            )
        if entry.door is not None and entry.door in entry.client_ids.values():
            yield Problem(f"entries.{workload}.door", "is also an OAuth client ID", "give the door a URL of its own")
        if workload != entry.workload:
            yield Problem(f"entries.{workload}", "is listed under another name than its own", "use its SPIFFE ID")
        for issuer_name in sorted(entry.client_ids.keys() - policy.login_issuers.keys()):
            fix = meant(issuer_name, policy.login_issuers, "list it under login_issuers")
            yield Problem(f"entries.{workload}.client_ids", f"{issuer_name} is an unknown user issuer", fix)
        if "" in entry.client_ids.values():
            yield Problem(f"entries.{workload}.client_ids", "holds an empty client id", "write the registered one")
        if entry.delegation_life_s is not None and not 1 <= entry.delegation_life_s <= MAX_DELEGATION_LIFE_S:
            yield Problem(
                f"entries.{workload}.delegation_life_s",
                f"is outside 1 to {MAX_DELEGATION_LIFE_S} seconds",
                "shorten it",
            )
        else:
            yield from _first_life_problems(entry, policy)


def _prefix_problems(policy: Declared) -> Iterator[Problem]:
    logins = [issuer.subject_prefix for issuer in policy.login_issuers.values()]
    foreign = [issuer.crossing.subject_prefix for issuer in policy.foreign_issuers.values()]
    if collide(logins):
        yield Problem(
            "login_issuers", "two subjects could become one", "give each a subject_prefix; none starts another"
        )
    elif collide([*logins, *foreign]):
        yield Problem(
            "foreign_issuers",
            "two subjects could become one",
            "give each of them, and of login_issuers, a subject_prefix; none starts another",
        )


def _foreign_problems(policy: Declared) -> Iterator[Problem]:
    for name, issuer in policy.foreign_issuers.items():
        where = f"foreign_issuers.{name}"
        if name != issuer.trusted.issuer or name != issuer.crossing.issuer:
            yield Problem(where, "is listed under another name than its own", "use its iss")
        if name == policy.issuer:
            yield Problem(where, "is this service itself", "list only token services of others")
        if name in policy.login_issuers:
            yield Problem(where, "is also a login issuer", "keep one of them: users log in there, or it delegates")
        if not issuer.actors:
            yield Problem(
                f"{where}.actors", "is empty, so no workload may present its tokens", "list who may, or remove it"
            )
        if not issuer.trusted.actor_trust_domains:
            yield Problem(
                f"{where}.actor_trust_domains",
                "is empty, so every token would be refused",
                "list the trust domains of its actors",
            )
        if not issuer.crossing.scopes:
            yield Problem(
                f"{where}.scopes", "is empty, so its tokens grant nothing", "list what each of its scopes grants here"
            )
        for actor, audiences in issuer.actors.items():
            for audience in sorted(audiences):
                yield from _triple_problems(policy, issuer, actor, audience)


def _triple_problems(policy: Declared, issuer: ForeignIssuer, actor: SpiffeId, audience: str) -> Iterator[Problem]:
    where = f"foreign_issuers.{issuer.trusted.issuer}.actors"
    target = policy.target_of(audience)
    if target is None:
        yield Problem(where, f"{audience} is not a target", "list it under targets")
        return
    worth = issuer.crossing.worth(frozenset(issuer.crossing.scopes))
    granted = [
        rule.scopes & worth
        for rule in policy.rules
        if (rule.actor, rule.audience) == (actor, audience)
        and any(match.issuer in (ANYONE, issuer.trusted.issuer) for match in rule.subjects)
    ]
    if not any(granted):
        yield Problem(
            where,
            f"no rule lets {actor} act at {audience} for its subjects with a scope of the map",
            "add one under rules, or remove it here",
        )


def _first_life_problems(entry: EntryWorkload, policy: Declared) -> Iterator[Problem]:
    where = f"entries.{entry.workload}"
    for audience in sorted(entry.long_runs):
        if policy.target_of(audience) is None:
            yield Problem(f"{where}.long_runs", f"{audience} is not a target", "list it under targets")
    lives = [(f"long_runs.{audience}", life_s) for audience, life_s in sorted(entry.long_runs.items())]
    for name, life_s in [("first_token_life_s", entry.first_token_life_s), *lives]:
        if life_s is not None and not 1 <= life_s <= entry.longest_delegation_s:
            yield Problem(
                f"{where}.{name}",
                f"is outside 1 to {entry.longest_delegation_s} seconds, the delegation_life_s of this entry",
                "shorten it, or raise delegation_life_s",
            )


def is_issuer_url(text: str) -> bool:
    """Return True for an https URL with a host and no query or fragment (RFC 8414 section 2); http on loopback only."""
    try:
        url = urlsplit(text)
        host = url.hostname or ""
    except ValueError:
        return False
    loopback = url.scheme == "http" and host in {"127.0.0.1", "::1", "localhost"}
    return bool(host) and (url.scheme == "https" or loopback) and not {"?", "#"} & set(text) and "@" not in url.netloc


def _is_scope(token: str) -> bool:
    try:
        return parse_scope(token) == {token}
    except ScopeError:
        return False


def _find_repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, times in Counter(names).items() if times > 1)
