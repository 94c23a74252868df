"""Evaluation of rounds: the ratio to the base in the same round, its median and spread, or none. Pure.

Absolute times vary with other load on the machine. Two proxies measured one after the other in the same round had the
same load, so their ratio is reported, unless the base itself varied too much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

MAX_BASE_SPREAD: Final = 0.25


@dataclass(frozen=True, slots=True)
class Spread:
    """Several measurements of one quantity: their median and their range."""

    middle: float
    lowest: float
    highest: float
    rounds: int

    @property
    def width(self) -> float:
        """Largest relative distance from the median: 0.1 means that all values are within 10 percent."""
        if not self.middle:
            return math.inf if self.highest else 0.0
        return max(self.highest - self.middle, self.middle - self.lowest) / self.middle


def spread(values: Sequence[float]) -> Spread | None:
    """Return the spread of the finite values; None if there are none."""
    finite = [value for value in values if math.isfinite(value)]
    return Spread(median(finite), min(finite), max(finite), len(finite)) if finite else None


def ratios(values: Sequence[float | None], base: Sequence[float | None]) -> list[float]:
    """Return the ratio in each round that has both. ``values`` and ``base`` are in the order of the rounds."""
    return [
        value / reference
        for value, reference in zip(values, base, strict=True)
        if value is not None and reference is not None and reference > 0
    ]


def refusal(base: Sequence[float | None], *, limit: float = MAX_BASE_SPREAD) -> str | None:
    """Return the reason why there is no ratio to this base; None if there is.

    One round has no spread and proves nothing.
    """
    measured = [value for value in base if value is not None]
    known = spread(measured)
    if known is None:
        return "the base was not measured"
    if known.rounds < 2:
        return "the base was measured once, so nobody knows its spread"
    if known.width > limit:
        return f"the base itself spreads by {known.width:.0%} (more than {limit:.0%}): the machine was too busy"
    return None
