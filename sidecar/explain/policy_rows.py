"""Answers "who may act for whom where" from a token service's policy: one row for each of its rules. Pure.

A rule is not enough: its actor also needs a token for the subject. A row lists each way to get such a token: a login at
an entry, a token that other rules let the actor receive, a crossing, or none for a workload's own calls. A rule without
a way never applies. Ways are traced from the starts of chains; for one subject the list may be too long, never too
short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from delegation_core.scope import ScopeSet
from sidecar.explain.rule_names import subjects_of
from sidecar.sts.policy import StsPolicy
from sidecar.sts.rules import ANYONE, Anyone, Rule, SelfDelegation, SubjectMatch

LOGIN, DELEGATED, CROSSING, ITSELF = "login", "delegated", "crossing", "itself"


@dataclass(frozen=True, slots=True)
class Way:
    """A way to get the token that a rule needs: its kind, its origins, and the issued token's longest life in
    seconds.
    """

    how: str
    origins: tuple[str, ...]
    life_s: int

    def text(self) -> str:
        """Describe the way in words."""
        return f"{_WORDS[self.how](', '.join(self.origins))}, {self.life_s} s at most"


_WORDS: Final[Mapping[str, Callable[[str], str]]] = {
    LOGIN: lambda origins: f"a login at {origins}",
    DELEGATED: lambda origins: f"a token by {origins}",
    CROSSING: lambda origins: f"a token of {origins}",
    ITSELF: lambda _: "on its own",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One rule, with its place in the file: ``actor`` may act for ``subjects`` at ``audience`` of ``workload``.

    ``bound``: the token is bound to the actor's certificate.
    """

    rule: str
    actor: str
    subjects: str
    audience: str
    workload: str
    scopes: tuple[str, ...]
    bound: bool
    ways: tuple[Way, ...]

    def document(self) -> dict[str, object]:
        """Return the row for machines."""
        return asdict(self)


def rows_of(policy: StsPolicy) -> list[Row]:
    """Return a row for each rule, in the order of the file."""
    return [*_rules(policy), *_self_rules(policy), *_self_delegations(policy)]


def covers(row: Row, policy: StsPolicy, *, actor: str | None, subject: str | None, audience: str | None) -> bool:
    """Return True if a row covers an actor, a subject of any issuer, and an audience or its workload; None: any."""
    if actor not in {None, row.actor} or audience not in {None, row.audience, row.workload}:
        return False
    if subject is None:
        return True
    kind, _, number = row.rule.rstrip("]").partition("[")
    if kind == "rules":
        return any(match.subject in {ANYONE, subject} for match in policy.rules[int(number)].subjects)
    return row.subjects == subject


def _rules(policy: StsPolicy) -> Iterator[Row]:
    ways = [[*_logins(rule, policy), *_crossings(rule, policy)] for rule in policy.rules]
    live = {number for number, found in enumerate(ways) if found}
    while True:  # a rule whose actor receives tokens by live rules is live
        more = {
            number
            for number, rule in enumerate(policy.rules)
            if number not in live and _find_sources(rule, policy, live)
        }
        if not more:
            break
        live |= more
    for number, rule in enumerate(policy.rules):
        origins = tuple(f"rules[{one}]" for one in _find_sources(rule, policy, live))
        onward = [Way(DELEGATED, origins, policy.token_life_s)] if origins else []
        yield Row(
            rule=f"rules[{number}]",
            actor=rule.actor,
            subjects=subjects_of(rule.subjects),
            audience=rule.audience,
            workload=policy.recipient_of(rule.audience),
            scopes=tuple(sorted(rule.scopes)),
            bound=policy.binds(rule.audience),
            ways=(*ways[number], *onward),
        )


def _self_rules(policy: StsPolicy) -> Iterator[Row]:
    for number, rule in enumerate(policy.self_rules):
        yield Row(
            rule=f"self_rules[{number}]",
            actor=rule.workload,
            subjects=rule.workload,
            audience=rule.audience,
            workload=policy.recipient_of(rule.audience),
            scopes=tuple(sorted(rule.scopes)),
            bound=policy.binds(rule.audience),
            ways=(Way(ITSELF, (), policy.token_life_s),),
        )


def _self_delegations(policy: StsPolicy) -> Iterator[Row]:
    live: set[int] = set()
    while more := {
        number
        for number, rule in enumerate(policy.self_delegations)
        if number not in live and _find_self_sources(rule, policy, live)
    }:
        live |= more
    for number, rule in enumerate(policy.self_delegations):
        origins = tuple(_find_self_sources(rule, policy, live))
        yield Row(
            rule=f"self_delegations[{number}]",
            actor=rule.actor,
            subjects=rule.workload,
            audience=rule.audience,
            workload=policy.recipient_of(rule.audience),
            scopes=tuple(sorted(rule.scopes)),
            bound=policy.binds(rule.audience),
            ways=(Way(DELEGATED, origins, policy.token_life_s),) if origins else (),
        )


def _logins(rule: Rule, policy: StsPolicy) -> Iterator[Way]:
    entry = policy.entries.get(rule.actor)
    for issuer in () if entry is None else entry.client_ids:
        worth: ScopeSet = frozenset().union(*policy.login_issuers[issuer].scope_from.map.values())
        if entry is not None and _speaks_of_issuer(rule, issuer) and rule.scopes & worth:
            yield Way(LOGIN, (issuer,), entry.first_life_s(rule.audience))


def _crossings(rule: Rule, policy: StsPolicy) -> Iterator[Way]:
    for name, foreign in policy.foreign_issuers.items():
        worth = foreign.crossing.worth(frozenset(foreign.crossing.scopes))
        listed = rule.audience in foreign.actors.get(rule.actor, ())
        if listed and _speaks_of_issuer(rule, name) and rule.scopes & worth:
            yield Way(CROSSING, (name,), policy.token_life_s)


def _find_sources(rule: Rule, policy: StsPolicy, live: set[int]) -> Sequence[int]:
    """Return the live rules by which this rule's actor receives tokens that it may exchange by this rule."""
    own = policy.audiences_of(rule.actor)
    return [
        number
        for number, one in enumerate(policy.rules)
        if number in live
        and one.audience in own
        and one.actor != rule.actor
        and one.scopes & rule.scopes
        and any(_overlap(first, second) for first in one.subjects for second in rule.subjects)
    ]


def _find_self_sources(rule: SelfDelegation, policy: StsPolicy, live: set[int]) -> list[str]:
    own = policy.audiences_of(rule.actor)
    starts = [
        f"self_rules[{number}]"
        for number, one in enumerate(policy.self_rules)
        if one.workload == rule.workload and one.audience in own and one.scopes & rule.scopes
    ]
    onward = [
        f"self_delegations[{number}]"
        for number, one in enumerate(policy.self_delegations)
        if number in live
        and (one.workload, one.audience in own) == (rule.workload, True)
        and one.actor != rule.actor
        and one.scopes & rule.scopes
    ]
    return [*starts, *onward]


def _speaks_of_issuer(rule: Rule, issuer: str) -> bool:
    return any(match.issuer in (ANYONE, issuer) for match in rule.subjects)


def _overlap(one: SubjectMatch, other: SubjectMatch) -> bool:
    return _same(one.issuer, other.issuer) and _same(one.subject, other.subject)


def _same(one: str | Anyone, other: str | Anyone) -> bool:
    return ANYONE in (one, other) or one == other
