"""Estimates the number of people and workloads recently active, in 16 KiB at any load.

Operators want to know how many machines act for each person. A sidecar knows the subjects and actors of the tokens it
verified, a token service those of all the tokens it issued: only these are counted, and no name is kept. Counts are
estimates (HyperLogLog, Flajolet et al. 2007): accurate to a few in a thousand up to some hundreds, and to 2 % beyond.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Final

from prometheus_client.core import GaugeMetricFamily

WINDOW_S: Final = 86_400.0
_BITS: Final = 12
_REGISTERS: Final = 1 << _BITS
_REST: Final = 64 - _BITS
_ALPHA: Final = 0.7213 / (1 + 1.079 / _REGISTERS)
_SPIFFE: Final = "spiffe://"


class Distinct:
    """Estimator of the number of distinct values."""

    __slots__ = ("registers",)

    def __init__(self) -> None:
        self.registers = bytearray(_REGISTERS)

    def add(self, thing: str) -> None:
        """Count a value unless it was counted before."""
        digest = int.from_bytes(blake2b(thing.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        register, rest = digest >> _REST, digest & ((1 << _REST) - 1)
        rank = _REST - rest.bit_length() + 1  # the number of leading zeros plus one
        if rank > self.registers[register]:
            self.registers[register] = rank

    def clear(self) -> None:
        """Reset to zero."""
        self.registers = bytearray(_REGISTERS)


def estimate(*several: Distinct) -> int:
    """Return the estimated number of distinct values in the union of some estimators."""
    registers = [max(ranks) for ranks in zip(*(one.registers for one in several), strict=True)]
    untouched = registers.count(0)
    raw = _ALPHA * _REGISTERS**2 / math.fsum(2.0**-rank for rank in registers)
    if raw <= 2.5 * _REGISTERS and untouched:
        raw = _REGISTERS * math.log(_REGISTERS / untouched)
    return round(raw)


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
