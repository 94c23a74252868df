"""Issued tokens kept for the next call: keyed by everything the answer depends on, and gone when any of it changes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from sidecar.delegation.decide import IssuedPermit
from sidecar.delegation.spiffe_id import SpiffeId

MAX_ENTRIES: Final = 4096
SKEW_S: Final = 2  # a token is not used in its last seconds: it would expire on its way
REJECTION_S: Final = 10.0  # one new token per key in this time, however often the next hop says 401


class Epoch(NamedTuple):
    """What an issued token was accepted under. Another key set, policy or own SPIFFE ID, and it counts no more.

    ``keys`` and ``policy`` are the generation of the STS's keys and the number of the policy, ``withdrawals`` counts
    what only the owner of the cache sees. All three only grow.
    """

    keys: int
    policy: int
    withdrawals: int
    workload: SpiffeId

    def older_than(self, other: Epoch) -> bool:
        """Whether a caller with this epoch still decides by what has been replaced since."""
        return (self.keys, self.policy, self.withdrawals) < (other.keys, other.policy, other.withdrawals)


@dataclass(frozen=True, slots=True)
class Issued:
    """An accepted token, the last second (exclusive) at which it is handed out, and from when on it is refreshed."""

    permit: IssuedPermit
    usable_until: int
    refresh_at: int


class IssuedTokens:
    """A bounded cache of one epoch. The least recently used goes first; only successes ever come in."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[Hashable, Issued] = OrderedDict()
        self._rejected: OrderedDict[Hashable, float] = OrderedDict()
        self._epoch: Epoch | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: Hashable, *, epoch: Epoch, now: int) -> Issued | None:
        """The token kept for ``key``, if it was accepted in this very epoch and has not run out."""
        if not self._enter(epoch):
            return None
        issued = self._entries.get(key)
        if issued is None:
            return None
        if now >= issued.usable_until:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return issued

    def keep(self, key: Hashable, issued: Issued, *, epoch: Epoch) -> bool:
        """Keep a token accepted in ``epoch``. Whether that was done: not if that epoch is over."""
        if not self._enter(epoch):
            return False
        self._entries[key] = issued
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
        return True

    def postpone(self, key: Hashable, issued: Issued, *, until: int) -> None:
        """Refresh this token not before ``until``. Without effect if another has taken its place."""
        kept = self._entries.get(key)
        if kept is not None and kept.permit is issued.permit:
            self._entries[key] = replace(kept, refresh_at=until)

    def reject(self, key: Hashable, permit: IssuedPermit, *, monotonic_s: float) -> bool:
        """The next hop did not take this token. Whether a new one may be had: once in ``REJECTION_S`` per key."""
        rejected_at = self._rejected.get(key)
        if rejected_at is not None and monotonic_s - rejected_at < REJECTION_S:
            return False
        self._rejected[key] = monotonic_s
        self._rejected.move_to_end(key)
        if len(self._rejected) > self._max_entries:
            self._rejected.popitem(last=False)
        issued = self._entries.get(key)
        if issued is not None and issued.permit.token.fingerprint == permit.token.fingerprint:
            del self._entries[key]
        return True

    def clear(self) -> None:
        """Forget every token. What was rejected stays remembered: an invalidation is no way round the limit."""
        self._entries.clear()

    def _enter(self, epoch: Epoch) -> bool:
        """Turn to a newer epoch, with nothing kept. False for an older one: it must not undo the change."""
        if epoch == self._epoch:
            return True
        if self._epoch is not None and epoch.older_than(self._epoch):
            return False
        self._epoch = epoch
        self._entries.clear()
        return True
