"""Rebuilds an exchange from the token service's record of it. Pure.

The record of a refusal describes the subject token; the record of an issued token that token, from which the subject
token follows: the same subject, the chain without its outermost actor, and at least the requested scope. A login's
issuer follows from the prefix of the subject. Facts that no record holds get values that decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from delegation_core.errors import Reason
from delegation_core.jwt_svid import JwtSvid
from delegation_core.records.reading import Record
from delegation_core.rfc8693 import TOKEN_TYPE_ACCESS_TOKEN, ClientCredentialsRequest, ExchangeRequest
from delegation_core.scope import ScopeSet
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import VerifiedToken
from sidecar.explain.recorded_token import CannotJudgeError, time_of, token_of
from sidecar.sts.policy import StsPolicy
from sidecar.sts.rules import LoginIssuer

# Without a subject token a request of these ends was one for the client's own token.
_OWN_ENDS: Final = frozenset({Reason.TARGET_UNKNOWN, Reason.SCOPE_REFUSED})


def is_for_itself(record: Record) -> bool:
    """Tell if the client asked for a token of its own, without a subject token."""
    if record.allowed:
        return record.chain is None
    return record.subject_iss is None and record.audience is not None and record.reason in _OWN_ENDS


def own_request(record: Record) -> ClientCredentialsRequest:
    """Return the request for the client's own token."""
    return ClientCredentialsRequest(audience=_targets(record), scope=_requested_scope(record))


def exchange_request(record: Record) -> ExchangeRequest:
    """Return the exchange's request, without its tokens."""
    return ExchangeRequest(
        subject_token="",
        subject_token_type=TOKEN_TYPE_ACCESS_TOKEN,
        audience=_targets(record),
        scope=_requested_scope(record),
    )


def actor_of(client: SpiffeId, now: int) -> JwtSvid:
    """Make an actor token of the client; records do not contain it."""
    return JwtSvid(spiffe_id=client, raw="", expires_at=now + 1, not_before=now, leeway_s=0, fingerprint="", kid=None)


def subject_token(record: Record, client: SpiffeId, policy: StsPolicy) -> VerifiedToken:
    """Return the subject token.

    Raises:
        CannotJudgeError: the record lacks facts, or its subject is unknown in the settings.
    """
    token = _rebuild_subject_token(record, client, policy) if record.allowed else token_of(record)
    login = policy.login_issuers.get(token.issuer)
    if login is not None:
        return _as_login(token, login, client, policy, _requested_scope(record))
    sub_id = _login_pair(token.subject, policy) if token.issuer == policy.issuer else None
    scope = token.scope if record.scope is not None else _requested_scope(record) or policy.own.scopes
    expires_at = time_of(record) + policy.longest_life_s
    return replace(token, audience=str(client), sub_id=sub_id, scope=scope, expires_at=expires_at, claims={})


def _rebuild_subject_token(record: Record, client: SpiffeId, policy: StsPolicy) -> VerifiedToken:
    prior = (record.chain or ())[1:]
    scope = _requested_scope(record) or record.scope
    before = replace(record, chain=prior or None, actor=prior[0] if prior else None, jti_in=record.jti_in, scope=scope)
    token = token_of(before)
    if record.crossed_from is not None:
        foreign = policy.foreign_issuers.get(record.crossed_from)
        if foreign is None:
            raise CannotJudgeError("the settings know the foreign issuer of this crossing no more")
        crossing = foreign.crossing
        worth = frozenset(one for one in crossing.scopes if crossing.worth(frozenset({one})) & token.scope)
        subject = token.subject.removeprefix(crossing.subject_prefix)
        return replace(token, issuer=record.crossed_from, subject=subject, scope=worth)
    if prior or token.subject.startswith("spiffe://"):  # a workload that started the chain for itself has no actor
        return token
    pair = _login_pair(token.subject, policy, client)
    if pair is None:
        raise CannotJudgeError("no user issuer of the settings gives this subject its name")
    return replace(token, issuer=pair[0], subject=pair[1])


def _as_login(
    token: VerifiedToken, login: LoginIssuer, client: SpiffeId, policy: StsPolicy, asked: ScopeSet | None
) -> VerifiedToken:
    """Return a login of the entry's OAuth client. Its unrecorded scopes are those that map to the requested ones."""
    entry = policy.entries.get(client)
    client_id = "" if entry is None else entry.client_ids.get(token.issuer, "")
    given = login.scope_from.map
    values = sorted(name for name, scopes in given.items() if asked is None or scopes & asked)
    claims: Mapping[str, object] = {login.scope_from.claim: values}
    return replace(token, audience=client_id, client_id=None, claims=claims, expires_at=token.expires_at + 3600)


def _login_pair(subject: str, policy: StsPolicy, client: SpiffeId | None = None) -> tuple[str, str] | None:
    """Return issuer and ``sub`` of the login behind a subject; the prefix is unambiguous. ``client``, if given, must be
    an entry for that issuer.
    """
    entry = None if client is None else policy.entries.get(client)
    if subject.startswith("spiffe://"):  # no user has such a name
        return None
    for issuer, login in policy.login_issuers.items():
        if subject.startswith(login.subject_prefix) and (client is None or (entry and issuer in entry.client_ids)):
            return issuer, subject[len(login.subject_prefix) :]
    return None


def _requested_scope(record: Record) -> ScopeSet | None:
    return record.scope_needed


def _targets(record: Record) -> tuple[str, ...]:
    return tuple((record.audience or "").split())
