"""Checks of a token that an STS issued, one for each property that the plan requires. The token is untrusted input.

All checks raise ``Denied`` with an ``sts_*`` code. They compare the issued token's claims, never the members of the
token response.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from delegation_core.act import ActChain
from delegation_core.claims import time_claim
from delegation_core.errors import Denied, Reason
from delegation_core.plan import Delegation, Plan
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import ANCESTORS, VerifiedToken, ancestors_of

_STS_REASONS: Final[Mapping[Reason, Reason]] = {
    Reason.BAD_SIGNATURE: Reason.STS_SIGNATURE,
    Reason.ALG_NOT_ALLOWED: Reason.STS_SIGNATURE,
    Reason.UNKNOWN_KEY: Reason.STS_SIGNATURE,
    Reason.WRONG_ISSUER: Reason.STS_ISSUER,
    Reason.TOKEN_TYPE: Reason.STS_TOKEN_TYPE,
    Reason.WRONG_AUDIENCE: Reason.STS_AUDIENCE_MISMATCH,
    Reason.TOKEN_EXPIRED: Reason.STS_LIFETIME,
    Reason.TOKEN_NOT_YET_VALID: Reason.STS_LIFETIME,
    Reason.ACT_MISSING: Reason.STS_NO_ACT,
    Reason.ACT_TOO_DEEP: Reason.STS_CHAIN_BROKEN,
}
_ABSENT: Final = object()


def sts_error(error: Denied, claims: Mapping[str, object] | None = None) -> Denied:
    """Map the refusal of an issued token to an ``sts_*`` code, since the caller did nothing wrong.

    ``claims``: those of the token, if readable; for ACT_MALFORMED they distinguish a broken history from no actor.
    """
    if error.reason is Reason.ACT_MALFORMED:
        act = claims.get("act") if claims else None
        named = isinstance(act, dict) and isinstance(act.get("sub"), str)
        reason = Reason.STS_CHAIN_BROKEN if named else Reason.STS_NO_ACT
    else:
        reason = _STS_REASONS.get(error.reason, Reason.STS_BAD_RESPONSE)
    return Denied(reason, f"the issued token: {error}")


def prove_issued(issued: VerifiedToken, plan: Plan, *, now: int) -> None:
    """Check that a verified token has the properties of ``plan``; stricter than RFC 8693, which leaves most open.

    Raises:
        Denied: STS_NO_ACT, STS_ACTOR_MISMATCH, STS_SUBJECT_MISMATCH, STS_CHAIN_BROKEN, STS_AUDIENCE_MISMATCH,
            STS_SCOPE_WIDENED, STS_LIFETIME, or STS_BAD_RESPONSE if the token has the subject token's jti.
    """
    delegation = plan.delegation
    if delegation is None:
        _prove_own(issued, plan)
    elif delegation.granted:
        prove_grant(issued, plan.actor)
        if issued.subject != plan.expected_subject:
            raise Denied(Reason.STS_SUBJECT_MISMATCH)
    else:
        chain = _proven_chain(issued, plan.actor)
        _prove_subject(issued, plan, delegation)
        _prove_history(chain, delegation)
        _prove_links(issued, delegation)
        _prove_login(issued, delegation)
    if issued.audience != plan.audience:
        raise Denied(Reason.STS_AUDIENCE_MISMATCH)
    if not issued.scope <= plan.scope:
        raise Denied(Reason.STS_SCOPE_WIDENED)
    _prove_lifetime(issued, plan, now)


def _prove_own(issued: VerifiedToken, plan: Plan) -> None:
    """Check that a token of the workload's own names only this workload: no actor, user or other client."""
    if issued.chain is not None or "may_act" in issued.claims:
        raise Denied(Reason.STS_CHAIN_BROKEN, "the workload's own token names an actor")
    if issued.subject != plan.expected_subject:
        raise Denied(Reason.STS_SUBJECT_MISMATCH)
    if issued.client_id != plan.actor:
        raise Denied(Reason.STS_SUBJECT_MISMATCH, "client_id")
    for claim in ("sub_id", "sid", "auth_time", "acr", "parent_jti"):
        if claim in issued.claims:
            raise Denied(Reason.STS_SUBJECT_MISMATCH, f"the workload's own token has {claim}")


def prove_grant(issued: VerifiedToken, actor: SpiffeId) -> None:
    """Check a token that a user granted: ``actor`` (this workload) is its only actor, and the subject is no workload.

    The user is unknown before the login, so any subject passes but the actor, the client or a SPIFFE ID.

    Raises:
        Denied: STS_NO_ACT, STS_ACTOR_MISMATCH, STS_CHAIN_BROKEN, STS_SUBJECT_MISMATCH.
    """
    chain = _proven_chain(issued, actor)
    if chain.depth != 1:
        raise Denied(Reason.STS_CHAIN_BROKEN, "the granted token names earlier actors")
    workloads = {actor, chain.current.subject, issued.client_id}
    if issued.subject in workloads or issued.subject.lower().startswith("spiffe:"):
        raise Denied(Reason.STS_SUBJECT_MISMATCH, "the granted token's subject is a workload")


