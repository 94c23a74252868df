"""Rate limit for records of unproven callers, so that a flood cannot fill the disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sidecar.observe.metrics import Metrics


class Counted(Protocol):
    """The clock (seconds) and the metrics of the process; the record stream has both."""

    @property
    def monotonic(self) -> Callable[[], float]:
        """The clock."""
        ...

    @property
    def metrics(self) -> Metrics:
        """The metrics."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRate:
    """Rate and burst of records of unproven callers, at each listener.

    Raises:
        ValueError: a number is so small that no record could pass.
    """

    per_s: float = 5.0
    burst: int = 50

    def __post_init__(self) -> None:
        if not self.per_s > 0 or self.burst < 1:
            raise ValueError("per_s must be above zero, burst at least one")

    def share(self, processes: int) -> RecordRate:
        """The share of each of several processes that listen at one address."""
        return RecordRate(per_s=self.per_s / processes, burst=max(1, self.burst // processes))


class UnprovenRecords:
    """Token bucket of one listener. Each record that passes states how many were suppressed before it."""

    def __init__(self, log: Counted, rate: RecordRate | None = None) -> None:
        self._log = log
        self._rate = rate or RecordRate()
        self._tokens = float(self._rate.burst)
        self._filled_at = log.monotonic()
        self._suppressed = 0

    def take(self) -> bool:
        """Take one token. False: omit the record; it is counted (``sidecar_records_suppressed_total``)."""
        now, rate = self._log.monotonic(), self._rate
        self._tokens = min(float(rate.burst), self._tokens + (now - self._filled_at) * rate.per_s)
        self._filled_at = now
        if self._tokens < 1.0:
            self._suppressed += 1
            self._log.metrics.records_suppressed += 1
            return False
        self._tokens -= 1.0
        return True

    def suppressed(self) -> int | None:
        """The number of records suppressed since the last call, for the next record; None for 0."""
        count, self._suppressed = self._suppressed, 0
        return count or None
