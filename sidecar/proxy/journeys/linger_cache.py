"""Lingering handles, which outlive their requests: one cache per peer, evicted fairly among peers.

A lingering handle holds its token and the proof of its peer; handles of one certificate share one proof. ``Handles``
sets the limit for all peers together.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Final, NamedTuple

from delegation_core.bounded import BoundedCache
from delegation_core.plan import Delegation
from delegation_core.route import RouteMark
from sidecar.proxy.journeys.revalidation import Guard

_GUARD_BYTES: Final = 2048  # of a proof; its chain of certificates is extra
_MAX_GUARDS: Final = 16  # per peer; above it, proofs that no handle uses are removed


class Chain(NamedTuple):
    """Key of the requests that renew one another's handles: one ``txn``, one subject, one peer, one route."""

    txn: str
    issuer: str
    subject: str
    peer: str
    route: RouteMark


def chain_of(delegation: Delegation) -> Chain | None:
    """Return the chain of a request; None if its token has no ``txn`` or no actor, or the request has no route."""
    token = delegation.token
    if token.txn is None or token.actor_id is None or delegation.came_by is None:
        return None
    return Chain(token.txn, token.issuer, token.subject, token.actor_id, delegation.came_by)


class Renewal:
    """Monotonic time of a chain's latest request; all lingering handles of the chain share the object."""

    __slots__ = ("__weakref__", "at")

    def __init__(self) -> None:
        self.at = float("-inf")


class _OfPeer(BoundedCache[str, Guard | None]):
    """Lingering handles of one peer, in the order in which their requests ended."""

    __slots__ = ("guards",)

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self.guards: dict[str, Guard] = {}  # by the certificate's fingerprint


class LingerCache:
    """Lingering handles of all peers. Times are monotonic seconds."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._peers: dict[str, _OfPeer] = {}
        self.evicted = 0

    def __len__(self) -> int:
        return sum(map(len, self._peers.values()))

    @property
    def bytes(self) -> int:
        """The accounted bytes."""
        return sum(one.bytes for one in self._peers.values())

    def cost_of(self, peer: str, guard: Guard | None) -> int:
        """Return the bytes that ``guard`` would add to the handles of ``peer``; 0 if they share it already."""
        if guard is None:
            return 0
        of_peer = self._peers.get(peer)
        known = of_peer is not None and guard.peer.fingerprint in of_peer.guards
        return 0 if known else sum(map(len, guard.chain)) + _GUARD_BYTES

    def add(self, handle: str, peer: str, guard: Guard | None, *, cost: int, ends_at: float) -> Guard | None:
        """Add a handle of ``peer``. Return the guard to keep: a stored one of the same certificate, else ``guard``.

        ``cost`` in bytes includes ``cost_of`` the guard. The caller makes room first: it gets no report of evictions.
        """
        of_peer = self._peers.get(peer)
        if of_peer is None:
            of_peer = self._peers[peer] = _OfPeer(self._max_bytes)
        if guard is not None:
            fingerprint = guard.peer.fingerprint
            known = of_peer.guards.get(fingerprint)
            if known is None:
                if len(of_peer.guards) >= _MAX_GUARDS:
                    of_peer.guards = {one.peer.fingerprint: one for one in of_peer.values() if one is not None}
                known = of_peer.guards[fingerprint] = guard
            guard = known
        of_peer.keep(handle, guard, cost=cost, expires_at=ends_at)
        return guard

    def drop(self, handle: str, peer: str) -> None:
        """Forget a handle of ``peer``, if it is there."""
        of_peer = self._peers.get(peer)
        if of_peer is not None:
            of_peer.drop(handle)

    def sweep(self, now: float) -> list[str]:
        """Remove expired handles and return them."""
        gone = [handle for one in self._peers.values() for handle, _ in one.sweep(now)]
        self._peers = {peer: one for peer, one in self._peers.items() if one}
        return gone

    def shed(self, to_bytes: float) -> list[str]:
        """Evict handles until the rest uses at most ``to_bytes``; return the evicted ones.

        Max-min fair among peers: the peer that uses most bytes loses most. Of each peer, the longest ended go first.
        """
        peers: Iterable[_OfPeer] = sorted(self._peers.values(), key=attrgetter("bytes"))
        left, rest, gone = len(self._peers), max(0.0, to_bytes), []
        for one in peers:
            gone += [handle for handle, _ in one.shed(rest / left)]
            rest -= one.bytes
            left -= 1
        self.evicted += len(gone)
        return gone