def _proven_chain(issued: VerifiedToken, actor: SpiffeId) -> ActChain:
    """Return the token's chain. Raises Denied: STS_NO_ACT; STS_ACTOR_MISMATCH if its current actor is not ``actor``."""
    if issued.chain is None:
        raise Denied(Reason.STS_NO_ACT)
    if issued.actor_id != actor:
        raise Denied(Reason.STS_ACTOR_MISMATCH)
    return issued.chain


def _prove_subject(issued: VerifiedToken, plan: Plan, delegation: Delegation) -> None:
    """Check that ``sub`` is the planned one, and that ``sub_id`` still names the user's login.

    ``sub_id`` must be the (iss, sub) of a login whose subject the STS renames, else equal the inbound ``sub_id``.
    Without an inbound one it may be the inbound (iss, sub) or, except at a crossing, absent.
    """
    subject = delegation.token
    renamed = delegation.entry and subject.issuer not in (plan.sts_issuer, plan.kept_subjects_of)
    if issued.subject != plan.expected_subject:
        compare = "; compare subject_prefix and subject_claim with the token service's" if delegation.entry else ""
        raise Denied(Reason.STS_SUBJECT_MISMATCH, f"sub is not the user of the call{compare}")
    came_in = issued.sub_id == (subject.issuer, subject.subject)
    if renamed:
        kept = came_in
    elif "sub_id" in subject.claims:
        kept = _same_json(issued.claims.get("sub_id"), subject.claims["sub_id"])
    else:
        kept = came_in or ("sub_id" not in issued.claims and plan.crossing is None)
    if not kept:
        raise Denied(Reason.STS_SUBJECT_MISMATCH, "sub_id")


def _prove_history(chain: ActChain, delegation: Delegation) -> None:
    """Check that the chain before us equals the inbound ``act``, or is empty if the inbound token had none."""
    inbound = delegation.token.chain
    if not _same_json(chain.raw.get("act", _ABSENT), _ABSENT if inbound is None else inbound.raw):
        raise Denied(Reason.STS_CHAIN_BROKEN)


def _prove_links(issued: VerifiedToken, delegation: Delegation) -> None:
    """Check the links to the subject token: ``jti`` new, ``txn`` and ``sid`` kept, parent and ancestors right if given.

    At an entry the STS mints ``txn``, regardless of the login token's own, and may omit the login's ``sid``. It must
    never name another: revocation of a login matches ``sid``.
    """
    subject = delegation.token
    if issued.jti is not None and issued.jti == subject.jti:
        raise Denied(Reason.STS_BAD_RESPONSE, "the issued token has the same jti as the subject token")
    if not delegation.entry and subject.txn is not None and issued.txn != subject.txn:
        raise Denied(Reason.STS_CHAIN_BROKEN, "txn")
    if issued.sid != subject.sid and not (delegation.entry and issued.sid is None):
        raise Denied(Reason.STS_CHAIN_BROKEN, "sid")
    if issued.parent_jti is not None and issued.parent_jti != subject.jti:
        raise Denied(Reason.STS_CHAIN_BROKEN, "parent_jti")
    if issued.ancestors and issued.ancestors != ancestors_of(subject):
        raise Denied(Reason.STS_CHAIN_BROKEN, ANCESTORS)


def _prove_login(issued: VerifiedToken, delegation: Delegation) -> None:
    """Check that ``auth_time`` and ``acr`` (RFC 9068 section 2.2.1) equal those of the inbound token.

    A changed value could satisfy a step-up rule that the real login does not. At an entry an STS may omit both; calls
    to routes with a step-up rule then fail.
    """
    subject = delegation.token.claims
    for claim in ("auth_time", "acr"):
        kept = _same_json(issued.claims.get(claim, _ABSENT), subject.get(claim, _ABSENT))
        if not kept and not (delegation.entry and claim not in issued.claims):
            raise Denied(Reason.STS_CHAIN_BROKEN, claim)


def _prove_lifetime(issued: VerifiedToken, plan: Plan, now: int) -> None:
    """Check that the token has not expired and does not outlive the plan, to the fraction of a second."""
    delegation = plan.delegation
    subject_ends = 0 if delegation is None else time_claim(delegation.token.claims, "exp") or 0
    latest = subject_ends if int(subject_ends) == plan.max_expires_at else plan.max_expires_at
    if (time_claim(issued.claims, "exp") or 0) > latest:
        if delegation is None:
            outlives = "the limit for a workload's own token"
        else:
            outlives = "first_token_life_s of this entry" if delegation.entry else "its subject token"
        raise Denied(Reason.STS_LIFETIME, f"the issued token outlives {outlives}")
    if now >= issued.expires_at:  # without leeway, since the next hop may allow none
        raise Denied(Reason.STS_LIFETIME, "the issued token has expired")


def _same_json(one: object, other: object) -> bool:
    """True if two parsed JSON values are equal in value and type; Python's ``==`` equates true, 1 and 1.0."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same_json(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_json, one, other))
    return type(one) is type(other) and one == other
