"""How often one client may exchange one subject token: enough for every use there is, too little to be a load.

A sidecar keeps what it was issued, so a token is exchanged once for each target. Counted are tokens that verified, so
that nobody can fill the table by making names up. Every replica counts for itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from sidecar.errors import Reason, Unavailable

MAX_TRACKED: Final = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSettings:
    """``burst`` exchanges at once, then ``per_s`` a second: at least one, so that "try again in a second" is true.

    Raises:
        ValueError: a number is too small.
    """

    burst: int = 120
    per_s: float = 2.0

    def __post_init__(self) -> None:
        if self.burst < 1 or not self.per_s >= 1:
            raise ValueError("burst, per_s: each is at least 1")


class ExchangeRate:
    """Counts. ``monotonic`` is in seconds. Of more than ``max_tracked`` keys the least recently used is forgotten."""

    def __init__(
        self, settings: RateSettings, *, monotonic: Callable[[], float], max_tracked: int = MAX_TRACKED
    ) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._max_tracked = max_tracked
        self._free_at: OrderedDict[Hashable, float] = OrderedDict()  # when all that was taken will be given back

    def take(self, key: Hashable) -> None:
        """Take one exchange.

        Raises:
            Unavailable: OVERLOADED, there is none left now.
        """
        now = self._monotonic()
        free_at = max(self._free_at.get(key, now), now) + 1 / self._settings.per_s
        if free_at > now + self._settings.burst / self._settings.per_s + 1e-6:  # sums of floats do not come out even
            raise Unavailable(Reason.OVERLOADED, "too many exchanges of one subject token by one client")
        self._free_at[key] = free_at
        self._free_at.move_to_end(key)
        if len(self._free_at) > self._max_tracked:
            self._free_at.popitem(last=False)
