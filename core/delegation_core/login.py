"""User grants: plans a login at a token service for one outbound route, and verifies the resulting token.

The user is unknown before the login, so the subject cannot be compared. Signature, issuer, audience, scope and life are
checked as for any issued token, and this workload must be the only actor. The token opens exactly one route and is
never exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

from delegation_core.bearer import Bearer
from delegation_core.claims import time_claim
from delegation_core.errors import Denied, Reason
from delegation_core.issued import prove_grant, sts_error
from delegation_core.keyset import VerificationKey
from delegation_core.plan import Delegation
from delegation_core.policy import Policy
from delegation_core.revocation import NO_NAMES, Use
from delegation_core.route import OutboundRoute
from delegation_core.scope import ScopeSet
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import VerifiedToken, verify_token


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginPlan:
    """Required properties of a granted token: the audience and at most the scopes of ``route``, ``actor`` (this
    workload) as its actor, and a life of at most ``life_s``.
    """

    route: OutboundRoute
    actor: SpiffeId
    life_s: int

    @property
    def audience(self) -> str:
        """The audience of the token."""
        return self.route.audience

    @property
    def scope(self) -> ScopeSet:
        """The requested scope, and the most that the token may have."""
        return self.route.scopes

    @property
    def sts_issuer(self) -> str:
        """The issuer of the token, where the user logs in."""
        return self.route.issuer


def plan_login(name: str, *, policy: Policy) -> LoginPlan:
    """Plan a login for the outbound route called ``name``.

    Raises:
        Denied: NOT_AN_ENTRY, CALL_NOT_ALLOWED (the entry has no login route of this name), POLICY_DENIED or REVOKED
            (this workload).
        Unavailable: STS_UNAVAILABLE, no token service of the route's issuer is configured; REVOCATIONS_STALE.
    """
    entry = policy.entry
    if entry is None:
        raise Denied(Reason.NOT_AN_ENTRY)
    route = next((one for one in policy.outbound.routes if one.name == name), None)
    if route is None or route.token != "login" or name not in entry.may_call:  # noqa: S105 - a kind
        raise Denied(Reason.CALL_NOT_ALLOWED, "this entry has no login route of this name")
    policy.deny.check(policy.own_use(policy.workload))
    policy.sts(route.issuer)
    return LoginPlan(route=route, actor=policy.workload, life_s=entry.first_life_s(route))


def accept_login(issued: Bearer, *, plan: LoginPlan, key: VerificationKey, policy: Policy, now: int) -> Delegation:
    """Verify a token issued after a login. ``key``: the key of ``plan.sts_issuer`` with the token's kid.

    Raises:
        Denied: an ``sts_*`` code for a token that differs from the plan; INSUFFICIENT_SCOPE for an empty scope;
            POLICY_DENIED or REVOKED (user, login or this workload).
        Unavailable: REVOCATIONS_STALE, or as ``plan_login``.
    """
    issuer = policy.sts(plan.sts_issuer)
    try:
        token = verify_token(issued, issuer=issuer, key=key, audiences=frozenset({plan.audience}), now=now, slim=True)
    except Denied as error:
        raise sts_error(error, issued.claims) from error
    prove_grant(token, plan.actor)
    if not token.scope <= plan.scope:
        raise Denied(Reason.STS_SCOPE_WIDENED)
    _prove_life(token, now=now, latest=now + issuer.profile.leeway_s + plan.life_s)
    if not token.scope:
        raise Denied(Reason.INSUFFICIENT_SCOPE, "the user granted no scope")
    policy.deny.check(Use(token, policy.workload, NO_NAMES))
    return Delegation(token=token, may_call=frozenset({plan.route.name}), entry=False, granted=True, scope=token.scope)


def _prove_life(token: VerifiedToken, *, now: int, latest: int) -> None:
    # The token service starts the life slightly later, by its own clock: the leeway covers delay and clock skew.
    if (time_claim(token.claims, "exp") or 0) > latest:
        raise Denied(Reason.STS_LIFETIME, "the granted token outlives first_token_life_s of this entry")
    if now >= token.expires_at:
        raise Denied(Reason.STS_LIFETIME, "the granted token has expired")
