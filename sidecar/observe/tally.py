"""Counts finished requests by their records.

A record holds everything that is counted, and no longer changes. So a request costs the event loop one append to the
list of its direction. Every ``AT_ONCE`` requests, and at each scrape, the whole list is counted column by column, in C
code of the interpreter.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import compress, repeat
from operator import add, is_not, itemgetter
from typing import Final, get_args

from delegation_core.records.record import OK, Direction, Record

AT_ONCE: Final = 64
OTHER: Final = "other"

_REQUEST_MS: Final = (0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0)
_DECISION_MS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 100.0, 1000.0)
_CHAIN_DEPTHS: Final = (1, 2, 3, 4, 6, 8)

_KIND: Final = itemgetter("route", "decision", "reason", "chain_depth")
_OP: Final = itemgetter("op")
_OPERATION: Final = itemgetter("route", "op", "decision")
_TOTAL_MS: Final = itemgetter("total_ms")
_DECIDE_MS: Final = itemgetter("decide_ms")
_is_given: Final = partial(is_not, None)

Finished = tuple[list[tuple[str | None, int | None, str | None, int]], list[float], list[float]]
"""Allowed requests of the native engine: ([(route, chain depth, operation, times)], [total_ms], [decide_ms])."""


class Histogram:
    """One series: the number of values up to each bound and in all, and their sum.

    Exported values are ``scale`` times smaller than counted ones: seconds where milliseconds are counted.
    """

    __slots__ = ("_scale", "bounds", "total", "up_to")

    def __init__(self, bounds: tuple[float, ...], *, scale: int = 1) -> None:
        self._scale = scale
        self.bounds = bounds
        self.up_to = [0] * (len(bounds) + 1)  # the last one counts all
        self.total = 0.0

    def observe(self, values: Iterable[float]) -> None:
        """Count values; one equal to a bound belongs to that bound."""
        ordered = sorted(values)
        up_to = [*map(bisect_right, repeat(ordered), self.bounds), len(ordered)]
        self.up_to = list(map(add, self.up_to, up_to))
        self.total += sum(ordered)

    def told(self) -> tuple[list[tuple[str, float]], float]:
        """Return the ``le`` buckets of the exposition format, and the sum."""
        bounds = [*(f"{bound / self._scale:g}" for bound in self.bounds), "+Inf"]
        return list(zip(bounds, map(float, self.up_to), strict=True)), self.total / self._scale


def request_seconds() -> Histogram:
    """Create the histogram of request durations; counts milliseconds and exports seconds."""
    return Histogram(_REQUEST_MS, scale=1000)


class Tally:
    """Counters of requests. Read them by ``counted``.

    ``requests`` are by direction, route, decision and reason; ``operations`` by direction, route, operation and
    decision, for records with an operation; ``engines`` by direction and the engine that ended the request. ``labels``
    maps routes to their label; other routes count as ``OTHER``, so that callers cannot create series.
    """

    def __init__(self, labels: Mapping[str | None, str]) -> None:
        self.requests: defaultdict[tuple[str, str, str, str], int] = defaultdict(int)
        self.operations: defaultdict[tuple[str, str, str, str], int] = defaultdict(int)
        self.engines: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.request_seconds = {direction: request_seconds() for direction in get_args(Direction)}
        self.decision_seconds = {d: Histogram(_DECISION_MS, scale=1000) for d in get_args(Direction)}
        self.chain_depth = Histogram(_CHAIN_DEPTHS)
        self._labels = labels
        self._uncounted: dict[str, list[Record]] = {direction: [] for direction in get_args(Direction)}
        self._native: list[tuple[Direction, Callable[[], Finished]]] = []

    def add_native(self, direction: Direction, take: Callable[[], Finished]) -> None:
        """Also count the requests of a direction from a native engine; ``take`` returns and resets its counts."""
        self._native.append((direction, take))

    def add(self, record: Record) -> None:
        """Add a finished request. Its record must not change from now on."""
        uncounted = self._uncounted[record["direction"]]
        uncounted.append(record)
        if len(uncounted) >= AT_ONCE:
            self.counted()

    def counted(self) -> Tally:
        """Return the tally itself, with every finished request counted."""
        for direction, uncounted in self._uncounted.items():
            if not uncounted:
                continue
            records = uncounted.copy()
            uncounted.clear()  # before counting, so that no record is counted twice
            self.engines[direction, "python"] += len(records)
            self.engines[direction, "native"] += 0  # a series of its own from the beginning
            for (route, decision, reason, depth), times in Counter(map(_KIND, records)).items():
                self.requests[direction, self._labels.get(route, OTHER), decision, reason] += times
                if decision == "allow" and depth is not None:
                    self.chain_depth.observe(repeat(depth, times))
            of_operations = compress(records, map(_is_given, map(_OP, records)))
            for (route, operation, decision), times in Counter(map(_OPERATION, of_operations)).items():
                self.operations[direction, self._labels.get(route, OTHER), operation, decision] += times
            self.request_seconds[direction].observe(map(_TOTAL_MS, records))
            self.decision_seconds[direction].observe(filter(_is_given, map(_DECIDE_MS, records)))
        for direction, take in self._native:
            kinds, total_ms, decide_ms = take()
            for route, depth, operation, times in kinds:
                label = self._labels.get(route, OTHER)
                self.requests[direction, label, "allow", OK] += times
                if operation is not None:
                    self.operations[direction, label, operation, "allow"] += times
                self.engines[direction, "native"] += times
                if depth is not None:
                    self.chain_depth.observe(repeat(depth, times))
            self.request_seconds[direction].observe(total_ms)
            self.decision_seconds[direction].observe(decide_ms)
        return self
