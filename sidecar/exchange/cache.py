"""Cache of issued tokens, keyed by every input of the exchange; invalidated when keys, policy or identity change."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from delegation_core.bounded import BoundedCache
from delegation_core.permit import IssuedPermit
from delegation_core.records.record import RecordFields
from delegation_core.spiffe_id import SpiffeId
from delegation_core.verify import VerifiedToken
from sidecar.observe.attribution import facts_of_issued

if TYPE_CHECKING:
    from delegation_core.txn_token import TxnToken

MAX_BYTES: Final = 32 * 1024 * 1024
MAX_REJECTED_BYTES: Final = 4 * 1024 * 1024
PERMIT_BYTES: Final = 3072  # beside its two tokens: permit, plan, key and facts
SKEW_S: Final = 2  # a token is not used in its last seconds: it would expire on its way
REJECTION_S: Final = 10.0  # one new token per key in this time, however often the next hop says 401


class Epoch(NamedTuple):
    """The state under which an issued token was accepted: with other keys, policy or SPIFFE ID it is invalid.

    ``keys`` is the generation of the token service's keys, ``policy`` the number of the policy, ``withdrawals`` the
    number of invalidations by the owner of the cache. All three only grow.
    """

    keys: int
    policy: int
    withdrawals: int
    workload: SpiffeId

    def older_than(self, other: Epoch) -> bool:
        """Return True if ``other`` is later: newer keys, else a newer policy, else more withdrawals."""
        return (self.keys, self.policy, self.withdrawals) < (other.keys, other.policy, other.withdrawals)


# The constructor of a named tuple is interpreted; tuple's own is not.
new_epoch: Final[Callable[[tuple[int, int, int, SpiffeId]], Epoch]] = partial(tuple.__new__, Epoch)


@dataclass(frozen=True, slots=True)
class Issued:
    """An accepted token, the second (exclusive) until which it is used, and the second from which it is refreshed.

    ``facts``: record fields of the permit; do not modify. ``txn_token`` was issued for the chain that begins with this
    token. ``bound_to``: the thumbprint of our SVID in the token's ``cnf``; None if unbound. ``credentials``: the static
    credentials sent to obtain it, set only while it waits for its transaction token.
    """

    permit: IssuedPermit
    usable_until: int
    refresh_at: int
    txn_token: TxnToken | None = None
    credentials: frozenset[str] = frozenset()
    bound_to: str | None = field(init=False)
    facts: RecordFields = field(init=False, repr=False, compare=False)
    # kept here by the native engine
    warm: list[object] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bound_to", self.permit.token.certificate_thumbprint)
        object.__setattr__(self, "facts", facts_of_issued(self.permit))

    def with_txn_token(self, txn_token: TxnToken) -> Issued:
        """Return a copy with a transaction token, used until the earlier end of both tokens."""
        until = min(self.usable_until, txn_token.expires_at - SKEW_S)
        return replace(self, txn_token=txn_token, usable_until=until, refresh_at=min(self.refresh_at, until))

    def obtained_by(self, credentials: Iterable[str]) -> Issued:
        """Return a copy with the static credentials sent to obtain it."""
        return replace(self, credentials=frozenset(credentials))


class IssuedTokens:
    """Issued tokens of one epoch, bounded in bytes. The least recently used is evicted first; refusals are not kept.

    ``warm_bytes``: overhead of the native engine per token, besides a copy of the token. ``kept``: the cached tokens.
    """

    def __init__(
        self, max_bytes: int = MAX_BYTES, max_rejected_bytes: int = MAX_REJECTED_BYTES, *, warm_bytes: int = 0
    ) -> None:
        self._warm_bytes = warm_bytes
        self.kept: BoundedCache[Hashable, Issued] = BoundedCache(max_bytes)
        self._rejected: BoundedCache[Hashable, float] = BoundedCache(max_rejected_bytes)

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def bytes(self) -> int:
        """The accounted bytes, rejections included."""
        return self.kept.bytes + self._rejected.bytes

    @property
    def hits(self) -> int:
        """Number of cache hits."""
        return self.kept.hits

    @property
    def misses(self) -> int:
        """Number of cache misses."""
        return self.kept.misses

    @property
    def evicted(self) -> int:
        """Number of evicted tokens."""
        return self.kept.evicted

    def find(self, key: Hashable, *, epoch: Epoch, now: int) -> Issued | None:
        """Return the unexpired token for ``key``, accepted in exactly this epoch; else None."""
        kept = self.kept
        if epoch != kept.epoch and not self._enter(epoch):
            return None
        issued = kept.find(key, epoch)
        if issued is None:
            return None
        if now >= issued.usable_until:
            kept.drop(key)
            return None
        kept.touch(key)
        return issued

    def keep(self, key: Hashable, issued: Issued, *, epoch: Epoch) -> bool:
        """Cache a token accepted in ``epoch``. False if that epoch is over, or the token exceeds the cache."""
        if not self._enter(epoch):
            return False
        permit = issued.permit
        cost = permit.token.held_bytes + _subject_bytes(permit) + PERMIT_BYTES
        if issued.txn_token is not None:
            cost += issued.txn_token.held_bytes
        if self._warm_bytes:
            cost += self._warm_bytes + len(permit.token.raw)
        return self.kept.keep(key, issued, cost=cost, expires_at=issued.usable_until, epoch=epoch)

    def drop(self, key: Hashable) -> None:
        """Remove one token."""
        self.kept.drop(key)

    def postpone(self, key: Hashable, issued: Issued, *, until: int) -> None:
        """Refresh this token no earlier than ``until``. Without effect if it has been replaced or evicted."""
        kept = self.kept.get(key)
        if kept is not None and kept.permit is issued.permit:
            self.kept.replace(key, replace(kept, refresh_at=until))

    def reject(self, key: Hashable, permit: IssuedPermit, *, monotonic_s: float) -> bool:
        """Remove a token refused by the next hop. False, without effect, if ``key`` had one within ``REJECTION_S``."""
        rejected_at = self._rejected.get(key)
        if rejected_at is not None and monotonic_s - rejected_at < REJECTION_S:
            return False
        cost = _subject_bytes(permit)
        self._rejected.keep(key, monotonic_s, cost=cost, expires_at=monotonic_s + REJECTION_S)
        issued = self.kept.get(key)
        if issued is not None and issued.permit.token.fingerprint == permit.token.fingerprint:
            self.kept.drop(key)
        return True

    def carry(self, before: int, after: int, stops: Callable[[VerifiedToken], bool]) -> None:
        """Carry the tokens of policy ``before`` to ``after``, unless ``stops`` selects one or its subject token."""

        def stopped(issued: Issued) -> bool:
            permit, subject = issued.permit, issued.permit.plan.subject_token
            return stops(permit.token) or (subject is not None and stops(subject))

        epoch = self.kept.epoch
        if isinstance(epoch, Epoch) and epoch.policy == before:
            self.kept.carry(epoch._replace(policy=after), drop=stopped)

    def clear(self) -> None:
        """Remove every token. Rejections stay, so that an invalidation does not lift their limit."""
        self.kept.clear()

    def sweep(self, now: float, *, monotonic_s: float) -> None:
        """Remove expired tokens and expired rejections."""
        self.kept.sweep(now)
        self._rejected.sweep(monotonic_s)

    def shed(self, to_bytes: int) -> None:
        """Evict the least recently used tokens until no more than ``to_bytes`` are left."""
        self.kept.shed(to_bytes)

    def _enter(self, epoch: Epoch) -> bool:
        """Begin a newer epoch with an empty cache. False: the epoch is older and must not undo the change."""
        current = self.kept.epoch
        if isinstance(current, Epoch) and epoch.older_than(current):
            return False
        if epoch != current:
            self.kept.turn_to(epoch)
        return True


def _subject_bytes(permit: IssuedPermit) -> int:
    token = permit.plan.subject_token
    return 0 if token is None else token.held_bytes
