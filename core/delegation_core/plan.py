"""Delegations of requests in progress, and plans for the token exchanges that they allow.

The subject is the pair (iss, sub). An STS keeps ``sub``, so a token can be exchanged if its issuer is the route's own
STS, a user issuer of the entry, or listed as a crossing (in the last two cases the STS adds a prefix). A token of any
other issuer, even if trusted inbound, is not exchanged: the subject of the result could not be compared.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from delegation_core.errors import Denied, Reason
from delegation_core.policy import Policy
from delegation_core.revocation import NO_NAMES, Use
from delegation_core.route import OutboundRoute, RouteMark
from delegation_core.scope import ScopeSet
from delegation_core.spiffe_id import SpiffeId
from delegation_core.validity import DELEGATION_LIFE_S
from delegation_core.verify import TrustedIssuer, VerifiedToken

if TYPE_CHECKING:
    from delegation_core.crossing import Crossing
    from delegation_core.txn_token import TxnToken


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """Authority of a request in progress: its ``token``, the mesh ``scope``, and the outbound routes ``may_call``.

    ``entry``: the token is a login token, which starts a chain; ``at_door``: it is for the entry's door.
    ``granted``: a user granted this workload the token for one route (``login.py``); it is sent unchanged, and never
    exchanged.
    ``came_by``: the inbound route of the request, if any. ``fresh_until``: the time at which the user's login becomes
    too old for that route (None: never).
    ``ends_at``: the earlier of token expiry and ``fresh_until``, in seconds since the epoch. ``txn_token``: received
    with the request and sent with its calls; never used for decisions.
    """

    token: VerifiedToken
    may_call: frozenset[str]
    entry: bool
    scope: ScopeSet
    granted: bool = False
    at_door: bool = False
    came_by: RouteMark | None = None
    fresh_until: int | None = None
    txn_token: TxnToken | None = None
    ends_at: int = field(init=False)

    def __post_init__(self) -> None:
        expires_at, fresh_until = self.token.expires_at, self.fresh_until
        object.__setattr__(self, "ends_at", expires_at if fresh_until is None else min(expires_at, fresh_until))

    @property
    def held_bytes(self) -> int:
        """Approximate memory of the tokens in bytes, to limit caches."""
        return self.token.held_bytes + (0 if self.txn_token is None else self.txn_token.held_bytes)

    def narrowed_to(self, fresh: Delegation) -> Delegation:
        """Return the intersection with a fresh decision on the same token."""
        return replace(self, may_call=self.may_call & fresh.may_call, scope=self.scope & fresh.scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Required properties of the token for one call.

    ``delegation`` None: the workload requests its own token, without an actor. A granted ``delegation`` already has the
    token. Otherwise the token is issued by ``sts_issuer`` for ``audience`` and ``expected_subject``, with ``actor``
    (this workload) as the outermost actor, at most ``scope``, and expires by ``max_expires_at`` (epoch seconds).
    ``crossing``: set if the inbound token is of another issuer. ``kept_subjects_of``: login issuer whose subjects keep
    their names.
    """

    route: OutboundRoute
    delegation: Delegation | None
    audience: str
    scope: ScopeSet
    actor: SpiffeId
    sts_issuer: str
    expected_subject: str
    max_expires_at: int
    crossing: Crossing | None = None
    kept_subjects_of: str | None = None
    # cache of the native engine
    warm: list[object] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def key(self) -> Hashable:
        """Cache key: plans with equal keys may share one exchange and its token."""
        raw = None if self.delegation is None else self.delegation.token.raw
        return (raw, self.audience, self.scope, self.actor, self.sts_issuer)

    @property
    def begins_transaction(self) -> bool:
        """True if the call starts a chain on a route with ``txn_token``, so that it has no transaction token yet."""
        return self.route.txn_token and (self.delegation is None or self.delegation.entry)

    @property
    def subject_token(self) -> VerifiedToken | None:
        """The token to exchange; None for a granted or own token."""
        delegation = self.delegation
        return None if delegation is None or delegation.granted else delegation.token


