"""All token caches of one sidecar: swept, shed and measured together.

Expired entries are freed about once a second, without a lookup. While memory is short, each cache keeps its newest
entries up to 1 / ``LEFT_PART`` of the limit: these tokens need no new signature check or exchange. Lingering handles
are shed last, because a call may still need one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final

from delegation_core.bounded import Bounded, BoundedCache
from delegation_core.verify import VerifiedToken
from sidecar.exchange.exchanges import Exchanges
from sidecar.proxy.journeys.snapshot import Renewal
from sidecar.proxy.listening.trim import Trim

LEFT_PART: Final = 64  # while memory is short, each cache keeps 1 / 64 of the limit: 2 MiB of 128
HANDLES: Final = "handles"


# Caches from which a change of revocations drops only the entries with a revoked token; each function returns an
# entry's token. Logins and plans also depend on the user's names in other domains, so those caches are emptied.
_TOKENS_OF: Final[Mapping[str, Callable[[Any], VerifiedToken]]] = {
    "verdicts": lambda token: token,
    "permits": lambda given: given.permit.token,
}


class Caches:
    """Token caches by name. ``clock`` is wall time in seconds.

    Each function of ``named`` returns the current cache, because a reload may replace it; None: there is none.
    """

    def __init__(
        self,
        named: Mapping[str, Callable[[], Bounded | None]],
        *,
        clock: Callable[[], float],
        trim: Trim | None = None,
    ) -> None:
        self._named = named
        self._clock = clock
        self._trim = trim or Trim()

    def sweep(self) -> None:
        """Free expired entries, then let ``trim`` return unused memory to the system."""
        now = self._clock()
        for cache in self._current().values():
            cache.sweep(now)
        self._trim.look()

    def carry(self, renewal: Renewal) -> None:
        """After a change of revocations, move the entries that are still valid to the new policy number."""
        for name, token_of in _TOKENS_OF.items():
            cache = self._named.get(name, lambda: None)()
            if isinstance(cache, BoundedCache):
                _carry(cache, renewal, token_of)
        issued = self._named.get("issued", lambda: None)()
        if isinstance(issued, Exchanges):
            issued.carry(renewal.before, renewal.after, renewal.stops)

    def shed(self, limit_bytes: int, *, handles: bool) -> bool:
        """Evict entries until each cache uses at most 1 / ``LEFT_PART`` of the limit. Return True if bytes were freed.

        ``handles`` true: only handles; false: all caches except handles.
        """
        before = self.total
        for name, cache in self._current().items():
            if (name == HANDLES) == handles:
                cache.shed(limit_bytes // LEFT_PART)
        return self.total < before

    @property
    def total(self) -> int:
        """The accounted bytes of all caches."""
        return sum(cache.bytes for cache in self._current().values())

    def bytes(self) -> Mapping[str, int]:
        """Return the accounted bytes of each cache by name."""
        return {name: cache.bytes for name, cache in self._current().items()}

    def evicted(self) -> Mapping[str, int]:
        """Return the number of evicted entries of each cache by name."""
        return {name: cache.evicted for name, cache in self._current().items()}

    def lookups(self) -> Mapping[tuple[str, str], int]:
        """Return the number of lookups by cache and result (``hit``, ``miss``). Handles are left out: no cache."""
        found = [(name, cache) for name, cache in self._current().items() if name != HANDLES]
        return {
            (name, result): count
            for name, cache in found
            for result, count in (("hit", cache.hits), ("miss", cache.misses))
        }

    def _current(self) -> dict[str, Bounded]:
        found = {name: find() for name, find in self._named.items()}
        return {name: cache for name, cache in found.items() if cache is not None}


def _carry(cache: BoundedCache[Any, Any], renewal: Renewal, token_of: Callable[[Any], VerifiedToken]) -> None:
    """Move one cache to the new policy number. Its epoch is that number, or (generation of the keys, that number)."""
    epochs: dict[Hashable, Hashable] = {renewal.before: renewal.after}
    if isinstance(cache.epoch, tuple):
        keys, _ = cache.epoch
        epochs = {(keys, renewal.before): (keys, renewal.after)}
    if cache.epoch in epochs:
        cache.carry(epochs[cache.epoch], drop=lambda value: renewal.stops(token_of(value)))
