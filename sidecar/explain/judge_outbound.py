"""Judges a recorded outbound call again, with the sidecar's own core and order of checks. Pure.

The record of a refused call holds the token of the inbound request. The record of a permitted call holds the token that
was issued for it, from which the inbound token follows: the same subject, the chain without its outermost actor, and at
least the requested scope.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.login_issuer import SCOPE_CLAIMS, UserIssuer
from delegation_core.plan import Delegation, plan_outbound, plan_own
from delegation_core.policy import Policy
from delegation_core.records.reading import Record, is_own
from delegation_core.route import OutboundRoute
from delegation_core.scope import ScopeSet
from delegation_core.target import canonical_target
from delegation_core.verify import VerifiedToken
from sidecar.explain.judge_inbound import OF_HTTP
from sidecar.explain.judgement import DENY_LIST, OF_ANY_REQUEST, OK, Check, Judgement, conclude, names
from sidecar.explain.recorded_operation import key_of, operation_seen
from sidecar.explain.recorded_token import CannotJudgeError, time_of, token_of

REQUEST: Final = Check("request", OF_ANY_REQUEST, provable=False)
OPERATION: Final = (
    Check("message", frozenset({Reason.OPERATION_MALFORMED, Reason.PROTOCOL_VERSION}), provable=False),
    Check("operation", frozenset({Reason.OPERATION_REFUSED})),
    Check("push URL", frozenset({Reason.PUSH_URL_REFUSED}), provable=False),
)
LOGIN: Final = Check(
    "handle or login",
    frozenset(
        {
            Reason.NO_REQUEST_CONTEXT, Reason.HEADER_MALFORMED, Reason.NO_TOKEN, Reason.MALFORMED_TOKEN,
            Reason.DUPLICATE_CLAIM, Reason.TOKEN_TOO_LARGE, Reason.TOKEN_TYPE, Reason.ALG_NOT_ALLOWED,
            Reason.UNKNOWN_KEY, Reason.KEYS_UNAVAILABLE, Reason.BAD_SIGNATURE, Reason.WRONG_ISSUER,
            Reason.WRONG_AUDIENCE, Reason.TOKEN_NOT_YET_VALID, Reason.CNF_MISMATCH, Reason.ACT_MALFORMED,
            Reason.ACT_TOO_DEEP,
        }
    ),
    provable=False,
)  # fmt: skip
AFTER_LOGIN: Final = (
    Check("may_call", frozenset({Reason.CALL_NOT_ALLOWED}), provable=False),
    Check("own authority", frozenset({Reason.OWN_AUTHORITY_REFUSED})),
    Check("time left", frozenset({Reason.TOKEN_EXPIRED}), provable=False),
    Check(DENY_LIST, frozenset({Reason.POLICY_DENIED})),
    Check("subject's issuer", frozenset({Reason.ISSUER_NOT_FOR_ROUTE, Reason.NOT_AN_ENTRY, Reason.STS_UNAVAILABLE})),
    Check("scope to ask for", frozenset({Reason.INSUFFICIENT_SCOPE})),
    Check("calls left", frozenset({Reason.CALLS_EXHAUSTED}), provable=False),
    Check(
        "exchange",
        frozenset({Reason.EXCHANGE_DENIED, *(reason for reason in Reason if reason.startswith("sts_"))}),
        provable=False,
    ),
    Check("agent card", frozenset({Reason.CARD_REFUSED}), provable=False),
    Check("transaction token", frozenset({Reason.TXN_TOKEN_REFUSED}), provable=False),
)
CHECKS: Final = (
    REQUEST,
    Check("target", frozenset({Reason.PATH_REFUSED})),
    Check("route", frozenset({Reason.TARGET_DENIED})),
    *OPERATION,
    LOGIN,
    *AFTER_LOGIN,
)


def judge_outbound(record: Record, policy: Policy) -> Judgement:
    """Find the check that decides under the given policy.

    Raises:
        CannotJudgeError: the record lacks input for a judgement.
    """
    if record.method == "CONNECT":
        raise CannotJudgeError("it is a tunnel: there is no token to judge")
    recorded = OK if record.decision == "allow" else record.reason or ""
    saw = {"request": f"{record.method} {record.path} from the agent", "target": f"path {record.path}"}
    saw["route"] = f"route {record.route} among {names(route.name for route in policy.outbound.routes)}"
    try:
        route = _route(record, policy)
    except Denied as error:
        return conclude(CHECKS, saw, recorded=recorded, judged=error.reason)
    saw |= OF_HTTP
    if route.operations is not None:
        saw["operation"] = operation_seen(record, route)
        try:
            route = _operation(record, route)
        except Denied as error:
            return conclude(CHECKS, saw, recorded=recorded, judged=error.reason)
    if is_own(record):
        return _own(record, route, policy, saw, recorded)
    if record.subject is None or not record.verified:
        saw["handle or login"] = "no valid handle or login: the record holds no verified token"
        if recorded != Reason.NOT_AN_ENTRY:
            return conclude(CHECKS, saw, recorded=recorded, judged=OK)
        if policy.entry is not None:
            raise CannotJudgeError("a login was shown, and the record does not hold it")
        return conclude(CHECKS, saw, recorded=recorded, judged=Reason.NOT_AN_ENTRY)
    delegation = delegation_of(record, route, policy)
    saw |= saw_of(record, route, delegation, policy)
    try:
        plan_outbound(delegation, route, policy=policy, now=time_of(record))
    except SidecarError as error:
        return conclude(CHECKS, saw, recorded=recorded, judged=error.reason)
    return conclude(CHECKS, saw, recorded=recorded, judged=OK)


def _own(record: Record, route: OutboundRoute, policy: Policy, saw: dict[str, str], recorded: str) -> Judgement:
    """Judge a call that the agent made for itself, by the workload handle."""
    saw["handle or login"] = f"the workload handle, which opens {names(policy.own_may_call)}"
    saw["own authority"] = f"a route of kind {route.token}"
    try:
        plan_own(route, policy=policy, now=time_of(record))
    except SidecarError as error:
        return conclude(CHECKS, saw, recorded=recorded, judged=error.reason)
    return conclude(CHECKS, saw, recorded=recorded, judged=OK)


def _operation(record: Record, route: OutboundRoute) -> OutboundRoute:
    """Return the route of the recorded operation."""
    found = route.for_operation(key_of(record, route))
    return found.for_itself or found if is_own(record) else found


def _route(record: Record, policy: Policy) -> OutboundRoute:
    """Return the route by its name: a record does not hold the authority that would select one."""
    target = canonical_target((record.path or "").encode())
    for route in policy.outbound.routes:
        if route.name == record.route:
            return route
    if record.route is not None and any(one.host and one.peer == record.peer for one in policy.outbound.routes):
        raise CannotJudgeError("no route has the recorded name, and one by host leads to the same peer")
    outside = any(route.name == record.route for route in policy.outbound.outside)
    found = None if outside else policy.outbound.find(None, target, own_authorities=())[0]
    if not isinstance(found, OutboundRoute):
        raise CannotJudgeError("the call left the mesh with a static key: there is no token to judge")
    return found


def delegation_of(
    record: Record, route: OutboundRoute, policy: Policy, door: Mapping[str, UserIssuer] | None = None
) -> Delegation:
    """Return the authority of the inbound request. It allows this call; a login at an entry, its ``may_call``.

    ``door`` are the issuers of the door that received the request.

    Raises:
        CannotJudgeError: a login gave too few scopes, and the record lacks the scopes that it gives.
    """
    token = token_of(record)
    entry = policy.entry
    issuers = {} if entry is None else entry.issuers if door is None else door
    if route.token == "login":  # noqa: S105 - a kind. The token of the call is the one that the user granted
        return Delegation(token=token, may_call=frozenset({route.name}), entry=False, granted=True, scope=token.scope)
    if record.allowed:
        prior = None if token.chain is None else record.chain[1:] if record.chain else None
        token = token_of(replace(record, chain=prior or None, jti_in=record.jti_in, scope=record.scope_needed))
        if record.crossed_from is not None:
            token = _undo_crossing(token, record.crossed_from, route)
        elif not prior and entry is not None:  # a login token, of any issuer the entry has
            token = replace(token, issuer=next(iter(issuers), token.issuer))
    user = None if token.chain is not None else issuers.get(token.issuer)
    if entry is None or user is None:
        return Delegation(token=token, may_call=frozenset({route.name}), entry=False, scope=token.scope)
    worth = token.scope if record.allowed else _worth(record, user, route)
    return Delegation(token=token, may_call=entry.may_call, entry=True, scope=worth, at_door=door is not None)


def _worth(record: Record, user: UserIssuer, route: OutboundRoute) -> ScopeSet:
    """Return the scopes of the login in a refused call; those of the route if the record lacks them.

    Raises:
        CannotJudgeError: the reason is INSUFFICIENT_SCOPE, and the record lacks the login's scopes.
    """
    claim = user.scope_from.claim
    if claim in SCOPE_CLAIMS and record.scope is not None and not record.scope_cut:
        return user.scope_from.worth({claim: " ".join(record.scope)})
    if record.reason == Reason.INSUFFICIENT_SCOPE:
        raise CannotJudgeError(f"a login is worth what its {claim} says, and the record does not hold it")
    return route.scopes


def _undo_crossing(token: VerifiedToken, issuer: str, route: OutboundRoute) -> VerifiedToken:
    """Return the other issuer's token, with all scopes that the map translates to a requested one."""
    crossing = route.crossings.get(issuer)
    if crossing is None:
        return replace(token, issuer=issuer)
    scope = frozenset(one for one in crossing.scopes if crossing.worth(frozenset({one})) & token.scope)
    return replace(token, issuer=issuer, subject=token.subject.removeprefix(crossing.subject_prefix), scope=scope)


