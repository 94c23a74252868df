"""Counts of refusals in the last minutes, from counters since the start, for ``sidecar status``."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Final

from delegation_core.records.record import OK
from sidecar.observe.metrics import Metrics

WINDOW_S: Final = 600.0
SAMPLE_S: Final = 60.0


def refused(metrics: Metrics) -> dict[str, int]:
    """Return the refusals since the start by reason, of requests and handshakes together, the most frequent first."""
    counts: Counter[str] = Counter()
    for (_, _, decision, reason), count in metrics.requests.items():
        if reason != OK and decision != "observed_deny":
            counts[str(reason)] += count
    for reason, count in metrics.handshakes_refused.items():
        counts[str(reason)] += count
    return {reason: count for reason, count in counts.most_common() if count}


class RecentCounts:
    """Growth of counters over the last ``WINDOW_S``. ``clock`` is monotonic seconds."""

    def __init__(self, count: Callable[[], Mapping[str, int]], clock: Callable[[], float]) -> None:
        self._count = count
        self._clock = clock
        self._samples: deque[tuple[float, Mapping[str, int]]] = deque([(clock(), {})])

    def look(self) -> None:
        """Take a sample, unless the last one is recent. Call it about once a second."""
        now = self._clock()
        if now - self._samples[-1][0] >= SAMPLE_S:
            self._samples.append((now, self._count()))
        while len(self._samples) > 1 and now - self._samples[1][0] >= WINDOW_S:
            self._samples.popleft()

    def counts(self) -> dict[str, int]:
        """Return the growth of each counter since the oldest sample, at most ``WINDOW_S`` + ``SAMPLE_S`` old."""
        before = self._samples[0][1]
        grown = {name: count - before.get(name, 0) for name, count in self._count().items()}
        return {name: count for name, count in grown.items() if count}