def plan_outbound(delegation: Delegation, route: OutboundRoute, *, policy: Policy, now: int) -> Plan:
    """Plan the token for one call of the agent: same subject, audience of ``route``, no more scope than inbound.

    Raises:
        Denied: CALL_NOT_ALLOWED, OWN_AUTHORITY_REFUSED, TOKEN_EXPIRED, INSUFFICIENT_SCOPE (no scope is left),
            POLICY_DENIED (deny list, or a granted token that exceeds the route), REVOKED, ISSUER_NOT_FOR_ROUTE (another
            issuer without a crossing), NOT_AN_ENTRY.
        Unavailable: STS_UNAVAILABLE, no token service of the route's issuer is configured; REVOCATIONS_STALE.
    """
    token = delegation.token
    if route.name not in opened_routes(delegation, policy):
        raise Denied(Reason.CALL_NOT_ALLOWED)
    if route.token == "self":  # noqa: S105 - a kind. Own authority for a request would make a confused deputy
        raise Denied(Reason.OWN_AUTHORITY_REFUSED)
    if delegation.granted != (route.token == "login"):  # noqa: S105 - a kind
        raise Denied(Reason.CALL_NOT_ALLOWED, "a login route needs a login's token, which opens no other kind of route")
    if now >= token.expires_at:  # no leeway: the issued token must not outlive this one, so it would have expired
        raise Denied(Reason.TOKEN_EXPIRED)
    policy.deny.check(use_of(delegation, policy, route))
    sts = policy.sts(route.issuer)
    if delegation.granted:
        return _plan_granted(delegation, route, policy)
    crossing = _crossing(delegation, route)
    expected_subject, max_expires_at = _bounds(delegation, route, sts, policy, now)
    scope = delegation.scope
    if crossing is not None:
        expected_subject, scope = crossing.subject(expected_subject), crossing.worth(scope)
    scope &= route.scopes
    if not scope:
        raise Denied(Reason.INSUFFICIENT_SCOPE, "the route allows none of the inbound token's scopes")
    return Plan(
        route=route,
        delegation=delegation,
        audience=route.audience,
        scope=scope,
        actor=policy.workload,
        sts_issuer=sts.issuer,
        expected_subject=expected_subject,
        max_expires_at=max_expires_at,
        crossing=crossing,
        kept_subjects_of=sts.profile.subject_issuer,
    )


def plan_own(route: OutboundRoute, *, policy: Policy, now: int) -> Plan:
    """Plan the token for a call that the agent makes for itself: this workload is the subject, without an actor.

    Raises:
        Denied: OWN_AUTHORITY_REFUSED (the route exchanges tokens), CALL_NOT_ALLOWED (the workload handle does not open
            it), POLICY_DENIED (deny list), REVOKED.
        Unavailable: STS_UNAVAILABLE, no token service of the route's issuer is configured; REVOCATIONS_STALE.
    """
    if route.token != "self":  # noqa: S105 - a kind
        raise Denied(Reason.OWN_AUTHORITY_REFUSED, "the workload handle opens no exchange route")
    if route.name not in policy.own_may_call:
        raise Denied(Reason.CALL_NOT_ALLOWED)
    policy.deny.check(policy.own_use(policy.workload))
    sts = policy.sts(route.issuer)
    return Plan(
        route=route,
        delegation=None,
        audience=route.audience,
        scope=route.scopes,
        actor=policy.workload,
        sts_issuer=sts.issuer,
        expected_subject=str(policy.workload),
        max_expires_at=now + sts.profile.leeway_s + DELEGATION_LIFE_S,
    )


