"""The workload handle: the agent's credential for calls of its own, outside any request.

A handle is a keyed hash of the number of its period. All workers share the key, so each one computes the handle of
every period without asking another worker, and a handle outlives the worker that delivered it. The key is made at the
start and never written to disk. A handle is valid in its own period and for ``OVERLAP_S`` of the next one.
"""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

OVERLAP_S: Final = 30.0
SECRET_BYTES: Final = 32


class Shown(NamedTuple):
    """A handle as delivered to the agent; it is refused after ``expires_in`` seconds."""

    handle: str
    expires_in: int


class WorkloadHandle:
    """Computes the handle of each period of ``rotate_s`` seconds. All workers read the same ``monotonic`` clock."""

    def __init__(self, secret: bytes, rotate_s: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._secret = secret
        self._rotate_s = rotate_s
        self._overlap_s = min(OVERLAP_S, rotate_s)
        self._monotonic = monotonic

    @property
    def current(self) -> Shown:
        """The handle of this period."""
        period, into_s = self._period()
        return Shown(self._compute(period), int(self._rotate_s - into_s + self._overlap_s))

    @property
    def renews_in(self) -> float:
        """The seconds until the next period."""
        return self._rotate_s - self._period()[1]

    def accepts(self, handle: str) -> bool:
        """Return True if a handle is valid now. Compares in constant time."""
        shown = handle.encode("utf-8", "replace")
        return any(hmac.compare_digest(shown, one.encode("ascii")) for one in self.in_force())

    def in_force(self) -> Iterator[str]:
        """Yield the handles that are valid now."""
        period, into_s = self._period()
        yield self._compute(period)
        if into_s < self._overlap_s:
            yield self._compute(period - 1)

    def _period(self) -> tuple[int, float]:
        period, into_s = divmod(self._monotonic(), self._rotate_s)
        return int(period), into_s

    def _compute(self, period: int) -> str:
        digest = hmac.digest(self._secret, period.to_bytes(8, "big", signed=True), "sha256")
        return urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
