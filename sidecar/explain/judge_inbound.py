"""Judges a recorded inbound request again, with the sidecar's own core and order of checks. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from delegation_core.decide import decide_verified
from delegation_core.errors import OF_HANDSHAKES, Denied, Reason
from delegation_core.policy import Deny, Policy
from delegation_core.records.reading import Record
from delegation_core.route import InboundRoute
from delegation_core.target import canonical_target
from delegation_core.verify import VerifiedToken
from sidecar.explain.judgement import DENY_LIST, OF_ANY_REQUEST, OK, Check, Judgement, conclude, names
from sidecar.explain.recorded_operation import key_of, operation_seen
from sidecar.explain.recorded_token import spiffe_id, time_of, token_of

_DOMAIN, _PEERS = "issuer's trust domains", "route's peers"

CHECKS: Final = (
    Check(
        "request",
        OF_ANY_REQUEST | {Reason.SUBJECT_BUSY, *OF_HANDSHAKES} - {Reason.TLS_VERSION},
        provable=False,
    ),
    Check("target", frozenset({Reason.PATH_REFUSED})),
    Check("route", frozenset({Reason.NO_ROUTE, Reason.METHOD_REFUSED})),
    Check(
        "bearer",
        frozenset(
            {
                Reason.NO_TOKEN, Reason.HEADER_MALFORMED, Reason.TOKEN_TOO_LARGE, Reason.MALFORMED_TOKEN,
                Reason.DUPLICATE_CLAIM,
            }
        ),
        provable=False,
    ),
    Check("issuer", frozenset({Reason.WRONG_ISSUER, Reason.ISSUER_NOT_FOR_ROUTE})),
    Check(
        "signature and times",
        frozenset(
            {
                Reason.TOKEN_TYPE, Reason.ALG_NOT_ALLOWED, Reason.UNKNOWN_KEY, Reason.KEYS_UNAVAILABLE,
                Reason.BAD_SIGNATURE, Reason.TOKEN_EXPIRED, Reason.TOKEN_NOT_YET_VALID,
            }
        ),
        provable=False,
    ),
    Check("audience", frozenset({Reason.WRONG_AUDIENCE})),
    Check("form of act", frozenset({Reason.ACT_MALFORMED, Reason.ACT_TOO_DEEP}), provable=False),
    Check("message", frozenset({Reason.OPERATION_MALFORMED, Reason.PROTOCOL_VERSION}), provable=False),
    Check("operation", frozenset({Reason.OPERATION_REFUSED})),
    Check("push URL", frozenset({Reason.PUSH_URL_REFUSED}), provable=False),
    Check(DENY_LIST, frozenset({Reason.POLICY_DENIED})),
    Check("key binding", frozenset({Reason.CNF_MISMATCH}), provable=False),
    Check("delegation", frozenset({Reason.ACT_MISSING})),
    Check("actor is the peer", frozenset({Reason.ACTOR_MISMATCH})),
    Check(_DOMAIN, frozenset({Reason.POLICY_DENIED})),
    Check("issuer's ceiling", frozenset({Reason.SCOPE_ABOVE_CEILING})),
    Check(_PEERS, frozenset({Reason.POLICY_DENIED})),
    Check("scopes", frozenset({Reason.INSUFFICIENT_SCOPE})),
    Check("login", frozenset({Reason.STEP_UP_REQUIRED}), provable=False),
    Check("session", frozenset({Reason.SESSION_UNKNOWN}), provable=False),
    Check("task", frozenset({Reason.TASK_UNKNOWN, Reason.CONTEXT_UNKNOWN}), provable=False),
    Check("agent card", frozenset({Reason.CARD_REFUSED}), provable=False),
    Check("transaction token", frozenset({Reason.TXN_TOKEN_REFUSED}), provable=False),
)  # fmt: skip

OF_HTTP: Final = {
    "message": "not in a record",
    "operation": "none: the route's protocol is HTTP",
    "push URL": "not in a record",
    "agent card": "not in a record",
}
_BEFORE_SIGNATURE: Final = frozenset({Reason.WRONG_ISSUER, Reason.ISSUER_NOT_FOR_ROUTE})
_BEFORE_MESSAGE: Final = _BEFORE_SIGNATURE | {Reason.WRONG_AUDIENCE}


def judge_inbound(record: Record, policy: Policy) -> Judgement:
    """Find the check that decides under the given policy.

    Raises:
        CannotJudgeError: the record lacks input for a judgement.
    """
    recorded = OK if record.decision == "allow" else record.reason or ""
    saw = {"request": f"{record.method} {record.path} from {record.peer}", "target": f"path {record.path}"}
    try:
        path = canonical_target((record.path or "").encode()).path
        route = policy.inbound.find(record.method or "", path)
    except Denied as error:
        saw["route"] = f"{record.method} {record.path} among {names(r.name for r in policy.inbound.routes)}"
        return conclude(CHECKS, saw, recorded=recorded, judged=error.reason)
    saw["route"] = f"route {route.name}"
    saw |= OF_HTTP
    if route.protocol == "metadata":
        return conclude(CHECKS, saw, recorded=recorded, judged=OK)
    saw["bearer"] = f"token {record.fp}" if record.fp else "no token was parsed"
    if route.operations is not None and record.op is not None:  # none was read where the token did not verify
        saw["operation"] = operation_seen(record, route)
        try:
            route = route.for_operation(key_of(record, route))
        except Denied as error:
            judged = str(error.reason)
            if record.subject is not None:
                token = token_of(record)
                saw |= _saw(record, token, route, policy)
                of_token, _ = _decide(token, record, route, policy)
                judged = of_token if of_token in _BEFORE_MESSAGE else judged
            return conclude(CHECKS, saw, recorded=recorded, judged=judged)
    if record.subject is None:
        return conclude(CHECKS, saw, recorded=recorded, judged=OK)
    token = token_of(record)
    saw |= _saw(record, token, route, policy)
    judged, detail = _decide(token, record, route, policy)
    if not record.verified and judged not in _BEFORE_MESSAGE:
        judged = OK  # an unverified token decides nothing more
    deciding = None
    if judged == Reason.POLICY_DENIED:
        deciding = _which(token, record, route, policy, first=(judged, detail))
    return conclude(CHECKS, saw, recorded=recorded, judged=judged, deciding=deciding)


def _decide(token: VerifiedToken, record: Record, route: InboundRoute, policy: Policy) -> tuple[str, str]:
    """Run the core. Returns its reason and detail, or ok."""
    peer = spiffe_id(record.peer, "peer")
    try:
        route = replace(route, human=None)  # a record does not tell when and how the user logged in
        decide_verified(token, peer=peer, route=route, policy=policy, now=time_of(record))
    except Denied as error:
        return error.reason, error.detail
    return OK, ""


def _which(token: VerifiedToken, record: Record, route: InboundRoute, policy: Policy, *, first: tuple[str, str]) -> str:
    """Return the deciding one of three checks with one reason, by running the core without each of them."""
    if _decide(token, record, route, replace(policy, deny=Deny())) != first:
        return DENY_LIST
    open_route = replace(route, peers=route.peers | {spiffe_id(record.peer, "peer")})
    return _PEERS if _decide(token, record, open_route, policy) != first else _DOMAIN


def _saw(record: Record, token: VerifiedToken, route: InboundRoute, policy: Policy) -> Mapping[str, str]:
    issuer = policy.issuers.get(token.issuer)
    chain = " ← ".join(record.chain or ()) or "nobody"
    claimed = "" if record.verified else " (claimed by an unverified token)"
    return {
        "issuer": f"{token.issuer}; the route takes {names(route.issuers)}",
        "signature and times": f"token {record.jti_in or record.fp}: not in a record, {_verify(record)}",
        "audience": f"{record.audience}; ours are {names(policy.audiences)}{claimed}",
        "form of act": f"the token names {chain}",
        DENY_LIST: f"subject {token.subject}, actor {record.peer}, jti {token.jti}, txn {token.txn}",
        "key binding": "not in a record",
        "delegation": f"the token names {chain} as acting for {token.subject}",
        "actor is the peer": f"actor {record.actor}, peer {record.peer}",
        _DOMAIN: f"the issuer speaks for actors of {names(issuer.actor_trust_domains if issuer else ())}",
        "issuer's ceiling": f"{names(token.scope)} within {names(issuer.scopes if issuer else ())}",
        _PEERS: f"{record.peer} among {names(route.peers)}",
        "scopes": f"route {route.name} needs {names(route.scopes)}, the token holds {names(token.scope)}",
        "login": "not in a record",
        "session": "not in a record",
        "task": "not in a record",
        "transaction token": "not in a record",
    }


def _verify(record: Record) -> str:
    return "the record says that it verified" if record.verified else "the record says that it did not verify"
