"""Re-evaluates requests and calls in flight against the current snapshot: token, policy, keys, and trust in the peer.

Expiry alone withdraws nothing: see ``delegation_core.reevaluate``. The same holds for certificates: an expired SVID
is judged as of its last second.
"""

from __future__ import annotations

from typing import Protocol

from delegation_core.decide import delegate
from delegation_core.errors import Denied
from delegation_core.permit import IssuedPermit, Permit
from delegation_core.plan import Delegation
from delegation_core.reevaluate import inbound_again, outbound_again
from sidecar.identity.svid import VerifiedPeer
from sidecar.proxy.journeys.snapshot import Snapshot


class Guard(Protocol):
    """The proof of a peer (``PeerGuard``). ``until`` is the earliest expiry of a certificate on its path."""

    @property
    def peer(self) -> VerifiedPeer: ...  # noqa: D102
    @property
    def chain(self) -> tuple[bytes, ...]: ...  # noqa: D102
    @property
    def until(self) -> int: ...  # noqa: D102
    def check(self, now: int) -> VerifiedPeer: ...  # noqa: D102


class Served(Protocol):
    """The request that an outbound call belongs to. ``guard`` None: a user's login, which has no peer."""

    @property
    def delegation(self) -> Delegation: ...  # noqa: D102
    @property
    def guard(self) -> Guard | None: ...  # noqa: D102


def judge_request(
    permit: Permit, guard: Guard, snapshot: Snapshot, *, method: str, path: str, operation: str | None, now: int
) -> None:
    """Re-evaluate a peer's request: return if it would still be permitted. ``operation`` is its key, if any.

    Raises:
        SidecarError: as the inbound journey.
    """
    judge_peer(guard, now)
    policy = snapshot.policy
    inbound_again(
        permit.token,
        peer=permit.peer,
        route=policy.inbound.find(method, path).for_operation(operation),
        keys=snapshot.keys,
        policy=policy,
        now=now,
        peer_certificate_sha256=guard.peer.fingerprint,
        ends_at=delegate(permit).ends_at,
    )


def judge_served(served: Served, snapshot: Snapshot, now: int) -> None:
    """Re-evaluate the request behind a handle, and trust in its peer: return if it would still be permitted.

    Returns too for a user's login and for a removed route: the re-evaluation of the call covers them.

    Raises:
        SidecarError: as the inbound journey.
    """
    guard, delegation = served.guard, served.delegation
    if guard is None or delegation.came_by is None:
        return
    judge_peer(guard, now)
    route = snapshot.policy.inbound.same(delegation.came_by)
    if route is not None:
        inbound_again(
            delegation.token,
            peer=guard.peer.spiffe_id,
            route=route,
            keys=snapshot.keys,
            policy=snapshot.policy,
            now=now,
            peer_certificate_sha256=guard.peer.fingerprint,
            ends_at=delegation.ends_at,
        )


def judge_call(
    permit: IssuedPermit,
    served: Served | None,
    next_hop: Guard | None,
    snapshot: Snapshot,
    now: int,
    *,
    operation: str | None = None,
) -> None:
    """Re-evaluate a call to a next hop: return if it would still be permitted. ``operation`` is its key, if any.

    ``next_hop`` None: not connected, or without TLS.

    Raises:
        SidecarError: as the outbound journey, or as ``judge_served``.
    """
    if next_hop is not None:
        judge_peer(next_hop, now)
    if served is not None:
        judge_served(served, snapshot, now)
    outbound_again(permit, operation=operation, keys=snapshot.keys, policy=snapshot.policy, now=now)


def judge_peer(guard: Guard, now: int) -> None:
    """Return if the peer is still trusted; expiry of its certificate, or of an authority, is ignored.

    Raises:
        Denied: as ``PeerGuard.check``.
        Unavailable: NOT_READY, our own identity is gone.
    """
    until = guard.until
    try:
        guard.check(now)
    except Denied:
        if now < until:
            raise
        guard.check(until - 1)