def saw_of(record: Record, route: OutboundRoute, delegation: Delegation, policy: Policy) -> dict[str, str]:
    """Describe the input of each check from the login on."""
    opened_by = names(one.name for one in policy.inbound.routes if route.name in one.may_call)
    held = delegation.scope if not record.allowed else record.scope_needed or frozenset()
    crossing = None if record.allowed else route.crossings.get(delegation.token.issuer)
    planned = (held if crossing is None else crossing.worth(held)) & route.scopes
    return {
        "handle or login": f"a login of {record.subject}"
        if delegation.entry or delegation.granted
        else f"the request with call id {record.call_in}",
        "may_call": f"an entry that opens {names(delegation.may_call)}"
        if delegation.entry or delegation.granted
        else f"inbound routes that open {route.name}: {opened_by}; the inbound record names the one in use",
        "own authority": f"a route of kind {route.token}",
        "time left": "not in a record",
        DENY_LIST: f"subject {record.subject}, actor {policy.workload}, jti {record.jti_in}, txn {record.txn}",
        "subject's issuer": f"{delegation.token.issuer}; the route's tokens are of {route.issuer}",
        "scope to ask for": f"{names(planned)}: the inbound scopes within the route's {names(route.scopes)}",
        "calls left": "not in a record",
        "exchange": f"issued: token {record.jti_out} for {record.audience} with {names(record.scope or ())}"
        if record.allowed
        else "not in this record; see token.exchange_refused",
        "transaction token": "not in a record",
    }
