"""Decides if a caller may request another operation of its route, to filter lists of operations."""

from __future__ import annotations

from delegation_core.decide import decide_observed, decide_plain, decide_verified
from delegation_core.errors import Denied, Reason
from delegation_core.permit import ObservedPermit, Permit
from delegation_core.policy import Policy
from delegation_core.route import InboundRoute


def may_call(
    permit: Permit | ObservedPermit,
    whole: InboundRoute,
    operation: str,
    *,
    policy: Policy,
    now: int,
    peer_certificate_sha256: str | None,
) -> bool:
    """True if the caller of a permitted request may request ``operation`` of the same route, ``whole``, at ``now``.

    Raises:
        Unavailable: REVOCATIONS_STALE.
    """
    try:
        _decide(permit, whole.for_operation(operation), policy, now, peer_certificate_sha256)
    except Denied:
        return False
    return True


def _decide(
    permit: Permit | ObservedPermit, route: InboundRoute, policy: Policy, now: int, certificate: str | None
) -> None:
    if isinstance(permit, ObservedPermit):
        if permit.reason is Reason.NO_CLIENT_CERT:
            decide_plain(permit.token, route=route, policy=policy, now=now, until=permit.ends_at)
        else:
            _observe(Denied(permit.reason), permit, route, policy, now, certificate)
        return
    try:
        decide_verified(
            permit.token, peer=permit.peer, route=route, policy=policy, now=now, peer_certificate_sha256=certificate
        )
    except Denied as denied:
        _observe(denied, permit, route, policy, now, certificate)


def _observe(
    denied: Denied,
    permit: Permit | ObservedPermit,
    route: InboundRoute,
    policy: Policy,
    now: int,
    certificate: str | None,
) -> None:
    decide_observed(
        denied,
        token=permit.token,
        peer=permit.peer,
        route=route,
        policy=policy,
        now=now,
        peer_certificate_sha256=certificate,
    )
