"""The authority behind a request in progress, and the exchanges it allows.

The subject is the pair (iss, sub). An STS keeps ``sub``, so a token can be exchanged onwards if the pair's issuer is
the STS of the route itself, or, at an entry, one of its user issuers, or one that the route lists as a crossing (in
both cases a prefix then names it). A token of any other issuer, however trusted for inbound calls, would come back with
a pair that nobody could compare: it is not exchanged.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sidecar.delegation.policy import Policy
from sidecar.delegation.revocation import NO_NAMES, Use
from sidecar.delegation.route import OutboundRoute, RouteMark
from sidecar.delegation.scope import ScopeSet
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.delegation.validity import DELEGATION_LIFE_S
from sidecar.delegation.verify import TrustedIssuer, VerifiedToken
from sidecar.errors import Denied, Reason

if TYPE_CHECKING:
    from sidecar.delegation.crossing import Crossing
    from sidecar.delegation.txn_token import TxnToken


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """The authority of a request being served: its own ``token``, worth ``scope`` here, opening ``may_call``.

    ``entry``: the token is a login token, with which a chain starts; ``at_door``: one for the entry's door.
    ``granted``: a user has granted this workload the very token that its one route needs (``login.py``); it is sent as
    it is, and never exchanged.
    ``came_by`` is the inbound route of the request, where there was one; ``fresh_until`` is the time at which the
    user's login becomes too old for it (None: never).
    The authority ends at ``ends_at``: with the token, or before. In seconds since the epoch. ``txn_token`` came with
    the request, and goes with its calls; nothing is decided by it.
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
        """The memory that its tokens take, for caches that hold it."""
        return self.token.held_bytes + (0 if self.txn_token is None else self.txn_token.held_bytes)

    def narrowed_to(self, fresh: Delegation) -> Delegation:
        """Return the intersection with a fresh decision on the same token."""
        return replace(self, may_call=self.may_call & fresh.may_call, scope=self.scope & fresh.scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One token to be requested, and the properties it must have.

    ``delegation`` None: no token is exchanged, the workload asks for one of its own, without any actor. A granted
    ``delegation`` holds the token already. Otherwise the issued token shall be by ``sts_issuer``, for ``audience``, of
    ``expected_subject``, with ``actor`` (this workload) as its outermost actor, no wider than ``scope`` and expired by
    ``max_expires_at`` (seconds since the epoch). ``crossing`` if the inbound token is of another issuer. Subjects of
    ``kept_subjects_of``, a login issuer, keep their names at the token service, as its profile says.
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
    # kept here by the native engine
    warm: list[object] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def key(self) -> Hashable:
        """Everything the issued token depends on: plans with equal keys may share one exchange and its answer."""
        raw = None if self.delegation is None else self.delegation.token.raw
        return (raw, self.audience, self.scope, self.actor, self.sts_issuer)

    @property
    def begins_transaction(self) -> bool:
        """True if the call begins a chain on a route that carries transaction tokens: then there is none yet."""
        return self.route.txn_token and (self.delegation is None or self.delegation.entry)

    @property
    def subject_token(self) -> VerifiedToken | None:
        """The token to be exchanged; None: there is none."""
        delegation = self.delegation
        return None if delegation is None or delegation.granted else delegation.token


def plan_outbound(delegation: Delegation, route: OutboundRoute, *, policy: Policy, now: int) -> Plan:
    """Plan the exchange for one call of the agent: same subject, this target, no wider than the inbound token.

    Raises:
        Denied: CALL_NOT_ALLOWED, OWN_AUTHORITY_REFUSED, TOKEN_EXPIRED, INSUFFICIENT_SCOPE (nothing is left to ask for),
            POLICY_DENIED (deny list, or a granted token that the route no longer allows), ISSUER_NOT_FOR_ROUTE (the
            subject's issuer is not the route's, and no crossing is listed), NOT_AN_ENTRY.
        Unavailable: STS_UNAVAILABLE, no token service of the route's issuer is configured.
    """
    token = delegation.token
    if route.name not in opened_routes(delegation, policy):
        raise Denied(Reason.CALL_NOT_ALLOWED)
    if route.token == "self":  # noqa: S105 - a kind. Own authority lent to a request would make a confused deputy
        raise Denied(Reason.OWN_AUTHORITY_REFUSED)
    if delegation.granted != (route.token == "login"):  # noqa: S105 - a kind
        raise Denied(Reason.CALL_NOT_ALLOWED, "a login route is opened by its own logins, and they open nothing else")
    if now >= token.expires_at:  # no leeway: the issued token must not outlive this one, so it would be expired already
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
        raise Denied(Reason.INSUFFICIENT_SCOPE, "none of the inbound token's scopes may be used at this target")
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
    """Plan a call that the agent makes for itself: the subject is this workload, and nobody acts for it.

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
    """Return the use of a delegation by a call. An exchange for ``route`` may rename the subject."""
    token, becomes = delegation.token, NO_NAMES
    entry = policy.entry if delegation.entry else None
    user = None if entry is None else entry.users(at_door=delegation.at_door).get(token.issuer)
    if user is not None:
        becomes = policy.names_of_login(user, token.subject)
    elif route is not None and token.issuer in route.crossings:
        becomes = frozenset(((route.issuer, route.crossings[token.issuer].subject(token.subject)),))
    return Use(token, policy.workload, becomes)


def opened_routes(delegation: Delegation, policy: Policy) -> frozenset[str]:
    """Return the outbound routes that the inbound route opened and the current policy still opens.

    A handle may live long, by its request, its linger or its login; a route that an operator closes is closed to it
    as well.
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
    if delegation.granted:  # for its route alone, and not for another kind that has the name since
        opened &= {route.name for route in policy.outbound.routes if route.token == "login"}  # noqa: S105 - a kind
    return opened


def _plan_granted(delegation: Delegation, route: OutboundRoute, policy: Policy) -> Plan:
    """Plan a call with a token granted by a user for this route, checked against the current route."""
    token = delegation.token
    if token.issuer != route.issuer:
        raise Denied(Reason.ISSUER_NOT_FOR_ROUTE, "the route now uses tokens of another issuer than the login's")
    if not token.scope <= route.scopes:
        raise Denied(Reason.POLICY_DENIED, "the route now allows less than the login's token")
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
    """Return the listed crossing of an inbound token of another issuer. A login starts a chain and crosses nothing."""
    issuer = delegation.token.issuer
    if delegation.entry or issuer == route.issuer:
        return None
    crossing = route.crossings.get(issuer)
    if crossing is None:
        raise Denied(Reason.ISSUER_NOT_FOR_ROUTE, "the subject's issuer is not the one whose tokens the route uses")
    chain, subject = delegation.token.chain, delegation.token.subject
    if chain is None or subject in {delegation.token.actor_id, chain.current.subject}:
        raise Denied(Reason.OWN_AUTHORITY_REFUSED, "a token that shows no delegation does not cross to another issuer")
    return crossing


def _bounds(
    delegation: Delegation, route: OutboundRoute, sts: TrustedIssuer, policy: Policy, now: int
) -> tuple[str, int]:
    """Return the subject that the issued token must have, and the time by which it must expire."""
    token = delegation.token
    if not delegation.entry:
        return token.subject, token.expires_at
    user = policy.entry.issuers.get(token.issuer) if policy.entry is not None else None
    if policy.entry is None or user is None:
        raise Denied(Reason.NOT_AN_ENTRY, "the login token's issuer is no longer a user issuer")
    # The STS counts from its own clock, slightly later than we do: the leeway of its tokens covers both.
    latest = now + sts.profile.leeway_s + policy.entry.first_life_s(route)
    if policy.entry.delegation_life_s is None:
        latest = min(token.expires_at, latest)
    return user.mesh_subject(token.subject), latest
