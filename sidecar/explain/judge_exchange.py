"""Judges a recorded exchange of the token service again, with its own core and order of checks. Pure."""

from __future__ import annotations

from typing import Final

from delegation_core.errors import Denied, Reason
from delegation_core.records.reading import Record
from delegation_core.scope import format_scope
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import VerifiedToken
from sidecar.explain.judgement import OK, Check, Judgement, conclude, names
from sidecar.explain.recorded_exchange import actor_of, exchange_request, is_for_itself, own_request, subject_token
from sidecar.explain.recorded_token import CannotJudgeError, spiffe_id, time_of
from sidecar.explain.rule_names import rules_for_itself, rules_that_allow, rules_that_nearly_allow
from sidecar.sts.authority import authority_of, foreign_issuer_for, login_issuer_for
from sidecar.sts.mint import ClientCertificate, FreshNames, Grant, authorize_exchange, authorize_self
from sidecar.sts.policy import StsPolicy

UNPROVABLE: Final = (
    "A record holds no token: signatures, kinds, times, audiences, may_act and revocations are taken from it.",
    "It does not hold the claims of a login: its worth is taken to be all that scope_from gives of what was asked.",
    "The user issuer behind a subject follows from its prefix in the settings.",
    "The settings are the current ones. If they changed since the record was written, the judgement may differ.",
)

_SHOWN, _CHAIN, _TARGET, _RULE, _SCOPES = "who may show it", "chain", "target", "rule", "scopes"

CHECKS: Final = (
    Check(
        "request",
        frozenset(
            {
                Reason.CLIENT_NOT_AUTHENTICATED, Reason.BAD_REQUEST, Reason.METHOD_REFUSED, Reason.NO_ROUTE,
                Reason.EXPECTATION_REFUSED, Reason.TOO_LARGE, Reason.TIMEOUT, Reason.PEER_GONE, Reason.OVERLOADED,
                Reason.DRAINING, Reason.NOT_READY, Reason.AUDIT_UNAVAILABLE, Reason.INTERNAL,
                Reason.EXCHANGE_MALFORMED, Reason.GRANT_NOT_SUPPORTED,
            }
        ),
        provable=False,
    ),
    Check(
        "form of the subject token",
        frozenset({Reason.MALFORMED_TOKEN, Reason.TOKEN_TOO_LARGE, Reason.DUPLICATE_CLAIM}),
        provable=False,
    ),
    Check("issuer", frozenset({Reason.WRONG_ISSUER})),
    Check(
        "actor token",
        frozenset({Reason.ACTOR_REQUIRED, Reason.ACTOR_TOKEN_INVALID, Reason.ACTOR_NOT_CLIENT}),
        provable=False,
    ),
    Check(_SHOWN, frozenset({Reason.NOT_AN_ENTRY, Reason.DELEGATION_NOT_ALLOWED})),
    Check(
        "signature, times and audience",
        frozenset(
            {
                Reason.TOKEN_TYPE, Reason.ALG_NOT_ALLOWED, Reason.UNKNOWN_KEY, Reason.KEYS_UNAVAILABLE,
                Reason.BAD_SIGNATURE, Reason.TOKEN_EXPIRED, Reason.TOKEN_NOT_YET_VALID, Reason.NOT_YOUR_TOKEN,
                Reason.CNF_MISMATCH, Reason.ACT_MALFORMED,
            }
        ),
        provable=False,
    ),
    Check("revocations", frozenset({Reason.REVOKED}), provable=False),
    Check(_CHAIN, frozenset({Reason.SELF_DELEGATION, Reason.ACT_TOO_DEEP})),
    Check("may_act", frozenset({Reason.MAY_ACT_REFUSED}), provable=False),
    Check(_TARGET, frozenset({Reason.TARGET_UNKNOWN})),
    Check(_RULE, frozenset()),
    Check(_SCOPES, frozenset({Reason.SCOPE_REFUSED})),
)  # fmt: skip

OWN_CHECKS: Final = (
    CHECKS[0],
    Check("revocations", frozenset({Reason.REVOKED}), provable=False),
    Check(_RULE, frozenset({Reason.TARGET_UNKNOWN})),
    Check(_SCOPES, frozenset({Reason.SCOPE_REFUSED})),
)

_NAMES: Final = FreshNames(jti="", txn="")
_ANY_CERTIFICATE: Final = ClientCertificate(sha256="", not_after=2**53)  # not in a record; it refuses nothing


def judge_exchange(record: Record, policy: StsPolicy) -> tuple[Judgement, Grant | None]:
    """Find the check that decides under the given policy, and the grant if none refuses.

    Raises:
        CannotJudgeError: the record lacks input for a judgement.
    """
    if record.direction is not None:
        raise CannotJudgeError("the record is a sidecar's; judge the token service's own")
    recorded = OK if record.decision == "allow" else record.reason or ""
    saw = {"request": f"from {record.peer or 'nobody proven'} for {record.audience or 'no target'}"}
    if record.peer is None:
        return conclude(CHECKS, saw, recorded=recorded, judged=OK), None
    client = spiffe_id(record.peer, "client")
    if is_for_itself(record):
        return _judge_own(record, client, policy, recorded, saw)
    saw["form of the subject token"] = f"token {record.jti_in or record.fp}" if record.subject_iss else "none was read"
    if record.subject_iss is None:
        return conclude(CHECKS, saw, recorded=recorded, judged=OK), None
    if not record.verified:
        return _judge_unverified(record, client, policy, recorded, saw), None
    token = subject_token(record, client, policy)
    saw |= _saw(record, client, token, policy)
    judged, deciding, grant = _decide(record, client, token, policy)
    if grant is not None:
        saw[_SCOPES] += f"; now {format_scope(grant.scope)} for {grant.expires_in} s at most"
    return conclude(CHECKS, saw, recorded=recorded, judged=judged, deciding=deciding), grant


