"""Re-evaluates observed requests and calls, and calls outside the mesh, as ``revalidation`` does all others.

The features of these routes load this module before the routes are in force.
"""

from __future__ import annotations

from delegation_core.permit import ObservedPermit, OwnPermit, TunnelPermit
from delegation_core.reevaluate_exceptions import observed_again, observed_call_again, own_again, tunnel_again
from sidecar.proxy.journeys.revalidation import Guard, Served, judge_peer, judge_served
from sidecar.proxy.journeys.snapshot import Snapshot


def judge_observed(
    permit: ObservedPermit,
    guard: Guard | None,
    snapshot: Snapshot,
    *,
    method: str,
    path: str,
    operation: str | None,
    now: int,
    plain_until: int,
) -> None:
    """Re-evaluate a request that passes only because its route observes: return if it would still pass.

    ``guard`` None: the caller has no TLS; its request passes until ``plain_until``, in wall seconds.

    Raises:
        SidecarError: as the inbound journey.
    """
    if guard is not None:
        judge_peer(guard, now)
    policy = snapshot.policy
    observed_again(
        permit,
        route=policy.inbound.find(method, path).for_operation(operation),
        keys=snapshot.keys,
        policy=policy,
        now=now,
        peer_certificate_sha256=None if guard is None else guard.peer.fingerprint,
        plain_until=plain_until,
    )


def judge_observed_call(permit: ObservedPermit, next_hop: Guard | None, snapshot: Snapshot, now: int) -> None:
    """Re-evaluate a call that passes only because its route observes. ``next_hop`` as for ``judge_call``.

    Raises:
        SidecarError: as the outbound journey.
    """
    if next_hop is not None:
        judge_peer(next_hop, now)
    observed_call_again(permit, policy=snapshot.policy, now=now)


def judge_outside(permit: OwnPermit | TunnelPermit, served: Served | None, snapshot: Snapshot, now: int) -> None:
    """Re-evaluate a call or a tunnel to a host outside the mesh: return if it would still be permitted.

    Raises:
        SidecarError: as the outbound journey, or as ``judge_served``.
    """
    if served is not None:
        judge_served(served, snapshot, now)
    if isinstance(permit, TunnelPermit):
        tunnel_again(permit, keys=snapshot.keys, policy=snapshot.policy, now=now)
    else:
        own_again(permit, keys=snapshot.keys, policy=snapshot.policy, now=now)
