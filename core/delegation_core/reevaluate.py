"""Re-evaluates earlier permits against the current policy and keys. Pure: keys and time are arguments.

Each function decides whether a call with an already verified token would be permitted now. With unchanged issuer
settings and key this takes microseconds and no signature check, so thousands of calls in flight can be re-evaluated
after every change. Expiry is not checked: an expired token is evaluated as of its last second, and the caller limits
the rest of the call. Withdrawal of the key of a token that has already expired is ignored, because a planned rotation
looks the same.
"""

from __future__ import annotations

from typing import Protocol

from delegation_core.bearer import parse_bearer
from delegation_core.decide import (
    decide_entry,
    decide_verified,
)
from delegation_core.errors import Denied, Reason, Unavailable
from delegation_core.issued import prove_issued, sts_error
from delegation_core.keyset import VerificationKey
from delegation_core.permit import IssuedPermit
from delegation_core.plan import Delegation, plan_outbound, plan_own
from delegation_core.policy import Policy
from delegation_core.revocation import NO_NAMES, Use
from delegation_core.route import InboundRoute, OutboundRoute
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import ANY_CERTIFICATE, VerifiedToken, check_times, verify_again


class Keys(Protocol):
    """Current verification keys of all issuers."""

    def find(self, issuer: str, kid: str | None) -> VerificationKey | None:
        """Return the issuer's current key with this kid; None if there is none."""
        ...

    def known(self, issuer: str) -> bool:
        """True if a key set of this issuer is in force; False after fetching failed for too long."""
        ...


def inbound_again(
    token: VerifiedToken,
    *,
    peer: SpiffeId,
    route: InboundRoute,
    keys: Keys,
    policy: Policy,
    now: int,
    peer_certificate_sha256: str,
    ends_at: int | None = None,
) -> None:
    """Check that a peer's request would still be permitted on ``route``.

    ``ends_at``: end of the request's authority (None: token expiry); later than that, its last second is evaluated.

    Raises:
        Denied: as ``decide_inbound``; UNKNOWN_KEY if the issuer has withdrawn the token's key.
        Unavailable: KEYS_UNAVAILABLE if the issuer's keys are too old; REVOCATIONS_STALE.
    """
    issuer = policy.issuers.get(token.issuer)
    if issuer is None:
        raise Denied(Reason.WRONG_ISSUER, "the issuer is no longer trusted")
    at = within(token, now) if ends_at is None else min(now, ends_at - 1)
    token = verify_again(
        token,
        issuer=issuer,
        key=key_of(token, keys, now),
        audiences=policy.audiences,
        now=at,
        peer_certificate_sha256=peer_certificate_sha256,
    )
    decide_verified(
        token, peer=peer, route=route, policy=policy, now=at, peer_certificate_sha256=peer_certificate_sha256
    )


def outbound_again(permit: IssuedPermit, *, operation: str | None = None, keys: Keys, policy: Policy, now: int) -> None:
    """Check that an outbound call would still be permitted. The caller re-evaluates the request's inbound authority.

    ``operation``: the call's operation key, which may differ from the plan's, since calls of a route share tokens.

    Raises:
        SidecarError: as ``plan_outbound`` and ``accept_issued``; UNKNOWN_KEY or KEYS_UNAVAILABLE; TARGET_DENIED if the
            route has another target or is gone; POLICY_DENIED also if the token exceeds the route's scopes.
    """
    before = permit.plan
    token = permit.token
    route = same_route(before.route, operation, policy)
    delegation = before.delegation
    if delegation is None:
        plan = plan_own(route.for_itself or route, policy=policy, now=now)
    else:
        if delegation.entry:
            delegation = login_again(delegation, keys, policy, now)
        plan = plan_outbound(delegation, route, policy=policy, now=within(delegation.token, now))
    policy.deny.check(Use(token, policy.workload, NO_NAMES))
    if not token.scope <= plan.scope:  # no error of the STS: the earlier plan requested more
        raise Denied(Reason.POLICY_DENIED, "the token has scopes that the route no longer allows")
    at = within(token, now)
    try:
        token = verify_again(
            token,
            issuer=policy.sts(plan.sts_issuer),
            key=key_of(token, keys, now),
            audiences=frozenset({plan.audience}),
            now=at,
            peer_certificate_sha256=ANY_CERTIFICATE,  # the call's connection uses the SVID that the token is bound to
        )
    except Denied as error:
        raise error if error.reason is Reason.UNKNOWN_KEY else sts_error(error) from error
    prove_issued(token, plan, now=at)


def same_route(before: OutboundRoute, operation: str | None, policy: Policy) -> OutboundRoute:
    """Return the current route with the same name, upstream, peer and audience. Raises Denied: TARGET_DENIED."""
    meant = (before.name, before.upstream, before.peer, before.audience)
    for route in policy.outbound.routes:
        if (route.name, route.upstream, route.peer, route.audience) == meant:
            return route.for_operation(operation)
    raise Denied(Reason.TARGET_DENIED, "the route now leads to another target, or is gone")


def login_again(before: Delegation, keys: Keys, policy: Policy, now: int) -> Delegation:
    """Re-evaluate a login; never permits more than ``before``. Raises as ``decide_entry`` and ``key_of``."""
    token = before.token
    if policy.entry is None:
        raise Denied(Reason.NOT_AN_ENTRY)
    user = policy.entry.users(at_door=before.at_door).get(token.issuer)
    if user is None:
        raise Denied(Reason.WRONG_ISSUER, "the issuer is no longer a user issuer of this entry")
    key, at, grounds = key_of(token, keys, now), within(token, now), token.grounds
    if grounds is None or grounds.key != key or grounds.trusted != user:
        fresh = decide_entry(parse_bearer(token.raw), key=key, policy=policy, now=at, at_door=before.at_door)
        return before.narrowed_to(fresh)
    check_times(token, at)
    return before


def within(token: VerifiedToken, now: int) -> int:
    """Return the time at which to evaluate a token: ``now``, at most its last second."""
    return min(now, token.expires_at - 1)


def key_of(token: VerifiedToken, keys: Keys, now: int) -> VerificationKey:
    """Return the token's key as published now; for an expired token whose key changed, the earlier key.

    Raises:
        Denied: UNKNOWN_KEY if the key was withdrawn.
        Unavailable: KEYS_UNAVAILABLE if no key set of the issuer is in force.
    """
    grounds = token.grounds
    key = keys.find(token.issuer, parse_bearer(token.raw).kid if grounds is None else grounds.kid)
    if grounds is not None and key != grounds.key and now >= token.expires_at + token.leeway_s:
        return grounds.key
    if key is None and not keys.known(token.issuer):
        raise Unavailable(Reason.KEYS_UNAVAILABLE, "the issuer's keys are too old")
    if key is None:
        raise Denied(Reason.UNKNOWN_KEY, "the issuer has withdrawn the token's key")
    return key
