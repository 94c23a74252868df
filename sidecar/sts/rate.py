"""Rate limits of the token service: of each client, and of each client with one subject token.

The first applies before a request's tokens are parsed, so that one workload cannot delay the others with any input. The
second counts verified tokens only, so that invented ones cannot fill the table: a sidecar caches issued tokens and
exchanges each token once for each target. Every replica counts for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from delegation_core.bounded import BoundedCache
from delegation_core.errors import Reason, Unavailable

MAX_BYTES: Final = 32 * 1024 * 1024
KEY_BYTES: Final = 128  # a digest and a number


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSettings:
    """``burst`` requests at once, then ``per_s`` a second: at least one, so that "try again in a second" is true.

    Raises:
        ValueError: a number is too small.
    """

    burst: int = 120
    per_s: float = 2.0

    def __post_init__(self) -> None:
        if self.burst < 1 or not self.per_s >= 1:
            raise ValueError("burst, per_s: each must be at least 1")


class ExchangeRate:
    """Counters by key. ``monotonic`` is in seconds. Beyond ``max_bytes`` the least recently used key is evicted.

    A key with its full burst available is dropped too, which changes no answer.
    """

    def __init__(
        self,
        settings: RateSettings,
        *,
        monotonic: Callable[[], float],
        too_many: str = "too many exchanges of one subject token by one client",
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """``too_many`` is the detail of a refusal, for the record."""
        self._settings = settings
        self._too_many = too_many
        self._monotonic = monotonic
        self._free_at: BoundedCache[bytes, float] = BoundedCache(
            max_bytes
        )  # the time at which the full burst is available again

    def __len__(self) -> int:
        return len(self._free_at)

    def take(self, key: Hashable) -> None:
        """Count one request. Stores a digest of ``key``: clients choose the length of its parts.

        Raises:
            Unavailable: OVERLOADED, the limit is reached.
        """
        now = self._monotonic()
        self._free_at.sweep(now)
        digest = blake2b(repr(key).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        free_at = max(self._free_at.get(digest) or now, now) + 1 / self._settings.per_s
        if free_at > now + self._settings.burst / self._settings.per_s + 1e-6:  # sums of floats are inexact
            raise Unavailable(Reason.OVERLOADED, self._too_many)
        self._free_at.keep(digest, free_at, cost=KEY_BYTES, expires_at=free_at)
