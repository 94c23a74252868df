"""Estimates the number of people and workloads recently active, in 16 KiB at any load.

Operators want to know how many machines act for each person. A sidecar knows the subjects and actors of the tokens it
verified, a token service those of all the tokens it issued: only these are counted, and no name is kept. Counts are
estimates (HyperLogLog, Flajolet et al. 2007): accurate to a few in a thousand up to some hundreds, and to 2 % beyond.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from delegation_core.records.distinct import Distinct, estimate
from sidecar.observe.exposition import GaugeMetricFamily

WINDOW_S: Final = 86_400.0
_SPIFFE: Final = "spiffe://"


class Population:
    """People and workloads seen within ``window_s``, give or take half of it. ``monotonic`` is in seconds."""

    def __init__(self, *, window_s: float = WINDOW_S, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._half_s = window_s / 2
        self._monotonic = monotonic
        self._turn_at = monotonic() + self._half_s
        self._now = {"human": Distinct(), "machine": Distinct()}
        self._before = {"human": Distinct(), "machine": Distinct()}

    def saw(self, issuer: str, subject: str, actors: Iterable[str]) -> None:
        """Count a verified token: ``actors`` act for a subject. A subject with a SPIFFE ID acts for itself."""
        self._turn()
        if subject.startswith(_SPIFFE):
            self._now["machine"].add(subject)
        else:
            self._now["human"].add(f"{issuer}\0{subject}")
        for actor in actors:
            self._now["machine"].add(actor)

    def counts(self) -> Mapping[str, int]:
        """Return the estimates by kind."""
        self._turn()
        return {kind: estimate(now, self._before[kind]) for kind, now in self._now.items()}

    def metric(self) -> GaugeMetricFamily:
        """Return the estimates as a gauge."""
        family = GaugeMetricFamily(
            "sidecar_identities_seen",
            "Different subjects (human) and workloads (machine) of the tokens verified within a day; an estimate.",
            labels=("kind",),
            merge="max",  # the largest: all workers see the same people
        )
        for kind, count in self.counts().items():
            family.add_metric((kind,), count)
        return family

    def _turn(self) -> None:
        """Rotate the sketches: each half of the window has its own; those older than two halves are dropped."""
        late_s = self._monotonic() - self._turn_at
        if late_s < 0:
            return
        self._before, self._now = self._now, self._before
        for sketch in self._now.values():
            sketch.clear()
        if late_s >= self._half_s:
            for sketch in self._before.values():
                sketch.clear()
        self._turn_at = self._monotonic() + self._half_s
