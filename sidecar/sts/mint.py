"""Decides if a token is issued, and with which claims. Pure: verified tokens, time and random names are arguments.

Theory of operation. This service only delegates. The client is identified by its X.509-SVID, and the actor token names
the same workload; the subject token was issued to that workload, or is a user's login at an entry; a rule lets the
actor act for this subject at this target. The issued token is for one target, never wider than the subject token and
never (except for the first token of a chain) longer-lived; its act chain is the old one, whole, under the new actor.
A subject token of a foreign issuer also needs the (issuer, actor, target) to be listed, and its scopes count by a map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from delegation_core.act import ActChain
from delegation_core.errors import Denied, Reason
from delegation_core.jwt_svid import JwtSvid
from delegation_core.rfc8693 import (
    TOKEN_TYPE_ACCESS_TOKEN,
    TOKEN_TYPE_ID_TOKEN,
    TOKEN_TYPE_JWT,
    ClientCredentialsRequest,
    ExchangeRequest,
)
from delegation_core.scope import ScopeSet, format_scope
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import ANCESTORS, MAX_ANCESTORS, VerifiedToken, ancestors_of, thumbprint_of
from sidecar.sts.authority import Authority, authority_of, sub_id_claim
from sidecar.sts.policy import StsPolicy
from sidecar.sts.rules import LoginKind

ACCESS_TOKEN_TYPES: Final = frozenset({TOKEN_TYPE_ACCESS_TOKEN, TOKEN_TYPE_JWT})
TYPES_OF_LOGINS: Final[Mapping[LoginKind, frozenset[str]]] = {
    LoginKind.ID_TOKEN: frozenset({TOKEN_TYPE_ID_TOKEN}),
    LoginKind.ACCESS_TOKEN: ACCESS_TOKEN_TYPES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshNames:
    """Two random names: ``jti`` for the token, ``txn`` for the chain if it starts here."""

    jti: str
    txn: str


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The leaf of the client's X.509-SVID on this connection: its SHA-256 in hex, and its last second."""

    sha256: str
    not_after: int

    @property
    def thumbprint(self) -> str:
        """The value of ``x5t#S256`` (RFC 8705 section 3.1)."""
        return thumbprint_of(self.sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A token that may be signed: its ``claims``, and the ``scope`` and ``expires_in`` (seconds) of the answer."""

    claims: Mapping[str, object] = field(repr=False)
    scope: ScopeSet
    expires_in: int


def require_lawful_form(request: ExchangeRequest, subject_issuer: str, policy: StsPolicy) -> str:
    """Check the token types of a request, before any token is verified, and return its actor token.

    Raises:
        Denied: ACTOR_REQUIRED without an actor token (without one this would be impersonation, RFC 8693 section 1.1);
            EXCHANGE_MALFORMED for a type that is unsupported or does not fit the subject token's issuer; WRONG_ISSUER.
    """
    if request.actor_token is None:
        raise Denied(Reason.ACTOR_REQUIRED, "no actor token")
    if request.actor_token_type != TOKEN_TYPE_JWT:
        raise Denied(Reason.EXCHANGE_MALFORMED, "the actor token is a JWT-SVID, of type jwt")
    if request.requested_token_type not in {None, *ACCESS_TOKEN_TYPES}:
        raise Denied(Reason.EXCHANGE_MALFORMED, "requested_token_type is not that of an access token")
    if request.subject_token_type not in _types_of(subject_issuer, policy):
        raise Denied(Reason.EXCHANGE_MALFORMED, "the subject token's issuer gives another type of token")
    return request.actor_token


def _types_of(issuer: str, policy: StsPolicy) -> frozenset[str]:
    if issuer == policy.issuer or issuer in policy.foreign_issuers:
        return ACCESS_TOKEN_TYPES
    login = policy.login_issuers.get(issuer)
    if login is None:
        raise Denied(Reason.WRONG_ISSUER, "the subject token's issuer is not configured")
    return TYPES_OF_LOGINS[login.kind]


def authorize_exchange(
    request: ExchangeRequest,
    *,
    actor: JwtSvid,
    subject: VerifiedToken,
    policy: StsPolicy,
    now: int,
    fresh: FreshNames,
    certificate: ClientCertificate | None = None,
) -> Grant:
    """Decide one token exchange. ``actor`` is the client's own verified JWT-SVID (``tokens.verify_actor``).

    ``certificate`` is the client's, for targets whose tokens are bound.

    Raises:
        Denied: the errors of ``authority_of``; MAY_ACT_REFUSED, SELF_DELEGATION, ACT_TOO_DEEP, TARGET_UNKNOWN,
            DELEGATION_NOT_ALLOWED, SCOPE_REFUSED, CLIENT_NOT_AUTHENTICATED.
    """
    client = actor.spiffe_id
    authority = authority_of(subject, client=client, policy=policy, now=now)
    actor_claims = _actor_claims(client, policy)
    _require_may_act(subject.claims, actor_claims)
    act = _next_act(subject.chain, actor_claims, policy.max_depth)
    audience = _audience_of(request)
    allowed = _allowed_scopes(client, authority, audience, policy)
    scope = _narrow(request.scope, authority.scope, allowed)
    expires_at = authority.expires_at
    if subject.chain is None and not authority.own:  # a login: a chain starts here
        expires_at = min(expires_at, now + policy.entries[client].first_life_s(audience))
    bound, expires_at = _confirmation(audience, expires_at, policy, certificate)
    claims = _common(policy, client, authority.issued_subject, audience, scope, now, expires_at, fresh.jti)
    claims["act"] = act
    # RFC 8693 section 4.4 and RFC 9493 section 3.2.5: the client that may hand this token in, and the login behind it.
    claims["may_act"] = {"sub": str(policy.recipient_of(audience))}
    if authority.sub_id is not None:
        claims["sub_id"] = sub_id_claim(authority.sub_id)
    claims["txn"] = authority.txn or fresh.txn
    if subject.jti is not None:
        claims["parent_jti"] = subject.jti
    if ancestors := _ancestors(subject):
        claims[ANCESTORS] = ancestors
    if subject.sid is not None:
        claims["sid"] = subject.sid
    claims.update(_authentication_of(subject.claims))
    claims.update(bound)
    return Grant(claims=claims, scope=scope, expires_in=expires_at - now)


def authorize_self(
    request: ClientCredentialsRequest,
    *,
    client: SpiffeId,
    policy: StsPolicy,
    now: int,
    fresh: FreshNames,
    certificate: ClientCertificate | None = None,
) -> Grant:
    """Decide a client's request for a token of its own: no user, no actor, only for listed (workload, target) pairs.

    Raises:
        Denied: TARGET_UNKNOWN if the pair is not listed, SCOPE_REFUSED, CLIENT_NOT_AUTHENTICATED.
    """
    audience = _audience_of(request)
    allowed = policy.self_scopes(client, audience)
    if allowed is None:
        raise Denied(Reason.TARGET_UNKNOWN, "the client has no authority of its own at this target")
    scope = _narrow(request.scope, allowed)
    bound, expires_at = _confirmation(audience, now + policy.token_life_s, policy, certificate)
    claims = _common(policy, client, client, audience, scope, now, expires_at, fresh.jti)
    claims["txn"] = fresh.txn
    claims.update(bound)
    return Grant(claims=claims, scope=scope, expires_in=expires_at - now)


def _confirmation(
    audience: str, expires_at: int, policy: StsPolicy, certificate: ClientCertificate | None
) -> tuple[dict[str, object], int]:
    """Return ``cnf`` if the target's tokens are bound, and the expiry, which is then no later than the certificate's.

    The binding is to the actor, who presents the token, never to the subject token's sender.
    """
    if not policy.binds(audience):
        return {}, expires_at
    if certificate is None:
        raise Denied(
            Reason.CLIENT_NOT_AUTHENTICATED,
            "the target's tokens are bound to certificates, but the client presented none",
        )
    return {"cnf": {"x5t#S256": certificate.thumbprint}}, min(expires_at, certificate.not_after)


def _actor_claims(client: SpiffeId, policy: StsPolicy) -> dict[str, object]:
    """Return the members that name the client as an actor: ``iss`` too where tokens follow the actor profile."""
    return {"sub": str(client)} if policy.act_iss is None else {"iss": policy.act_iss, "sub": str(client)}


def _require_may_act(claims: Mapping[str, object], named: Mapping[str, object]) -> None:
    """Check ``may_act`` (RFC 8693 section 4.4): if present, the actor matches every member of it."""
    if "may_act" not in claims:
        return
    may_act = claims["may_act"]
    actor = {**named, "client_id": named["sub"]}  # every name of an actor here
    if not isinstance(may_act, dict) or "sub" not in may_act or not may_act.items() <= actor.items():
        raise Denied(Reason.MAY_ACT_REFUSED, "may_act names another actor")


def _next_act(chain: ActChain | None, actor: dict[str, object], max_depth: int) -> dict[str, object]:
    """Nest the old chain, unchanged and complete, under the new actor (RFC 8693 section 4.1)."""
    if chain is None:
        return actor
    if chain.current.subject == actor["sub"]:
        raise Denied(Reason.SELF_DELEGATION, "the client is already the current actor")
    if chain.depth >= max_depth:
        raise Denied(Reason.ACT_TOO_DEEP, f"more than {max_depth} actors")
    return {**actor, "act": chain.raw}


def _ancestors(subject: VerifiedToken) -> list[str]:
    """Return the ``jti`` of every token before the parent, so that an order for any of them stops the new token."""
    ancestors = ancestors_of(subject)
    if len(ancestors) > MAX_ANCESTORS:
        raise Denied(Reason.ACT_TOO_DEEP, f"more than {MAX_ANCESTORS} tokens before the parent")
    return list(ancestors)


def _audience_of(request: ExchangeRequest | ClientCredentialsRequest) -> str:
    """Return the only target of a request: several would grant every scope at every target (RFC 8693 section 2.1.1)."""
    named = {*request.audience, *request.resource}
    if len(named) != 1:
        raise Denied(Reason.TARGET_UNKNOWN, "audience or resource must name exactly one target")
    return named.pop()


def _allowed_scopes(client: SpiffeId, authority: Authority, audience: str, policy: StsPolicy) -> ScopeSet:
    if authority.audiences is not None and audience not in authority.audiences:
        raise Denied(Reason.DELEGATION_NOT_ALLOWED, "the foreign issuer's tokens are not accepted at this target")
    if authority.own:
        listed = policy.self_delegations_of(authority.subject, client)
        at_audience = [one.scopes for one in listed if one.audience == audience]
        if not at_audience:
            raise Denied(Reason.DELEGATION_NOT_ALLOWED, "the client may not act for this workload at this target")
        return frozenset().union(*at_audience)
    rules = policy.rules_for(client, audience)
    if not rules:
        raise Denied(Reason.TARGET_UNKNOWN, "no rule lets the client act at this target")
    matching = [rule.scopes for rule in rules if rule.speaks_of(authority.issuer, authority.subject)]
    if not matching:
        raise Denied(Reason.DELEGATION_NOT_ALLOWED, "no rule lets the client act for this subject at this target")
    return frozenset().union(*matching)


def _narrow(asked: ScopeSet | None, *limits: ScopeSet) -> ScopeSet:
    """Return the requested (by default, all) scopes that every limit allows. Raises Denied SCOPE_REFUSED if none is."""
    first, *rest = limits if asked is None else (asked, *limits)
    scope = first.intersection(*rest)
    if not scope:
        raise Denied(Reason.SCOPE_REFUSED, "none of the requested scopes is allowed")
    return scope


def _common(
    policy: StsPolicy,
    client: SpiffeId,
    subject: str,
    audience: str,
    scope: ScopeSet,
    now: int,
    expires_at: int,
    jti: str,
) -> dict[str, object]:
    return {
        "iss": policy.issuer,
        "sub": str(subject),
        "aud": audience,
        "scope": format_scope(scope),
        "client_id": str(client),
        "iat": now,
        "exp": expires_at,
        "jti": jti,
    }


def _authentication_of(claims: Mapping[str, object]) -> dict[str, object]:
    """Return how the user logged in (RFC 9068 section 2.2.1), kept along the chain; other types are refused."""
    kept = {name: claims[name] for name in ("auth_time", "acr") if name in claims}
    auth_time, acr = kept.get("auth_time", 0), kept.get("acr", "")
    if isinstance(auth_time, bool) or not isinstance(auth_time, int | float) or not isinstance(acr, str):
        raise Denied(Reason.MALFORMED_TOKEN, "auth_time or acr has another type")
    return kept
