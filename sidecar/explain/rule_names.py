"""Names the rules of a token service's settings that cover one exchange, by their place in the file. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from delegation_core.scope import ScopeSet, format_scope
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import VerifiedToken
from sidecar.sts.policy import StsPolicy
from sidecar.sts.rules import ANYONE, SubjectMatch

_MOST = 5


def rules_that_allow(policy: StsPolicy, client: SpiffeId, token: VerifiedToken, audience: str) -> str:
    """Name the rules by which the client may act for the token's subject at the audience; empty if there is none."""
    if _own(token, policy):
        found = (
            _name_rule("self_delegations", number, one.scopes)
            for number, one in enumerate(policy.self_delegations)
            if (one.workload, one.actor, one.audience) == (token.subject, client, audience)
        )
        return _join_names(found)
    pair = pair_of(token, policy)
    return _join_names(
        _name_rule("rules", number, rule.scopes)
        for number, rule in enumerate(policy.rules)
        if (rule.actor, rule.audience) == (client, audience) and rule.speaks_of(*pair)
    )


def rules_that_nearly_allow(policy: StsPolicy, client: SpiffeId, token: VerifiedToken, audience: str) -> str:
    """Report that no rule allows the exchange, and name the nearest: for other subjects, or at other audiences."""
    issuer, subject = pair_of(token, policy)
    there = [one for one in enumerate(policy.rules) if (one[1].actor, one[1].audience) == (client, audience)]
    if there:
        others = _join_names(f"rules[{number}] for {subjects_of(rule.subjects)}" for number, rule in there)
        return f"none for {subject} of {issuer}; at this target the client has {others}"
    elsewhere = [one for one in enumerate(policy.rules) if one[1].actor == client and one[1].speaks_of(issuer, subject)]
    if elsewhere:
        others = _join_names(f"rules[{number}] at {rule.audience}" for number, rule in elsewhere)
        return f"none at this target; for this subject the client has {others}"
    return "none: the client has no rule for this subject, and none at this target"


def rules_for_itself(policy: StsPolicy, client: SpiffeId, audience: str) -> str:
    """Name the rules by which the client may act for itself at the audience."""
    found = _join_names(
        _name_rule("self_rules", number, rule.scopes)
        for number, rule in enumerate(policy.self_rules)
        if (rule.workload, rule.audience) == (client, audience)
    )
    return found or "none: the client may not act for itself at this target"


def subjects_of(matches: Iterable[SubjectMatch]) -> str:
    """Return the subjects of a rule as text."""
    return "; ".join(sorted(map(_match, matches))) or "nobody"


def pair_of(token: VerifiedToken, policy: StsPolicy) -> tuple[str, str]:
    """Return issuer and subject that rules match, as ``authority_of`` finds them."""
    return policy.foreign_pair(token.subject) or token.sub_id or (token.issuer, token.subject)


def _own(token: VerifiedToken, policy: StsPolicy) -> bool:
    return token.issuer == policy.issuer and token.sub_id is None and token.subject.startswith("spiffe://")


def _match(match: SubjectMatch) -> str:
    subject = "anybody" if match.subject is ANYONE else str(match.subject)
    return f"{subject} of any issuer" if match.issuer is ANYONE else f"{subject} of {match.issuer}"


def _name_rule(kind: str, number: int, scopes: ScopeSet) -> str:
    return f"{kind}[{number}] with {format_scope(scopes) or 'no scope'}"


def _join_names(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:_MOST]) + (f" and {len(found) - _MOST} more" if len(found) > _MOST else "")