def _decide(
    record: Record, client: SpiffeId, token: VerifiedToken, policy: StsPolicy
) -> tuple[str, str | None, Grant | None]:
    """Run the core. Returns its reason, the deciding check if several share that reason, and the grant."""
    now, deciding = time_of(record), _SHOWN
    try:
        _render(client, token.issuer, policy)
        deciding = _CHAIN
        authority_of(token, client=client, policy=policy, now=now)
        deciding = _RULE
        request, actor = exchange_request(record), actor_of(client, now)
        grant = authorize_exchange(
            request, actor=actor, subject=token, policy=policy, now=now, fresh=_NAMES, certificate=_ANY_CERTIFICATE
        )
    except Denied as error:
        several = error.reason in {Reason.NOT_AN_ENTRY, Reason.DELEGATION_NOT_ALLOWED}
        return error.reason, deciding if several else None, None
    return OK, None, grant


def _render(client: SpiffeId, issuer: str, policy: StsPolicy) -> None:
    if issuer == policy.issuer:
        return
    if issuer in policy.foreign_issuers:
        foreign_issuer_for(client, issuer, policy)
    elif issuer in policy.login_issuers:
        login_issuer_for(client, issuer, policy)
    else:
        raise Denied(Reason.WRONG_ISSUER)


def _judge_unverified(
    record: Record, client: SpiffeId, policy: StsPolicy, recorded: str, saw: dict[str, str]
) -> Judgement:
    """Judge by the claimed issuer alone: an unverified token decides nothing more."""
    issuer = record.subject_iss or ""
    saw["issuer"] = f"{issuer} (claimed by an unverified token)"
    try:
        _render(client, issuer, policy)
    except Denied as error:
        deciding = None if error.reason is Reason.WRONG_ISSUER else _SHOWN
        return conclude(CHECKS, saw, recorded=recorded, judged=error.reason, deciding=deciding)
    if recorded in {Reason.WRONG_ISSUER, Reason.NOT_AN_ENTRY, Reason.DELEGATION_NOT_ALLOWED}:
        raise CannotJudgeError("these settings let the client show the token, which nobody has verified")
    return conclude(CHECKS, saw, recorded=recorded, judged=OK)


def _judge_own(
    record: Record, client: SpiffeId, policy: StsPolicy, recorded: str, saw: dict[str, str]
) -> tuple[Judgement, Grant | None]:
    now, grant = time_of(record), None
    saw[_RULE] = rules_for_itself(policy, client, record.audience or "")
    saw[_SCOPES] = _scopes(record)
    judged: str = OK
    try:
        grant = authorize_self(
            own_request(record), client=client, policy=policy, now=now, fresh=_NAMES, certificate=_ANY_CERTIFICATE
        )
        saw[_SCOPES] += f"; now {format_scope(grant.scope)} for {grant.expires_in} s"
    except Denied as error:
        judged = error.reason
    return conclude(OWN_CHECKS, saw, recorded=recorded, judged=judged), grant


def _saw(record: Record, client: SpiffeId, token: VerifiedToken, policy: StsPolicy) -> dict[str, str]:
    chain = "nobody" if token.chain is None else " ← ".join(token.chain.subjects)
    subject = f"{token.subject} of {token.issuer}"
    allowing = rules_that_allow(policy, client, token, record.audience or "")
    return {
        "issuer": _kind(token.issuer, policy),
        "actor token": f"of {client}",
        _SHOWN: f"{client} shows a token for {subject}{_crossing(client, token.issuer, policy)}",
        "signature, times and audience": "not in a record, which says that it verified",
        "revocations": "not in a record",
        _CHAIN: f"the subject token names {chain} as acting; at most {policy.max_depth} may act",
        "may_act": "not in a record",
        _TARGET: record.audience or "no target",
        _RULE: allowing or rules_that_nearly_allow(policy, client, token, record.audience or ""),
        _SCOPES: _scopes(record),
    }


def _crossing(client: SpiffeId, issuer: str, policy: StsPolicy) -> str:
    foreign = policy.foreign_issuers.get(issuer)
    return "" if foreign is None else f", and may do so at {names(foreign.actors.get(client, ()))}"


def _scopes(record: Record) -> str:
    asked = "without a list" if record.scope_needed is None else format_scope(record.scope_needed)
    issued = f"; issued {format_scope(record.scope)}" if record.allowed and record.scope else ""
    return f"asked for {asked or 'nothing'}{issued}"


def _kind(issuer: str, policy: StsPolicy) -> str:
    if issuer == policy.issuer:
        return "this token service"
    kind = "a foreign issuer" if issuer in policy.foreign_issuers else "a user issuer"
    return f"{issuer}, {kind}" if issuer in {*policy.foreign_issuers, *policy.login_issuers} else f"{issuer}, unknown"