def use_of(delegation: Delegation, policy: Policy, route: OutboundRoute | None = None) -> Use:
    """Return the names to check against deny list and revocations, with those after an exchange for ``route``."""
    token, becomes = delegation.token, NO_NAMES
    entry = policy.entry if delegation.entry else None
    user = None if entry is None else entry.users(at_door=delegation.at_door).get(token.issuer)
    if user is not None:
        becomes = policy.names_of_login(user, token.subject)
    elif route is not None and token.issuer in route.crossings:
        becomes = frozenset(((route.issuer, route.crossings[token.issuer].subject(token.subject)),))
    return Use(token, policy.workload, becomes)


def opened_routes(delegation: Delegation, policy: Policy) -> frozenset[str]:
    """Return the outbound routes in ``delegation.may_call`` that the current policy still permits.

    A handle may outlive a change of the settings; removed permissions end for existing handles too. Raises Denied:
    NOT_AN_ENTRY for a login or granted token if this workload is no longer an entry.
    """
    if not delegation.entry and not delegation.granted:
        if delegation.came_by is None:
            return delegation.may_call
        route = policy.inbound.same(delegation.came_by)
        if route is None or (delegation.token.chain is None and not route.delegate_self):
            return frozenset()
        return delegation.may_call & route.may_call
    if policy.entry is None:
        raise Denied(Reason.NOT_AN_ENTRY, "this workload is no longer an entry")
    opened = delegation.may_call & policy.entry.may_call
    if delegation.at_door:
        opened &= frozenset() if policy.entry.door is None else policy.entry.door.routes
    if delegation.granted:  # only while the route of that name is still a login route
        opened &= {route.name for route in policy.outbound.routes if route.token == "login"}  # noqa: S105 - a kind
    return opened


def _plan_granted(delegation: Delegation, route: OutboundRoute, policy: Policy) -> Plan:
    """Plan a call with a token that a user granted; raises Denied if it exceeds the current route."""
    token = delegation.token
    if token.issuer != route.issuer:
        raise Denied(Reason.ISSUER_NOT_FOR_ROUTE, "the route's issuer is no longer that of the login's token")
    if not token.scope <= route.scopes:
        raise Denied(Reason.POLICY_DENIED, "the login's token has scopes that the route no longer allows")
    return Plan(
        route=route,
        delegation=delegation,
        audience=route.audience,
        scope=token.scope,
        actor=policy.workload,
        sts_issuer=route.issuer,
        expected_subject=token.subject,
        max_expires_at=token.expires_at,
    )


def _crossing(delegation: Delegation, route: OutboundRoute) -> Crossing | None:
    """Return the crossing for an inbound token of another issuer; None for a login or no crossing. Raises Denied."""
    issuer = delegation.token.issuer
    if delegation.entry or issuer == route.issuer:
        return None
    crossing = route.crossings.get(issuer)
    if crossing is None:
        raise Denied(
            Reason.ISSUER_NOT_FOR_ROUTE,
            "the inbound token's issuer differs from the route's, and the route has no crossing for it",
        )
    chain, subject = delegation.token.chain, delegation.token.subject
    if chain is None or subject in {delegation.token.actor_id, chain.current.subject}:
        raise Denied(Reason.OWN_AUTHORITY_REFUSED, "a token without delegation cannot cross to another issuer")
    return crossing


def _bounds(
    delegation: Delegation, route: OutboundRoute, sts: TrustedIssuer, policy: Policy, now: int
) -> tuple[str, int]:
    """Return the subject of the token to be issued, and the latest expiry. Raises Denied: NOT_AN_ENTRY."""
    token = delegation.token
    if not delegation.entry:
        return token.subject, token.expires_at
    user = policy.entry.issuers.get(token.issuer) if policy.entry is not None else None
    if policy.entry is None or user is None:
        raise Denied(Reason.NOT_AN_ENTRY, "the login token's issuer is no longer a user issuer")
    # The STS starts the life slightly later, by its own clock: the leeway covers delay and clock skew.
    latest = now + sts.profile.leeway_s + policy.entry.first_life_s(route)
    if policy.entry.delegation_life_s is None:
        latest = min(token.expires_at, latest)
    return user.mesh_subject(token.subject), latest
