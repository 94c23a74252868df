"""Re-evaluates earlier permits against the current policy and keys. Pure: keys and time are arguments.

Each function decides whether a call with an already verified token would be permitted now. With unchanged issuer
settings and an unchanged key that takes microseconds and no signature check, so thousands of calls in flight can be
judged after every change. Expiry is not checked: an expired token is judged as of its last second, and the caller
bounds how long a call may go on after that. A key that was withdrawn after the token expired is ignored, because a
planned rotation looks the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from sidecar.delegation.bearer import parse_bearer
from sidecar.delegation.decide import (
    decide_connect,
    decide_entry,
    decide_observed,
    decide_observed_call,
    decide_own,
    decide_plain,
    decide_verified,
)
from sidecar.delegation.issued import prove_issued, sts_error
from sidecar.delegation.keyset import VerificationKey
from sidecar.delegation.outside import OutsideRoute
from sidecar.delegation.permit import IssuedPermit, ObservedPermit, OwnPermit, TunnelPermit
from sidecar.delegation.plan import Delegation, plan_outbound, plan_own
from sidecar.delegation.policy import Policy
from sidecar.delegation.revocation import NO_NAMES, Use
from sidecar.delegation.route import InboundRoute, OutboundRoute
from sidecar.delegation.spiffe_id import SpiffeId
from sidecar.delegation.verify import ANY_AUDIENCE, ANY_CERTIFICATE, VerifiedToken, check_times, verify_again
from sidecar.errors import Denied, Reason, Unavailable


class Keys(Protocol):
    """The keys in force."""

    def find(self, issuer: str, kid: str | None) -> VerificationKey | None:
        """Return the key, if it is known now."""
        ...

    def known(self, issuer: str) -> bool:
        """True if a key set of this issuer is in force. False if it could not be fetched for too long."""
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

    Its authority ends at ``ends_at``, before its token does if the user's login becomes too old (None: with the token).

    Raises:
        Denied: as ``decide_inbound``; UNKNOWN_KEY, the issuer has withdrawn the token's key.
        Unavailable: KEYS_UNAVAILABLE, the issuer's keys are too old.
    """
    issuer = policy.issuers.get(token.issuer)
    if issuer is None:
        raise Denied(Reason.WRONG_ISSUER, "the issuer is no longer trusted")
    at = _within(token, now) if ends_at is None else min(now, ends_at - 1)
    token = verify_again(
        token,
        issuer=issuer,
        key=_key(token, keys, now),
        audiences=policy.audiences,
        now=at,
        peer_certificate_sha256=peer_certificate_sha256,
    )
    decide_verified(
        token, peer=peer, route=route, policy=policy, now=at, peer_certificate_sha256=peer_certificate_sha256
    )


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
    """Return if an observed request would still pass on ``route``, without TLS before ``plain_until``.

    Raises:
        SidecarError: as ``decide_observed``; its own reason, if the route observes less long than before; UNKNOWN_KEY
            or KEYS_UNAVAILABLE, as ``inbound_again``.
    """
    token, at = permit.token, min(now, permit.ends_at - 1)
    without_tls = permit.reason is Reason.NO_CLIENT_CERT
    denied = Denied(Reason.POLICY_DENIED if without_tls else permit.reason, "the route observes less long than before")
    if route.observe_until < permit.ends_at:  # nothing else would end it then
        raise denied
    if token is not None:
        issuer = policy.issuers.get(token.issuer)
        if issuer is None:
            raise Denied(Reason.WRONG_ISSUER, "the issuer is no longer trusted")
        token = verify_again(
            token,
            issuer=issuer,
            key=_key(token, keys, now),
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
    """Return if an observed call of the agent would still pass. The route may observe longer now, or ask for more.

    Raises:
        SidecarError: as ``decide_observed_call``; its own reason, if the route observes less long; TARGET_DENIED, the
            route leads elsewhere or is gone.
    """
    before = permit.route
    if isinstance(before, InboundRoute):
        raise Denied(Reason.TARGET_DENIED, "a route of requests to the agent")
    route = (
        _same_outside(before, policy)
        if isinstance(before, OutsideRoute)
        else _same_route(before, before.operation, policy)
    )
    denied, at = Denied(permit.reason, "the route observes less long than before"), min(now, permit.ends_at - 1)
    if route.observe_until < permit.ends_at:  # nothing else would end it then
        raise denied
    decide_observed_call(denied, issuers=(), route=route, policy=policy, now=at)


def outbound_again(permit: IssuedPermit, *, operation: str | None = None, keys: Keys, policy: Policy, now: int) -> None:
    """Return if an outbound call would still be permitted, given that its request's authority still stands.

    ``operation`` is the key that the call asks for: calls of one route share tokens, each planned for one of them.

    Raises:
        SidecarError: as ``plan_outbound`` and ``accept_issued``; UNKNOWN_KEY; TARGET_DENIED, the route now leads to
            another target, or is gone; POLICY_DENIED too where the route allows less than the call's token does.
    """
    before = permit.plan
    token = permit.token
    route = _same_route(before.route, operation, policy)
    delegation = before.delegation
    if delegation is None:
        plan = plan_own(route.for_itself or route, policy=policy, now=now)
    else:
        if delegation.entry:
            delegation = _login_again(delegation, keys, policy, now)
        plan = plan_outbound(delegation, route, policy=policy, now=_within(delegation.token, now))
    policy.deny.check(Use(token, policy.workload, NO_NAMES))
    if not token.scope <= plan.scope:  # not the token service's fault: we asked for more before
        raise Denied(Reason.POLICY_DENIED, "the route now allows less than its token")
    at = _within(token, now)
    try:
        token = verify_again(
            token,
            issuer=policy.sts(plan.sts_issuer),
            key=_key(token, keys, now),
            audiences=frozenset({plan.audience}),
            now=at,
            peer_certificate_sha256=ANY_CERTIFICATE,  # it was sent on a connection of its own SVID, or will be
        )
    except Denied as error:
        raise error if error.reason is Reason.UNKNOWN_KEY else sts_error(error) from error
    prove_issued(token, plan, now=at)


def own_again(permit: OwnPermit, *, keys: Keys, policy: Policy, now: int) -> None:
    """Return if a call with a static key would still be permitted, given that its request's authority still stands.

    Raises:
        SidecarError: as ``decide_own``; TARGET_DENIED, the route has changed or is gone.
    """
    route = _same_outside(permit.route, policy)
    delegation, at = _authority_again(permit.delegation, keys, policy, now)
    decide_own(delegation, route, method=permit.method, path=permit.path, policy=policy, now=at)


def tunnel_again(permit: TunnelPermit, *, keys: Keys, policy: Policy, now: int) -> None:
    """Return if a tunnel would still be permitted, given that its request's authority still stands.

    Raises:
        SidecarError: as ``decide_connect``; TARGET_DENIED, the route has changed or is gone.
    """
    if permit.route not in policy.outbound.tunnels:
        raise Denied(Reason.TARGET_DENIED, "the route has changed or is gone")
    delegation, at = _authority_again(permit.delegation, keys, policy, now)
    decide_connect(delegation, permit.route, own=permit.own, policy=policy, now=at)


def _authority_again(before: Delegation | None, keys: Keys, policy: Policy, now: int) -> tuple[Delegation | None, int]:
    """Re-evaluate a login, if a call was made for one; return the authority, and the time to judge its call at.

    None: the call belongs to no request that is known, so nothing of it expires.
    """
    if before is None:
        return None, now
    delegation = _login_again(before, keys, policy, now) if before.entry else before
    return delegation, min(now, delegation.ends_at - 1)


def _same_route(before: OutboundRoute, operation: str | None, policy: Policy) -> OutboundRoute:
    meant = (before.name, before.upstream, before.peer, before.audience)
    for route in policy.outbound.routes:
        if (route.name, route.upstream, route.peer, route.audience) == meant:
            return route.for_operation(operation)
    raise Denied(Reason.TARGET_DENIED, "the route now leads to another target, or is gone")


def _same_outside(before: OutsideRoute, policy: Policy) -> OutsideRoute:
    """Return the route as it is now: it may have another day until which it observes, and differs in nothing else."""
    for route in policy.outbound.outside:
        if replace(route, observe_until=before.observe_until) == before:
            return route
    raise Denied(Reason.TARGET_DENIED, "the route has changed or is gone")


def _login_again(before: Delegation, keys: Keys, policy: Policy, now: int) -> Delegation:
    """Re-evaluate a user's login; the result never permits more than before."""
    token = before.token
    if policy.entry is None:
        raise Denied(Reason.NOT_AN_ENTRY)
    user = policy.entry.users(at_door=before.at_door).get(token.issuer)
    if user is None:
        raise Denied(Reason.WRONG_ISSUER, "no longer a user issuer of this entry")
    key, at, grounds = _key(token, keys, now), _within(token, now), token.grounds
    if grounds is None or grounds.key != key or grounds.trusted != user:
        fresh = decide_entry(parse_bearer(token.raw), key=key, policy=policy, now=at, at_door=before.at_door)
        return before.narrowed_to(fresh)
    check_times(token, at)
    return before


def _within(token: VerifiedToken, now: int) -> int:
    """Return the time to judge a token at: now, or its last second."""
    return min(now, token.expires_at - 1)


def _key(token: VerifiedToken, keys: Keys, now: int) -> VerificationKey:
    """Return the token's key as its issuer publishes it now.

    Raises:
        Denied: UNKNOWN_KEY, it is withdrawn, and the token would still be valid.
        Unavailable: KEYS_UNAVAILABLE, no key set of the issuer is in force.
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
