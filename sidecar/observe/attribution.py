"""Record fields of tokens and permits. Pure; computed once per token or permit, which may serve many requests."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from delegation_core.act import parse_act
from delegation_core.errors import Denied
from delegation_core.records.record import MAX_ITEMS, OK, RecordFields
from delegation_core.records.record_text import masked
from delegation_core.scope import ScopeSet, sorted_scope

if TYPE_CHECKING:
    from delegation_core.bearer import Bearer
    from delegation_core.permit import IssuedPermit, Permit
    from delegation_core.verify import VerifiedToken


def facts_of(permit: Permit) -> RecordFields:
    """Return the facts of a permitted inbound request: its subject, its actors, its route."""
    return {**facts_of_token(permit.token), **facts_of_call(permit)}


def facts_of_call(permit: Permit) -> RecordFields:
    """Return the facts of a permitted inbound request besides its token's: decision, peer, route, required scopes."""
    return _facts_of_call(permit.peer, permit.route.name, permit.route.scopes)


@lru_cache(maxsize=256)  # one dict for all tokens of a peer
def _facts_of_call(peer: str, route: str, scopes: ScopeSet) -> RecordFields:
    return {"decision": "allow", "reason": OK, "peer": peer, "route": route, "scope_needed": sorted_scope(scopes)}


def facts_of_issued(permit: IssuedPermit) -> RecordFields:
    """Return the facts of a permitted outbound call: route, decision and issued token. Do not modify."""
    issued, plan = permit.token, permit.plan
    jti_in = None if plan.subject_token is None else plan.subject_token.jti
    facts: RecordFields = {
        **_claims(issued),
        "decision": "allow",
        "reason": OK,
        "peer": plan.route.peer,
        "route": plan.route.name,
        "scope_needed": sorted_scope(plan.scope),
        "jti_in": jti_in,
        "jti_out": issued.jti,
        "parent_jti": jti_in if issued.parent_jti is None else issued.parent_jti,
    }
    if plan.crossing is not None:
        facts["crossed_from"] = plan.crossing.issuer
    return masked(facts)


def facts_of_token(token: VerifiedToken) -> RecordFields:
    """Return the claims of a verified token; a token within a claim is masked."""
    return masked(_claims(token))


def _claims(token: VerifiedToken) -> RecordFields:
    chain = token.chain
    return {
        "verified": True,
        "subject": token.subject,
        "subject_iss": token.issuer,
        "actor": None if chain is None else token.actor_id or chain.current.subject,
        "chain": None if chain is None else chain.subjects,
        "chain_depth": None if chain is None else chain.depth,
        "client_id": token.client_id,
        "audience": token.audience,
        "scope": sorted_scope(token.scope),
        "jti_in": token.jti,
        "parent_jti": token.parent_jti,
        "txn": token.txn,
        "fp": token.fingerprint,
    }


def claims_of(bearer: Bearer) -> RecordFields:
    """Return the claims of a token that did not verify, for investigation; ``verified`` is false."""
    claims = bearer.claims
    scope = _text(claims, "scope")
    try:
        chain = parse_act(claims)
    except Denied:
        chain = None
    return {
        "verified": False,
        "subject": _text(claims, "sub"),
        "subject_iss": bearer.issuer,
        "actor": None if chain is None else chain.current.subject,
        "chain": None if chain is None else chain.subjects,
        "chain_depth": None if chain is None else chain.depth,
        "client_id": _text(claims, "client_id"),
        "audience": _text(claims, "aud"),
        "scope": None if scope is None else scope.split(" ", MAX_ITEMS),
        "jti_in": _text(claims, "jti"),
        "txn": _text(claims, "txn"),
        "fp": bearer.fingerprint,
    }


def _text(claims: Mapping[str, object], name: str) -> str | None:
    value = claims.get(name)
    return value if isinstance(value, str) else None
