"""Re-evaluates permits of routes that observe, and of calls and tunnels that leave the mesh. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from delegation_core.decide import (
    decide_connect,
    decide_observed,
    decide_observed_call,
    decide_own,
    decide_plain,
)
from delegation_core.errors import Denied, Reason
from delegation_core.permit import ObservedPermit, OwnPermit, TunnelPermit
from delegation_core.plan import Delegation
from delegation_core.policy import Policy
from delegation_core.reevaluate import Keys, key_of, login_again, same_route
from delegation_core.route import InboundRoute
from delegation_core.verify import ANY_AUDIENCE, verify_again

if TYPE_CHECKING:
    from delegation_core.outside import OutsideRoute


def observed_again(
    permit: ObservedPermit,
    *,
    route: InboundRoute,
    keys: Keys,
    policy: Policy,
    now: int,
    peer_certificate_sha256: str | None,
    plain_until: int,
) -> None:
    """Check that an observed request would still pass on ``route``; without TLS only before ``plain_until``.

    Raises:
        SidecarError: as ``decide_observed`` and ``decide_plain``; the permit's reason (POLICY_DENIED without TLS) if
            the route now observes less long; UNKNOWN_KEY or KEYS_UNAVAILABLE.
    """
    token, at = permit.token, min(now, permit.ends_at - 1)
    without_tls = permit.reason is Reason.NO_CLIENT_CERT
    denied = Denied(Reason.POLICY_DENIED if without_tls else permit.reason, "the route's observe_until is now earlier")
    if route.observe_until < permit.ends_at:  # nothing else would end it then
        raise denied
    if token is not None:
        issuer = policy.issuers.get(token.issuer)
        if issuer is None:
            raise Denied(Reason.WRONG_ISSUER, "the issuer is no longer trusted")
        token = verify_again(
            token,
            issuer=issuer,
            key=key_of(token, keys, now),
            audiences=ANY_AUDIENCE,
            now=at,
            peer_certificate_sha256=peer_certificate_sha256,
        )
    if without_tls:
        decide_plain(token, route=route, policy=policy, now=at, until=plain_until)
        return
    decide_observed(
        denied,
        token=token,
        peer=permit.peer,
        route=route,
        policy=policy,
        now=at,
        peer_certificate_sha256=peer_certificate_sha256,
    )


def observed_call_again(permit: ObservedPermit, *, policy: Policy, now: int) -> None:
    """Check that an observed call of the agent would still pass.

    Raises:
        SidecarError: as ``decide_observed_call``; the permit's reason if the route now observes less long;
            TARGET_DENIED if the route has changed or is gone.
    """
    before = permit.route
    if isinstance(before, InboundRoute):
        raise Denied(Reason.TARGET_DENIED, "the permit is for a request to the agent")
    route = (
        _same_outside(before, policy) if before.protocol == "outside" else same_route(before, before.operation, policy)
    )
    denied, at = Denied(permit.reason, "the route's observe_until is now earlier"), min(now, permit.ends_at - 1)
    if route.observe_until < permit.ends_at:  # nothing else would end it then
        raise denied
    decide_observed_call(denied, issuers=(), route=route, policy=policy, now=at)


def own_again(permit: OwnPermit, *, keys: Keys, policy: Policy, now: int) -> None:
    """Check that a call outside the mesh would still be permitted. The caller re-evaluates the inbound authority.

    Raises:
        SidecarError: as ``decide_own`` and ``login_again``; TARGET_DENIED if the route has changed or is gone.
    """
    route = _same_outside(permit.route, policy)
    delegation, at = _authority_again(permit.delegation, keys, policy, now)
    decide_own(delegation, route, method=permit.method, path=permit.path, policy=policy, now=at)


def tunnel_again(permit: TunnelPermit, *, keys: Keys, policy: Policy, now: int) -> None:
    """Check that a tunnel would still be permitted. The caller re-evaluates the inbound authority.

    Raises:
        SidecarError: as ``decide_connect`` and ``login_again``; TARGET_DENIED if the route has changed or is gone.
    """
    if permit.route not in policy.outbound.tunnels:
        raise Denied(Reason.TARGET_DENIED, "the route has changed or is gone")
    delegation, at = _authority_again(permit.delegation, keys, policy, now)
    decide_connect(delegation, permit.route, own=permit.own, policy=policy, now=at)


def _authority_again(before: Delegation | None, keys: Keys, policy: Policy, now: int) -> tuple[Delegation | None, int]:
    """Re-evaluate ``before`` if it is a login; return the authority, and the time at which to evaluate its call.

    ``before`` None: the call belongs to no known request, so its authority does not expire.
    """
    if before is None:
        return None, now
    delegation = login_again(before, keys, policy, now) if before.entry else before
    return delegation, min(now, delegation.ends_at - 1)


def _same_outside(before: OutsideRoute, policy: Policy) -> OutsideRoute:
    """Return the current route, equal to ``before`` except ``observe_until``. Raises Denied: TARGET_DENIED."""
    for route in policy.outbound.outside:
        if replace(route, observe_until=before.observe_until) == before:
            return route
    raise Denied(Reason.TARGET_DENIED, "the route has changed or is gone")
